//! The days as a snapshot holds them: kinds, lines and cuts by their names or numbers.

use std::collections::BTreeMap;

use engine::alert::AlertKind;
use engine::id::{LeadId, Position, RuleId, ThresholdId};
use engine::ledger::Cut;
use engine::points::Points;
use engine::stage::FeedbackKind;
use engine::time::Timestamp;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Ask, Day, Days, Verdict};
use crate::followers::Unfit;

/// A line and a rule, and what sales took and rejected.
type SavedHot = (Option<u8>, Option<u16>, [u64; 2]);

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedDays {
    kept: Vec<(i64, SavedDay)>,
    total: SavedDay,
    asks: Vec<SavedAsk>,
    waiting: Vec<(u64, u8, i64)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedDay {
    alerts: Vec<(String, String, u64)>,
    asked: u64,
    retracted: u64,
    answered: Vec<(String, u64)>,
    in_time: u64,
    verdicts: [u64; 2],
    hot: Vec<SavedHot>,
    times: Vec<(u64, u64)>,
    times_unknown: u64,
    waited: u64,
    dropped: u64,
    cuts: Vec<(String, u64, i64)>,
    held: Vec<(String, u64)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedAsk {
    lead: u64,
    position: u64,
    place: u16,
    day: i64,
    told: u64,
    answer_by: u64,
    hot: Option<(Option<u8>, Option<u16>)>,
    answered: bool,
    /// 0: none, 1: taken, 2: rejected.
    verdict: u8,
}

impl Days {
    /// Their saved form.
    pub fn save(&self) -> SavedDays {
        let asks = self.asks.iter();
        let asks = asks.flat_map(|(lead, asks)| asks.iter().map(|ask| ask.save(*lead)));
        let waiting = self.waiting.iter().map(|((lead, line), day)| (lead.0, line.0, *day));
        SavedDays {
            kept: self.kept.iter().map(|(number, day)| (*number, day.save())).collect(),
            total: self.total.save(),
            asks: asks.collect(),
            waiting: waiting.collect(),
        }
    }

    /// What was saved.
    pub fn load(saved: SavedDays) -> Result<Days, Unfit> {
        let mut asks: BTreeMap<LeadId, Vec<Ask>> = BTreeMap::new();
        for saved in saved.asks {
            asks.entry(LeadId(saved.lead)).or_default().push(Ask::load(&saved)?);
        }
        let mut kept = BTreeMap::new();
        for (number, day) in saved.kept {
            kept.insert(number, Day::load(day)?);
        }
        let waiting = saved.waiting.into_iter();
        let waiting = waiting.map(|(lead, line, day)| ((LeadId(lead), ThresholdId(line)), day));
        Ok(Days { kept, total: Day::load(saved.total)?, asks, waiting: waiting.collect() })
    }
}

impl Ask {
    fn save(&self, lead: LeadId) -> SavedAsk {
        let hot = self.hot.map(|(line, rule)| (line.map(|it| it.0), rule.map(|it| it.0)));
        let verdict = match self.verdict {
            None => 0,
            Some(Verdict::Taken) => 1,
            Some(Verdict::Rejected) => 2,
        };
        SavedAsk {
            lead: lead.0,
            position: self.position.0,
            place: self.place,
            day: self.day,
            told: self.told.0,
            answer_by: self.answer_by.0,
            hot,
            answered: self.answered,
            verdict,
        }
    }

    fn load(saved: &SavedAsk) -> Result<Ask, Unfit> {
        let verdict = match saved.verdict {
            0 => None,
            1 => Some(Verdict::Taken),
            2 => Some(Verdict::Rejected),
            _ => return Err(Unfit::Number),
        };
        Ok(Ask {
            position: Position(saved.position),
            place: saved.place,
            day: saved.day,
            told: Timestamp(saved.told),
            answer_by: Timestamp(saved.answer_by),
            hot: saved.hot.map(|(line, rule)| (line.map(ThresholdId), rule.map(RuleId))),
            answered: saved.answered,
            verdict,
        })
    }
}

impl Day {
    fn save(&self) -> SavedDay {
        let alerts = self.alerts.iter();
        let alerts = alerts.map(|((kind, to), count)| ((*kind).to_owned(), to.clone(), *count));
        let answered = self.answered.iter().map(|(kind, count)| (kind.name().to_owned(), *count));
        let hot = self
            .hot
            .iter()
            .map(|((line, rule), verdicts)| (line.map(|it| it.0), rule.map(|it| it.0), *verdicts));
        let cuts = self.cuts.iter();
        let cuts = cuts.map(|(name, (rows, points))| ((*name).to_owned(), *rows, points.0));
        SavedDay {
            alerts: alerts.collect(),
            asked: self.asked,
            retracted: self.retracted,
            answered: answered.collect(),
            in_time: self.in_time,
            verdicts: self.verdicts,
            hot: hot.collect(),
            times: self.times.iter().map(|(told, at)| (told.0, at.0)).collect(),
            times_unknown: self.times_unknown,
            waited: self.waited,
            dropped: self.dropped,
            cuts: cuts.collect(),
            held: self.held.iter().map(|(by, count)| (by.clone(), *count)).collect(),
        }
    }

    fn load(saved: SavedDay) -> Result<Day, Unfit> {
        let mut day = Day {
            asked: saved.asked,
            retracted: saved.retracted,
            in_time: saved.in_time,
            verdicts: saved.verdicts,
            times_unknown: saved.times_unknown,
            waited: saved.waited,
            dropped: saved.dropped,
            ..Day::default()
        };
        for (kind, to, count) in saved.alerts {
            let kind = AlertKind::parse(&kind).ok_or(Unfit::Name)?;
            day.alerts.insert((kind.name(), to), count);
        }
        for (kind, count) in saved.answered {
            day.answered.insert(FeedbackKind::parse(&kind).ok_or(Unfit::Name)?, count);
        }
        for (line, rule, verdicts) in saved.hot {
            day.hot.insert((line.map(ThresholdId), rule.map(RuleId)), verdicts);
        }
        for (name, rows, points) in saved.cuts {
            let cut = Cut::ALL.into_iter().find(|cut| cut.name() == name).ok_or(Unfit::Name)?;
            day.cuts.insert(cut.name(), (rows, Points(points)));
        }
        let times = saved.times.into_iter();
        day.times = times.map(|(told, at)| (Timestamp(told), Timestamp(at))).collect();
        day.held = saved.held.into_iter().collect();
        Ok(day)
    }
}
