//! Named lists: filters of leads with a name, for searches, exports, counts and who is told.
//! Nobody is written into a list; whoever passes its filter at the moment of asking is on it.

use std::time::Duration;

use engine::attribute::{AttributeTest, Attributes};
use engine::grade::Grade;
use engine::lead::{Lead, terms_of};
use engine::ledger;
use engine::points::Points;
use engine::scoring::Scoring;
use engine::stage::Stage;
use engine::time::Timestamp;

/// All lists, in the order of their file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedLists(Vec<NamedList>);

/// A filter with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedList {
    /// The name by which it is asked for.
    pub id: String,
    /// What people read, Japanese.
    pub ja: String,
    /// What people read, English.
    pub en: String,
    /// Who is on it.
    pub filter: Filter,
}

/// What must hold, all of it. Nothing written is asked of nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Tests of attributes, the company's name and the owner among them.
    pub attributes: Vec<AttributeTest>,
    /// One of these grades. Empty: any.
    pub grades: Vec<Grade>,
    /// One of these stages. Empty: any.
    pub stages: Vec<Stage>,
    /// The score.
    pub score: Span,
    /// What categories are worth, by their names.
    pub categories: Vec<(String, Span)>,
    /// A person was seen within this time.
    pub seen_within: Option<Duration>,
}

/// Whole points from here to there, both included, as people are shown them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// From here.
    pub from: Option<i64>,
    /// To there.
    pub to: Option<i64>,
}

/// What filters look at, of one lead at one moment.
#[derive(Clone, Debug)]
pub struct LeadView<'a> {
    /// What is known of the person; the owner is whoever of sales took them, if somebody did.
    pub attributes: Attributes,
    /// The fit.
    pub grade: Grade,
    /// Where they stand.
    pub stage: Stage,
    /// The score.
    pub score: Points,
    /// What each category is worth, by name.
    pub categories: Vec<(&'a str, Points)>,
    /// When a person was last seen.
    pub last_seen: Option<Timestamp>,
    /// The moment.
    pub now: Timestamp,
}

impl NamedLists {
    /// Of lists whose names differ.
    pub fn new(lists: Vec<NamedList>) -> NamedLists {
        NamedLists(lists)
    }

    /// All of them.
    pub fn all(&self) -> &[NamedList] {
        &self.0
    }

    /// Their names.
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|list| list.id.clone()).collect()
    }

    /// One by its name.
    pub fn get(&self, id: &str) -> Option<&NamedList> {
        self.0.iter().find(|list| list.id == id)
    }

    /// Whether somebody is on a list. On one that is not there nobody is.
    pub fn matches(&self, id: &str, lead: &LeadView<'_>) -> bool {
        self.get(id).is_some_and(|list| list.filter.holds(lead))
    }
}

impl Filter {
    /// Whether everything that is asked holds.
    pub fn holds(&self, lead: &LeadView<'_>) -> bool {
        let worth = |name: &str| lead.categories.iter().find(|(known, _)| *known == name);
        (self.grades.is_empty() || self.grades.contains(&lead.grade))
            && (self.stages.is_empty() || self.stages.contains(&lead.stage))
            && self.score.holds(lead.score)
            && self.categories.iter().all(|(name, span)| {
                // A category that the rules no longer have is worth nothing.
                span.holds(worth(name).map_or(Points(0), |(_, points)| *points))
            })
            && self.seen_within.is_none_or(|within| {
                lead.last_seen.is_some_and(|seen| lead.now.since(seen) <= within)
            })
            && self.attributes.iter().all(|test| test.holds(&lead.attributes))
    }
}

impl Span {
    fn holds(self, points: Points) -> bool {
        let shown = points.shown();
        self.from.is_none_or(|from| from <= shown) && self.to.is_none_or(|to| shown <= to)
    }
}

impl<'a> LeadView<'a> {
    /// Of a lead, under the rules in force.
    pub fn of(lead: &Lead, scoring: &'a Scoring, now: Timestamp) -> LeadView<'a> {
        let terms = terms_of(lead, scoring, now);
        let mut attributes = lead.attributes();
        if let Some(owner) = lead.owner() {
            attributes.insert("owner".to_owned(), owner.to_owned());
        }
        let (mut score, mut categories) = (Points(0), Vec::new());
        for category in &terms.categories {
            let of_it = |row: &ledger::Row| row.category == category.id;
            let value = ledger::sum(&lead.content.rows, category.half_life, of_it).value(now);
            if category.in_total {
                score.0 += value.0;
            }
            let known = scoring.labels.categories.iter().find(|it| it.id == category.id);
            categories.extend(known.map(|known| (known.name.as_str(), value)));
        }
        LeadView {
            grade: terms.fit.grade(&attributes),
            stage: terms.stage(&lead.bands, &lead.content.dealings(terms)),
            score,
            categories,
            last_seen: lead.last_human(),
            now,
            attributes,
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::attribute::Test;

    use super::*;

    const DAY: u64 = 86_400_000;

    fn view() -> LeadView<'static> {
        LeadView {
            attributes: [("industry".to_owned(), "Manufacturing".to_owned())].into(),
            grade: Grade::B,
            stage: Stage::Warm,
            score: Points(59_999),
            categories: vec![("intent", Points(40_000))],
            last_seen: Some(Timestamp(10 * DAY)),
            now: Timestamp(17 * DAY),
        }
    }

    fn span(from: Option<i64>, to: Option<i64>) -> Span {
        Span { from, to }
    }

    #[test]
    fn nothing_asked_holds_of_everybody() {
        assert!(Filter::default().holds(&view()));
    }

    #[test]
    fn a_score_is_compared_as_it_is_shown() {
        let holds = |score| Filter { score, ..Filter::default() }.holds(&view());
        assert!(holds(span(Some(59), Some(59))), "59.999 is shown as 59");
        assert!(!holds(span(Some(60), None)) && !holds(span(None, Some(58))));
    }

    #[test]
    fn each_thing_asked_must_hold() {
        let industry =
            |word: &str| AttributeTest::new("industry".into(), Test::Is(vec![word.to_owned()]));
        let all = Filter {
            attributes: vec![industry("manufacturing")],
            grades: vec![Grade::A, Grade::B],
            stages: vec![Stage::Warm],
            score: span(Some(50), None),
            categories: vec![("intent".into(), span(Some(40), None))],
            seen_within: Some(Duration::from_hours(7 * 24)),
        };
        assert!(all.holds(&view()));
        for one in [
            Filter { attributes: vec![industry("it")], ..all.clone() },
            Filter { grades: vec![Grade::Unknown], ..all.clone() },
            Filter { stages: vec![Stage::Hot], ..all.clone() },
            Filter { score: span(Some(60), None), ..all.clone() },
            Filter { categories: vec![("interest".into(), span(Some(1), None))], ..all.clone() },
            Filter { seen_within: Some(Duration::from_hours(7 * 24 - 1)), ..all },
        ] {
            assert!(!one.holds(&view()), "{one:?}");
        }
        let unseen = LeadView { last_seen: None, ..view() };
        let within = Some(Duration::from_hours(1_000_000));
        assert!(!Filter { seen_within: within, ..Filter::default() }.holds(&unseen));
    }

    #[test]
    fn on_a_list_that_is_not_there_nobody_is() {
        let list = NamedList {
            id: "all".into(),
            ja: String::new(),
            en: String::new(),
            filter: Filter::default(),
        };
        let lists = NamedLists::new(vec![list]);
        assert!(lists.matches("all", &view()) && !lists.matches("al", &view()));
    }
}
