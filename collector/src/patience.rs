//! Patience: whoever follows the journal (the outbox, the reader) does not give up at an error.
//! It looks again after a pause for as long as the process lives; what does not pass makes the
//! server not ready, so that somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::journal::ReadError;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Errors of the disk in a row that may still pass by themselves.
const TRIES: u32 = 10;

/// Who follows the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Without it nobody is told.
    Outbox,
    /// Without it the lists stand still.
    Reader,
}

impl Follows {
    fn name(self) -> &'static str {
        match self {
            Follows::Outbox => "the outbox",
            Follows::Reader => "the reader",
        }
    }
}

/// Who cannot read on, and why.
#[derive(Debug, Default)]
pub struct Stalled {
    outbox: Mutex<Option<String>>,
    reader: Mutex<Option<String>>,
    errors: AtomicU64,
}

impl Stalled {
    /// Who cannot read on and why, if anybody.
    pub fn reason(&self) -> Option<String> {
        [Follows::Outbox, Follows::Reader].into_iter().find_map(|who| self.of(who).clone())
    }

    /// How many cannot read on.
    pub fn count(&self) -> u64 {
        let both = [Follows::Outbox, Follows::Reader];
        both.into_iter().filter(|who| self.of(*who).is_some()).count() as u64
    }

    /// Errors met while following.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn of(&self, who: Follows) -> MutexGuard<'_, Option<String>> {
        let reason = match who {
            Follows::Outbox => &self.outbox,
            Follows::Reader => &self.reader,
        };
        reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody cannot read on.
    pub(crate) fn note(&self, who: Follows, error: &ReadError) {
        let why = format!("{} cannot read on: {error}", who.name());
        let before = self.of(who).replace(why);
        if before.is_none() {
            tracing::error!(%error, "{} cannot read on; it tries again and again", who.name());
        }
    }

    /// Reads, again and again, until it works or `over` says that nothing more will come.
    pub fn read<T>(
        &self,
        who: Follows,
        over: impl Fn() -> bool,
        mut read: impl FnMut() -> Result<T, ReadError>,
    ) -> Option<T> {
        let mut failures = 0;
        loop {
            let error = match read() {
                Ok(found) => {
                    if failures > 0 && self.of(who).take().is_some() {
                        tracing::info!("{} reads on", who.name());
                    }
                    return Some(found);
                }
                Err(error) => error,
            };
            failures += 1;
            self.errors.fetch_add(1, Ordering::Relaxed);
            if over() {
                return None;
            }
            // A disk may fail once; bytes that are not sound stay so.
            if matches!(error, ReadError::Disk(_)) && failures < TRIES {
                tracing::warn!(%error, "{} could not read the journal", who.name());
            } else {
                self.note(who, &error);
            }
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    const DISK: ReadError = ReadError::Disk(ErrorKind::Other);

    #[test]
    fn an_error_of_the_disk_passes_and_nobody_hears_of_it() {
        let stalled = Stalled::default();
        let mut calls = 0;
        let found = stalled.read(
            Follows::Reader,
            || false,
            || {
                calls += 1;
                assert_eq!(stalled.reason(), None);
                if calls < 3 { Err(DISK) } else { Ok(calls) }
            },
        );
        assert_eq!((found, stalled.errors(), stalled.reason()), (Some(3), 2, None));
    }

    #[test]
    fn an_error_that_does_not_pass_is_a_stall_until_it_does() {
        let stalled = Stalled::default();
        let mut calls = 0;
        stalled.read(
            Follows::Outbox,
            || false,
            || {
                calls += 1;
                assert_eq!(stalled.count(), u64::from(calls > TRIES), "call {calls}");
                if calls <= TRIES { Err(DISK) } else { Ok(()) }
            },
        );
        assert_eq!((stalled.count(), stalled.reason()), (0, None));
    }

    #[test]
    fn damage_is_a_stall_at_once_and_says_where() {
        let stalled = Stalled::default();
        let damage = ReadError::Damaged { file: "00.seg".into(), offset: 64 };
        let mut reasons = Vec::new();
        stalled.read(
            Follows::Outbox,
            || false,
            || {
                reasons.push(stalled.reason());
                if reasons.len() < 2 { Err(damage.clone()) } else { Ok(()) }
            },
        );
        let why = "the outbox cannot read on: 00.seg is damaged at byte 64".to_owned();
        assert_eq!(reasons, [None, Some(why)]);
        assert_eq!(stalled.reason(), None);
    }

    #[test]
    fn nobody_is_waited_for_when_nothing_more_will_come() {
        let stalled = Stalled::default();
        let found = stalled.read(Follows::Outbox, || true, || Err::<(), _>(DISK));
        assert_eq!(found, None);
    }
}
