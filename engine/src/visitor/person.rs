//! Whose a statement is: the person its names stand for, and what it would join. Claims join
//! what nobody has yet; people are joined by proof alone; the rest is a question for a person.
//!
//! Who is who is read as if nobody had ever been found to be one with somebody else: a statement
//! then means the same before two people are joined, while they are one, and after.

use crate::hit::{Claim, Named};
use crate::id::LeadId;
use crate::identity::Assurance;
use crate::record::{Binding, Question, Review};

use super::Heads;

/// Whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The lead it stands for.
    pub head: LeadId,
    /// The name that heads the person, as if they had not been found to be one with others.
    pub own: LeadId,
    /// Whether somebody proved that this person exists.
    pub verified: bool,
}

/// Who a statement is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Person {
    /// Under which of their names.
    pub(super) origin: LeadId,
    /// The name that heads them.
    pub(super) own: LeadId,
    /// The lead they are, if they are known.
    pub(super) head: Option<LeadId>,
    /// How sure it is that it is them.
    pub(super) sure: Assurance,
    /// Whether they are proved to exist, and nothing proves that it is they who speak: a claim
    /// gives them no name.
    guarded: bool,
    /// The names given that are theirs, as far as that goes.
    pub(super) names: Vec<Named>,
    /// Names nobody had that are theirs from now on.
    pub(super) joins: Vec<Named>,
    /// Names of other people who are proved to be this one.
    pub(super) merges: Vec<LeadId>,
    /// What a person should look at.
    pub(super) review: Vec<Review>,
}

/// The person of a statement that stands alone: of a server, or on a browser that is nobody's.
pub(super) fn of_claim(claim: &Claim, heads: &Heads<'_>) -> Option<Person> {
    let first = claim.first()?;
    let mut person = Person { origin: first.id, own: first.id, ..Person::default() };
    let known = heads(first.id);
    if known.is_none() {
        // The first name is new: it may be another name of whom the others stand for.
        for other in &claim.names[1..] {
            let Some(owner) = heads(other.id) else {
                continue;
            };
            let proved = first.assurance.is_proved() && other.assurance.is_proved();
            if proved || !owner.verified {
                person.is(&owner);
                person.joins.push(as_sure(first, proved));
                break;
            }
            person.asks(Question::AnotherName, first.id, Some(owner.head));
        }
    }
    if let Some(known) = known {
        person.is(&known);
        person.guarded = known.verified && !first.assurance.is_proved();
    }
    person.sure = first.assurance;
    person.names.push(*first);
    for other in &claim.names[1..] {
        person.add_name(other, first.assurance.is_proved(), heads);
    }
    Some(person)
}

/// The person of a statement on a browser that is somebody's already: the same one, if any of
/// its names is theirs or none contradicts them.
pub(super) fn on_bound(claim: &Claim, bound: &Binding, heads: &Heads<'_>) -> OnBound {
    let known = heads(bound.origin);
    let own = known.map_or(bound.origin, |known| known.own);
    let theirs = |name: &&Named| heads(name.id).map_or(name.id == own, |known| known.own == own);
    let Some(first) = claim.first() else {
        return OnBound::Nobody;
    };
    let contradicts = |name: &Named| bound.name(name.kind).is_some_and(|known| known != name.id);
    let guarded = known.filter(|known| known.verified && !bound.assurance.is_proved());
    let mine = claim.names.iter().find(theirs);
    if mine.is_none() && claim.by_link {
        let owner = heads(first.id).map_or(first.id, |known| known.head);
        return OnBound::Forwarded(Review {
            question: Question::Forwarded,
            lead: owner,
            other: Some(known.map_or(bound.origin, |known| known.head)),
        });
    }
    let Some(told) = mine else {
        // Names of other kinds only: another name of the same person, unless it is somebody's,
        // or the browser may not be the person's at all.
        let elsewhere = |name: &Named| name.assurance.is_proved() && heads(name.id).is_some();
        if claim.names.iter().any(|name| contradicts(name) || elsewhere(name)) {
            return OnBound::Another(None);
        }
        if let Some(known) = guarded {
            let (question, lead) = (Question::AnotherName, known.head);
            let other = Some(heads(first.id).map_or(first.id, |other| other.head));
            return OnBound::Another(Some(Review { question, lead, other }));
        }
        let mut person = Person { origin: bound.origin, own, ..Person::default() };
        if let Some(known) = known {
            person.is(&known);
        }
        for name in &claim.names {
            person.add_name(name, false, heads);
        }
        return OnBound::Same { person, told: None };
    };
    // Another value of the same kind is a second person, also where both are names of one; and
    // where a step alone has tied the browser, what is said there counts for itself.
    if contradicts(told) || bound.by_step {
        return OnBound::Another(None);
    }
    let mut person =
        Person { origin: bound.origin, own, sure: told.assurance, ..Person::default() };
    if let Some(known) = known {
        person.is(&known);
    }
    person.guarded = guarded.is_some() && !told.assurance.is_proved();
    for name in &claim.names {
        person.add_name(name, told.assurance.is_proved(), heads);
    }
    OnBound::Same { person, told: Some(*told) }
}

/// See [`on_bound`].
pub(super) enum OnBound {
    /// Nobody is named.
    Nobody,
    /// The same person.
    Same {
        /// Who, and what else is theirs now.
        person: Person,
        /// The name of theirs by which they were told; none, if only others were given.
        told: Option<Named>,
    },
    /// Another person, and what is to be asked of the one before.
    Another(Option<Review>),
    /// A link of another person: it was passed on, or somebody looks over a shoulder.
    Forwarded(Review),
}

/// A name as another name of somebody: proved only by a statement that proves both.
fn as_sure(name: &Named, proved: bool) -> Named {
    Named { assurance: if proved { name.assurance } else { Assurance::Claimed }, ..*name }
}

impl Person {
    /// The same person, of whom the visitor's first hit said something just before.
    pub(super) fn after(self, before: Option<Person>) -> Person {
        let Some(mut before) = before else {
            return self;
        };
        let is_new = |name: &Named| before.joins.iter().all(|known| known.id != name.id);
        let joins: Vec<Named> = self.joins.into_iter().filter(is_new).collect();
        before.joins.extend(joins);
        before.merges.extend(self.merges);
        before.review.extend(self.review);
        before
    }

    fn is(&mut self, known: &Known) {
        (self.own, self.head) = (known.own, Some(known.head));
    }

    /// One more name of a statement about this person. `proved`: the statement proves who it is.
    fn add_name(&mut self, name: &Named, proved: bool, heads: &Heads<'_>) {
        let head = self.head.unwrap_or(self.own);
        match heads(name.id) {
            Some(known) if known.own == self.own => {
                self.sure = self.sure.max(name.assurance);
                self.names.push(*name);
            }
            None if name.id == self.own => {}
            None if self.guarded => self.asks(Question::AnotherName, head, Some(name.id)),
            None => {
                self.sure = self.sure.max(name.assurance);
                self.names.push(*name);
                if !self.joins.iter().any(|it| it.id == name.id) {
                    self.joins.push(as_sure(name, proved));
                }
            }
            Some(known) if proved && name.assurance.is_proved() => {
                self.names.push(*name);
                self.merges.extend((known.head != head).then_some(name.id));
            }
            // They may be one lead already, though not by what was said.
            Some(known) if known.head == head => {}
            Some(known) => self.asks(Question::AnotherName, head, Some(known.head)),
        }
    }

    fn asks(&mut self, question: Question, lead: LeadId, other: Option<LeadId>) {
        let review = Review { question, lead, other };
        if !self.review.contains(&review) {
            self.review.push(review);
        }
    }
}
