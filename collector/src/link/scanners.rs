//! Mail scanners: machines that open the links of a mail before its reader does. A browser asks
//! for no link's head first, and nobody clicks two links of one mail within two seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// Openings so far.
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Opening {
    number: u64,
    at: Timestamp,
    link: u64,
    head: bool,
    /// Whether it turned out to be a machine's.
    machine: bool,
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
    /// Its own number.
    pub number: u64,
}

impl Scanners {
    /// Takes note that somebody asked for a link's head only.
    pub fn head(&self, mail: u64, link: u64, at: Timestamp) {
        self.locked().add(mail, link, at, true);
    }

    /// Judges a click on a link of a mail, and takes note of it at once: of two that come at the
    /// same time, one is the first.
    pub fn judge(&self, mail: u64, link: u64, at: Timestamp) -> Verdict {
        let mut watched = self.locked();
        let verdict = watched.judge(mail, link, at);
        let number = watched.add(mail, link, at, false);
        Verdict { number, ..verdict }
    }

    /// Takes note of the record of a click that was taken for a person's, unless it turned out
    /// to be a machine's meanwhile: then it is given back, to be withdrawn.
    pub fn recorded(&self, mail: u64, number: u64, click: Click) -> Option<Click> {
        let mut watched = self.locked();
        let mut openings = watched.mails.get_mut(&mail)?.iter_mut();
        let opening = openings.find(|it| it.number == number)?;
        if opening.machine {
            return Some(click);
        }
        opening.counted = Some(click);
        None
    }

    fn locked(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn judge(&mut self, mail: u64, link: u64, at: Timestamp) -> Verdict {
        let Some(openings) = self.mails.get_mut(&mail) else {
            return Verdict::default();
        };
        let asked = |it: &Opening| it.head && it.link == link && at.since(it.at) < HEAD_BEFORE;
        let together = |it: &Opening| it.link != link && at.since(it.at) <= TOGETHER;
        if !openings.iter().any(|it| asked(it) || together(it)) {
            return Verdict::default();
        }
        let mut were_too = Vec::new();
        for opening in openings.iter_mut().filter(|it| at.since(it.at) <= TOGETHER) {
            opening.machine = true;
            were_too.extend(opening.counted.take());
        }
        Verdict { scanner: true, were_too, number: 0 }
    }

    /// Takes note of an opening, and gives it a number.
    fn add(&mut self, mail: u64, link: u64, at: Timestamp, head: bool) -> u64 {
        if !self.mails.contains_key(&mail) {
            if self.mails.len() == MAILS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.mails.remove(&oldest);
            }
            self.order.push_back(mail);
        }
        self.number += 1;
        let openings = self.mails.entry(mail).or_default();
        openings.retain(|it| at.since(it.at) < HEAD_BEFORE);
        if openings.len() == OPENINGS_MAX {
            openings.pop_front();
        }
        let number = self.number;
        openings.push_back(Opening { number, at, link, head, machine: false, counted: None });
        number
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
        }
        assert!(!scanners.judge(9, 1, at(600_000)).scanner, "ten minutes later a person clicks");
    }

    #[test]
    fn two_links_of_one_mail_at_once_are_a_machines_the_first_one_too() {
        let scanners = Scanners::default();
        let first = scanners.judge(9, 1, at(0));
        assert_eq!((first.scanner, &first.were_too[..]), (false, &[][..]));
        assert_eq!(scanners.recorded(9, first.number, click(4)), None);
        let second = scanners.judge(9, 2, at(1_500));
        assert_eq!((second.scanner, second.were_too), (true, vec![click(4)]));
        assert_eq!(scanners.judge(9, 3, at(2_000)).were_too, [], "told once");
    }

    #[test]
    fn of_two_clicks_at_one_moment_the_second_is_a_machines_before_the_first_is_recorded() {
        let scanners = Scanners::default();
        let first = scanners.judge(9, 1, at(0));
        let second = scanners.judge(9, 2, at(0));
        assert_eq!((first.scanner, second.scanner), (false, true));
        assert_eq!(second.were_too, [], "it has no record yet");
        assert_eq!(scanners.recorded(9, first.number, click(4)), Some(click(4)));
    }

    #[test]
    fn a_reader_who_clicks_twice_or_reads_on_is_a_person() {
        let scanners = Scanners::default();
        assert!(!scanners.judge(9, 1, at(0)).scanner);
        assert!(!scanners.judge(9, 1, at(300)).scanner, "a double click");
        assert!(!scanners.judge(9, 2, at(2_301)).scanner, "another link a moment later");
        assert!(!scanners.judge(8, 2, at(2_400)).scanner, "another mail");
    }

    #[test]
    fn any_number_of_mails_is_watched_in_bounded_memory() {
        let scanners = Scanners::default();
        for mail in 0..3 * MAILS_MAX as u64 {
            scanners.judge(mail, 1, at(0));
        }
        let watched = scanners.0.lock().unwrap();
        assert_eq!((watched.mails.len(), watched.order.len()), (MAILS_MAX, MAILS_MAX));
    }
}
