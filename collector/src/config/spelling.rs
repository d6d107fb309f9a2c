//! How people write things: lengths of time, full-width signs, and what they meant when a parser
//! says that something is not TOML.

use std::time::Duration;

use super::problem::half_width;
use super::table::NAME_BYTES_MAX;

/// Longest time that can be written: a hundred years, so that no sum of two overflows.
const DURATION_MAX: Duration = Duration::from_hours(36_525 * 24);
/// What a person can act on, and where, from what a parser says.
pub(super) fn syntax_message(text: &str, offset: usize, message: &str) -> (usize, String) {
    let (before, rest) = text.split_at_checked(offset).unwrap_or((text, ""));
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    if let Some((within, typed, plain)) = full_width_sign(line) {
        let message = format!("\"{typed}\" is full-width; outside quotes it is {plain}");
        return (line_start + within, message);
    }
    let word = rest.split(|letter: char| !letter.is_ascii_alphanumeric()).next();
    let next = rest.split_once(' ').and_then(|(_, rest)| rest.split_once('='));
    let next = next.map(|(next, _)| next.trim()).filter(|next| is_word(next));
    let message = match word.filter(|word| parse_duration(word).is_some()) {
        Some(word) => format!("{message}: a time is written in quotes, as in \"{word}\""),
        None if next.is_some() && message.starts_with("string values must be quoted") => {
            format!("a comma is missing before \"{}\"", next.unwrap_or_default())
        }
        None if before[line_start..].trim().is_empty() && line_start > 0 => {
            format!("{message}: is the line before complete?")
        }
        None => message.to_owned(),
    };
    (offset, message)
}

/// The first full-width letter or sign of a line that stands neither in quotes nor in a comment:
/// where, what, and the plain one.
fn full_width_sign(line: &str) -> Option<(usize, char, String)> {
    let mut quote = None;
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (None, '#') => return None,
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, _) => {
                if let Some(plain) = half_width(letter.encode_utf8(&mut [0; 4])) {
                    return Some((at, letter, plain));
                }
            }
        }
    }
    None
}

/// Whether a text can be a word of ours.
fn is_word(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reads `90d`, `24h`, `30m`, `60s`, `500ms`; at most a hundred years.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(millis)?);
    (duration <= DURATION_MAX).then_some(duration)
}

/// What was meant by `14 days`, `１４ｄ`, `2w`, `30min`, `10分`.
pub(super) fn likely_duration(text: &str) -> Option<String> {
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    let plain = half_width(text).unwrap_or_else(|| text.to_owned());
    let plain: String = plain.split_whitespace().collect::<String>().to_lowercase();
    let digits = plain.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = plain.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (times, unit) = match unit {
        "msec" | "ミリ秒" | "ms" => (1, "ms"),
        "sec" | "secs" | "second" | "seconds" | "秒" | "s" => (1, "s"),
        "min" | "mins" | "minute" | "minutes" | "分" | "分間" | "m" => (1, "m"),
        "hr" | "hrs" | "hour" | "hours" | "時間" | "h" => (1, "h"),
        "day" | "days" | "日" | "日間" | "d" => (1, "d"),
        "w" | "week" | "weeks" | "週" | "週間" => (7, "d"),
        "month" | "months" | "か月" | "ヶ月" => (30, "d"),
        "y" | "year" | "years" | "年" => (365, "d"),
        _ => return None,
    };
    let meant = format!("{}{unit}", number.checked_mul(times)?);
    parse_duration(&meant).map(|_| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_whole_number_and_its_unit() {
        for (text, millis) in
            [("500ms", 500), ("60s", 60_000), ("30m", 1_800_000), ("90d", 7_776_000_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "d", "1", "-1d", "1.5h", "1 d", "1D", "99999999999999999999d", "36526d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_written_otherwise_is_understood_for_the_suggestion() {
        for (text, meant) in [
            ("14 days", Some("14d")),
            ("２週間", Some("14d")),
            ("30min", Some("30m")),
            ("10分", Some("10m")),
            ("1D", Some("1d")),
            ("soon", None),
            ("99999999999 years", None),
        ] {
            assert_eq!(likely_duration(text).as_deref(), meant, "{text}");
        }
    }
}
