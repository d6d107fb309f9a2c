//! One process with a journal on a simulated disk, driven by hand: no thread, the same every time.

use std::sync::Arc;

use collector::journal::committer::{Committer, Effect, Hands, Input, Now};
use collector::journal::recovery::{Recovered, recover};
use collector::journal::segment::Group;
use collector::journal::{Entry, Found, OpenError, Options, Poisoned};
use engine::id::Position;

use super::disk::SimDisk;

/// Records with their ordinals.
pub type Records = Vec<(u64, Vec<u8>)>;

/// Recovers, and keeps what it hands over.
pub fn recover_all(disk: &SimDisk, options: &Options) -> Result<(Recovered, Records), OpenError> {
    let mut records = Vec::new();
    let recovered = recover(disk, options, 1, &mut |entry: Entry<'_>| {
        records.push((entry.position.ordinal(), entry.bytes.to_vec()));
    })?;
    Ok((recovered, records))
}

/// One process on a simulated disk: the committer and its hands, driven by hand.
pub struct Process {
    pub committer: Committer,
    hands: Hands,
    pub now: Now,
    pub full: bool,
    pub poisoned: Option<Poisoned>,
    pub stopped: bool,
}

impl Process {
    pub fn start(
        disk: &SimDisk,
        options: &Options,
    ) -> Result<(Process, Found, Records), OpenError> {
        let (recovered, records) = recover_all(disk, options)?;
        let now = Now::default();
        let process = Process {
            committer: Committer::new(&recovered, options, now),
            hands: Hands::new(Arc::new(disk.clone()), &recovered, options),
            now,
            full: false,
            poisoned: None,
            stopped: false,
        };
        Ok((process, recovered.found, records))
    }

    /// Feeds an input and whatever answers it causes.
    pub fn feed(&mut self, input: Input) {
        let mut answer = Some(input);
        while let Some(input) = answer.take() {
            for effect in self.committer.step(input, self.now) {
                answer = self.hands.perform(&effect);
                match effect {
                    Effect::DiskFull(full) => self.full = full,
                    Effect::Poison(poisoned) => self.poisoned = Some(poisoned),
                    Effect::Stopped(_) => self.stopped = true,
                    _ => {}
                }
            }
        }
    }

    pub fn commit(&mut self, records: &[Vec<u8>]) {
        let mut group = Group::new(self.next(), Vec::new());
        for record in records {
            group.push(record);
        }
        self.feed(Input::Gathered(group));
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.boot_ms += ms;
        if self.committer.deadline_ms().is_some() {
            self.feed(Input::Elapsed);
        }
    }

    pub fn stop(&mut self) {
        while !self.committer.is_ended() {
            self.feed(Input::Stop);
        }
    }

    pub fn durable(&self) -> u64 {
        self.committer.durable().ordinal()
    }

    pub fn next(&self) -> Position {
        self.committer.durable().next()
    }
}
