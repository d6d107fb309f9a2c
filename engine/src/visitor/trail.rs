//! A browser's stretches: runs of hits that belong to one person, or to nobody yet. Whose each
//! is follows from what was said on the browser and from the steps that people took, and from
//! nothing else: a step that is undone leaves no trace.

use crate::hit::{Hit, HitKind};
use crate::id::{LeadId, Position};
use crate::identity::Assurance;
use crate::record::Binding;
use crate::time::Timestamp;

/// Stretches of a browser that can still be given to somebody else. Older ones stay whose they
/// are.
pub const STRETCHES_MAX: usize = 32;
/// Steps about one stretch that can still be undone. Older ones stand.
const STEPS_MAX: usize = 8;

/// A run of hits that belong to one person, or to nobody yet: what a step moves as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Records after this one belong to it.
    pub after: Position,
    /// Whose it is: a name of theirs.
    pub owner: Option<LeadId>,
    /// Its first record.
    pub first_position: Position,
    /// Its last record.
    pub last_position: Position,
    /// When it began.
    pub first_seen: Timestamp,
    /// The latest `when` in it.
    pub last_when: Timestamp,
    /// Its hits.
    pub hits: u32,
    /// Its page views.
    pub pages: u32,
    /// Visits that began in it.
    pub visits: u32,
    /// What it begins with, in order; with nothing, it goes on as the one before.
    pub marks: Vec<Mark>,
    /// Whose steps say that it is, the latest last.
    pub given: Vec<Given>,
}

/// Something after which a browser may be somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is nobody's: it was reset, or the visit of a shared browser ended.
    Severed,
    /// Somebody said who it is.
    Said {
        /// Who.
        binding: Binding,
        /// Whether what it did as nobody comes along.
        along: bool,
    },
    /// A step took it from somebody: it is nobody's, if it was theirs.
    Taken {
        /// The step.
        step: Position,
        /// The name it was bound to.
        from: LeadId,
    },
    /// A step tied it to somebody: it is theirs, if it was nobody's.
    Tied {
        /// The step.
        step: Position,
        /// Who.
        binding: Binding,
    },
}

/// A step's word on whose a stretch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The step.
    pub step: Position,
    /// Whose it was: it is taken from them, and from nobody else.
    pub from: Option<LeadId>,
    /// Whose it is said to be; nothing for nobody.
    pub to: Option<LeadId>,
    /// How sure.
    pub sure: Assurance,
}

/// The stretches, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    pub(super) past: Vec<Stretch>,
    /// The one that hits go to now.
    pub last: Stretch,
}

/// What marks and steps come to.
struct Said {
    /// Whose each stretch is.
    owners: Vec<Option<LeadId>>,
    /// How sure the steps are that say so.
    given: Vec<Assurance>,
    /// Whom the browser is bound to in the end.
    bound: Option<Binding>,
}

impl Trail {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Stretch> {
        self.past.iter().chain([&self.last])
    }

    fn all_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Stretch> {
        self.past.iter_mut().chain([&mut self.last])
    }

    fn said(&self) -> Said {
        let mut owners: Vec<Option<LeadId>> = Vec::new();
        let mut bound: Option<Binding> = None;
        // Where the run began that is nobody's.
        let mut free = 0;
        for (place, stretch) in self.all().enumerate() {
            for mark in &stretch.marks {
                match mark {
                    Mark::Severed => (bound, free) = (None, place),
                    Mark::Taken { from, .. } => {
                        if bound.is_some_and(|bound| bound.origin == *from) {
                            (bound, free) = (None, place);
                        }
                    }
                    Mark::Tied { binding, .. } => bound = bound.or(Some(*binding)),
                    Mark::Said { binding, along } => {
                        if bound.is_none() && *along {
                            owners[free..].fill(Some(binding.origin));
                        }
                        bound = Some(bound.map_or(*binding, |before| before.and(binding)));
                    }
                }
            }
            owners.push(bound.map(|bound| bound.origin));
        }
        let mut given = Vec::with_capacity(owners.len());
        for (owner, stretch) in owners.iter_mut().zip(self.all()) {
            let mut sure = Assurance::Claimed;
            for step in &stretch.given {
                if step.to.is_some() || step.from == *owner {
                    sure = if *owner == step.to { sure.max(step.sure) } else { step.sure };
                    *owner = step.to;
                }
            }
            given.push(sure);
        }
        Said { owners, given, bound }
    }

    /// Whom the browser is bound to.
    pub fn bound(&self) -> Option<Binding> {
        self.said().bound
    }

    /// Stretches that are not where they belong: the record after which each begins, and whose
    /// it is to be. There are none but while a step is being undone.
    pub fn astray(&self) -> Vec<(Position, Option<LeadId>)> {
        let owners = self.said().owners;
        let differs = self.all().zip(owners).filter(|(stretch, owner)| stretch.owner != *owner);
        differs.map(|(stretch, owner)| (stretch.after, owner)).collect()
    }

    /// Puts every stretch where it belongs, but for those that were astray before.
    fn place(&mut self, before: &[(Position, Option<LeadId>)]) {
        let owners = self.said().owners;
        for (stretch, owner) in self.all_mut().zip(owners) {
            if before.iter().all(|(after, _)| *after != stretch.after) {
                stretch.owner = owner;
            }
        }
    }

    /// A mark is set. What follows is another stretch, if there was anything in this one;
    /// `together`: what there was belongs to what follows.
    pub fn set(&mut self, mark: Mark, after: Position, together: bool) {
        let astray = self.astray();
        if self.last.hits > 0 && !together {
            if self.past.len() + 1 >= STRETCHES_MAX {
                self.forget_oldest();
            }
            let next = Stretch { after, ..Stretch::default() };
            self.past.push(std::mem::replace(&mut self.last, next));
        }
        self.last.set(mark);
        self.place(&astray);
    }

    /// The oldest stretch is forgotten: the next one begins as it has found the browser.
    fn forget_oldest(&mut self) {
        let bound = Trail { past: Vec::new(), last: self.past.remove(0) }.bound();
        let next = self.past.first_mut().unwrap_or(&mut self.last);
        if let Some(binding) = bound {
            next.marks.insert(0, Mark::Said { binding, along: false });
        }
    }

    /// More is known of whom the browser is bound to.
    pub fn know_more(&mut self, known: &Binding) {
        let marks = self.all_mut().rev().flat_map(|stretch| stretch.marks.iter_mut().rev());
        let mut bindings = marks.filter_map(|mark| match mark {
            Mark::Said { binding, .. } | Mark::Tied { binding, .. } => Some(binding),
            Mark::Severed | Mark::Taken { .. } => None,
        });
        let same = |it: &&mut Binding| it.origin == known.origin && it.by_step == known.by_step;
        if let Some(binding) = bindings.find(same) {
            *binding = *known;
        }
    }

    /// A step gives stretches to somebody, or takes them from whose they are.
    pub fn give(
        &mut self,
        gives: &[(Position, Option<LeadId>)],
        (step, sure): (Position, Assurance),
    ) {
        for stretch in self.all_mut() {
            let own = gives.iter().filter(|(after, _)| *after == stretch.after);
            for (_, to) in own {
                if stretch.given.len() == STEPS_MAX {
                    stretch.given.remove(0);
                }
                stretch.given.push(Given { step, from: stretch.owner, to: *to, sure });
            }
        }
    }

    /// How sure the steps are that give a stretch to whose it is.
    pub fn given(&self, after: Position) -> Assurance {
        let sure = self.said().given;
        let place = self.all().position(|stretch| stretch.after == after);
        place.map(|place| sure[place]).unwrap_or_default()
    }

    /// Whether a step still says something here.
    pub fn knows(&self, step: Position) -> bool {
        self.all().any(|stretch| {
            stretch.given.iter().any(|given| given.step == step)
                || stretch.marks.iter().any(|mark| mark.step() == Some(step))
        })
    }

    /// A step says nothing any more.
    pub fn undo(&mut self, step: Position) {
        for stretch in self.all_mut() {
            stretch.given.retain(|given| given.step != step);
            stretch.marks.retain(|mark| mark.step() != Some(step));
        }
    }

    /// Stretches move.
    pub fn move_to(&mut self, owners: &[(Position, Option<LeadId>)]) {
        for stretch in self.all_mut() {
            let own = owners.iter().find(|(after, _)| *after == stretch.after);
            if let Some((_, owner)) = own {
                stretch.owner = *owner;
            }
        }
    }

    /// The records of a stretch: after the first, up to and with the second.
    pub fn span(&self, after: Position) -> (Position, Position) {
        let next = self.all().map(|other| other.after).filter(|other| *other > after);
        (after, next.min().unwrap_or(Position(u64::MAX)))
    }

    /// The stretch that a record is in; nothing if it is forgotten.
    pub fn stretch_at(&self, position: Position) -> Option<&Stretch> {
        let next = self.all().position(|stretch| stretch.after >= position);
        let place = next.unwrap_or(self.past.len() + 1).checked_sub(1)?;
        self.all().nth(place)
    }

    /// What was theirs goes; whose the rest is stays so, without the steps that made it so: none
    /// of them could be undone without saying whose it was. Says the records that go: after the
    /// first, up to and with the second. `step`: the record that forgets.
    pub fn forget(
        &mut self,
        names: &[LeadId],
        bound: Option<Binding>,
        step: Position,
    ) -> Vec<(Position, Position)> {
        let is_theirs = |name: LeadId| names.contains(&name);
        let goes = |stretch: &Stretch| stretch.owner.is_some_and(is_theirs);
        // Of stretches that are forgotten already nobody knows whose they were.
        let oldest = self.all().next().map_or(Position::NONE, |first| first.after);
        let mut spans = vec![(Position::NONE, oldest)];
        spans.extend(self.all().filter(|it| goes(it)).map(|it| self.span(it.after)));
        let known: Vec<Binding> = self.all().flat_map(Stretch::bindings).chain(bound).collect();
        let kept = self.all().filter(|it| !goes(it)).cloned();
        let mut kept: Vec<Stretch> = kept.collect();
        if goes(&self.last) {
            kept.push(Stretch { after: step, ..Stretch::default() });
        }
        for stretch in &mut kept {
            stretch.given.clear();
            stretch.marks = vec![Mark::Severed];
            let owner = stretch.owner;
            let of_owner = known.iter().rev().find(|it| Some(it.origin) == owner).copied();
            let binding = of_owner.or(owner.map(Binding::of));
            stretch.marks.extend(binding.map(|binding| Mark::Said {
                binding: Binding {
                    names: binding.names.map(|name| name.filter(|name| !is_theirs(*name))),
                    ..binding
                },
                along: false,
            }));
        }
        self.last = kept.pop().unwrap_or_default();
        self.past = kept;
        spans
    }

    /// Everybody who is named here.
    pub fn named_ones(&self) -> impl Iterator<Item = LeadId> {
        self.all().flat_map(|stretch| {
            let said = stretch.bindings().flat_map(|it| it.names.into_iter().flatten());
            let bound = stretch.bindings().map(|it| it.origin);
            let taken = stretch.marks.iter().filter_map(|mark| match mark {
                Mark::Taken { from, .. } => Some(*from),
                Mark::Severed | Mark::Said { .. } | Mark::Tied { .. } => None,
            });
            let given = stretch.given.iter().flat_map(|it| [it.from, it.to]).flatten();
            stretch.owner.into_iter().chain(said).chain(bound).chain(taken).chain(given)
        })
    }

    /// Everything that replay must restore, as numbers.
    pub fn words(&self) -> Vec<u64> {
        self.all().flat_map(Stretch::words).collect()
    }
}

impl Binding {
    /// To a name, by a word that is forgotten.
    fn of(origin: LeadId) -> Binding {
        Binding { origin, ..Binding::default() }
    }

    /// This one, and then what is said: as sure as either, if both are of one person. With a
    /// step between them gone, they are one saying more of the same.
    fn and(&self, said: &Binding) -> Binding {
        if self.origin != said.origin || self.by_step {
            return *said;
        }
        let mut both = Binding { assurance: self.assurance.max(said.assurance), ..*said };
        for (name, before) in both.names.iter_mut().zip(self.names) {
            *name = name.or(before);
        }
        both
    }
}

impl Mark {
    fn step(&self) -> Option<Position> {
        match self {
            Mark::Taken { step, .. } | Mark::Tied { step, .. } => Some(*step),
            Mark::Severed | Mark::Said { .. } => None,
        }
    }

    fn words(&self) -> [u64; 7] {
        let of = |kind, step: Position, binding: &Binding| {
            let [user, crm, email] = binding.names.map(|name| name.map_or(0, |name| name.0));
            let sure = binding.assurance as u64 | u64::from(binding.by_step) << 8;
            [kind, step.0, binding.origin.0, sure, user, crm, email]
        };
        match self {
            Mark::Severed => of(1, Position::NONE, &Binding::default()),
            Mark::Said { binding, along } => of(2 + u64::from(*along), Position::NONE, binding),
            Mark::Taken { step, from } => {
                of(4, *step, &Binding { origin: *from, ..Binding::default() })
            }
            Mark::Tied { step, binding } => of(5, *step, binding),
        }
    }
}

impl Stretch {
    fn set(&mut self, mark: Mark) {
        if self.marks.len() == STEPS_MAX {
            // No hit lies between them: the first two are one that no undo takes away.
            let marks = self.marks.drain(..2).collect();
            let last = Stretch { marks, ..Stretch::default() };
            let bound = Trail { past: Vec::new(), last }.bound();
            let lasting = bound.map(|binding| Mark::Said { binding, along: false });
            self.marks.insert(0, lasting.unwrap_or(Mark::Severed));
        }
        self.marks.push(mark);
    }

    /// Whom its marks say it is.
    fn bindings(&self) -> impl Iterator<Item = Binding> {
        self.marks.iter().filter_map(|mark| match mark {
            Mark::Said { binding, .. } | Mark::Tied { binding, .. } => Some(*binding),
            Mark::Severed | Mark::Taken { .. } => None,
        })
    }

    /// Takes one hit.
    pub(super) fn take(&mut self, hit: &Hit, position: Position, opened: u32) {
        if self.hits == 0 {
            self.first_position = position;
            self.first_seen = hit.when;
        }
        self.last_position = position;
        self.last_when = self.last_when.max(hit.when);
        self.hits = self.hits.saturating_add(1);
        self.pages = self.pages.saturating_add(u32::from(hit.kind == HitKind::PageView));
        self.visits = self.visits.saturating_add(opened);
    }

    fn words(&self) -> Vec<u64> {
        let mut words = vec![
            self.after.0,
            self.owner.map_or(0, |owner| owner.0),
            self.first_position.0,
            self.last_position.0,
            self.first_seen.0,
            self.last_when.0,
            u64::from(self.hits),
            u64::from(self.pages),
            u64::from(self.visits),
            self.marks.len() as u64,
        ];
        words.extend(self.marks.iter().flat_map(Mark::words));
        for given in &self.given {
            let name = |it: Option<LeadId>| it.map_or(0, |name| name.0);
            let sure = given.sure as u64;
            words.extend([given.step.0, name(given.from), name(given.to), sure]);
        }
        words
    }
}
