//! The person of the examples: she reads, asks for a document, comes back by a mail, and then
//! what each kind of message tells of. The engine works out everything that is said of her.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::alert::AlertKind;
use engine::attribute::Attributes;
use engine::catalog::Catalog;
use engine::engine::{Arrival, Authority, Engine, Means};
use engine::facts::Source;
use engine::hit::{Claim, Hit, HitKind, Named};
use engine::id::{LeadId, Position, SiteId, VisitorId};
use engine::identity::{Assurance, IdentityKind};
use engine::lead::Lead;
use engine::record::{Body, Name, NameKind, Published, Record, Withdrawn};
use engine::sales::{BY, Feedback};
use engine::scoring::Scoring;
use engine::stage::FeedbackKind;
use engine::terms::Versions;
use engine::time::Timestamp;

use crate::config::{Problem, ScoringFile};
use crate::timeline::Timeline;

/// Whose lead she is.
pub(super) const OWNER: &str = "sato@vendor.example";
const MAIL: &str = "tanaka@sample-seiki.example";
const OTHER_MAIL: &str = "m.tanaka@sample-seiki.example";
/// Her browser, and the names her two addresses make.
const BROWSER: VisitorId = VisitorId(0x2b << 64 | 0x2b);
const SHE: LeadId = LeadId(0x7f3a_9c1e_5b2d_4806);
const ALSO_SHE: LeadId = LeadId(0x7f3a_9c1e_5b2d_4807);
/// Tue, 1 Dec 2026 00:00 in Japan.
const FIRST_OF_DECEMBER: Timestamp = Timestamp(1_796_050_800_000);
/// From when the rules are in force.
const RULES_SINCE: Duration = Duration::from_hours(24 * 30);
/// From the click to the collector.
const ON_THE_WAY: Duration = Duration::from_millis(12);
const SITE: &str = "www";
const SITE_URL: &str = "https://www.vendor.example";

/// What happened up to a message, and the message: what its body is made of.
pub(super) struct Scene {
    /// The scoring in force.
    pub scoring: Scoring,
    /// The names.
    pub catalog: Catalog,
    /// What happened.
    pub timeline: Timeline,
    /// Where the message stands: the record, and its place there.
    pub at: (Position, usize),
    /// She, when it is told.
    pub lead: Lead,
}

struct Stage {
    scoring: Scoring,
    engine: Engine,
    timeline: Timeline,
    now: Timestamp,
    path: String,
    title: String,
}

/// Plays until a message of a kind is told; nothing if these rules never tell it of her.
pub(super) fn play(file: &ScoringFile, kind: AlertKind) -> Result<Option<Scene>, Problem> {
    let mut stage = Stage::new(file)?;
    stage.becomes_hot();
    match kind {
        AlertKind::Hot => {}
        AlertKind::Action => stage.asks_for_a_quote(),
        AlertKind::Escalated => stage.goes_on(),
        AlertKind::Signal => stage.is_at_work_with_sales(),
        AlertKind::Cooled => stage.pass(day(40, 0, 0)),
        AlertKind::Reminder => stage.pass(day(9, 0, 0)),
        AlertKind::Retracted => stage.was_one_of_ours(),
        AlertKind::Merged => stage.turns_out_to_be_one(),
        AlertKind::Unmerged => {
            stage.turns_out_to_be_one();
            stage.turns_out_to_be_two();
        }
        AlertKind::Erased => stage.asks_to_be_forgotten(),
    }
    Ok(stage.scene(kind))
}

/// A moment of December, in Japan.
fn day(day: u64, hours: u64, minutes: u64) -> Timestamp {
    FIRST_OF_DECEMBER.plus(Duration::from_mins(((day - 1) * 24 + hours) * 60 + minutes))
}

impl Stage {
    fn new(file: &ScoringFile) -> Result<Stage, Problem> {
        let since = FIRST_OF_DECEMBER.minus(RULES_SINCE);
        let mut names = vec![Name { kind: NameKind::Site, number: 0, name: SITE.to_owned() }];
        let mut counts = BTreeMap::new();
        let scoring = file.publish(&Versions::default(), (1, since), &mut |kind, name| {
            let kind = NameKind::from(kind);
            let next = counts.entry(kind).or_insert(0_u16);
            names.push(Name { kind, number: *next, name: name.to_owned() });
            *next += 1;
            *next - 1
        })?;
        let (terms, text) = (scoring.terms().clone(), file.text.as_bytes().to_vec());
        let mut stage = Stage {
            scoring,
            engine: Engine::new(2),
            timeline: Timeline::new(),
            now: since,
            path: String::new(),
            title: String::new(),
        };
        let timeline = &mut stage.timeline;
        let published = Published { names, terms, text };
        stage.engine.publish(published, since, &mut |record| write(timeline, record));
        Ok(stage)
    }

    fn becomes_hot(&mut self) {
        let google = "google / organic";
        self.view(day(1, 9, 0), "/column/dx", "DXの進め方", google);
        self.stay(70);
        self.view(day(1, 9, 4), "/case/line", "導入事例", "");
        self.stay(65);
        for (minute, path, title) in
            [(30, "/product/a", "製品A"), (32, "/product/b", "製品B"), (34, "/product/c", "製品C")]
        {
            self.view(day(4, 9, minute), path, title, "");
        }
        self.view(day(4, 9, 40), "/pricing/", "料金プラン", "");
        self.stay(80);
        self.pass(day(4, 9, 50));
        let said = [
            ("name", "田中 恵"),
            ("company", "サンプル精機株式会社"),
            ("department", "製造部"),
            ("title", "課長"),
            ("industry", "manufacturing"),
        ];
        let claim = Some(statement(SHE, MAIL, Assurance::Claimed, &said));
        self.send(Hit { kind: HitKind::Identify, claim, ..Hit::default() });
        self.view(day(4, 9, 50), "/thanks/document/guide", "資料ダウンロード完了", "");
        self.pass(day(7, 8, 55));
        self.at_page("/lp/line-automation", "ライン自動化キャンペーン");
        let known = [("owner", OWNER), ("crm_id", "003-10442")];
        let claim = Some(statement(SHE, MAIL, Assurance::Verified, &known));
        let event = "mail_click".to_owned();
        let kind = HitKind::Event;
        self.send(Hit { kind, event, claim, by_server: true, ..Hit::default() });
        self.view(day(7, 8, 56), "/pricing/", "料金プラン", "newsletter-2026-12 / email");
    }

    fn asks_for_a_quote(&mut self) {
        self.stay(80);
        self.view(day(8, 15, 0), "/thanks/contact/ok", "お問い合わせ完了", "");
    }

    fn goes_on(&mut self) {
        self.view(day(8, 10, 0), "/thanks/document/price-list", "資料ダウンロード完了", "");
        self.view(day(8, 10, 5), "/thanks/event/expo", "展示会申込完了", "");
    }

    fn is_at_work_with_sales(&mut self) {
        self.answer(day(7, 9, 20), FeedbackKind::Accepted);
        self.answer(day(8, 10, 0), FeedbackKind::Opportunity);
        self.view(day(14, 10, 0), "/pricing/", "料金プラン", "");
    }

    /// All that her browser did is withdrawn.
    fn was_one_of_ours(&mut self) {
        self.pass(day(7, 11, 0));
        let hits = self.timeline.iter().filter_map(|(position, record)| match &record.body {
            Body::Hit(record) => Some(Withdrawn {
                position: *position,
                when: record.hit.when,
                source: Source::Visitor(BROWSER),
                human: record.hit.is_human(),
                out: true,
                ..Withdrawn::default()
            }),
            _ => None,
        });
        let hits: Vec<Withdrawn> = hits.collect();
        let why = Authority {
            actor: "mori@vendor.example".to_owned(),
            reason: "社内の動作確認".to_owned(),
            ..Authority::default()
        };
        let withdraw = |engine: &Engine, means: &mut Means<'_, '_>| {
            let _ = engine.withdraw_visitor(BROWSER, &hits, Position::NONE, &why, means);
        };
        self.step(withdraw);
    }

    fn turns_out_to_be_one(&mut self) {
        self.pass(day(7, 11, 0));
        let claim =
            Some(statement(ALSO_SHE, OTHER_MAIL, Assurance::Verified, &[("name", "田中 恵")]));
        let hit = Hit { kind: HitKind::Identify, claim, by_server: true, ..Hit::default() };
        self.take(Hit { received: self.now, when: self.now, ..hit });
        self.pass(day(7, 11, 5));
        self.step(|engine, means| {
            let _ = engine.merge(SHE, ALSO_SHE, &Authority::default(), means);
        });
    }

    fn turns_out_to_be_two(&mut self) {
        self.pass(day(7, 11, 10));
        self.step(|engine, means| {
            // Whichever of the two became the other's name.
            let name = if engine.head(ALSO_SHE) == SHE { ALSO_SHE } else { SHE };
            let _ = engine.unmerge(name, &Authority::default(), means);
        });
    }

    fn asks_to_be_forgotten(&mut self) {
        self.pass(day(8, 9, 30));
        self.step(|engine, means| {
            let _ = engine.erase(SHE, &Authority::default(), means);
        });
    }

    fn answer(&mut self, at: Timestamp, kind: FeedbackKind) {
        self.pass(at);
        let details: Attributes = [(BY.to_owned(), OWNER.to_owned())].into();
        let id = at.0;
        let feedback =
            Feedback { id, time: at, at, kind, details: Arc::new(details), ..Feedback::default() };
        self.step(|engine, means| {
            let _ = engine.answer(SHE, feedback.clone(), means);
        });
    }

    /// Lets time act at each of its own moments.
    fn pass(&mut self, until: Timestamp) {
        while let Some(due) = self.engine.next_due().filter(|due| *due <= until) {
            let timeline = &mut self.timeline;
            self.engine.advance(due, &self.scoring, &mut |record| write(timeline, record));
        }
        self.now = until;
    }

    fn at_page(&mut self, path: &str, title: &str) {
        path.clone_into(&mut self.path);
        title.clone_into(&mut self.title);
    }

    fn view(&mut self, at: Timestamp, path: &str, title: &str, campaign: &str) {
        self.pass(at);
        self.at_page(path, title);
        self.send(Hit { campaign: campaign.to_owned(), ..Hit::default() });
    }

    fn stay(&mut self, seconds: u32) {
        self.pass(self.now.plus(Duration::from_secs(seconds.into())));
        let engaged_ms = seconds * 1_000;
        self.send(Hit { kind: HitKind::Engagement, engaged_ms, ..Hit::default() });
    }

    /// Something that she does in her browser.
    fn send(&mut self, hit: Hit) {
        self.take(Hit {
            site: SiteId(0),
            visitor: Some(BROWSER),
            received: self.now.plus(ON_THE_WAY),
            when: self.now,
            path: engine::glob::normal_path(&self.path).to_owned(),
            url: format!("{SITE_URL}{}", self.path),
            title: self.title.clone(),
            page: u64::from(hit.kind == HitKind::PageView),
            ..hit
        });
    }

    fn take(&mut self, hit: Hit) {
        let timeline = &mut self.timeline;
        let mut push = |record: &Record| write(timeline, record);
        self.engine.ingest(Arrival { hit, first: None }, &self.scoring, &mut push);
    }

    fn step(&mut self, step: impl FnOnce(&Engine, &mut Means<'_, '_>)) {
        let timeline = &mut self.timeline;
        let mut push = |record: &Record| write(timeline, record);
        let mut means = Means { scoring: &self.scoring, now: self.now, push: &mut push };
        step(&self.engine, &mut means);
    }

    /// The last message of a kind.
    fn scene(mut self, kind: AlertKind) -> Option<Scene> {
        let (at, who) = self.timeline.iter().rev().find_map(|(position, record)| {
            let part = record.lead_part()?;
            let place = part.messages.iter().position(|message| message.kind == kind)?;
            Some(((*position, place), part.lead))
        })?;
        let lead = match kind {
            AlertKind::Erased => Lead::default(),
            _ => self.engine.lead(who)?,
        };
        self.timeline.split_off(&at.0.next());
        let catalog = self.engine.catalog();
        Some(Scene { scoring: self.scoring, catalog, timeline: self.timeline, at, lead })
    }
}

/// In place of a journal.
fn write(timeline: &mut Timeline, record: &Record) -> Position {
    let position = Position::new(0, timeline.len() as u64 + 1);
    timeline.insert(position, record.clone());
    position
}

fn statement(id: LeadId, mail: &str, assurance: Assurance, said: &[(&str, &str)]) -> Claim {
    let said = said.iter().copied().chain([("email", mail)]);
    Claim {
        names: vec![Named { kind: IdentityKind::Email, id, assurance }],
        attributes_by: assurance,
        attributes: said.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..Claim::default()
    }
}
