//! `scoring.example.toml` as literal types, and a wilder set whose points fade at mixed speeds
//! and signs.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::attribute::{AttributeTest, Test};
use engine::decay::HalfLife;
use engine::glob::Globs;
use engine::grade::{Fit, FitRule, Grade};
use engine::hours::Hours;
use engine::id::{CategoryId, RuleId, ThresholdId};
use engine::points::Points;
use engine::rule::{Condition, Guards, OnRemove, Once, Period, Rule, RuleSet};
use engine::sales::SalesRules;
use engine::scoring::{Category, Labels, Scoring, Urgency};
use engine::stage::FeedbackKind;
use engine::terms::{CategoryTerms, Terms, Versions};
use engine::threshold::{Again, Threshold};
use engine::time::{Timestamp, UtcOffset};

pub const DAY: Duration = Duration::from_hours(24);
pub const MINUTE: Duration = Duration::from_mins(1);

pub const INTENT: CategoryId = CategoryId(0);
pub const INTEREST: CategoryId = CategoryId(1);
pub const RECRUIT: CategoryId = CategoryId(2);
pub const WARM: ThresholdId = ThresholdId(0);
pub const HOT: ThresholdId = ThresholdId(1);

/// What a version of the scoring is made of, to be changed before it is built.
#[derive(Clone, Debug)]
pub struct Parts {
    pub rules: Vec<Rule>,
    pub categories: Vec<CategoryTerms>,
    pub thresholds: Vec<Threshold>,
    pub fit: Fit,
    pub total_max: Option<Points>,
    pub claims_max: Option<Points>,
    pub offset: UtcOffset,
    pub sales: SalesRules,
}

impl Parts {
    /// As the only version, in force since ever.
    pub fn build(&self, version: u32) -> Scoring {
        self.build_after(&Versions::default(), version, Timestamp(0))
    }

    /// As the next version, in force from a moment on.
    pub fn build_after(&self, before: &Versions, version: u32, published: Timestamp) -> Scoring {
        let label = |category: &CategoryTerms| Category {
            id: category.id,
            name: format!("category{}", category.id.0),
            ja: String::new(),
            en: String::new(),
        };
        let labels = Labels {
            categories: self.categories.iter().map(label).collect(),
            urgency: Urgency { medium: Points::whole(20), high: Points::whole(40) },
            ..Labels::default()
        };
        let excluded = ["/preview/**".to_owned()];
        Scoring::new(
            before,
            self.terms(version, published),
            RuleSet::new(self.rules.clone()).unwrap(),
            Globs::new(&excluded).unwrap(),
            labels,
        )
        .unwrap()
        .with_sales(self.sales.clone())
    }

    /// The terms, but for those of the rules, which come with the rules.
    pub fn terms(&self, version: u32, published: Timestamp) -> Terms {
        Terms {
            version,
            published,
            offset: self.offset,
            categories: self.categories.clone(),
            total_max: self.total_max,
            claims_max: self.claims_max,
            urgency: days(2),
            rules: Vec::new(),
            thresholds: self.thresholds.clone(),
            fit: self.fit.clone(),
        }
    }

    /// The same with `[sales]` of the example.
    #[must_use]
    pub fn with_sales(self) -> Parts {
        Parts { sales: example_sales(), ..self }
    }

    pub fn rule(&self, name: &str) -> &Rule {
        self.rules.iter().find(|rule| rule.name == name).unwrap()
    }
}

/// The example rules, built.
pub fn example_scoring() -> Scoring {
    example().build(1)
}

/// `[sales]` of the example: four hours from nine to six on weekdays.
pub fn example_sales() -> SalesRules {
    let hour = Duration::from_hours(1);
    SalesRules {
        accept_within: Some(4 * hour),
        hours: Some(Hours {
            offset: example().offset,
            days: [true, true, true, true, true, false, false],
            from: 9 * hour,
            to: 18 * hour,
            holidays: BTreeSet::new(),
        }),
        points: vec![
            (FeedbackKind::MeetingDone, Points::whole(20)),
            (FeedbackKind::NoShow, Points::whole(-15)),
        ],
        category: Some(INTENT),
        rejected: Some((Points::whole(20), 90 * DAY)),
        lost: Some(30 * DAY),
    }
}

fn days(days: u64) -> HalfLife {
    HalfLife::from_millis(days * 86_400_000).unwrap()
}

fn category(id: CategoryId, half_life: HalfLife, max: i64) -> CategoryTerms {
    CategoryTerms { id, half_life, max: Some(Points::whole(max)), in_total: true }
}

fn paths(list: &[&str]) -> Vec<String> {
    list.iter().map(|&path| path.to_owned()).collect()
}

fn page(list: &[&str]) -> Condition {
    Condition { path: paths(list), ..Condition::default() }
}

fn event(name: &str) -> Condition {
    Condition { event: vec![name.into()], ..Condition::default() }
}

fn max(points: i64) -> Guards {
    Guards { max: Some(Points::whole(points)), ..Guards::default() }
}

fn per(period: Period) -> Guards {
    Guards { once_per: Some(period), ..Guards::default() }
}

fn at_most(most: u32, points: i64) -> Guards {
    Guards { at_most: Some((most, Period::Day)), ..max(points) }
}

fn daily(points: i64) -> Guards {
    Guards { once_per: Some(Period::Day), ..max(points) }
}

fn weekly() -> Period {
    Period::Rolling(7 * DAY)
}

fn once(once: Once) -> Guards {
    Guards { once: Some(once), ..Guards::default() }
}

/// (name, points, category, guards, tell, when).
type Line = (&'static str, i64, CategoryId, Guards, Option<&'static str>, Condition);

fn rules(lines: Vec<Line>) -> Vec<Rule> {
    let number = |(index, (name, points, category, guards, tell, when)): (usize, Line)| Rule {
        id: RuleId(index as u16),
        name: name.into(),
        points: Points::whole(points),
        category,
        guards: Guards { away: when.return_after, ..guards },
        tell: tell.map(str::to_owned),
        on_remove: OnRemove::Keep,
        from: None,
        until: None,
        when,
        ja: String::new(),
        en: name.into(),
    };
    lines.into_iter().enumerate().map(number).collect()
}

fn interest_rules() -> Vec<Line> {
    let stayed = Condition {
        path: paths(&["/**"]),
        not_path: paths(&["/careers/**", "/recruit/**"]),
        engaged: Some(MINUTE),
        ..Condition::default()
    };
    let compared = Condition { distinct_pages: Some((3, 7 * DAY)), ..page(&["/product/**"]) };
    let compared_guards = Guards { once_per: Some(weekly()), ..max(16) };
    let returned = Condition { return_after: Some(3 * DAY), ..Condition::default() };
    let my_page = Condition { authenticated: Some(true), ..Condition::default() };
    let thanks = page(&["/thanks/event/**", "/thanks/campaign/**"]);
    vec![
        ("article", 1, INTEREST, at_most(3, 6), None, page(&["/column/**", "/blog/**"])),
        ("case", 4, INTEREST, daily(12), None, page(&["/case/**"])),
        ("stayed", 2, INTEREST, at_most(2, 8), None, stayed),
        ("compared", 8, INTEREST, compared_guards, None, compared),
        ("returned", 5, INTEREST, daily(15), None, returned),
        ("mail_click", 5, INTEREST, daily(15), None, event("mail_click")),
        ("my_page", 2, INTEREST, daily(6), None, my_page),
        ("event", 15, INTEREST, daily(30), None, thanks),
    ]
}

fn intent_rules() -> Vec<Line> {
    let pricing = || page(&["/pricing/**", "/price/**"]);
    let stayed = Condition { engaged: Some(MINUTE), ..pricing() };
    let any = vec![event("download"), page(&["/thanks/document/**"])];
    let document = Condition { any, ..Condition::default() };
    let upgrade = Condition { authenticated: Some(true), ..event("upgrade_click") };
    let upgrade_guards = Guards { once_per: Some(weekly()), ..max(25) };
    let careers = page(&["/careers/**", "/recruit/**"]);
    let rearmed = |days: u32| once(Once::Rearmed(days * DAY));
    let sales = Some("sales");
    let applied = || page(&["/thanks/careers/**"]);
    vec![
        ("pricing", 12, INTENT, daily(36), None, pricing()),
        ("pricing_stayed", 4, INTENT, daily(8), None, stayed),
        ("document", 20, INTENT, daily(40), None, document),
        ("trial", 50, INTENT, rearmed(180), sales, page(&["/thanks/trial/**"])),
        ("contact", 60, INTENT, daily(60), sales, page(&["/thanks/contact/**"])),
        ("upgrade", 25, INTENT, upgrade_guards, sales, upgrade),
        ("careers", -10, INTENT, per(weekly()), None, careers),
        ("applied", 100, RECRUIT, once(Once::Ever), Some("hr"), applied()),
        ("applicant", -60, INTENT, once(Once::Ever), None, applied()),
        ("unsubscribed", -20, INTEREST, rearmed(90), None, event("unsubscribe")),
    ]
}

/// The example rules.
pub fn example() -> Parts {
    let recruit = CategoryTerms { in_total: false, ..category(RECRUIT, days(90), 100) };
    let mut lines = interest_rules();
    lines.extend(intent_rules());
    Parts {
        rules: rules(lines),
        categories: vec![category(INTENT, days(14), 80), category(INTEREST, days(30), 50), recruit],
        thresholds: vec![
            line(WARM, "warm", (30, 20)),
            Threshold {
                dwell: DAY,
                cooldown: 3 * DAY,
                grades: vec![Grade::A, Grade::B, Grade::C, Grade::Unknown],
                recent: Some(7 * DAY),
                tell: Some("sales".into()),
                again: Some(Again {
                    every: Points::whole(20),
                    at_most: Some((1, Period::Rolling(3 * DAY))),
                }),
                ..line(HOT, "hot", (60, 40))
            },
        ],
        fit: fit(),
        total_max: Some(Points::whole(100)),
        claims_max: Some(Points::whole(80)),
        offset: UtcOffset::parse("+09:00").unwrap(),
        sales: SalesRules::default(),
    }
}

/// A line without gates, dwell and message.
pub fn line(id: ThresholdId, name: &str, (rise, fall): (i64, i64)) -> Threshold {
    Threshold {
        id,
        name: name.into(),
        rise: Points::whole(rise),
        fall: Points::whole(fall),
        dwell: Duration::ZERO,
        cooldown: Duration::ZERO,
        grades: Vec::new(),
        recent: None,
        urgency: None,
        tell: None,
        again: None,
    }
}

fn fit() -> Fit {
    let rule = |attribute: &str, test, points| FitRule {
        test: AttributeTest::new(attribute.into(), test),
        points: Points::whole(points),
    };
    let free_mail = Test::Is(paths(&["gmail.com", "yahoo.co.jp"]));
    let leads = ["代表", "役員", "取締役", "部長", "CEO", "VP", "Director"];
    Fit {
        known_min: 2,
        lines: [60, 40, 20].map(Points::whole),
        rules: vec![
            rule("title", Test::Has(paths(&leads)), 30),
            rule("title", Test::Has(paths(&["課長", "マネージャー", "Manager"])), 20),
            rule("employees", Test::Between(Some(100), Some(5_000)), 30),
            rule("industry", Test::Is(paths(&["manufacturing", "it"])), 20),
            rule("credit_rank", Test::Is(paths(&["A", "B"])), 10),
            rule("email_domain", free_mail, -20),
            rule("email_domain", Test::Ends(paths(&[".ac.jp", ".edu"])), -30),
        ],
    }
}

/// The example's behaviours with other points, half-lives and lines: large minuses that fade
/// within a day under pluses that last, so that time alone lets people rise as well as fall.
pub fn mixed() -> Parts {
    let mut parts = example();
    for (category, hours) in parts.categories.iter_mut().zip([20, 400, 90]) {
        category.half_life = HalfLife::from_millis(hours * 3_600_000).unwrap();
        category.in_total = true;
        category.max = None;
    }
    for rule in &mut parts.rules {
        match rule.name.as_str() {
            "careers" => rule.points = Points::whole(-35),
            "article" => rule.points = Points::whole(9),
            "case" => rule.points = Points::whole(22),
            "event" => rule.points = Points::whole(30),
            _ => {}
        }
    }
    let told = |line: Threshold| Threshold { tell: Some("sales".into()), ..line };
    parts.thresholds = vec![
        line(WARM, "warm", (15, 10)),
        told(Threshold {
            dwell: Duration::from_hours(5),
            cooldown: DAY,
            recent: Some(3 * DAY),
            ..line(HOT, "hot", (30, 24))
        }),
        told(Threshold {
            dwell: Duration::from_hours(1),
            urgency: Some(Points::whole(4)),
            ..line(ThresholdId(2), "low", (5, -3))
        }),
        told(Threshold { cooldown: 2 * DAY, ..line(ThresholdId(3), "twin", (15, 9)) }),
    ];
    parts
}
