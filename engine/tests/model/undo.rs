//! Random histories in which steps are undone, held against the naive model's word on the same
//! histories without them (law 4). Nothing here decides anything: `generate` makes things
//! happen, `compare` looks.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::engine::StepError;
use engine::facts::Source;
use engine::hit::{Hit, HitKind};
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::Assurance;
use engine::points::Points;
use engine::record::{Body, Published, Record, Step, StepRecord, Withdrawn};
use engine::rule::OnRemove;
use engine::sales::SalesRules;
use engine::stage::FeedbackKind;

use super::chance::Chance;
use super::claims::random_hit;
use super::compare::{alike, owned_once, replays_alike};
use super::oracle::{Entry, Oracle};
use super::rules::{DAY, Parts, example, mixed};
use super::sales::{Answer, random_answer};
use super::world::{World, at, browser, withdraw};

/// Browsers of a history.
pub const BROWSERS: u64 = 3;
/// Links and unlinkings of one browser: more than so many about one hit cannot be undone.
const STEPS_MAX: usize = 7;

/// What a history came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub hits: usize,
    pub steps: usize,
    /// What sales answered.
    pub answers: usize,
    /// Steps undone, with everything as if they had never been.
    pub undone: usize,
    /// Steps that were not undone: something that was said meanwhile meant something else
    /// because of them, or another step stands on them.
    pub left: usize,
    /// Times that engine and model were held against each other.
    pub compared: usize,
    /// People erased, and all as if they had never come.
    pub erased: usize,
}

impl std::ops::AddAssign for Checked {
    fn add_assign(&mut self, other: Checked) {
        self.hits += other.hits;
        self.steps += other.steps;
        self.answers += other.answers;
        self.undone += other.undone;
        self.left += other.left;
        self.compared += other.compared;
        self.erased += other.erased;
    }
}

/// One history from a seed, with every step of it checked; or what is wrong, and with which seed.
pub fn history(seed: u64) -> Result<Checked, String> {
    lived(History::new(seed), seed)
}

/// The same, and people are erased in it.
pub fn history_with_erasures(seed: u64) -> Result<Checked, String> {
    lived(History { erasing: true, ..History::new(seed) }, seed)
}

fn lived(mut history: History, seed: u64) -> Result<Checked, String> {
    let steps = 50 + history.chance.below(40);
    let lived = (0..steps).try_for_each(|_| history.act()).and_then(|()| history.end());
    lived.map_err(|what| format!("seed {seed}: {what}"))?;
    Ok(history.checked)
}

/// Something that happened, and whether it was undone since.
#[derive(Debug)]
struct Logged {
    entry: Entry,
    /// The record of the step, if it is one.
    step: Option<(Position, StepRecord)>,
    undone: bool,
    /// It was about somebody who was erased since, and cannot be undone any more.
    frozen: bool,
}

struct History {
    world: World,
    chance: Chance,
    parts: Parts,
    first: Parts,
    version: u32,
    log: Vec<Logged>,
    /// How much of the journal was looked at.
    read: usize,
    /// What cannot go back: of every name, the number of each line and the last message's.
    facts: BTreeMap<LeadId, (Vec<(u8, u32)>, u32)>,
    checked: Checked,
    erasing: bool,
}

impl History {
    fn new(seed: u64) -> History {
        let mut chance = Chance::new(seed);
        let mut parts = if seed.is_multiple_of(2) { example() } else { mixed() };
        if !seed.is_multiple_of(3) {
            parts = parts.with_sales();
        }
        for rule in &mut parts.rules {
            rule.on_remove = if chance.percent(40) { OnRemove::Withdraw } else { OnRemove::Keep };
        }
        let mut world = World::new(parts.build(1));
        world.to(at("2026-12-01 09:00"));
        History {
            world,
            chance,
            first: parts.clone(),
            parts,
            version: 1,
            log: Vec::new(),
            read: 0,
            facts: BTreeMap::new(),
            checked: Checked::default(),
            erasing: false,
        }
    }

    /// Lets something happen.
    fn act(&mut self) -> Result<(), String> {
        self.pass_time();
        if self.erasing && self.chance.percent(6) {
            return self.erase();
        }
        match self.chance.below(100) {
            0..66 => self.hit(),
            66..71 => return self.link(),
            71..75 => return self.unlink(),
            75..79 => return self.merge(),
            79..82 => return self.unmerge(),
            82..86 => self.withdraw(),
            86..88 => self.publish(),
            88..92 if self.is_selling() => return self.answer(),
            _ => return self.undo(),
        }
        Ok(())
    }

    /// Mostly soon, sometimes after weeks; time is acted on at every instant, or only then.
    fn pass_time(&mut self) {
        let most = match self.chance.below(20) {
            0..9 => 1_200_000,
            9..14 => 3_600_000,
            14..19 => 2 * 86_400_000,
            _ => 12 * 86_400_000,
        };
        let now = self.world.now().plus(Duration::from_millis(1 + self.chance.below(most)));
        if self.chance.percent(60) {
            self.world.to(now);
        } else {
            self.world.skip_to(now);
        }
    }

    /// The model's word on what happened and was not undone, perhaps also without one step more.
    fn oracle(&self, without: Option<usize>) -> Oracle {
        let mut oracle = Oracle::new(&self.first, BTreeMap::new());
        let standing = self.log.iter().enumerate();
        let standing = standing.filter(|(place, it)| !it.undone && Some(*place) != without);
        oracle.take_all(standing.map(|(_, logged)| &logged.entry));
        oracle
    }

    /// Logs what is done, and the joinings that statements have brought about besides.
    fn log(&mut self, entry: Option<Entry>, step: Option<Position>) {
        let records: Vec<(Position, Record)> = self.world.journal.records_from(self.read).collect();
        self.read = self.world.journal.0.len();
        if let Some(entry) = entry {
            let own = records.iter().find(|(position, _)| Some(*position) == step);
            let step = own.and_then(|(position, record)| Some((*position, as_step(record)?)));
            self.log.push(Logged { entry, step, undone: false, frozen: false });
            return;
        }
        for (position, record) in records {
            let entry = match &record.body {
                Body::Hit(record) => Entry::Hit { position, hit: record.hit.clone() },
                Body::Step(record) => match (&record.step, &record.lead) {
                    (Step::MergeAway(joint), Some(part)) if joint.people => {
                        Entry::Merge { goes: part.lead, stays: joint.under }
                    }
                    _ => continue,
                },
                _ => continue,
            };
            let step = as_step(&record).map(|step| (position, step));
            self.log.push(Logged { entry, step, undone: false, frozen: false });
        }
    }

    fn hit(&mut self) {
        let hit = random_hit(&mut self.chance, self.world.now());
        self.world.ingest(hit);
        self.checked.hits += 1;
        self.log(None, None);
    }

    /// Links and unlinkings of a browser so far.
    fn steps_of(&self, visitor: VisitorId) -> usize {
        let of_it = |logged: &&Logged| match &logged.entry {
            Entry::Link { visitor: of, .. } | Entry::Unlink { visitor: of, .. } => *of == visitor,
            _ => false,
        };
        self.log.iter().filter(of_it).count()
    }

    fn some_name(&mut self, oracle: &Oracle) -> Option<LeadId> {
        let names: Vec<LeadId> = oracle.all_names();
        (!names.is_empty()).then(|| *self.chance.pick(&names))
    }

    fn link(&mut self) -> Result<(), String> {
        let (oracle, visitor) = (self.oracle(None), browser(self.chance.below(BROWSERS)));
        let few = self.steps_of(visitor) < STEPS_MAX;
        let Some(name) = self.some_name(&oracle).filter(|_| few) else {
            return Ok(());
        };
        let sure = if self.chance.percent(50) { Assurance::Verified } else { Assurance::Claimed };
        let free = oracle.hits_of(visitor).into_iter().filter(|(_, owner)| owner.is_none());
        let hits: Vec<Position> = free.map(|(position, _)| position).collect();
        let done =
            self.world.step(|engine, why, means| engine.link(visitor, name, sure, why, means));
        is_done(&done, !hits.is_empty(), "a link")?;
        if let Ok(position) = done {
            self.checked.steps += 1;
            self.log(Some(Entry::Link { visitor, name, hits, sure }), Some(position));
        }
        Ok(())
    }

    fn unlink(&mut self) -> Result<(), String> {
        let (oracle, visitor) = (self.oracle(None), browser(self.chance.below(BROWSERS)));
        let few = self.steps_of(visitor) < STEPS_MAX;
        let name = self.some_name(&oracle).filter(|_| few);
        let Some((name, head)) = name.and_then(|name| Some((name, oracle.head(name)?))) else {
            return Ok(());
        };
        let owned = oracle.hits_of(visitor).into_iter().filter_map(|(position, owner)| {
            Some((position, owner.filter(|owner| oracle.head(*owner) == Some(head))?))
        });
        let hits: Vec<(Position, LeadId)> = owned.collect();
        let bound = oracle.bound_to(visitor, head);
        let done = self.world.step(|engine, why, means| engine.unlink(visitor, name, why, means));
        is_done(&done, !hits.is_empty(), "an unlinking")?;
        if let Ok(position) = done {
            self.checked.steps += 1;
            self.log(Some(Entry::Unlink { visitor, hits, bound }), Some(position));
        }
        Ok(())
    }

    fn merge(&mut self) -> Result<(), String> {
        let oracle = self.oracle(None);
        let (Some(one), Some(other)) = (self.some_name(&oracle), self.some_name(&oracle)) else {
            return Ok(());
        };
        let done = self.world.step(|engine, why, means| engine.merge(one, other, why, means));
        let heads = [oracle.head(one), oracle.head(other)];
        is_done(&done, heads[0] != heads[1], "a joining")?;
        if let Ok((_, stays)) = done {
            is_done(&done, heads.contains(&Some(stays)), "a joining into a head")?;
            self.checked.steps += 1;
            self.log(None, None);
        }
        Ok(())
    }

    fn unmerge(&mut self) -> Result<(), String> {
        let oracle = self.oracle(None);
        let Some(name) = self.some_name(&oracle) else {
            return Ok(());
        };
        let done = self.world.step(|engine, why, means| engine.unmerge(name, why, means));
        is_done(&done, oracle.head(name) != Some(name), "a parting")?;
        if let Ok((position, _)) = done {
            self.checked.steps += 1;
            self.log(Some(Entry::Unmerge { name }), Some(position));
        }
        Ok(())
    }

    /// Hits of one source, of all time or of some hours, are withdrawn.
    fn withdraw(&mut self) {
        let source = match self.chance.below(BROWSERS + 1) {
            0 => None,
            number => Some(browser(number - 1)),
        };
        let most = if self.chance.percent(50) { u64::MAX } else { 48 * 3_600_000 };
        let until = self.world.now().0.saturating_sub(self.chance.below(200) * 3_600_000);
        let within = |hit: &Hit| hit.when.0 <= until && until - hit.when.0 <= most;
        let mut hits = Vec::new();
        for logged in &self.log {
            if let Entry::Hit { position, hit } = &logged.entry
                && hit.visitor == source
                && within(hit)
                && (source.is_some() || hit.claim.is_some())
            {
                hits.push(*position);
            }
        }
        if hits.is_empty() {
            return;
        }
        self.checked.steps += 1;
        self.set_withdrawn(&hits, true);
        self.log(Some(Entry::Withdraw { hits, out: true }), None);
    }

    /// Marks hits as withdrawn or not, in the ledger of the browser and in those of whose they
    /// are.
    fn set_withdrawn(&mut self, positions: &[Position], out: bool) {
        let mut all = Vec::new();
        for logged in &self.log {
            if let Entry::Hit { position, hit } = &logged.entry
                && positions.contains(position)
            {
                all.push(withdrawn(*position, hit, out));
            }
        }
        let mut visitors: Vec<VisitorId> =
            all.iter().filter_map(|hit| visitor_of(hit.source)).collect();
        visitors.sort_unstable();
        visitors.dedup();
        for visitor in visitors {
            let own: Vec<Withdrawn> =
                all.iter().filter(|hit| visitor_of(hit.source) == Some(visitor)).copied().collect();
            self.world.step(|engine, why, means| {
                withdraw(engine, visitor, &own, (Position::NONE, why), means);
            });
        }
        let mut by_lead: BTreeMap<LeadId, Vec<Withdrawn>> = BTreeMap::new();
        for hit in all.into_iter().filter(|hit| hit.source == Source::Server) {
            by_lead.entry(hit.origin).or_default().push(hit);
        }
        for (lead, own) in by_lead {
            self.world.step(|engine, why, means| {
                engine.withdraw_lead(lead, &own, Position::NONE, why, means)
            });
        }
    }

    /// Whether sales answers here.
    fn is_selling(&self) -> bool {
        self.first.sales.accept_within.is_some()
    }

    /// Sales answers about somebody, by any of their names. What is recorded is fact.
    fn answer(&mut self) -> Result<(), String> {
        let oracle = self.oracle(None);
        let Some(name) = self.some_name(&oracle) else {
            return Ok(());
        };
        let answer = random_answer(&mut self.chance, name, self.world.now());
        let kind = answer.kind;
        let done = self.world.step(|engine, _, means| engine.answer(name, answer, means));
        let done = done.map_err(|error| format!("an answer about {name}: {error}"))?;
        if done.unheard.is_some() {
            return Ok(());
        }
        self.checked.answers += 1;
        let records: Vec<(Position, Record)> = self.world.journal.records_from(self.read).collect();
        let own = records.iter().find(|(position, _)| *position == done.position);
        let step = own.and_then(|(_, record)| Some((record.time, as_step(record)?.step)));
        let Some((time, Step::Feedback(feedback))) = step else {
            return Err(format!("no answer is recorded at {:?}", done.position));
        };
        let vouches = oracle.vouched(kind, name);
        let answer = Answer { vouches, ..Answer::of(&feedback, time, done.position) };
        self.log(Some(Entry::Answer(Box::new(answer))), None);
        Ok(())
    }

    /// Somebody is erased whose browsers are nobody else's: as if they had never come.
    fn erase(&mut self) -> Result<(), String> {
        let oracle = self.oracle(None);
        let known = self.some_name(&oracle);
        let Some((name, (mut names, browsers))) =
            known.and_then(|name| Some((name, oracle.alone(name)?)))
        else {
            return Ok(());
        };
        // The model keeps no words that others have replaced on a browser; the engine does.
        let now = self.world.now();
        let on_others = (0..BROWSERS).map(browser).filter(|it| !browsers.contains(it)).any(|it| {
            let held = self.world.engine.visitor(it, now);
            held.is_some_and(|held| names.iter().any(|name| held.named_ones().contains(name)))
        });
        if on_others {
            return Ok(());
        }
        let done = self.world.step(|engine, why, means| engine.erase(name, why, means));
        let mut done = done.map_err(|error| format!("{name} is not erased: {error}"))?;
        names.sort_unstable();
        done.names.sort_unstable();
        if (&done.names, &done.browsers) != (&names, &browsers) {
            return Err(format!("erased: {done:?}, and not {names:?} on {browsers:?}"));
        }
        for logged in &mut self.log {
            logged.frozen |= concerns(logged, &names, &browsers);
        }
        for name in &names {
            // Messages are counted on; lines are crossed for the first time again.
            self.facts.entry(*name).and_modify(|known| known.0.clear());
        }
        self.checked.erased += 1;
        self.log(Some(Entry::Erase { names, browsers }), None);
        self.check(&format!("after erasing {name}"))
    }

    /// The next version of the scoring has other points, lines, half-lives and fit.
    fn publish(&mut self) {
        self.version += 1;
        self.parts = changed(&mut self.chance, &self.first);
        let now = self.world.now();
        let scoring = self.parts.build_after(&self.world.scoring.versions, self.version, now);
        let terms = scoring.terms().clone();
        let published = Published { names: Vec::new(), terms, text: Vec::new() };
        let World { engine, journal, .. } = &mut self.world;
        engine.publish(published, now, &mut |record| journal.push(record));
        engine.rebuild_timers(&scoring);
        self.world.scoring = scoring;
        let parts = Box::new(self.parts.clone());
        self.log(Some(Entry::Publish { from: now.0, parts }), None);
    }

    /// Undoes an earlier step, unless something that was said since meant something else
    /// because of it: what was said then stays said.
    fn undo(&mut self) -> Result<(), String> {
        let undoable = |it: &Logged| {
            let is_step = it.step.is_some() || matches!(it.entry, Entry::Withdraw { .. });
            is_step && !it.undone && !it.frozen
        };
        let places: Vec<usize> =
            (0..self.log.len()).filter(|place| undoable(&self.log[*place])).collect();
        if places.is_empty() {
            return Ok(());
        }
        let place = *self.chance.pick(&places);
        if self.oracle(None).verdicts != self.oracle(Some(place)).verdicts {
            self.checked.left += 1;
            return Ok(());
        }
        if let Entry::Withdraw { hits, .. } = &self.log[place].entry {
            let again = self.withdrawn_without(place);
            let back: Vec<Position> =
                hits.iter().filter(|hit| !again.contains(hit)).copied().collect();
            self.set_withdrawn(&back, false);
        } else if let Some((position, record)) = self.log[place].step.clone() {
            let done =
                self.world.step(|engine, why, means| engine.undo((&record, position), why, means));
            if done == Err(StepError::NotUndoable) && self.is_built_on(place) {
                self.checked.left += 1;
                return Ok(());
            }
            done.map_err(|error| format!("{:?} is not undone: {error}", self.log[place].entry))?;
        }
        self.read = self.world.journal.0.len();
        self.log[place].undone = true;
        self.checked.undone += 1;
        self.check(&format!("after undoing {:?}", self.log[place].entry))
    }

    /// Hits that are withdrawn by other withdrawals than this one.
    fn withdrawn_without(&self, place: usize) -> Vec<Position> {
        let mut all = Vec::new();
        for (other, logged) in self.log.iter().enumerate() {
            if let Entry::Withdraw { hits, .. } = &logged.entry
                && other != place
                && !logged.undone
            {
                all.extend_from_slice(hits);
            }
        }
        all
    }

    /// Whether a later step that stands moved the same name.
    fn is_built_on(&self, place: usize) -> bool {
        let name = match &self.log[place].entry {
            Entry::Merge { goes, .. } => *goes,
            Entry::Unmerge { name } => *name,
            _ => return false,
        };
        let later = self.log[place + 1..].iter().filter(|logged| !logged.undone);
        let moves = later.map(|logged| match &logged.entry {
            Entry::Merge { goes, .. } => *goes == name,
            Entry::Unmerge { name: other } => *other == name,
            _ => false,
        });
        let circle = self.oracle(Some(place));
        let same = self.oracle(None).heads().len() == circle.heads().len();
        moves.into_iter().any(|moved| moved) || same
    }

    /// Facts stay, names resolve, and everything derived is what the model says.
    fn check(&mut self, what: &str) -> Result<(), String> {
        let now = self.world.now();
        self.world.to(now);
        self.checked.compared += 1;
        let oracle = self.oracle(None);
        alike(&self.world, &oracle, now)
            .and_then(|()| owned_once(&self.world, &oracle))
            .and_then(|()| self.facts_stay(&oracle))
            .map_err(|wrong| format!("{what}: {wrong}"))
    }

    fn facts_stay(&mut self, oracle: &Oracle) -> Result<(), String> {
        for name in oracle.all_names() {
            let Some(entry) = self.world.engine.entry(name) else {
                return Err(format!("{name} is lost"));
            };
            let numbers: Vec<(u8, u32)> =
                entry.bands.iter().map(|band| (band.threshold().0, band.number)).collect();
            let known = self.facts.entry(name).or_default();
            let less = known.0.iter().any(|(line, number)| {
                let now = numbers.iter().find(|(other, _)| other == line);
                now.is_none_or(|(_, now)| now < number)
            });
            if less || entry.sequence < known.1 {
                return Err(format!("{name}: {known:?} went back to {numbers:?}"));
            }
            *known = (numbers, entry.sequence);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        self.check("at the end")?;
        let later = self.world.now().plus(Duration::from_hours(24 * 40));
        self.world.to(later);
        self.check("forty days later")?;
        replays_alike(&self.world)
    }
}

/// A step must be done if there is something for it to do, and only then.
fn is_done<T: std::fmt::Debug>(
    done: &Result<T, StepError>,
    expected: bool,
    what: &str,
) -> Result<(), String> {
    if done.is_ok() == expected { Ok(()) } else { Err(format!("{what}: {done:?}")) }
}

/// Whether a step moved anything of some people, or on some browsers. A withdrawal may have.
fn concerns(logged: &Logged, names: &[LeadId], browsers: &[VisitorId]) -> bool {
    let step = logged.step.as_ref().map(|(_, record)| &record.step);
    if let Some(Step::Restore { from, was }) = step
        && [from, &was.under].iter().any(|name| names.contains(name))
    {
        // Whose name it was is nobody.
        return true;
    }
    match &logged.entry {
        Entry::Link { visitor, name, .. } => browsers.contains(visitor) || names.contains(name),
        Entry::Unlink { visitor, hits, bound } => {
            let mut from = hits.iter().map(|(_, from)| from).chain(bound);
            browsers.contains(visitor) || from.any(|name| names.contains(name))
        }
        Entry::Merge { goes, stays } => names.contains(goes) || names.contains(stays),
        Entry::Unmerge { name } => names.contains(name),
        Entry::Withdraw { .. } => true,
        Entry::Hit { .. } | Entry::Publish { .. } | Entry::Answer(_) | Entry::Erase { .. } => false,
    }
}

fn as_step(record: &Record) -> Option<StepRecord> {
    match &record.body {
        Body::Step(step) => Some((**step).clone()),
        _ => None,
    }
}

fn visitor_of(source: Source) -> Option<VisitorId> {
    match source {
        Source::Server => None,
        Source::Visitor(visitor) => Some(visitor),
    }
}

fn withdrawn(position: Position, hit: &Hit, out: bool) -> Withdrawn {
    let server = hit.visitor.is_none();
    let named = hit.claim.as_ref().and_then(|claim| claim.first()).filter(|_| server);
    Withdrawn {
        position,
        when: hit.when,
        source: hit.visitor.map_or(Source::Server, Source::Visitor),
        origin: named.map(|name| name.id).unwrap_or_default(),
        human: hit.is_human() && hit.kind != HitKind::Reset,
        out,
    }
}

/// Other rules than the first ones.
fn changed(chance: &mut Chance, first: &Parts) -> Parts {
    let mut parts = first.clone();
    for rule in &mut parts.rules {
        if chance.percent(30) {
            rule.points = Points(rule.points.0 * (1 + chance.below(3) as i64));
        }
    }
    for _ in 0..chance.below(4) {
        let gone = chance.below(parts.rules.len() as u64) as usize;
        parts.rules.remove(gone);
    }
    for line in &mut parts.thresholds {
        if chance.percent(40) {
            let by = chance.below(24) as i64 * 1_000 - 12_000;
            (line.rise.0, line.fall.0) = (line.rise.0 + by, line.fall.0 + by);
        }
    }
    if chance.percent(30) {
        let gone = chance.below(parts.thresholds.len() as u64) as usize;
        parts.thresholds.remove(gone);
    }
    for category in &mut parts.categories {
        if chance.percent(30) {
            let hours = [20, 90, 336, 400, 720][chance.below(5) as usize];
            category.half_life = engine::decay::HalfLife::from_millis(hours * 3_600_000).unwrap();
        }
        category.in_total ^= chance.percent(10);
    }
    if chance.percent(30) {
        parts.fit.lines = [50, 30, 10].map(Points::whole);
    }
    change_sales(chance, &mut parts.sales);
    if chance.percent(30) {
        parts.claims_max = chance.percent(70).then(|| Points::whole(chance.below(60) as i64));
    }
    parts
}

fn change_sales(chance: &mut Chance, sales: &mut SalesRules) {
    if sales.accept_within.is_none() {
        return;
    }
    if chance.percent(30) {
        let points = |points| Points::whole(points);
        sales.points = vec![
            (FeedbackKind::Accepted, points(5)),
            (FeedbackKind::Lost, points(-7)),
            (FeedbackKind::Recycle, points(12)),
        ];
    }
    if chance.percent(20) {
        sales.lost = None;
    }
    if chance.percent(20) {
        sales.rejected = Some((Points::whole(40), 5 * DAY));
    }
}
