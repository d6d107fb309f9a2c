//! What a lead is made of and an undo takes away and brings back: names, rows, ties and facts.
//! Live and replay, decision and application, all change it by these functions alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::facts::{SAID_MAX, Said, Seen, Source, say, see};
use crate::hit::{Claim, Hit, HitKind};
use crate::id::{LeadId, Position};
use crate::identity::Assurance;
use crate::ledger::{self, Row, placed};
use crate::record::{
    Aside, Content, Dropping, History, HitRecord, Joint, LeadPart, LinkPart, Member, Parcel, Tie,
};
use crate::sales::{self, Dealings, Feedback, Vouched};
use crate::terms::Terms;
use crate::time::Timestamp;

/// Where and when a change is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The record's time.
    pub time: Timestamp,
    /// Its position; one after all others while it is being decided.
    pub position: Position,
}

impl Content {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        *self == Content::default()
    }

    /// When the person was first known, by whatever name.
    pub fn known_since(&self) -> Option<&Member> {
        self.members.iter().min_by_key(|member| (member.since, member.first_position))
    }

    /// A name of the lead.
    pub fn member(&self, id: LeadId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether a source is tied to a name of the person by a claim only, or the name itself is
    /// theirs by a claim only.
    pub fn is_claimed(&self, source: Source, origin: LeadId) -> bool {
        source != Source::Server && !self.assurance_of(source, origin).is_proved()
    }

    /// How sure it is that a browser is this person's.
    pub fn assurance_of(&self, source: Source, origin: LeadId) -> Assurance {
        let of = |tie: &&Tie| tie.source == source && tie.origin == origin;
        let tied = self.ties.iter().filter(of).map(|tie| self.sure(tie)).max();
        let tied = tied.unwrap_or(Assurance::Claimed);
        if tied.is_proved() && !self.is_proved(origin) { Assurance::Derived } else { tied }
    }

    /// How sure a tie is: as what was said, or as sales says who has spoken to the person.
    pub fn sure(&self, tie: &Tie) -> Assurance {
        let own = vouched(tie).filter(|_| !tie.sure().is_proved());
        let vouched =
            own.is_some_and(|own| self.feedback.iter().any(|it| it.vouches.contains(&own)));
        if vouched { Assurance::Verified } else { tie.sure() }
    }

    /// Sources that are surely the person's, each under a name of theirs. All others are claimed,
    /// but for our servers.
    pub fn proved(&self) -> BTreeSet<(Source, LeadId)> {
        let sure = self.ties.iter().filter(|tie| self.sure(tie).is_proved());
        let pairs: BTreeSet<_> = sure.map(|tie| (tie.source, tie.origin)).collect();
        pairs.into_iter().filter(|(_, origin)| self.is_proved(*origin)).collect()
    }

    /// Whether every step from a name to the head is proved.
    fn is_proved(&self, origin: LeadId) -> bool {
        let mut next = self.member(origin);
        // No chain is longer than there are names.
        for _ in 0..self.members.len() {
            match next {
                Some(Member { parent: Some(parent), assurance, .. }) if assurance.is_proved() => {
                    next = self.member(*parent);
                }
                Some(Member { parent: Some(_), .. }) => return false,
                Some(_) | None => return true,
            }
        }
        true
    }

    /// The name that heads the person of a name, as if nobody had ever been found to be one with
    /// them: what is said of a person means the same before people are joined and after.
    fn own(&self, name: LeadId) -> LeadId {
        let mut own = name;
        for _ in 0..self.members.len() {
            match self.member(own) {
                Some(Member { parent: Some(parent), people: false, .. }) => own = *parent,
                Some(_) | None => return own,
            }
        }
        own
    }

    /// Whether somebody proved that the person of a name exists.
    pub fn proves(&self, own: LeadId) -> bool {
        let of_own = |said: &Said| said.identity.is_proved() && self.own(said.origin) == own;
        self.said.iter().any(of_own)
    }

    /// How a name is the lead's; nothing of its head.
    pub fn joint(&self, name: LeadId) -> Option<Joint> {
        let member = self.member(name)?;
        let (assurance, people) = (member.assurance, member.people);
        Some(Joint { under: member.parent?, assurance, people })
    }

    /// Takes the names, the tie and the hits of a part; the rows are the ledger's.
    pub(super) fn take(&mut self, part: &LeadPart, hits: Option<&HitRecord>, stamp: Stamp) {
        let by_server = hits.is_some_and(|record| record.hit.by_server);
        for name in &part.names {
            // Under itself it came before what it comes with: that is the lead's head.
            let under = if name.id == part.under { part.lead } else { part.under };
            self.members.push(Member {
                id: name.id,
                kind: name.kind,
                parent: (name.id != part.lead).then_some(under),
                assurance: name.assurance,
                people: false,
                since: stamp.time,
                first_position: stamp.position,
                by_server,
            });
        }
        for drop in &part.drops {
            self.drop_source(drop);
        }
        if let Some(link) = &part.link {
            self.tie(link, part, hits.is_some(), stamp);
        }
        let Some(record) = hits else {
            return;
        };
        if !part.only_said {
            self.count(&record.hit, part, stamp);
        }
        let first = record.first.as_ref().map(|first| &first.hit);
        for (hit, hears) in [first, Some(&record.hit)].into_iter().zip(part.hears) {
            if let (Some(hit), Some(identity)) = (hit, hears)
                && let Some(claim) = &hit.claim
            {
                self.hear(claim, identity, hit, part, stamp);
            }
        }
    }

    fn tie(&mut self, link: &LinkPart, part: &LeadPart, said: bool, stamp: Stamp) {
        let source = Source::Visitor(link.visitor);
        for history in &link.histories {
            self.tie_history(history, source, stamp);
        }
        // Said on the browser, or confirmed: a step that gives stretches says so of each.
        if said || link.histories.is_empty() {
            let tie = self.tie_of(source, part.origin, part.stretch, stamp);
            tie.assurance = tie.assurance.max(link.assurance);
        }
    }

    /// The tie of a source, made if it is not there. How sure it is is its own: what holds for
    /// all of a browser's is read from all of them, so that a tie that goes takes along nothing
    /// but its own.
    fn tie_of(
        &mut self,
        source: Source,
        origin: LeadId,
        stretch: Position,
        stamp: Stamp,
    ) -> &mut Tie {
        let same =
            |tie: &Tie| tie.source == source && tie.origin == origin && tie.stretch == stretch;
        let place = self.ties.iter().position(same).unwrap_or_else(|| {
            let assurance = match source {
                Source::Server => Assurance::Verified,
                Source::Visitor(_) => Assurance::Claimed,
            };
            self.ties.push(Tie {
                source,
                origin,
                stretch,
                assurance,
                since: stamp.time,
                first_position: stamp.position,
                ..Tie::default()
            });
            self.ties.len() - 1
        });
        &mut self.ties[place]
    }

    fn tie_history(&mut self, history: &History, source: Source, stamp: Stamp) {
        let came_back = self.take_up(source, history);
        let tie = self.tie_of(source, history.origin, history.stretch, stamp);
        tie.given = history.given;
        tie.first_seen = history.first_seen;
        tie.first_position = history.first_position;
        tie.hits = history.hits;
        tie.pages = history.pages;
        tie.visits = history.visits;
        if !came_back {
            tie.attached = history.hits;
        }
        for seen in &history.seen {
            let known_by =
                |position| if position == Position::NONE { stamp.position } else { position };
            let visit = Seen {
                origin: history.origin,
                stretch: history.stretch,
                first: known_by(seen.first),
                last: known_by(seen.last),
                ..*seen
            };
            see(&mut self.seen, visit);
        }
    }

    /// What was set aside with a stretch counts again; whether there was a tie.
    fn take_up(&mut self, source: Source, history: &History) -> bool {
        let (origin, stretch) = (history.origin, history.stretch);
        let ties;
        (ties, self.aside.ties) = parted(&self.aside.ties, |tie| {
            tie.source == source && tie.origin == origin && tie.stretch == stretch
        });
        let came_back = !ties.is_empty();
        self.ties.extend(ties);
        let said;
        (said, self.aside.said) = parted(&self.aside.said, |said| {
            said.source == source && said.origin == origin && said.stretch == Some(stretch)
        });
        for said in said {
            say(&mut self.said, said);
        }
        came_back
    }

    /// Counts one hit.
    fn count(&mut self, hit: &Hit, part: &LeadPart, stamp: Stamp) {
        let source = hit.visitor.map_or(Source::Server, Source::Visitor);
        let (origin, stretch) = (part.origin, part.stretch);
        let tie = self.tie_of(source, origin, stretch, stamp);
        if tie.hits == 0 {
            tie.first_seen = hit.when;
        }
        tie.hits = tie.hits.saturating_add(1);
        tie.pages = tie.pages.saturating_add(u32::from(hit.kind == HitKind::PageView));
        tie.visits = tie.visits.saturating_add(u32::from(part.new_visit));
        if hit.is_human() {
            let visit = Seen { origin, stretch, ..Seen::hit(source, hit.when, stamp.position) };
            see(&mut self.seen, visit);
        }
    }

    fn hear(
        &mut self,
        claim: &Claim,
        identity: Assurance,
        hit: &Hit,
        part: &LeadPart,
        stamp: Stamp,
    ) {
        let Some(first) = claim.first() else {
            return;
        };
        let by = match hit.event.as_str() {
            "" if hit.by_server => "server",
            "" if claim.by_link => "link",
            "" if identity.is_proved() => "hmac",
            "" => "form",
            event => event,
        };
        say(
            &mut self.said,
            Said {
                time: stamp.time,
                position: stamp.position,
                source: hit.visitor.map_or(Source::Server, Source::Visitor),
                stretch: hit.visitor.filter(|_| !part.only_said).map(|_| part.stretch),
                origin: part.origin,
                identity,
                attributes_by: claim.attributes_by,
                level: claim.level,
                consent: claim.consent,
                by: Arc::from(by),
                attributes: Arc::new(claim.attributes.clone()),
                under: first.id,
                sealed: Arc::new(claim.sealed.clone()),
            },
        );
    }

    /// Takes what sales answered. Whoever spoke to the person has proved who they are.
    pub(super) fn answer(&mut self, feedback: &Feedback, stamp: Stamp) {
        let Stamp { time, position } = stamp;
        sales::hear(&mut self.feedback, Feedback { time, position, ..feedback.clone() });
        if !feedback.kind.proves() {
            return;
        }
        say(
            &mut self.said,
            Said {
                time,
                position,
                origin: feedback.origin,
                identity: Assurance::Verified,
                attributes_by: Assurance::Verified,
                by: Arc::from(feedback.kind.name()),
                under: feedback.origin,
                ..Said::default()
            },
        );
    }

    /// What the answers of sales come to, with what was earned since.
    pub fn dealings(&self, terms: &Terms) -> Dealings {
        let mut dealings = Dealings::default();
        for feedback in &self.feedback {
            dealings.hear(feedback);
        }
        self.weigh(&mut dealings, &self.rows, terms);
        dealings
    }

    /// Looks for what was earned since sales gave the person back, among the first rows, under
    /// the terms in force.
    pub(super) fn weigh(&self, dealings: &mut Dealings, rows: &[Row], terms: &Terms) {
        let Some(back) = dealings.given_back else {
            return;
        };
        dealings.evidence = false;
        let given = self.feedback.iter().rfind(|it| it.time == back && it.kind.gives_back());
        let since = given.map_or((back, Position::NONE), |it| (back, placed(it.position)));
        let after = |row: &&Row| (row.when, placed(row.position)) > since;
        for row in rows.iter().filter(after).filter(|row| terms.is_in_total(row.category)) {
            dealings.earn(row.rule, row.granted);
        }
    }

    /// What came through a source within some records goes; ties and words are set aside.
    fn drop_source(&mut self, drop: &Dropping) {
        let within = |position: Position| position > drop.after && position <= drop.until;
        let begins = |stretch: Position| stretch >= drop.after && stretch < drop.until;
        self.rows.retain(|row| row.source != drop.source || !within(row.position));
        self.seen.retain(|seen| seen.source != drop.source || !begins(seen.stretch));
        let ties;
        (ties, self.ties) =
            parted(&self.ties, |tie| tie.source == drop.source && begins(tie.stretch));
        let said;
        (said, self.said) = parted(&self.said, |said| {
            said.source == drop.source && said.stretch.is_some_and(begins)
        });
        self.aside.keep(&ties, &said);
    }

    /// The names that came with one, itself included.
    pub(super) fn subtree(&self, top: LeadId) -> Vec<LeadId> {
        let mut found = vec![top];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            let children = self.members.iter().filter(|it| it.parent == Some(parent));
            for child in children.map(|it| it.id).collect::<Vec<_>>() {
                if !found.contains(&child) {
                    found.push(child);
                }
            }
            next += 1;
        }
        found
    }

    /// Takes out what is a name's own, with what came with it. It is a head of its own again.
    pub(super) fn split(&mut self, top: LeadId) -> Content {
        let names = self.subtree(top);
        let mut out = Content::default();
        let own = |origin: LeadId| names.contains(&origin);
        (out.members, self.members) = parted(&self.members, |it| own(it.id));
        (out.rows, self.rows) = parted(&self.rows, |it| own(it.origin));
        (out.ties, self.ties) = parted(&self.ties, |it| own(it.origin));
        (out.said, self.said) = parted(&self.said, |it| own(it.origin));
        (out.seen, self.seen) = parted(&self.seen, |it| own(it.origin));
        (out.feedback, self.feedback) = parted(&self.feedback, |it| own(it.origin));
        (out.aside.ties, self.aside.ties) = parted(&self.aside.ties, |it| own(it.origin));
        (out.aside.said, self.aside.said) = parted(&self.aside.said, |it| own(it.origin));
        for member in out.members.iter_mut().filter(|member| member.id == top) {
            (member.parent, member.people) = (None, false);
        }
        // A head stands first.
        out.members.sort_by_key(|member| (member.id != top, member.since, member.first_position));
        out
    }

    /// Puts in what another lead was made of, and how that is a name of this one now.
    pub(super) fn join(&mut self, other: &Content, from: LeadId, joint: Option<Joint>) {
        for member in &other.members {
            let joint = joint.filter(|_| member.id == from);
            let joined = joint.map_or(*member, |joint| Member {
                parent: Some(joint.under),
                assurance: joint.assurance,
                people: joint.people,
                ..*member
            });
            match self.members.iter_mut().find(|known| known.id == member.id) {
                Some(known) => {
                    // Who was heard of again while this was on its way is known since then too.
                    let first = joined.first_position.min(known.first_position);
                    let since = joined.since.min(known.since);
                    *known = Member { first_position: first, since, ..joined };
                }
                None => self.members.push(joined),
            }
        }
        for row in &other.rows {
            ledger::insert(&mut self.rows, *row);
        }
        for tie in &other.ties {
            self.join_tie(tie);
        }
        for said in &other.said {
            say(&mut self.said, said.clone());
        }
        for seen in &other.seen {
            see(&mut self.seen, *seen);
        }
        for feedback in &other.feedback {
            sales::hear(&mut self.feedback, feedback.clone());
        }
        self.aside.keep(&other.aside.ties, &other.aside.said);
    }

    /// A tie that was made anew while this one was on its way is the same tie.
    fn join_tie(&mut self, tie: &Tie) {
        let same = |known: &&mut Tie| {
            known.source == tie.source && known.origin == tie.origin && known.stretch == tie.stretch
        };
        let Some(known) = self.ties.iter_mut().find(same) else {
            self.ties.push(*tie);
            return;
        };
        *known = Tie {
            assurance: tie.assurance.max(known.assurance),
            given: tie.given.max(known.given),
            hits: tie.hits.saturating_add(known.hits),
            pages: tie.pages.saturating_add(known.pages),
            visits: tie.visits.saturating_add(known.visits),
            ..*tie
        };
    }

    /// Cut into parts that a record can hold.
    pub fn parcels(mut self, from: LeadId, joint: Option<Joint>) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        loop {
            let content = Content {
                members: cut(&mut self.members, PARCEL_ITEMS),
                rows: cut(&mut self.rows, PARCEL_ITEMS),
                ties: cut(&mut self.ties, PARCEL_ITEMS),
                said: cut(&mut self.said, PARCEL_SAID),
                seen: cut(&mut self.seen, PARCEL_ITEMS),
                feedback: cut(&mut self.feedback, PARCEL_SAID),
                aside: Aside {
                    ties: cut(&mut self.aside.ties, PARCEL_ITEMS),
                    said: cut(&mut self.aside.said, PARCEL_SAID),
                },
            };
            let last = self.is_empty();
            let number = parcels.len() as u32;
            parcels.push(Parcel { from, number, last, joint, content, ..Parcel::default() });
            if last {
                return parcels;
            }
        }
    }
}

impl Aside {
    /// Keeps more. At the limits the oldest are forgotten, and cannot be taken up again.
    fn keep(&mut self, ties: &[Tie], said: &[Said]) {
        self.ties.extend_from_slice(ties);
        self.said.extend_from_slice(said);
        self.ties.drain(..self.ties.len().saturating_sub(ASIDE_TIES_MAX));
        self.said.drain(..self.said.len().saturating_sub(SAID_MAX));
    }
}

/// A browser's tie, as an answer vouches for it.
pub(super) fn vouched(tie: &Tie) -> Option<Vouched> {
    let Source::Visitor(visitor) = tie.source else {
        return None;
    };
    Some(Vouched { visitor, origin: tie.origin, stretch: tie.stretch })
}

/// Ties one lead keeps of what was taken from it. Older ones are forgotten.
const ASIDE_TIES_MAX: usize = 512;
/// Rows, ties, visits or names in one parcel.
const PARCEL_ITEMS: usize = 512;
/// Statements in one parcel: each may have 64 attributes of 512 bytes.
const PARCEL_SAID: usize = 8;

fn cut<T>(all: &mut Vec<T>, most: usize) -> Vec<T> {
    let rest = all.split_off(all.len().min(most));
    std::mem::replace(all, rest)
}

fn parted<T: Clone>(all: &[T], out: impl Fn(&T) -> bool) -> (Vec<T>, Vec<T>) {
    all.iter().cloned().partition(|it| out(it))
}
