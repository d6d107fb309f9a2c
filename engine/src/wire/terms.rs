//! The terms of a version of the scoring, both ways.

use std::time::Duration;

use crate::attribute::{AttributeTest, Test};
use crate::decay::HalfLife;
use crate::grade::{Fit, FitRule, Grade};
use crate::id::{CategoryId, RuleId, ThresholdId};
use crate::points::Points;
use crate::record::Published;
use crate::rule::{Guards, OnRemove, Once, Period};
use crate::terms::{CategoryTerms, RuleTerms, Terms};
use crate::threshold::{Again, Threshold};
use crate::time::UtcOffset;

use super::WireError;
use super::read::{Read, Reader};
use super::write::Writer;

/// A half-life, as it is read from a record.
pub(super) fn half_life(reader: &mut Reader<'_>) -> Read<HalfLife> {
    HalfLife::from_millis(reader.varint()?).ok_or(WireError::UnknownNumber("half-life"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Writer<'_> {
    pub(super) fn published(&mut self, published: &Published) {
        self.names(&published.names);
        self.terms(&published.terms);
        self.bytes(&published.text);
    }

    fn terms(&mut self, terms: &Terms) {
        self.varint(u64::from(terms.version));
        self.time(terms.published);
        self.signed(terms.offset.0);
        self.limit(terms.total_max);
        self.limit(terms.claims_max);
        self.varint(terms.urgency.millis());
        self.list(&terms.categories, |writer, category| {
            writer.byte(category.id.0);
            writer.varint(category.half_life.millis());
            writer.limit(category.max);
            writer.bool(category.in_total);
        });
        self.list(&terms.rules, |writer, rule| {
            writer.varint(u64::from(rule.id.0));
            writer.guards(&rule.guards);
            writer.option(rule.tell.as_ref(), |writer, tell| writer.text(tell));
            writer.byte(rule.on_remove as u8);
        });
        self.list(&terms.thresholds, Writer::threshold);
        self.varint(u64::from(terms.fit.known_min));
        for line in terms.fit.lines {
            self.signed(line.0);
        }
        self.list(&terms.fit.rules, |writer, rule| {
            writer.attribute_test(&rule.test);
            writer.signed(rule.points.0);
        });
    }

    fn limit(&mut self, limit: Option<Points>) {
        self.option(limit.as_ref(), |writer, points| writer.signed(points.0));
    }

    pub(super) fn duration(&mut self, duration: Duration) {
        self.varint(millis(duration));
    }

    /// A time, or 0 for a calendar day.
    fn period(&mut self, period: Period) {
        match period {
            Period::Day => self.varint(0),
            Period::Rolling(length) => self.duration(length),
        }
    }

    fn guards(&mut self, guards: &Guards) {
        self.option(guards.once.as_ref(), |writer, once| match once {
            Once::Ever => writer.varint(0),
            Once::Rearmed(after) => writer.duration(*after),
        });
        self.option(guards.once_per.as_ref(), |writer, period| writer.period(*period));
        self.option(guards.at_most.as_ref(), |writer, (most, period)| {
            writer.varint(u64::from(*most));
            writer.period(*period);
        });
        self.limit(guards.max);
        self.list(&guards.only, Writer::attribute_test);
        self.option(guards.away.as_ref(), |writer, away| writer.duration(*away));
    }

    fn attribute_test(&mut self, test: &AttributeTest) {
        self.text(&test.attribute);
        let (kind, words) = match &test.test {
            Test::Has(words) => (0, words),
            Test::Is(words) => (1, words),
            Test::Ends(words) => (2, words),
            Test::Between(from, to) => {
                self.byte(3);
                for bound in [from, to] {
                    self.option(bound.as_ref(), |writer, bound| writer.signed(*bound));
                }
                return;
            }
        };
        self.byte(kind);
        self.list(words, |writer, word| writer.text(word));
    }

    fn threshold(&mut self, line: &Threshold) {
        self.byte(line.id.0);
        self.text(&line.name);
        self.signed(line.rise.0);
        self.signed(line.fall.0);
        self.duration(line.dwell);
        self.duration(line.cooldown);
        self.list(&line.grades, |writer, grade| writer.byte(*grade as u8));
        self.option(line.recent.as_ref(), |writer, recent| writer.duration(*recent));
        self.limit(line.urgency);
        self.option(line.tell.as_ref(), |writer, tell| writer.text(tell));
        self.option(line.again.as_ref(), |writer, again| {
            writer.signed(again.every.0);
            writer.option(again.at_most.as_ref(), |writer, (most, period)| {
                writer.varint(u64::from(*most));
                writer.period(*period);
            });
        });
    }
}

impl Reader<'_> {
    pub(super) fn published(&mut self) -> Read<Published> {
        let names = self.names()?;
        Ok(Published { names, terms: self.terms()?, text: self.bytes()?.to_vec() })
    }

    fn terms(&mut self) -> Read<Terms> {
        let (version, published) = (self.number("version")?, self.time()?);
        let offset = UtcOffset(self.signed()?);
        let (total_max, claims_max) = (self.limit()?, self.limit()?);
        let urgency = half_life(self)?;
        let categories = self.list(|reader| {
            Ok(CategoryTerms {
                id: CategoryId(reader.byte()?),
                half_life: half_life(reader)?,
                max: reader.limit()?,
                in_total: reader.bool()?,
            })
        })?;
        let rules = self.list(|reader| {
            Ok(RuleTerms {
                id: RuleId(reader.number("rule")?),
                guards: reader.guards()?,
                tell: reader.option(Reader::text)?,
                on_remove: reader
                    .one_of(&[OnRemove::Keep, OnRemove::Withdraw], "what becomes of rows")?,
            })
        })?;
        Ok(Terms {
            version,
            published,
            offset,
            categories,
            total_max,
            claims_max,
            urgency,
            rules,
            thresholds: self.list(Reader::threshold)?,
            fit: self.fit()?,
        })
    }

    fn fit(&mut self) -> Read<Fit> {
        Ok(Fit {
            known_min: self.number("count")?,
            lines: [self.points()?, self.points()?, self.points()?],
            rules: self.list(|reader| {
                Ok(FitRule { test: reader.attribute_test()?, points: reader.points()? })
            })?,
        })
    }

    fn limit(&mut self) -> Read<Option<Points>> {
        self.option(Reader::points)
    }

    pub(super) fn duration(&mut self) -> Read<Duration> {
        Ok(Duration::from_millis(self.varint()?))
    }

    fn period(&mut self) -> Read<Period> {
        let length = self.duration()?;
        Ok(if length.is_zero() { Period::Day } else { Period::Rolling(length) })
    }

    fn at_most(&mut self) -> Read<(u32, Period)> {
        Ok((self.number("count")?, self.period()?))
    }

    fn guards(&mut self) -> Read<Guards> {
        Ok(Guards {
            once: self.option(|reader| {
                let after = reader.duration()?;
                Ok(if after.is_zero() { Once::Ever } else { Once::Rearmed(after) })
            })?,
            once_per: self.option(Reader::period)?,
            at_most: self.option(Reader::at_most)?,
            max: self.limit()?,
            only: self.list(Reader::attribute_test)?,
            away: self.option(Reader::duration)?,
        })
    }

    fn attribute_test(&mut self) -> Read<AttributeTest> {
        let attribute = self.text()?;
        let test = match self.byte()? {
            0 => Test::Has(self.list(Reader::text)?),
            1 => Test::Is(self.list(Reader::text)?),
            2 => Test::Ends(self.list(Reader::text)?),
            3 => Test::Between(self.option(Reader::signed)?, self.option(Reader::signed)?),
            _ => return Err(WireError::UnknownNumber("test")),
        };
        Ok(AttributeTest { attribute, test })
    }

    fn threshold(&mut self) -> Read<Threshold> {
        Ok(Threshold {
            id: ThresholdId(self.byte()?),
            name: self.text()?,
            rise: self.points()?,
            fall: self.points()?,
            dwell: self.duration()?,
            cooldown: self.duration()?,
            grades: self.list(|reader| reader.one_of(&Grade::ALL, "grade"))?,
            recent: self.option(Reader::duration)?,
            urgency: self.limit()?,
            tell: self.option(Reader::text)?,
            again: self.option(|reader| {
                Ok(Again { every: reader.points()?, at_most: reader.option(Reader::at_most)? })
            })?,
        })
    }
}
