//! Mail scanners: machines that open the links of a mail before its reader does. A browser asks
//! for no link's head first, and nobody clicks two links of one mail within two seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::id::{Position, VisitorId};
use engine::time::Timestamp;

/// Different links of one mail opened within this time: no person did it.
const TOGETHER: Duration = Duration::from_secs(2);
/// A link's head asked for so long before the link itself is its scanner's.
const HEAD_BEFORE: Duration = Duration::from_secs(30);
/// Mails watched at once; the one watched longest makes way, and its scanner may pass.
const MAILS_MAX: usize = 20_000;
/// Openings remembered of one mail.
const OPENINGS_MAX: usize = 64;

/// What was opened lately.
#[derive(Debug, Default)]
pub struct Scanners(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    mails: BTreeMap<u64, VecDeque<Opening>>,
    order: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Opening {
    at: Timestamp,
    link: u64,
    head: bool,
    counted: Option<Click>,
}

/// A click that was recorded as a person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Click {
    /// Its record.
    pub position: Position,
    /// Its browser.
    pub visitor: VisitorId,
}

/// What is thought of a click.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether a machine made it.
    pub scanner: bool,
    /// Clicks before it that the same machine made, as it turns out.
    pub were_too: Vec<Click>,
}

impl Scanners {
    /// Takes note that somebody asked for a link's head only.
    pub fn head(&self, mail: u64, link: u64, at: Timestamp) {
        self.add(mail, Opening { at, link, head: true, counted: None });
    }

    /// Judges a click on a link of a mail.
    pub fn judge(&self, mail: u64, link: u64, at: Timestamp) -> Verdict {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(openings) = watched.mails.get_mut(&mail) else {
            return Verdict::default();
        };
        let asked = |it: &Opening| it.head && it.link == link && at.since(it.at) < HEAD_BEFORE;
        let together = |it: &Opening| it.link != link && at.since(it.at) <= TOGETHER;
        if !openings.iter().any(|it| asked(it) || together(it)) {
            return Verdict::default();
        }
        let recent = openings.iter_mut().filter(|it| at.since(it.at) <= TOGETHER);
        let were_too = recent.filter_map(|opening| opening.counted.take()).collect();
        Verdict { scanner: true, were_too }
    }

    /// Takes note of a click, and of its record if it was taken for a person's.
    pub fn clicked(&self, mail: u64, link: u64, at: Timestamp, counted: Option<Click>) {
        self.add(mail, Opening { at, link, head: false, counted });
    }

    fn add(&self, mail: u64, opening: Opening) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !watched.mails.contains_key(&mail) {
            if watched.mails.len() == MAILS_MAX
                && let Some(oldest) = watched.order.pop_front()
            {
                watched.mails.remove(&oldest);
            }
            watched.order.push_back(mail);
        }
        let openings = watched.mails.entry(mail).or_default();
        openings.retain(|it| opening.at.since(it.at) < HEAD_BEFORE);
        if openings.len() == OPENINGS_MAX {
            openings.pop_front();
        }
        openings.push_back(opening);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(1_000_000 + ms)
    }

    fn click(position: u64) -> Click {
        Click { position: Position(position), visitor: VisitorId(1) }
    }

    #[test]
    fn a_machine_that_asks_for_heads_first_is_known_at_its_first_click() {
        let scanners = Scanners::default();
        for link in 1..=5 {
            scanners.head(9, link, at(link));
            assert!(scanners.judge(9, link, at(link + 1)).scanner, "{link}");
            scanners.clicked(9, link, at(link + 1), None);
        }
        assert!(!scanners.judge(9, 1, at(600_000)).scanner, "ten minutes later a person clicks");
    }

    #[test]
    fn two_links_of_one_mail_at_once_are_a_machines_the_first_one_too() {
        let scanners = Scanners::default();
        assert_eq!(scanners.judge(9, 1, at(0)), Verdict::default());
        scanners.clicked(9, 1, at(0), Some(click(4)));
        let second = scanners.judge(9, 2, at(1_500));
        assert_eq!(second, Verdict { scanner: true, were_too: vec![click(4)] });
        scanners.clicked(9, 2, at(1_500), None);
        assert_eq!(scanners.judge(9, 3, at(2_000)).were_too, [], "told once");
    }

    #[test]
    fn a_reader_who_clicks_twice_or_reads_on_is_a_person() {
        let scanners = Scanners::default();
        scanners.clicked(9, 1, at(0), Some(click(4)));
        assert!(!scanners.judge(9, 1, at(300)).scanner, "a double click");
        assert!(!scanners.judge(9, 2, at(2_001)).scanner, "another link a moment later");
        assert!(!scanners.judge(8, 2, at(300)).scanner, "another mail");
    }

    #[test]
    fn any_number_of_mails_is_watched_in_bounded_memory() {
        let scanners = Scanners::default();
        for mail in 0..3 * MAILS_MAX as u64 {
            scanners.clicked(mail, 1, at(0), None);
        }
        let watched = scanners.0.lock().unwrap();
        assert_eq!((watched.mails.len(), watched.order.len()), (MAILS_MAX, MAILS_MAX));
    }
}
