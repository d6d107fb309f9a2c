//! One random life of an installation: an engine under many threads, and its journal in memory.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use benches::publish_file;
use collector::config::DEFAULT_SCORING;
use collector::seal::attributes_to_bytes;
use collector::timeline::unseal_with;
use engine::attribute::{Attributes, Level};
use engine::engine::{Arrival, Engine, Ingested, Means};
use engine::hit::{Claim, Exclusion, Hit, HitKind, Named};
use engine::id::{Key, LeadId, Position, SiteId, VisitorId};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::record::{Body, FirstHit, HitRecord, Record, Step};
use engine::scoring::Scoring;
use engine::time::Timestamp;

use super::chance::Chance;

const HOUR: u64 = 3_600_000;
pub const DAY: u64 = 24 * HOUR;
pub const START: Timestamp = Timestamp(1_796_083_200_000);
/// Browsers that are seen for the first time have numbers from here on.
pub const NEW_VISITORS: Range<u64> = 100..300;
/// The installation, and the key of everybody's names.
pub const INSTALL: [u8; 16] = *b"determinism runs";
/// A stop in the middle of a step is looked for among so many records.
const CUT_WITHIN: usize = 80;
const PATHS: [&str; 11] = [
    "/column/dx",
    "/case/line",
    "/product/a",
    "/product/b",
    "/product/c",
    "/pricing",
    "/thanks/document/guide",
    "/thanks/contact",
    "/thanks/trial/a",
    "/careers",
    "/thanks/careers",
];
const EVENTS: [&str; 4] = ["download", "mail_click", "unsubscribe", "upgrade_click"];

/// How large a life is.
#[derive(Clone, Copy)]
pub struct Size {
    /// Steps of one round, over all threads.
    pub steps: u64,
    pub visitors: u64,
    pub people: u64,
    /// How often in a hundred a browser's hit is late.
    pub late_percent: u64,
    /// How late a server may tell something.
    pub server_late: u64,
}

/// Short and crowded.
pub const USUAL: Size =
    Size { steps: 90, visitors: 12, people: 4, late_percent: 25, server_late: 40 * DAY };
/// One person's, so long that the oldest rows of their ledger fold.
pub const LONG: Size =
    Size { steps: 1_500, visitors: 2, people: 1, late_percent: 1, server_late: HOUR };

/// See the module's head.
pub struct Life {
    pub size: Size,
    pub engine: Engine,
    pub records: Mutex<Vec<Vec<u8>>>,
    scoring: RwLock<Arc<Scoring>>,
    /// First hits of browsers that may come back.
    pending: Mutex<Vec<FirstHit>>,
    /// Steps that may be undone.
    pub steps: Mutex<Vec<Position>>,
    pub now: AtomicU64,
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hidden well enough for a test, and undone by the same again.
pub fn disguise(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0xa5).collect()
}

pub fn decode(bytes: &[u8]) -> Result<Record, String> {
    let mut record = Record::decode(bytes).map_err(|error| error.to_string())?;
    unseal_with(&mut record, |_, sealed| Some(disguise(sealed)));
    Ok(record)
}

pub fn replay(records: &[Vec<u8>], shards: usize) -> Result<Engine, String> {
    let engine = Engine::new(shards);
    for (index, bytes) in records.iter().enumerate() {
        engine.evolve(&decode(bytes)?, Position::new(0, index as u64 + 1));
    }
    Ok(engine)
}

pub fn browser(number: u64) -> VisitorId {
    let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    VisitorId(u128::from(high) << 64 | u128::from(number))
}

/// A name of a person: each has one of each kind.
fn name_of(kind: IdentityKind, person: u64) -> (String, LeadId) {
    let value = format!("person{person}@sample-seiki.example");
    let id = Identity::parse(kind, &value).map(|it| it.lead(&Key(INSTALL), "site"));
    (value, id.unwrap_or_default())
}

impl Life {
    pub fn new(size: Size, shards: usize, chance: &mut Chance) -> Result<Life, String> {
        let engine = Engine::new(shards);
        let (scoring, published) = publish_file(&engine, &vary(chance), START)?;
        let life = Life {
            engine,
            size,
            records: Mutex::default(),
            scoring: RwLock::new(Arc::new(scoring)),
            pending: Mutex::default(),
            steps: Mutex::default(),
            now: AtomicU64::new(START.0),
        };
        life.engine.publish(published, START, &mut |record| life.push(record));
        Ok(life)
    }

    pub fn push(&self, record: &Record) -> Position {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let mut records = locked(&self.records);
        records.push(bytes);
        Position::new(0, records.len() as u64)
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    pub fn scoring(&self) -> Arc<Scoring> {
        Arc::clone(&self.scoring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One version more, of other rules, lines and half-lives.
    fn publish(&self, chance: &mut Chance) -> Result<(), String> {
        let (scoring, published) = publish_file(&self.engine, &vary(chance), self.now())?;
        self.engine.publish(published, self.now(), &mut |record| self.push(record));
        *self.scoring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(scoring);
        self.engine.rebuild_timers(&self.scoring());
        Ok(())
    }

    /// One of several threads at once; the first also turns the clock and changes the rules.
    pub fn work(&self, steps: u64, is_first: bool, chance: &mut Chance) -> Result<(), String> {
        for _ in 0..steps {
            let now = self.now.fetch_add(chance.below(HOUR / 2), Ordering::SeqCst);
            let now = Timestamp(now);
            match chance.below(40) {
                0 if is_first => self.publish(chance)?,
                0..4 => {
                    self.engine.advance(now, &self.scoring(), &mut |record| self.push(record));
                }
                4 => self.engine.sweep(now),
                5..9 => self.record_first(now, chance),
                9..13 => self.admit(now, chance),
                13..19 => self.take_step(now, chance)?,
                _ => self.ingest(Arrival { hit: self.random_hit(now, chance), first: None }),
            }
        }
        Ok(())
    }

    /// Under the rules in force, whoever changes them meanwhile.
    fn ingest(&self, mut arrival: Arrival) {
        let push = &mut |record: &Record| self.push(record);
        while let Ingested::Stale(again) = self.engine.ingest(arrival, &self.scoring(), push) {
            arrival = *again;
            thread::yield_now();
        }
    }

    /// A browser never seen: its hit is only recorded.
    fn record_first(&self, now: Timestamp, chance: &mut Chance) {
        let mut hit = self.random_hit(now, chance);
        hit.visitor = Some(browser(NEW_VISITORS.start + chance.below(200)));
        let body = Body::Hit(Box::new(HitRecord { hit: hit.clone(), ..HitRecord::default() }));
        let position = self.push(&Record { time: now, version: self.scoring().version, body });
        locked(&self.pending).push(FirstHit { position, hit });
    }

    /// A browser that comes back, sometimes in two tabs at once.
    fn admit(&self, now: Timestamp, chance: &mut Chance) {
        let first = {
            let mut pending = locked(&self.pending);
            let count = pending.len() as u64;
            let place = chance.below(count.max(1)) as usize;
            if chance.percent(30) { pending.get(place).cloned() } else { pending.pop() }
        };
        let mut hit = self.random_hit(now, chance);
        hit.visitor = first.as_ref().map_or(hit.visitor, |first| first.hit.visitor);
        self.ingest(Arrival { hit, first });
    }

    fn random_hit(&self, now: Timestamp, chance: &mut Chance) -> Hit {
        let late = if chance.percent(self.size.late_percent) { chance.below(DAY) } else { 0 };
        let mut hit = Hit {
            site: SiteId(chance.below(2) as u16),
            visitor: Some(browser(chance.below(self.size.visitors))),
            received: now,
            when: now.minus(Duration::from_millis(late)),
            path: chance.pick(&PATHS).to_owned(),
            title: "料金".into(),
            network: "192.0.2.0/24".into(),
            agent: "chrome windows".into(),
            id: chance.below(4_000),
            page: chance.below(20),
            authenticated: chance.percent(5),
            via_our_link: chance.percent(5),
            silent: chance.percent(5),
            excluded: chance.percent(3).then_some(Exclusion::Robot),
            ..Hit::default()
        };
        match chance.below(20) {
            0..10 => {}
            10..13 => {
                hit.kind = HitKind::Engagement;
                hit.engaged_ms = chance.below(120_000) as u32;
            }
            13 | 14 => {
                hit.kind = HitKind::Event;
                chance.pick(&EVENTS).clone_into(&mut hit.event);
            }
            15 if self.size.people > 1 => hit.kind = HitKind::Reset,
            16..18 => {
                hit.kind = HitKind::Identify;
                hit.claim = Some(self.claim(false, chance));
            }
            _ => {
                // A server tells, perhaps late, what a person did; of a browser or of none.
                hit.by_server = true;
                hit.kind = HitKind::Event;
                chance.pick(&EVENTS).clone_into(&mut hit.event);
                hit.claim = Some(self.claim(true, chance));
                hit.when = now.minus(Duration::from_millis(chance.below(self.size.server_late)));
                hit.visitor = hit.visitor.filter(|_| chance.percent(30));
            }
        }
        hit
    }

    /// Who somebody is, by one name or several; now and then some of them another person's.
    fn claim(&self, by_server: bool, chance: &mut Chance) -> Claim {
        let signed = !by_server && chance.percent(20);
        let by_link = !by_server && chance.percent(10);
        let person = chance.below(self.size.people);
        let mut kinds = IdentityKind::ORDER.to_vec();
        let several = self.size.people > 1 && !by_link && chance.percent(30);
        let wanted = if several { 2 + chance.below(2) } else { 1 };
        while kinds.len() as u64 > wanted {
            let last = kinds.len() - 1;
            // An address is the commonest name.
            let place = if self.size.people > 1 { chance.below(4) as usize } else { 0 };
            kinds.remove(place.min(last.saturating_sub(1)));
        }
        let mut claim = Claim {
            consent: chance.percent(20).then(|| chance.percent(70)),
            level: if by_server && chance.percent(20) { Level::Company } else { Level::Person },
            kiosk: !by_server && chance.percent(5),
            by_link,
            ..Claim::default()
        };
        let mut attributes = Attributes::new();
        for (place, kind) in kinds.into_iter().enumerate() {
            let other = place > 0 && chance.percent(10);
            let whose = if other { chance.below(self.size.people) } else { person };
            let (value, id) = name_of(kind, whose);
            let proved = by_server || by_link || signed && place == 0;
            let assurance = if proved { Assurance::Verified } else { Assurance::Claimed };
            claim.names.push(Named { kind, id, assurance });
            attributes.insert(kind.name().to_owned(), value);
        }
        let title = ["部長", "課長", "Director"][chance.below(3) as usize];
        attributes.insert("title".to_owned(), title.to_owned());
        if by_server || by_link {
            claim.attributes_by = Assurance::Verified;
        }
        claim.sealed = disguise(&attributes_to_bytes(&attributes));
        claim.attributes = attributes;
        claim
    }

    /// A name of somebody.
    pub fn random_name(&self, chance: &mut Chance) -> LeadId {
        let kind = IdentityKind::ORDER[chance.below(3) as usize];
        name_of(kind, chance.below(self.size.people)).1
    }

    /// The process is gone, perhaps with the end of the journal, which nobody was told of; the
    /// next one knows what the journal says, and carries on with what was cut off.
    pub fn restart(&mut self, shards: usize, chance: &mut Chance) -> Result<(), String> {
        let lost = chance.percent(50) && self.lose_the_end(chance)?;
        let recovered = replay(&locked(&self.records), shards)?;
        let (before, after) =
            (self.engine.state_hash(self.now()), recovered.state_hash(self.now()));
        if before != after && !lost {
            return Err(format!("recovery with {shards} shards: {before:032x} {after:032x}"));
        }
        self.engine = recovered;
        let version = self.engine.catalog().version();
        if version == self.scoring().version {
            self.engine.rebuild_timers(&self.scoring());
        } else {
            self.publish(chance)?;
        }
        let (scoring, now) = (self.scoring(), self.now());
        let mut push = |record: &Record| self.push(record);
        self.engine.resume(&mut Means { scoring: &scoring, now, push: &mut push });
        self.nothing_is_on_its_way()
    }

    /// The last records were not durable: as likely as not, the process stopped within a step.
    fn lose_the_end(&mut self, chance: &mut Chance) -> Result<bool, String> {
        let mut records = locked(&self.records);
        let within = records.len().saturating_sub(CUT_WITHIN).max(1);
        let mut places = Vec::new();
        for (place, bytes) in records.iter().enumerate().skip(within) {
            if let Body::Step(step) = decode(bytes)?.body {
                let moves = matches!(
                    step.step,
                    Step::MergeAway { .. }
                        | Step::Restore { .. }
                        | Step::Split { .. }
                        | Step::TakeIn(_)
                );
                places.extend(moves.then_some(place + 1));
            }
        }
        let few = records.len() - chance.below(20.min(records.len() as u64 - 1)) as usize;
        let place = places.get(chance.below(places.len().max(1) as u64) as usize);
        let keep = place.filter(|_| chance.percent(60)).copied().unwrap_or(few);
        let lost = keep < records.len();
        records.truncate(keep);
        let kept = |position: Position| position.ordinal() <= keep as u64;
        locked(&self.pending).retain(|first| kept(first.position));
        locked(&self.steps).retain(|step| kept(*step));
        Ok(lost)
    }

    fn nothing_is_on_its_way(&self) -> Result<(), String> {
        for kind in IdentityKind::ORDER {
            for person in 0..self.size.people {
                let (_, id) = name_of(kind, person);
                let Some(entry) = self.engine.entry(id) else {
                    continue;
                };
                let (sends, waits) = (entry.outgoing.as_ref().map(|it| it.to), entry.awaits);
                if sends.is_some() || waits.is_some() || entry.arriving.is_some() {
                    return Err(format!(
                        "after a start {id} still sends to {sends:?}, waits for {waits:?} or has \
                         half of what it gets"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A rule file with other numbers: points, half-lives, lines, limits; sometimes fewer rules.
fn vary(chance: &mut Chance) -> String {
    let mut text = DEFAULT_SCORING.to_owned();
    let mut edit = |from: &str, to: &str| {
        if chance.percent(40) {
            text = text.replacen(from, to, 1);
        }
    };
    edit("half_life = \"14d\", max = 80", "half_life = \"9d\", max = 45");
    edit("half_life = \"30d\", max = 50", "half_life = \"21d\", max = 30");
    edit("total_max  = 100", "total_max  = 70");
    edit("\nmax  = 80", "\nmax  = 25");
    edit("rise = 60, fall = 40, dwell = \"24h\"", "rise = 45, fall = 25, dwell = \"2h\"");
    edit("category = \"intent\", max = 36", "category = \"interest\", max = 20");
    edit("  { id = \"compared\"", "  # { id = \"compared\"");
    edit("id = \"document\", points = 20", "id = \"document\", points = 35");
    edit("id = \"event\", points = 15", "id = \"event\", on_remove = \"withdraw\", points = 15");
    edit("  { id = \"event\"", "  # { id = \"event\"");
    edit(
        "id = \"case\", points = 4",
        "id = \"case\", only = { attribute = \"title\", has = [\"部長\"] }, points = 4",
    );
    text
}
