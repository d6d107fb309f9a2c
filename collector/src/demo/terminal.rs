//! How the story looks: one line an event, in columns. Colours only where a terminal shows them.

use std::io::{self, IsTerminal, Write};

use engine::time::Timestamp;

use super::story::{Line, Story, Tone};
use super::{Places, SITE_KEY};

/// Columns of who, what and worth. With the time and the score a line has 99.
const WHO: usize = 22;
const WHAT: usize = 33;
const WORTH: usize = 27;

/// Where lines go.
pub(super) struct Terminal {
    colours: bool,
    began: Timestamp,
}

impl Terminal {
    /// The standard output; `NO_COLOR` is respected.
    pub(super) fn of_stdout(began: Timestamp) -> Terminal {
        let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Terminal { colours: io::stdout().is_terminal() && !asked_not && !dumb, began }
    }

    /// What runs, and where to look.
    pub(super) fn header(&self, places: Places, once: &str) -> io::Result<()> {
        let Places { site, admin, receiver, .. } = places;
        let mut out = io::stdout().lock();
        let title = self.paint("mikomi demo", "1");
        writeln!(
            out,
            "{title}  an unknown visitor becomes a hot lead, within a minute, on this machine alone"
        )?;
        let rows = [
            (
                "click through",
                format!("http://{site}/"),
                "a sample site: your own clicks show below too",
            ),
            ("look inside", format!("http://{admin}/?once={once}"), "works once"),
            (
                "receiver",
                format!("http://{receiver}/hook"),
                "verifies each message, as a sales system would",
            ),
        ];
        for (name, address, about) in rows {
            let (name, about) = (self.paint(&pad(name, 14), "2"), self.paint(about, "2"));
            writeln!(out, "  {name}{}  {about}", self.paint(&address, "36"))?;
        }
        let note =
            "  Points halve in seconds here, not in weeks. Ctrl-C ends and leaves nothing behind.";
        writeln!(out, "{}\n", self.paint(note, "2"))?;
        let heads = format!(
            "       {}  {}  {}  now",
            pad("who", WHO),
            pad("what", WHAT),
            pad("points", WORTH)
        );
        writeln!(out, "{}", self.paint(&heads, "2"))
    }

    /// One event.
    pub(super) fn line(&self, line: &Line) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", self.render(line))?;
        out.flush()
    }

    /// Between two stories.
    pub(super) fn between(&self) -> io::Result<()> {
        let text =
            "       The story is told. Another visitor comes in a moment; the site stays up.";
        writeln!(io::stdout().lock(), "\n{}\n", self.paint(text, "2"))
    }

    /// The last words.
    pub(super) fn farewell(&self, story: &Story) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if story.told() == 0 {
            return writeln!(out, "\nStopped. Nothing is left behind.");
        }
        writeln!(
            out,
            "\nSeen: a browser became a person, its history came along, sales was told by a signed \
             message,\nand told again when interest had faded. Nothing of it is left behind.\n\
             Next: {}. It prints the one line that your pages need, such as\n  \
             <script defer src=\"http://127.0.0.1:8080/m.js\" data-site=\"{SITE_KEY}\"></script>",
            self.paint("mikomi serve", "1")
        )
    }

    fn render(&self, line: &Line) -> String {
        match line {
            Line::Hit { at, who, what, worth, score, tone } => {
                let time = self.paint(&self.time(*at), "2");
                let score = score.map_or(String::new(), |score| score.to_string());
                let columns = (pad(who, WHO), pad(what, WHAT), pad(worth, WORTH));
                let text = if *tone == Tone::Quiet {
                    let text = format!("{}  {}  {}  {score:>3}", columns.0, columns.1, columns.2);
                    self.paint(text.trim_end(), "2")
                } else {
                    let (worth, score) = (self.paint(&columns.2, "32"), format!("{score:>3}"));
                    format!("{}  {}  {worth}  {}", columns.0, columns.1, self.paint(&score, "1"))
                };
                format!("{time}  {text}")
            }
            Line::Note { at, text, tone } => {
                let time = self.paint(&self.time(*at), "2");
                let text: String = text.chars().filter(|it| !it.is_control()).collect();
                let mark = if *tone == Tone::Quiet { "   " } else { "==>" };
                let text = format!("{mark} {text}");
                format!("{time}  {}", self.paint(&text, style(*tone)))
            }
        }
    }

    /// Minutes and seconds since the beginning.
    fn time(&self, at: Timestamp) -> String {
        let seconds = at.since(self.began).as_secs();
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    }

    fn paint(&self, text: &str, style: &str) -> String {
        if self.colours && !style.is_empty() {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The tone as an ANSI style.
fn style(tone: Tone) -> &'static str {
    match tone {
        Tone::Quiet => "2",
        Tone::Plain => "",
        Tone::Known => "1;36",
        Tone::Hot => "1;33",
        Tone::Delivered => "1;32",
        Tone::Cooled => "1;34",
        Tone::Bad => "1;31",
    }
}

/// Columns a character takes: two for what East Asian fonts draw wide.
fn width(character: char) -> usize {
    match character as u32 {
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe4f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff => 2,
        _ => 1,
    }
}

/// The text in exactly so many columns: cut, or filled with blanks. Control characters, which a
/// browser may send in a title, do not reach the terminal.
fn pad(text: &str, columns: usize) -> String {
    let mut padded = String::with_capacity(columns);
    let mut used = 0;
    for character in text.chars().filter(|character| !character.is_control()) {
        let wide = width(character);
        if used + wide > columns {
            break;
        }
        used += wide;
        padded.push(character);
    }
    padded.extend(std::iter::repeat_n(' ', columns - used));
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(colours: bool) -> Terminal {
        Terminal { colours, began: Timestamp(1_000) }
    }

    fn columns(text: &str) -> usize {
        text.chars().map(width).sum()
    }

    #[test]
    fn columns_line_up_with_wide_characters_and_are_cut_between_them() {
        assert_eq!(pad("田中", 6), "田中  ");
        assert_eq!(pad("田中恵", 5), "田中 ");
        assert_eq!(pad("abcdef", 3), "abc");
        assert_eq!(pad("a\u{1b}[31mb", 6), "a[31mb");
    }

    #[test]
    fn no_hit_is_wider_than_a_hundred_columns() {
        let line = Line::Hit {
            at: Timestamp(68_000),
            who: "田".repeat(40),
            what: "w".repeat(200),
            worth: "+8 Compared".repeat(9),
            score: Some(100),
            tone: Tone::Plain,
        };
        let text = terminal(false).render(&line);
        assert!(text.starts_with("01:07  田田"), "{text}");
        assert!(columns(&text) <= 100, "{}: {text}", columns(&text));
    }

    #[test]
    fn without_colours_there_is_no_escape() {
        for tone in [Tone::Quiet, Tone::Known, Tone::Hot, Tone::Delivered, Tone::Cooled, Tone::Bad]
        {
            let line = Line::Note { at: Timestamp(1_000), text: "text".into(), tone };
            assert!(!terminal(false).render(&line).contains('\u{1b}'));
            assert!(terminal(true).render(&line).contains('\u{1b}'));
        }
    }
}
