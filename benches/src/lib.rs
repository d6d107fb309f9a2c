//! A site in memory for benchmarks: an engine with the shipped rules, and more of them where
//! asked, visitors who came before, and hits from a seed. Records are encoded as for the journal,
//! and given positions; no disk takes part.

pub mod matching;
pub mod rounds;

use std::sync::atomic::{AtomicU64, Ordering};

use collector::config::{
    Around, DEFAULT_SCORING, NameKind as ConfiguredKind, ScoringFile, Surroundings,
};
use engine::attribute::Attributes;
use engine::catalog::Catalog;
use engine::engine::{Arrival, Engine, Ingested, SHARDS_DEFAULT, Turn};
use engine::hit::{Claim, Hit, HitKind, Named};
use engine::id::{LeadId, Position, SiteId, Slot, VisitorId};
use engine::identity::{Assurance, IdentityKind};
use engine::lead::Unseal;
use engine::record::{FirstHit, NameKind, Published, Record};
use engine::scoring::Scoring;
use engine::snapshot::{FORM, SavedSlot, SlotReader};
use engine::time::Timestamp;

/// When the site is at its beginning: 1 December 2026, 0:00 in Japan.
pub const START: Timestamp = Timestamp(1_796_050_800_000);
/// The half of the site's pages that nobody earns anything with, as on real sites, and the rest.
const PATHS: [&str; 12] = [
    "/",
    "/news",
    "/company",
    "/library",
    "/support",
    "/partners",
    "/column/dx",
    "/column/ai",
    "/case/line",
    "/product/a",
    "/product/b",
    "/pricing",
];
/// Earns points under the shipped rules, again and again.
pub const EARNING: &str = "/column/dx";

/// A number of all bits from another one, the same in every run (SplitMix64).
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The text of the shipped rules with so many more: whole subtrees, globs of one segment, globs
/// within segments and events, 8, 5, 3 and 4 of twenty. Few of them match what is browsed.
pub fn rules_text(more: usize) -> String {
    let rule = |number: usize| {
        let topic = number / 4;
        let when = match number % 20 {
            0..8 => format!("path = \"/column/topic-{topic}/**\""),
            8..13 => format!("path = \"/product/*/item-{topic}\""),
            13..16 => format!("path = \"/library/to*-{topic}/*-{}\"", topic % 7),
            _ => format!("event = \"event_{number}\""),
        };
        format!(
            "  {{ id = \"more_{number}\", points = 1, ja = \"規則\", en = \"Rule\", \
             category = \"interest\", max = 6, when = {{ {when} }} }},\n"
        )
    };
    let more: String = (0..more).map(rule).collect();
    DEFAULT_SCORING.replacen("\n]\n\n[fit]", &format!("\n{more}]\n\n[fit]"), 1)
}

/// The next version of an engine's rules, made of a file.
pub fn publish_file(
    engine: &Engine,
    text: &str,
    now: Timestamp,
) -> Result<(Scoring, Published), String> {
    let surroundings = Surroundings::default();
    let around = Around { surroundings: &surroundings, settings: None };
    let file = ScoringFile::parse("scoring.toml", text, around).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    let (catalog, mut names) = (engine.catalog(), Vec::new());
    let after = catalog.versions.latest().map(|terms| Timestamp(terms.published.0 + 1));
    let version = (catalog.version() + 1, now.max(after.unwrap_or_default()));
    let scoring = file.publish(&catalog.versions, version, &mut |kind, name| {
        let kind = match kind {
            ConfiguredKind::Rule => NameKind::Rule,
            ConfiguredKind::Category => NameKind::Category,
            ConfiguredKind::Threshold => NameKind::Threshold,
        };
        catalog.intern(&mut names, kind, name)
    });
    let scoring = scoring.map_err(|problem| problem.to_string())?;
    let terms = scoring.terms().clone();
    Ok((scoring, Published { names, terms, text: text.as_bytes().to_vec() }))
}

/// With the shipped ones this makes 200.
pub const MORE_RULES: usize = 182;

/// The engine and what it decides by.
pub struct Site {
    /// All in memory.
    pub engine: Engine,
    /// The rules in force.
    pub scoring: Scoring,
    pushed: AtomicU64,
    kept: Kept,
    unseal: Box<Unseal<'static>>,
}

/// What was in memory at a moment, as a snapshot has it.
#[derive(Default)]
struct Kept {
    catalog: Catalog,
    slots: Vec<SavedSlot>,
    sizes: (usize, usize),
}

impl Kept {
    fn of(engine: &Engine) -> Kept {
        let ids = engine.ids(|| {});
        // At that moment nobody has expired.
        let save = |slot| engine.save_slot(Slot(slot), &ids, Timestamp(0));
        let slots = (0..Slot::COUNT as u16).map(|slot| save(slot).expect("a slot is small"));
        Kept { catalog: engine.catalog(), slots: slots.collect(), sizes: engine.sizes() }
    }
}

/// Room that a thread encodes records in.
pub type Bytes = Vec<u8>;

impl Site {
    /// Nobody yet; so many rules more than the shipped ones.
    pub fn new(more_rules: usize) -> Result<Site, String> {
        let text = rules_text(more_rules);
        let engine = Engine::new(SHARDS_DEFAULT);
        let (scoring, published) = publish_file(&engine, &text, Timestamp(START.0 - 1))?;
        let pushed = AtomicU64::new(0);
        engine.publish(published, Timestamp(START.0 - 1), &mut |_| next(&pushed));
        let unseal = Box::new(|_: LeadId, _: &[u8]| Attributes::default());
        Ok(Site { engine, scoring, pushed, kept: Kept::default(), unseal })
    }

    /// What is in another engine, whose last record stands at `pushed`; with so many rules more
    /// than the shipped ones, published at `now`.
    pub fn of(
        other: &Engine,
        more_rules: usize,
        (now, pushed): (Timestamp, Position),
        unseal: Box<Unseal<'static>>,
    ) -> Result<Site, String> {
        let (scoring, published) = publish_file(other, &rules_text(more_rules), now)?;
        let pushed = AtomicU64::new(pushed.ordinal());
        other.publish(published, now, &mut |_| next(&pushed));
        let kept = Kept::of(other);
        let engine = Engine::new(SHARDS_DEFAULT);
        let mut site = Site { engine, scoring, pushed, kept, unseal };
        site.begin_anew();
        Ok(site)
    }

    /// Keeps what is in memory, for [`Site::begin_anew`].
    pub fn keep(&mut self) {
        if self.kept.slots.is_empty() {
            self.kept = Kept::of(&self.engine);
        }
    }

    /// Everybody is as they were when they were kept.
    pub fn begin_anew(&mut self) {
        let kept = &self.kept;
        self.engine = Engine::with_room(SHARDS_DEFAULT, kept.sizes);
        self.engine.restore_catalog(kept.catalog.clone());
        for saved in &kept.slots {
            let slot = SlotReader::open(&saved.bytes, FORM).expect("it was just written");
            self.engine.restore_slot(&slot, &*self.unseal).expect("it was just written");
        }
        self.engine.rebuild_timers(&self.scoring);
    }

    /// Takes a hit in, as it is taken in behind the collector: decided, encoded, applied.
    pub fn ingest(&self, arrival: Arrival, bytes: &mut Bytes) -> Ingested {
        self.ingest_in(&mut self.engine.turn(), arrival, bytes)
    }

    /// The same of one of the hits of a request.
    pub fn ingest_in(&self, turn: &mut Turn<'_>, arrival: Arrival, bytes: &mut Bytes) -> Ingested {
        turn.ingest(arrival, &self.scoring, &mut |record: &Record| {
            bytes.clear();
            record.encode(bytes);
            next(&self.pushed)
        })
    }

    /// Acts on everybody who is due by a moment; how many that changes.
    pub fn advance(&self, now: Timestamp) -> usize {
        let mut bytes = Bytes::new();
        self.engine.advance(now, &self.scoring, &mut |record: &Record| {
            bytes.clear();
            record.encode(&mut bytes);
            next(&self.pushed)
        })
    }

    /// Visitors `from..until`, each with two hits that earned something: the first embedded in the
    /// second, as they are admitted.
    pub fn admit(&self, from: u64, until: u64, bytes: &mut Bytes) {
        for number in from..until {
            // Of the first, which was recorded on its own.
            next(&self.pushed);
            self.ingest(first_and_second(number, EARNING, START), bytes);
        }
    }

    /// Records pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }
}

fn next(pushed: &AtomicU64) -> Position {
    Position::new(0, pushed.fetch_add(1, Ordering::Relaxed) + 1)
}

/// So many people who came twice and then said who they are, with 200 rules.
pub fn people(count: u64) -> Site {
    let site = Site::new(MORE_RULES).expect("the shipped rules are sound");
    let mut bytes = Bytes::new();
    site.admit(0, count, &mut bytes);
    for number in 0..count {
        site.ingest(alone(identify(number, 2, Timestamp(START.0 + 50_000))), &mut bytes);
    }
    site
}

/// A hit of somebody who is here already.
pub fn alone(hit: Hit) -> Arrival {
    Arrival { hit, first: None }
}

/// Somebody's second hit, in which the first one is embedded.
pub fn first_and_second(number: u64, path: &str, at: Timestamp) -> Arrival {
    let first = FirstHit { position: Position::new(0, 1), hit: hit(number, 0, path, at) };
    let second = hit(number, 1, "/column/ai", Timestamp(at.0 + 40_000));
    Arrival { hit: second, first: Some(first) }
}

/// Who has a number.
pub fn visitor(number: u64) -> VisitorId {
    VisitorId(u128::from(mixed(number)) << 64 | u128::from(mixed(!number)))
}

/// A page view of somebody, their `turn`-th.
pub fn hit(number: u64, turn: u64, path: &str, at: Timestamp) -> Hit {
    Hit {
        site: SiteId(0),
        visitor: Some(visitor(number)),
        received: at,
        when: at,
        path: path.to_owned(),
        url: format!("https://www.site.example{path}"),
        id: mixed(number ^ (turn << 40) ^ 7),
        page: mixed(number ^ (turn << 40) ^ 9),
        network: "192.0.2.0/24".to_owned(),
        agent: "desktop".to_owned(),
        ..Hit::default()
    }
}

/// The page that somebody reads on their `turn`-th hit.
pub fn path(number: u64, turn: u64) -> &'static str {
    PATHS[(mixed(number ^ turn.rotate_left(17)) % PATHS.len() as u64) as usize]
}

/// The same with who they say they are.
pub fn identify(number: u64, turn: u64, at: Timestamp) -> Hit {
    let id = LeadId(mixed(number ^ 0x5eed));
    let name = Named { kind: IdentityKind::Email, id, assurance: Assurance::Claimed };
    Hit {
        kind: HitKind::Identify,
        claim: Some(Claim { names: vec![name], ..Claim::default() }),
        ..hit(number, turn, "/thanks/document/guide", at)
    }
}

#[cfg(test)]
mod tests {
    use engine::record::Body;

    use super::*;

    #[test]
    fn a_site_has_the_rules_that_are_asked_for_and_visitors_with_two_rows() {
        let site = |more| Site::new(more).expect("the shipped rules are sound");
        let rules = |site: &Site| site.scoring.rules.rules().len();
        let large = site(200);
        assert_eq!(rules(&large), rules(&site(0)) + 200);
        large.admit(0, 10, &mut Bytes::new());
        let found = large.engine.visitor(visitor(3), Timestamp(START.0 + 50_000));
        assert_eq!(found.map(|it| (it.hits, it.rows.len())), Some((2, 2)));
        assert_eq!(large.pushed(), 21);
    }

    #[test]
    fn whoever_is_kept_is_the_same_again_after_more_hits() {
        let mut site = people(20);
        site.keep();
        let (now, later) = (Timestamp(START.0 + 60_000), Timestamp(START.0 + 70_000));
        let before = site.engine.state_hash(later);
        for number in 0..20 {
            site.ingest(alone(hit(number, 3, EARNING, now)), &mut Bytes::new());
        }
        assert_ne!(site.engine.state_hash(later), before);
        site.begin_anew();
        assert_eq!(site.engine.state_hash(later), before);
        assert_eq!(site.engine.sizes(), (20, 20));
    }

    #[test]
    fn each_of_the_people_gets_hot_by_asking_for_a_quote_and_not_by_reading_on() {
        let site = people(20);
        let now = Timestamp(START.0 + 60_000);
        let crossings = |number, path| {
            let mut found = 0;
            let arrival = alone(hit(number, 3, path, now));
            site.engine.ingest(arrival, &site.scoring, &mut |record| {
                if let Body::Hit(hit) = &record.body {
                    found += hit.lead.as_ref().map_or(0, |part| part.crossings.len());
                }
                next(&site.pushed)
            });
            found
        };
        for number in 0..10 {
            assert!(crossings(number, "/thanks/contact/ok") > 0);
            assert_eq!(crossings(10 + number, "/column/dx"), 0);
        }
    }
}
