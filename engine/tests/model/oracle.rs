//! A naive model of the engine: it keeps the whole history and works everything out from
//! scratch, every time, in the plainest way (`browser.rs`, `life.rs`, `matching.rs`). It does not
//! undo anything: what would have been without a step is what it says of a history without that
//! step. It models no limits on memory: histories must stay within them.

use std::collections::BTreeMap;

use engine::attribute::{Attributes, Level};
use engine::hit::{Claim, Exclusion, Hit, HitKind, Named};
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::Assurance;
use engine::sales::{Feedback, Unheard};
use engine::stage::FeedbackKind;
use engine::time::Timestamp;

use super::browser::{Bound, Browser, Past};
use super::life::{Award, Life, Presence, Version, Word};
use super::matching::{Then, matched};
use super::rules::Parts;
use super::sales::{Answer, Effect, effect, proves, rows_of};
use super::told::{News, Person};

/// What was recorded, in order. A step is recorded with what it was about: the hits that moved,
/// and which of two people went to the other.
#[derive(Clone, Debug)]
pub enum Entry {
    Hit {
        position: Position,
        hit: Hit,
    },
    Link {
        visitor: VisitorId,
        name: LeadId,
        hits: Vec<Position>,
        sure: Assurance,
    },
    Unlink {
        visitor: VisitorId,
        hits: Vec<(Position, LeadId)>,
        bound: Option<LeadId>,
    },
    Merge {
        goes: LeadId,
        stays: LeadId,
    },
    Unmerge {
        name: LeadId,
    },
    Withdraw {
        hits: Vec<Position>,
        out: bool,
    },
    Publish {
        from: u64,
        parts: Box<Parts>,
    },
    Answer(Box<Answer>),
    /// Nothing of a person, by all of their names, has ever been: nor of browsers that were
    /// nobody else's.
    Erase {
        names: Vec<LeadId>,
        browsers: Vec<VisitorId>,
    },
}

/// A name of a person.
#[derive(Clone, Debug)]
struct Name {
    kind: usize,
    parent: Option<LeadId>,
    sure: Assurance,
    /// Whether it headed a person of their own, who was found to be another.
    people: bool,
    since: (u64, Position),
}

/// What a statement was taken to mean. A step that changes it cannot be undone as if it had
/// never been: what people said, they said then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub position: Position,
    /// Under which name it counts, and how sure it is; nothing if it is not heard.
    heard: Option<(LeadId, Assurance)>,
    /// Whether it is of somebody to whom the browser is not tied.
    guest: bool,
    /// Names that joined, each under which.
    joined: Vec<(LeadId, LeadId, Assurance)>,
    /// Whom the browser was bound to then, as far as something was said there.
    bound: Option<(LeadId, [Option<LeadId>; 3])>,
    shared: bool,
    /// How sure it makes it that the browser is whose it is bound to, if it says so.
    tied: Option<Assurance>,
}

/// The model. `hints` are instants the engine found, by person: each is held against the
/// definition to the millisecond, which a scan alone could not do.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    hints: BTreeMap<LeadId, Vec<u64>>,
    versions: Vec<Version>,
    browsers: BTreeMap<VisitorId, Browser>,
    names: BTreeMap<LeadId, Name>,
    words: Vec<Word>,
    answers: Vec<Answer>,
    /// What servers said of people was worth, and what sales did.
    of_servers: Vec<Award>,
    seen_by_servers: Vec<Presence>,
    withdrawn: Vec<Position>,
    pub verdicts: Vec<Verdict>,
    pub people: BTreeMap<LeadId, Person>,
}

impl Oracle {
    pub fn new(parts: &Parts, hints: BTreeMap<LeadId, Vec<u64>>) -> Oracle {
        let first = Version { number: 1, from: 0, parts: parts.clone() };
        Oracle { hints, versions: vec![first], ..Oracle::default() }
    }

    /// Takes everything that was recorded, as far as it decides what is derived: nobody asks
    /// what was told of it.
    pub fn take_all<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        for entry in entries {
            match entry {
                Entry::Hit { position, hit } => drop(self.understand(*position, hit)),
                other => self.take(other),
            }
        }
    }

    pub fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Hit { position, hit } => self.take_hit(*position, hit),
            Entry::Link { visitor, name, hits, sure } => {
                let bound = self.tied(*name, *sure);
                if let Some(browser) = self.browsers.get_mut(visitor) {
                    browser.give(hits, bound);
                }
            }
            Entry::Unlink { visitor, hits, bound } => {
                if let Some(browser) = self.browsers.get_mut(visitor) {
                    browser.take(hits, *bound);
                }
            }
            Entry::Merge { goes, stays } => self.merge(*goes, *stays),
            Entry::Unmerge { name } => {
                if let Some(name) = self.names.get_mut(name) {
                    (name.parent, name.people) = (None, false);
                }
            }
            Entry::Withdraw { hits, out } => {
                self.withdrawn.retain(|known| !hits.contains(known));
                self.withdrawn.extend(hits.iter().filter(|_| *out));
            }
            Entry::Publish { from, parts } => {
                let number = self.versions.len() as u32 + 1;
                self.versions.push(Version { number, from: *from, parts: (**parts).clone() });
            }
            Entry::Answer(answer) => self.take_answer(answer),
            Entry::Erase { names, browsers } => self.erase(names, browsers),
        }
    }

    fn erase(&mut self, names: &[LeadId], browsers: &[VisitorId]) {
        let stays = |origin: &LeadId| !names.contains(origin);
        self.names.retain(|name, _| stays(name));
        self.words.retain(|word| stays(&word.origin));
        self.answers.retain(|answer| stays(&answer.origin));
        self.of_servers.retain(|award| stays(&award.origin));
        self.seen_by_servers.retain(|presence| stays(&presence.origin));
        self.people.retain(|name, _| stays(name));
        self.browsers.retain(|visitor, _| !browsers.contains(visitor));
    }

    /// All names of the person of a name, and the browsers that are theirs alone; nothing, if
    /// somebody else, or nobody yet, was on a browser that they are named on. What the rest of
    /// such a browser is worth then is the engine's own word (`tests/erase.rs`).
    pub fn alone(&self, name: LeadId) -> Option<(Vec<LeadId>, Vec<VisitorId>)> {
        let names = self.members(self.head(name)?);
        let mut browsers = Vec::new();
        for (visitor, browser) in &self.browsers {
            if browser.all_named().iter().any(|named| names.contains(named)) {
                let theirs = |past: &Past| past.owner().is_some_and(|it| names.contains(&it));
                if !browser.past.iter().all(theirs) {
                    return None;
                }
                browsers.push(*visitor);
            }
        }
        Some((names, browsers))
    }

    /// The head of a name, if it is known.
    pub fn head(&self, name: LeadId) -> Option<LeadId> {
        let mut head = name;
        while let Some(parent) = self.names.get(&head)?.parent {
            head = parent;
        }
        Some(head)
    }

    /// The head of a name as if nobody had been found to be somebody else.
    fn own(&self, name: LeadId) -> Option<LeadId> {
        let mut own = name;
        while let Name { parent: Some(parent), people: false, .. } = self.names.get(&own)? {
            own = *parent;
        }
        Some(own)
    }

    /// The heads of all names.
    pub fn heads(&self) -> Vec<LeadId> {
        self.names.iter().filter(|(_, name)| name.parent.is_none()).map(|(id, _)| *id).collect()
    }

    /// Every name there is.
    pub fn all_names(&self) -> Vec<LeadId> {
        self.names.keys().copied().collect()
    }

    fn members(&self, head: LeadId) -> Vec<LeadId> {
        self.names.keys().filter(|name| self.head(**name) == Some(head)).copied().collect()
    }

    /// Whether every step from a name to its head is proved.
    fn is_proved(&self, name: LeadId) -> bool {
        let Some(known) = self.names.get(&name) else {
            return true;
        };
        known
            .parent
            .is_none_or(|parent| known.sure == Assurance::Verified && self.is_proved(parent))
    }

    /// Whether somebody proved that the person of a name exists, apart from whom they may have
    /// been found to be.
    fn is_verified(&self, own: LeadId) -> bool {
        self.words.iter().any(|word| {
            word.identity == Assurance::Verified
                && self.own(word.origin) == Some(own)
                && self.counts(word)
        })
    }

    /// Whether a word counts: what was said on a browser goes with the hit that said it.
    fn counts(&self, word: &Word) -> bool {
        let Some(visitor) = word.with else {
            return true;
        };
        let past = self.browsers.get(&visitor).into_iter().flat_map(|browser| &browser.past);
        let mut own = past.filter(|past| past.position == word.position);
        own.any(|past| past.owner() == Some(word.origin))
    }

    /// Everything that decides what a person is worth and where they stand.
    pub fn life(&self, head: LeadId) -> Life {
        let members = self.members(head);
        let own = |origin: &LeadId| members.contains(origin);
        let since = members.iter().filter_map(|name| self.names.get(name)).map(|it| it.since);
        let words = self.words.iter().filter(|word| own(&word.origin) && self.counts(word));
        let mut answers: Vec<Answer> =
            self.answers.iter().filter(|answer| own(&answer.origin)).cloned().collect();
        answers.sort_by_key(Answer::key);
        let mut life = Life {
            awards: self.of_servers.iter().filter(|award| own(&award.origin)).cloned().collect(),
            presences: self.seen_by_servers.iter().filter(|it| own(&it.origin)).copied().collect(),
            words: words.cloned().collect(),
            answers,
            versions: self.versions.clone(),
            unproved: Vec::new(),
            known_since: since.min(),
        };
        for (visitor, browser) in &self.browsers {
            self.add_browser(&mut life, *visitor, browser, &members);
        }
        for award in &mut life.awards {
            award.withdrawn = self.withdrawn.contains(&award.position);
        }
        for presence in &mut life.presences {
            presence.withdrawn = self.withdrawn.contains(&presence.position);
        }
        life
    }

    fn add_browser(
        &self,
        life: &mut Life,
        visitor: VisitorId,
        browser: &Browser,
        members: &[LeadId],
    ) {
        let owner = |hit: usize| browser.past[hit].owner().filter(|it| members.contains(it));
        for (award, hit) in &browser.awards {
            if let Some(origin) = owner(*hit) {
                life.awards.push(Award { origin, ..award.clone() });
            }
        }
        for (number, past) in browser.past.iter().enumerate() {
            if let Some(origin) = owner(number).filter(|_| past.hit.is_human()) {
                let (when, source) = (past.hit.when.0, Some(visitor));
                let (position, withdrawn) = (past.position, false);
                life.presences.push(Presence { when, position, source, origin, withdrawn });
            }
        }
        for origin in members {
            let vouched = |past: &Past| {
                let hit = (past.position, *origin);
                life.answers.iter().any(|answer| answer.vouches.contains(&hit))
            };
            let mut own = browser.past.iter().filter(|past| past.owner() == Some(*origin));
            let sure = browser.sure_of(*origin);
            let sure = if own.any(vouched) { Some(Assurance::Verified) } else { sure };
            if sure.is_some_and(|sure| sure != Assurance::Verified || !self.is_proved(*origin)) {
                life.unproved.push((visitor, *origin));
            }
        }
    }

    /// Every award of a hit that is somebody's, by whose it is.
    pub fn owned(&self) -> Vec<(LeadId, Position, u16)> {
        let mut owned = Vec::new();
        for award in &self.of_servers {
            owned.extend(self.head(award.origin).map(|head| (head, award.position, award.order)));
        }
        for browser in self.browsers.values() {
            for (award, hit) in &browser.awards {
                let head = browser.past[*hit].owner().and_then(|owner| self.head(owner));
                owned.extend(head.map(|head| (head, award.position, award.order)));
            }
        }
        owned.sort_unstable();
        owned
    }

    /// A browser's hits: which is whose.
    pub fn hits_of(&self, visitor: VisitorId) -> Vec<(Position, Option<LeadId>)> {
        let past = self.browsers.get(&visitor).into_iter().flat_map(|browser| &browser.past);
        past.map(|past| (past.position, past.owner())).collect()
    }

    /// Whom a browser is bound to, if it is bound to a name of this lead.
    pub fn bound_to(&self, visitor: VisitorId, head: LeadId) -> Option<LeadId> {
        let bound = self.browsers.get(&visitor)?.bound.as_ref()?;
        Some(bound.origin).filter(|origin| self.head(*origin) == Some(head))
    }

    /// Whether a hit is one of its browser's last 64 within a day.
    pub fn is_repeat(&self, hit: &Hit) -> bool {
        let browser = hit.visitor.and_then(|visitor| self.browsers.get(&visitor));
        browser.is_some_and(|browser| browser.is_repeat(hit))
    }

    /// Takes an answer with what was recorded of it.
    fn take_answer(&mut self, answer: &Answer) {
        if proves(answer.kind) {
            self.words.push(Word {
                time: answer.time,
                position: answer.position,
                with: None,
                origin: answer.origin,
                identity: Assurance::Verified,
                attributes_by: Assurance::Verified,
                level: Level::Person,
                consent: None,
                attributes: Attributes::new(),
            });
        }
        let version = self.version_at(answer.time).clone();
        let awards = rows_of(answer.kind, &version.parts).into_iter();
        self.of_servers.extend(awards.map(|(rule, order, category, base)| Award {
            when: answer.time,
            position: answer.position,
            order,
            rule,
            category,
            base,
            source: None,
            origin: answer.origin,
            version: version.number,
            withdrawn: false,
        }));
        self.answers.push(answer.clone());
    }

    /// Hits that are a person's, each under which name, if an answer vouches for them.
    pub fn vouched(&self, kind: FeedbackKind, origin: LeadId) -> Vec<(Position, LeadId)> {
        let head = self.head(origin);
        let past = self.browsers.values().flat_map(|browser| &browser.past);
        let owned = past.filter_map(|past| Some((past.position, past.owner()?)));
        owned.filter(|(_, owner)| proves(kind) && self.head(*owner) == head).collect()
    }

    /// Sales answers about somebody: what of it is recorded, or why nothing is.
    pub fn answer(
        &mut self,
        said: &Feedback,
        position: Position,
        now: Timestamp,
    ) -> Result<Answer, Unheard> {
        let (now, head) = (now.0, self.head(said.origin).unwrap_or(said.origin));
        let life = self.life(head);
        if life.answers.iter().any(|known| known.id == said.id) {
            return Err(Unheard::Repeated);
        }
        if life.answers.iter().any(|known| known.at > said.at.0) {
            return Err(Unheard::Older);
        }
        let person = self.people.get(&head).cloned().unwrap_or_default();
        let (asked, here) = person.stands(&life, now, &self.hints(head));
        let stage = super::sales::after(here, said.kind).ok_or(Unheard::NotHere(here))?;
        let rules = &life.version_at(now).parts.sales;
        let wish = (said.kind, said.until.map(|until| until.0));
        let Effect { until, raise, asks } = effect(rules, wish, asked, now);
        let vouches = self.vouched(said.kind, said.origin);
        let facts = Answer::of(said, Timestamp(now), position);
        let answer = Answer { stage, until, raise, asks, vouches, ..facts };
        self.pass_for(head, &life, now);
        self.take_answer(&answer);
        self.cross(head, &life, now, None);
        if let Some(person) = self.people.get_mut(&head) {
            person.answered(&answer);
        }
        Ok(answer)
    }

    fn take_hit(&mut self, position: Position, hit: &Hit) {
        // What was known before the hit, and only then the hit.
        let was = self.clone();
        let Some(origin) = self.understand(position, hit) else {
            return;
        };
        let now = hit.received.0;
        let head = self.head(origin).unwrap_or(origin);
        let before = was.head(head).map(|head| was.life(head));
        if let Some(life) = &before {
            self.pass_for(head, life, now);
        }
        let (known, human) = (before.is_some(), hit.is_human());
        let before = before.unwrap_or_else(|| self.life_before(head, position));
        let news = News { position, when: hit.when.0, human, known };
        self.cross(head, &before, now, Some(news));
    }

    /// Takes a hit, with what it says: whose it is, or of whom it speaks.
    fn understand(&mut self, position: Position, hit: &Hit) -> Option<LeadId> {
        let mut verdict = Verdict { position, ..Verdict::default() };
        let mut hit = hit.clone();
        let touched = match hit.visitor {
            None => self.told_by_server(&hit, &mut verdict),
            Some(visitor) => {
                let mut browser = self.browsers.get(&visitor).cloned().unwrap_or_default();
                if browser.is_forgotten(hit.received.0) {
                    browser = Browser::default();
                }
                let touched = self.whose(&mut browser, &mut hit, &mut verdict);
                verdict.shared = browser.shared;
                let said = browser.bound.as_ref().filter(|bound| !bound.by_step);
                verdict.bound = said.map(|bound| (bound.origin, bound.names));
                self.browsers.insert(visitor, browser);
                touched
            }
        };
        if let (Some((origin, identity)), Some(claim)) = (verdict.heard, &hit.claim) {
            self.hear(position, &hit, claim, (origin, identity), verdict.guest);
        }
        self.add_hit(position, &hit, touched, &verdict);
        if hit.claim.is_some() {
            self.verdicts.push(verdict);
        }
        touched
    }

    /// The life of a person nobody knew before this record: their history alone.
    fn life_before(&self, head: LeadId, position: Position) -> Life {
        let mut life = self.life(head);
        life.awards.retain(|award| award.position != position);
        life.presences.retain(|presence| presence.position != position);
        life.words.clear();
        life.known_since = None;
        // A browser's own ledger knows no claims.
        life.unproved.clear();
        life
    }

    /// Whom a server speaks of, and that it is heard.
    fn told_by_server(&mut self, hit: &Hit, verdict: &mut Verdict) -> Option<LeadId> {
        let claim = hit.claim.as_ref()?;
        let identity = self.person(claim, hit, verdict);
        verdict.heard = Some((claim.names[0].id, identity));
        Some(claim.names[0].id)
    }

    /// Whose a browser's hit is, and what it says of whom.
    fn whose(
        &mut self,
        browser: &mut Browser,
        hit: &mut Hit,
        verdict: &mut Verdict,
    ) -> Option<LeadId> {
        if browser.shared && browser.opens_session(hit.received.0) {
            browser.sever();
        }
        if let Some(claim) = hit.claim.clone().filter(|_| hit.kind != HitKind::Reset)
            && let Some(why) = self.hear_on(browser, &claim, hit, verdict)
        {
            hit.excluded = hit.excluded.or(Some(why));
            if verdict.guest {
                return verdict.heard.map(|(origin, _)| origin);
            }
        }
        let bound = browser.bound.as_ref().filter(|_| hit.kind != HitKind::Reset)?;
        Some(bound.origin)
    }

    /// What a statement means on a browser; why it is worth nothing, if it is not for it.
    fn hear_on(
        &mut self,
        browser: &mut Browser,
        claim: &Claim,
        hit: &Hit,
        verdict: &mut Verdict,
    ) -> Option<Exclusion> {
        let now = hit.received.0;
        let bound = browser.bound.clone().filter(|_| !claim.kiosk);
        if let Some(bound) = bound {
            let own = self.own(bound.origin)?;
            let told = claim.names.iter().find(|name| self.own(name.id) == Some(own)).copied();
            if told.is_none() && claim.by_link {
                return Some(Exclusion::Forwarded);
            }
            if !self.is_another(claim, &bound, told) {
                self.know_more(browser, claim, hit, (bound, told), verdict);
                return None;
            }
        }
        let origin = claim.names[0].id;
        let identity = self.person(claim, hit, verdict);
        verdict.heard = Some((origin, identity));
        let named = browser.named_with(origin, now);
        browser.shared |= !claim.kiosk && named >= 4;
        if claim.kiosk || named > 5 {
            verdict.guest = true;
            return Some(Exclusion::Guest);
        }
        let mut names = [None; 3];
        for name in self.theirs(claim) {
            names[name.kind as usize] = Some(name.id);
        }
        let sure = claim.names[0].assurance;
        verdict.tied = Some(sure);
        browser.bind(Bound { origin, names, sure, by_step: false }, now);
        None
    }

    /// Whether a statement on a bound browser is by somebody else, or must stand for itself.
    fn is_another(&self, claim: &Claim, bound: &Bound, told: Option<Named>) -> bool {
        let other_value =
            |name: &Named| bound.names[name.kind as usize].is_some_and(|known| known != name.id);
        let proved_elsewhere =
            |name: &Named| name.assurance == Assurance::Verified && self.own(name.id).is_some();
        match told {
            Some(told) => other_value(&told) || bound.by_step,
            None => {
                self.own(bound.origin).is_some_and(|own| self.is_guarded(own, bound.sure))
                    || claim.names.iter().any(|name| other_value(name) || proved_elsewhere(name))
            }
        }
    }

    /// Whether a person is proved to exist, by a word that does not prove it is theirs: it gives
    /// them no name.
    fn is_guarded(&self, own: LeadId, sure: Assurance) -> bool {
        self.is_verified(own) && sure != Assurance::Verified
    }

    /// The one who is bound says more of themselves.
    fn know_more(
        &mut self,
        browser: &mut Browser,
        claim: &Claim,
        hit: &Hit,
        (bound, told): (Bound, Option<Named>),
        verdict: &mut Verdict,
    ) {
        let mut now = bound.clone();
        let proved = told.is_some_and(|told| told.assurance == Assurance::Verified);
        if let Some(told) = told {
            now.sure = now.sure.max(told.assurance);
            now.names[told.kind as usize] = Some(told.id);
        }
        let mut identity = told.map(|told| told.assurance).unwrap_or_default();
        verdict.tied = told.map(|told| told.assurance);
        let own = self.own(bound.origin).unwrap_or(bound.origin);
        for name in &claim.names {
            if self.own(name.id) == Some(own) {
                identity = identity.max(name.assurance);
            }
        }
        let guarded = self.is_guarded(own, now.sure);
        let joined = self.join_names(claim, own, (proved, guarded), hit, verdict);
        for name in &joined {
            identity = identity.max(name.assurance);
            now.names[name.kind as usize].get_or_insert(name.id);
        }
        if told.is_some() || !joined.is_empty() {
            verdict.heard = Some((bound.origin, identity));
        }
        browser.bound = Some(now);
    }

    /// The names of a statement that are the first one's person's: known as theirs, or proved.
    fn theirs<'a>(&self, claim: &'a Claim) -> Vec<&'a Named> {
        let first = &claim.names[0];
        let proved = |name: &Named| {
            first.assurance == Assurance::Verified && name.assurance == Assurance::Verified
        };
        let is_theirs = |name: &&Named| {
            name.id == first.id || self.own(name.id) == self.own(first.id) || proved(name)
        };
        claim.names.iter().filter(is_theirs).collect()
    }

    /// Makes the person a statement names, if nobody has its first name, and joins its names.
    /// How sure it is that it is them.
    fn person(&mut self, claim: &Claim, hit: &Hit, verdict: &mut Verdict) -> Assurance {
        let first = claim.names[0];
        if self.head(first.id).is_none() {
            let proved = |other: &Named| {
                first.assurance == Assurance::Verified && other.assurance == Assurance::Verified
            };
            let owner = claim.names[1..].iter().find_map(|other| {
                let own = self.own(other.id)?;
                let sure = if proved(other) { first.assurance } else { Assurance::Claimed };
                (proved(other) || !self.is_verified(own)).then_some((own, sure))
            });
            match owner {
                Some((own, sure)) => {
                    verdict.joined.push((first.id, own, sure));
                    self.add_name(Named { assurance: sure, ..first }, Some(own), hit);
                }
                None => self.add_name(first, None, hit),
            }
        }
        let own = self.own(first.id).unwrap_or(first.id);
        let mut sure = first.assurance;
        for name in &claim.names {
            if self.own(name.id) == Some(own) {
                sure = sure.max(name.assurance);
            }
        }
        let proved = first.assurance == Assurance::Verified;
        let guarded = self.is_guarded(own, first.assurance);
        let joined = self.join_names(claim, own, (proved, guarded), hit, verdict);
        joined.iter().map(|name| name.assurance).fold(sure, Assurance::max)
    }

    /// Names nobody has become the person's.
    fn join_names(
        &mut self,
        claim: &Claim,
        own: LeadId,
        (proved, guarded): (bool, bool),
        hit: &Hit,
        verdict: &mut Verdict,
    ) -> Vec<Named> {
        let mut joined = Vec::new();
        for name in claim.names.iter().filter(|_| !guarded) {
            if self.head(name.id).is_none() {
                let sure = if proved { name.assurance } else { Assurance::Claimed };
                self.add_name(Named { assurance: sure, ..*name }, Some(own), hit);
                verdict.joined.push((name.id, own, sure));
                joined.push(*name);
            }
        }
        joined
    }

    fn add_name(&mut self, name: Named, parent: Option<LeadId>, hit: &Hit) {
        let since = (hit.received.0, UNPLACED);
        let (kind, sure) = (name.kind as usize, name.assurance);
        self.names.insert(name.id, Name { kind, parent, sure, people: false, since });
    }

    /// What a step that ties a browser to a name binds it to.
    fn tied(&self, name: LeadId, sure: Assurance) -> Bound {
        let mut names = [None; 3];
        if let Some(known) = self.names.get(&name) {
            names[known.kind] = Some(name);
        }
        Bound { origin: name, names, sure, by_step: true }
    }

    fn hear(
        &mut self,
        position: Position,
        hit: &Hit,
        claim: &Claim,
        (origin, identity): (LeadId, Assurance),
        guest: bool,
    ) {
        self.words.push(Word {
            time: hit.received.0,
            position,
            with: hit.visitor.filter(|_| !guest),
            origin,
            identity,
            attributes_by: claim.attributes_by,
            level: claim.level,
            consent: claim.consent,
            attributes: claim.attributes.clone(),
        });
    }

    fn version_at(&self, at: u64) -> &Version {
        let begun = self.versions.iter().rfind(|version| version.from <= at);
        begun.unwrap_or(&self.versions[0])
    }

    /// Adds a hit and what it matched.
    fn add_hit(
        &mut self,
        position: Position,
        hit: &Hit,
        touched: Option<LeadId>,
        verdict: &Verdict,
    ) {
        for name in self.names.values_mut().filter(|name| name.since.1 == UNPLACED) {
            name.since.1 = position;
        }
        let version = self.version_at(hit.received.0).clone();
        let rules = &version.parts.rules;
        let award = |(order, place): (usize, usize)| Award {
            when: hit.when.0,
            position,
            order: order as u16,
            rule: rules[place].id,
            category: rules[place].category,
            base: rules[place].points.0,
            source: hit.visitor,
            origin: touched.unwrap_or_default(),
            version: version.number,
            withdrawn: false,
        };
        let Some(visitor) = hit.visitor else {
            self.of_servers.extend(matched(rules, hit, None).into_iter().enumerate().map(award));
            if let Some(origin) = touched.filter(|_| hit.is_human()) {
                let (when, source, withdrawn) = (hit.when.0, None, false);
                let presence = Presence { when, position, source, origin, withdrawn };
                self.seen_by_servers.push(presence);
            }
            return;
        };
        let Some(browser) = self.browsers.get_mut(&visitor) else {
            return;
        };
        let rules_of = |number: u32| {
            let version = self.versions.iter().find(|version| version.number == number);
            version.map_or(&[][..], |version| version.parts.rules.as_slice())
        };
        let past: Vec<Then<'_>> =
            browser.past.iter().map(|past| (&past.hit, rules_of(past.version))).collect();
        let number = browser.past.len();
        let awards = matched(rules, hit, Some(&past)).into_iter().enumerate().map(award);
        let awards: Vec<_> = awards.map(|award| (award, number)).collect();
        browser.awards.extend(awards);
        let bound = browser.bound.as_ref().map(|bound| bound.origin);
        browser.add((position, hit), version.number, bound.zip(verdict.tied));
        if hit.kind == HitKind::Reset {
            browser.sever();
        }
    }

    fn merge(&mut self, goes: LeadId, stays: LeadId) {
        if self.head(stays) == Some(goes) {
            return;
        }
        if let Some(name) = self.names.get_mut(&goes).filter(|name| name.parent.is_none()) {
            (name.parent, name.sure, name.people) = (Some(stays), Assurance::Verified, true);
        }
    }

    /// Lets time pass for everybody.
    pub fn pass(&mut self, now: Timestamp) {
        for head in self.heads() {
            let life = self.life(head);
            self.pass_for(head, &life, now.0);
        }
    }

    fn hints(&self, head: LeadId) -> Vec<u64> {
        self.hints.get(&head).cloned().unwrap_or_default()
    }

    /// Acts on every moment up to now, each in its turn.
    fn pass_for(&mut self, head: LeadId, life: &Life, now: u64) {
        let published: Vec<u64> = self.versions.iter().map(|version| version.from).collect();
        let mut person = self.people.remove(&head).unwrap_or_default();
        person.pass(life, now, &self.hints(head), &published);
        self.people.insert(head, person);
    }

    /// Crosses what news at a moment changes, and tells of it; nothing, if sales answered.
    fn cross(&mut self, head: LeadId, before: &Life, now: u64, news: Option<News>) {
        let life = self.life(head);
        let mut person = self.people.remove(&head).unwrap_or_default();
        person.hear((before, &life), now, &self.hints(head), news);
        self.people.insert(head, person);
    }
}

/// Where a name stands whose record is still being taken.
const UNPLACED: Position = Position(u64::MAX);
