//! What the first format wrote: a lead had one name, a row no origin, a version no terms. It is
//! read as what it means now.

use crate::alert::AlertKind;
use crate::facts::{Seen, Source};
use crate::grade::Grade;
use crate::hit::{Claim, Named};
use crate::id::{CategoryId, LeadId, Position, RuleId, ThresholdId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Cut, Fold, Row};
use crate::record::{
    Binding, Bound, Counted, History, HitRecord, LeadPart, LinkPart, Message, Published, Told,
    VisitPart,
};
use crate::stage::Stage;
use crate::terms::{CategoryTerms, Terms};
use crate::threshold::{Crossing, Direction};
use crate::time::UtcOffset;

use super::WireError;
use super::read::{Read, Reader};
use super::terms::half_life;

/// Whom its messages were for: it had no other audience.
const AUDIENCE: &str = "sales";

impl Reader<'_> {
    pub(super) fn claim_1(&mut self) -> Read<Claim> {
        let [user, crm, email] = IdentityKind::ORDER.map(Some);
        let id = self.lead_id()?;
        let kind = self.one_of(&[None, user, crm, email], "kind of identity")?;
        let assurance = self.assurance()?;
        let consent = self.consent()?;
        let name = Named { kind: kind.unwrap_or_default(), id, assurance };
        Ok(Claim {
            names: vec![name],
            consent,
            attributes_by: assurance,
            sealed: self.bytes()?.to_vec(),
            ..Claim::default()
        })
    }

    fn rows_1(&mut self, origin: LeadId) -> Read<Vec<Row>> {
        let version = self.context.version;
        self.list(|reader| {
            let mut row = Row {
                when: reader.time()?,
                position: Position(reader.varint()?),
                order: reader.number("row")?,
                rule: RuleId(reader.number("rule")?),
                category: CategoryId(reader.byte()?),
                source: reader.source()?,
                origin,
                version,
                base: reader.points()?,
                granted: reader.points()?,
                cut: reader.one_of(&Cut::ALL, "cut")?,
                ..Row::default()
            };
            row.folded = row.cut == Cut::Folded;
            Ok(row)
        })
    }

    fn fold_1(&mut self, origin: LeadId) -> Read<Option<Fold>> {
        self.option(|reader| {
            Ok(Fold { rows: reader.number("rows")?, into: reader.rows_1(origin)? })
        })
    }

    pub(super) fn visit_1(&mut self) -> Read<VisitPart> {
        Ok(VisitPart {
            previous: Position(self.varint()?),
            rows: self.rows_1(LeadId(0))?,
            regrants: self.regrants()?,
            fold: self.fold_1(LeadId(0))?,
            counted: self.list(|reader| {
                Ok(Counted {
                    rule: RuleId(reader.number("rule")?),
                    what: u64::from_le_bytes(reader.fixed()?),
                    when: reader.time()?,
                })
            })?,
            bound: match self.byte()? {
                0 => None,
                1 => {
                    let origin = self.lead_id()?;
                    let kind = self.one_of(&IdentityKind::ORDER, "kind of identity")?;
                    let mut names = [None; 3];
                    names[kind as usize] = Some(origin);
                    let assurance = self.assurance()?;
                    Some(Bound::To(Binding { origin, names, assurance, by_step: false }))
                }
                2 => Some(Bound::Reset),
                _ => return Err(WireError::UnknownNumber("binding")),
            },
            ..VisitPart::default()
        })
    }

    pub(super) fn lead_1(&mut self) -> Read<LeadPart> {
        let lead = self.lead_id()?;
        let previous = Position(self.varint()?);
        let flags = self.one_of(&[0_u8, 1, 2, 3], "flag")?;
        let head = Named { kind: IdentityKind::Email, id: lead, assurance: Assurance::Verified };
        let link = self.option(|reader| {
            let (visitor, assurance) = (reader.visitor_id()?, reader.assurance()?);
            let history = reader.option(|reader| reader.history_1(lead))?;
            Ok(LinkPart { visitor, assurance, histories: history.into_iter().collect() })
        })?;
        let rows = self.rows_1(lead)?;
        let regrants = self.regrants()?;
        let fold = self.fold_1(lead)?;
        let crossed = self.list(Reader::crossed_1)?;
        let mut part = LeadPart {
            lead,
            origin: lead,
            previous,
            new_visit: flags & 2 == 2,
            names: if previous == Position::NONE { vec![head] } else { Vec::new() },
            link,
            rows,
            regrants,
            fold,
            ..LeadPart::default()
        };
        for (place, (crossing, told)) in crossed.into_iter().enumerate() {
            part.crossings.push(crossing);
            part.messages.extend(told.map(|told| message_1(place as u16, &crossing, told)));
        }
        Ok(part)
    }

    fn history_1(&mut self, origin: LeadId) -> Read<History> {
        let mut history = History {
            origin,
            first_position: Position(self.varint()?),
            last_position: Position(self.varint()?),
            first_seen: self.time()?,
            ..History::default()
        };
        let last_human = self.time()?;
        history.last_when = self.time()?;
        history.hits = self.number("count")?;
        history.pages = self.number("count")?;
        history.visits = self.number("count")?;
        if last_human.0 > 0
            && let Some(visitor) = self.context.visitor
        {
            let seen = Seen::hit(Source::Visitor(visitor), last_human, history.last_position);
            history.seen.push(seen);
        }
        Ok(history)
    }

    fn crossed_1(&mut self) -> Read<(Crossing, Option<Told>)> {
        const DIRECTIONS: [Direction; 3] = [Direction::Rise, Direction::Fall, Direction::Release];
        let threshold = ThresholdId(self.byte()?);
        let direction = self.one_of(&DIRECTIONS, "direction")?;
        let at = self.time()?;
        let crossing = Crossing {
            threshold,
            direction,
            at,
            since: at,
            number: self.number("count")?,
            opened_by: self.gate()?,
            told: self.bool()?,
            held: false,
            waits_until: self.option(Reader::time)?,
        };
        let told = self.option(Reader::told_1)?;
        Ok((crossing, told.map(|told| Told { at, ..told })))
    }

    fn told_1(&mut self) -> Read<Told> {
        Ok(Told {
            sequence: self.number("count")?,
            score: self.points()?,
            before_24h: self.points()?,
            urgency: self.points()?,
            unconfirmed: self.points()?,
            held_back: self.points()?,
            grade: self.one_of(&Grade::ALL, "grade")?,
            stage: self.one_of(&Stage::ALL, "stage")?,
            previous_stage: self.one_of(&Stage::ALL, "stage")?,
            assurance: self.assurance()?,
            categories: self.categories()?,
            reasons: self.list(Reader::reason)?,
            because: self.option(Reader::because)?,
            ..Told::default()
        })
    }

    pub(super) fn published_1(&mut self) -> Read<Published> {
        let version = self.number("version")?;
        let names = self.names()?;
        let categories = self.list(|reader| {
            Ok(CategoryTerms {
                id: CategoryId(reader.byte()?),
                half_life: half_life(reader)?,
                max: None,
                in_total: reader.bool()?,
            })
        })?;
        let urgency = categories.first().map(|category| category.half_life);
        let terms = Terms {
            version,
            published: self.context.time,
            offset: UtcOffset::default(),
            categories,
            total_max: None,
            claims_max: None,
            urgency: urgency.ok_or(WireError::Missing("category"))?,
            rules: Vec::new(),
            thresholds: Vec::new(),
            fit: crate::grade::Fit::default(),
        };
        Ok(Published { names, terms, text: self.bytes()?.to_vec() })
    }
}

/// Which claims of a record its lead hears: those that name it.
pub(super) fn hears_1(record: &HitRecord, lead: LeadId) -> [Option<Assurance>; 2] {
    let sure = |claim: Option<&Claim>| {
        claim.and_then(Claim::first).filter(|name| name.id == lead).map(|name| name.assurance)
    };
    let first = record.first.as_ref().and_then(|first| first.hit.claim.as_ref());
    [sure(first), sure(record.hit.claim.as_ref())]
}

fn message_1(place: u16, crossing: &Crossing, told: Told) -> Message {
    let falls = crossing.direction == Direction::Fall;
    Message {
        place,
        kind: if falls { AlertKind::Cooled } else { AlertKind::Hot },
        audience: Some(AUDIENCE.to_owned()),
        also: Vec::new(),
        crossing: Some(place),
        lines: if falls { Vec::new() } else { vec![crossing.threshold] },
        other: None,
        takes_back: None,
        told,
    }
}
