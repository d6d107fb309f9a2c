//! What was worked out lately, by the text that it follows from. A site has few pages, and its
//! visitors few kinds of browsers: most hits ask what the one before asked.
//!
//! Its locks are the standard ones also where a test schedules the threads: nobody waits for
//! anything else while holding one, so that no order of threads could matter here.

use std::sync::{Arc, Mutex, PoisonError};

use crate::id::Key;

/// Longer texts are rare, and not remembered.
pub const TEXT_BYTES_MAX: usize = 256;

/// See the module's head. Of two texts that fall on the same place the later one stays.
#[derive(Debug)]
pub struct Memo<T>(Box<[Mutex<Option<Known<T>>>]>);

#[derive(Debug)]
struct Known<T> {
    text: Box<str>,
    follows: Arc<T>,
}

impl<T> Memo<T> {
    /// With so many places.
    pub fn new(places: usize) -> Memo<T> {
        Memo((0..places.max(1)).map(|_| Mutex::new(None)).collect())
    }

    /// What follows from a text, from memory if it is there.
    pub fn of(&self, text: &str, work_out: impl FnOnce(&str) -> T) -> Arc<T> {
        self.of_some(text, |_| true, work_out)
    }

    /// The same where only some texts may be remembered: those that `may` is true of. It is asked
    /// of a text that is not there.
    pub fn of_some(
        &self,
        text: &str,
        may: impl FnOnce(&str) -> bool,
        work_out: impl FnOnce(&str) -> T,
    ) -> Arc<T> {
        if text.len() > TEXT_BYTES_MAX {
            return Arc::new(work_out(text));
        }
        // Who makes two texts meet here makes himself slower, and nobody else wrong.
        let place = Key([0; 16]).hash64(&[text.as_bytes()]) as usize % self.0.len();
        let mut known = self.0[place].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| *known.text == *text) {
            return Arc::clone(&known.follows);
        }
        if !may(text) {
            // Nobody waits for what is worked out for one alone.
            drop(known);
            return Arc::new(work_out(text));
        }
        let follows = Arc::new(work_out(text));
        *known = Some(Known { text: text.into(), follows: Arc::clone(&follows) });
        follows
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_follows_from_a_text_is_worked_out_once_and_is_never_another_text_s() {
        let (memo, times) = (Memo::new(2), Cell::new(0));
        let length = |text: &str| {
            let known = memo.of(text, |text| {
                times.set(times.get() + 1);
                text.to_owned()
            });
            assert_eq!(*known, text, "whatever fell on the same place before");
        };
        for _ in 0..5 {
            length("a");
        }
        assert_eq!(times.get(), 1);
        for round in 0..3 {
            for text in ["a", "b", "c", "d", ""] {
                length(text);
            }
            assert!(times.get() > round + 2, "two places hold two texts");
        }
    }

    #[test]
    fn a_long_text_is_worked_out_each_time() {
        let (memo, times) = (Memo::new(2), Cell::new(0));
        let text = "x".repeat(TEXT_BYTES_MAX + 1);
        for _ in 0..3 {
            memo.of(&text, |_| times.set(times.get() + 1));
        }
        assert_eq!(times.get(), 3);
    }
}
