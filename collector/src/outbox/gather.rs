//! Digests are gathered: in the evening what was too much for the day, in the morning what is
//! open. A digest is an entry of the journal like a message, so that a crash neither loses nor
//! doubles it.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::alert::AlertKind;
use engine::id::{LeadId, Position};
use engine::lead::Lead;
use engine::record::{Body, Record, Step};
use engine::stage::FeedbackKind;
use engine::time::Timestamp;

use super::book::Standing;
use super::digest::{Section, fitting};
use super::entry::{Digest, Entry, Item, Line, base64, from_base64};
use super::look::Lang;
use super::plan::Kept;
use super::when::{Calendar, Occasion, Slot};
use super::{Outbox, calendar, push};
use crate::app::count;
use crate::config::{Chat, Endpoint};
use crate::journal::ReadError;
use crate::timeline;

/// A summary that could not be sent so long after its time is not sent any more: it is no longer
/// morning. What it would have listed is in the next digest.
const SUMMARY_LATE_MAX: Duration = Duration::from_hours(2);
/// What was held until so long before a summary is named in it.
const HELD_BEFORE: Duration = Duration::from_hours(12);
/// How often the time is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Meetings that lie so far back are forgotten.
const MEETING_KEPT: Duration = Duration::from_hours(48);

/// When each lead is to be met, as sales last said.
#[derive(Debug, Default)]
pub(super) struct Meetings(pub(super) BTreeMap<LeadId, Timestamp>);

/// What was gathered, in this process.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// When the time was last looked at.
    looked: Timestamp,
    /// The summary last made or found empty, by endpoint.
    summaries: BTreeMap<String, Timestamp>,
}

/// A line of a digest, plain and sealed, and what it stands for.
struct Mention {
    section: Section,
    lead: LeadId,
    alert: Option<String>,
    line: Line,
    sealed: String,
}

/// Why nothing is gathered just now; it is tried again.
struct NotNow;

impl Meetings {
    /// Takes in what sales answered.
    pub(super) fn take(&mut self, record: &Record) {
        let Body::Step(step) = &record.body else {
            return;
        };
        if let (Step::Feedback(feedback), Some(part)) = (&step.step, &step.lead)
            && let (FeedbackKind::MeetingPlanned, Some(until)) = (feedback.kind, feedback.until)
        {
            self.0.insert(part.lead, until);
        }
    }

    /// People were erased.
    pub(super) fn forget(&mut self, leads: &[LeadId]) {
        self.0.retain(|lead, _| !leads.contains(lead));
    }

    /// Whoever may have to be met within a time; whether they do, their answers say.
    fn between(&self, from: Timestamp, until: Timestamp) -> Vec<LeadId> {
        let within = |at: &Timestamp| from <= *at && *at < until;
        self.0.iter().filter(|(_, at)| within(at)).map(|(lead, _)| *lead).collect()
    }
}

impl Outbox {
    /// Makes the digests that are due.
    pub(super) fn gather(&mut self) {
        let now = self.app.clock.now();
        let soon = self.gathered.looked <= now && now.since(self.gathered.looked) < LOOK_EVERY;
        if soon || self.app.clock.is_in_doubt() {
            return;
        }
        self.gathered.looked = now;
        let calendar = calendar(&self.app);
        let endpoints = self.endpoints.load_full();
        for endpoint in endpoints.iter() {
            let Some(chat) = &endpoint.chat else {
                continue;
            };
            let morning = chat.summary.and_then(|summary| calendar.morning(now, summary));
            if let Some(slot) = morning {
                self.summarise(endpoint, chat, (&calendar, &slot), now);
            }
        }
        for room in self.plan.due(now) {
            if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.id == room) {
                self.list(endpoint, &calendar, now);
            }
        }
        self.meetings.0.retain(|_, at| now.since(*at) < MEETING_KEPT);
    }

    /// In the morning, what is open, once.
    fn summarise(
        &mut self,
        endpoint: &Endpoint,
        chat: &Chat,
        (calendar, slot): (&Calendar, &Slot),
        now: Timestamp,
    ) {
        let is_due = slot.at <= now && now.since(slot.at) < SUMMARY_LATE_MAX;
        if !is_due || self.gathered.summaries.get(&endpoint.id) == Some(&slot.at) {
            return;
        }
        let Ok(mentions) = self.open(endpoint, (calendar, slot), now) else {
            return;
        };
        self.write(endpoint, chat, (calendar, slot), mentions, now);
        self.gathered.summaries.insert(endpoint.id.clone(), slot.at);
    }

    /// What was too much for the day.
    fn list(&mut self, endpoint: &Endpoint, calendar: &Calendar, now: Timestamp) {
        let kept = self.plan.listed(&endpoint.id, now);
        let Some(at) = kept.iter().map(|kept| kept.from).max() else {
            return;
        };
        let slot = Slot { at, day: at.day(calendar.offset), occasion: Occasion::Evening };
        if let Ok(mentions) = self.kept(endpoint, Section::Listed, &kept) {
            let chat = endpoint.chat.clone().unwrap_or_default();
            self.write(endpoint, &chat, (calendar, &slot), mentions, now);
        }
    }

    /// Everything that a summary names, but for what it has named already.
    fn open(
        &self,
        endpoint: &Endpoint,
        (calendar, slot): (&Calendar, &Slot),
        now: Timestamp,
    ) -> Result<Vec<Mention>, NotNow> {
        let mut mentions = self.untaken(endpoint, now)?;
        mentions.extend(self.meetings_today(endpoint, calendar, slot)?);
        let before = slot.at.minus(HELD_BEFORE);
        let mut held = self.plan.held(&endpoint.id, before, slot.at);
        held.retain(|kept| {
            let standing = self.log.book().standing(&kept.alert, &endpoint.id);
            !matches!(standing, Some(Standing::Superseded | Standing::Retracted))
        });
        mentions.extend(self.kept(endpoint, Section::Held, &held)?);
        let listed = self.plan.listed(&endpoint.id, now);
        mentions.extend(self.kept(endpoint, Section::Listed, &listed)?);
        let said = |it: &Mention| {
            let kept = it.alert.is_some();
            !kept && self.plan.has_said(&endpoint.id, slot, it.section.name(), it.lead)
        };
        mentions.retain(|mention| !said(mention));
        Ok(mentions)
    }

    /// Hot leads that this endpoint was told of and nobody took.
    fn untaken(&self, endpoint: &Endpoint, now: Timestamp) -> Result<Vec<Mention>, NotNow> {
        let in_force = self.app.scoring.load();
        let mut found = Vec::new();
        for id in self.lists.hot() {
            let Some(lead) = self.app.engine.lead(id) else {
                continue;
            };
            let Some(asked) = lead.asked else {
                continue;
            };
            if lead.test != endpoint.test || !self.was_told(endpoint, id, &lead) {
                continue;
            }
            let hours = in_force.scoring.sales.between(asked.since, now).as_secs() / 3_600;
            let points = lead.standing(&in_force.scoring, now).score.shown();
            let (who, owner) = self.names(endpoint, id, &lead);
            let text = match endpoint.look.lang {
                Lang::En => format!("{who}, {points} points, waiting {hours} h{owner}"),
                Lang::Ja => format!("{who} {points}点 未対応{hours}時間{owner}"),
            };
            let section = if asked.reminded { Section::Reminded } else { Section::Untaken };
            found.push((asked.since, self.mention(section, id, &text)?));
        }
        // Whoever waits longest comes first.
        found.sort_by_key(|(since, _)| *since);
        Ok(found.into_iter().map(|(_, mention)| mention).collect())
    }

    /// Whom sales is to meet on the day of a summary.
    fn meetings_today(
        &self,
        endpoint: &Endpoint,
        calendar: &Calendar,
        slot: &Slot,
    ) -> Result<Vec<Mention>, NotNow> {
        let (from, until) = calendar.bounds(slot.day);
        let mut found = Vec::new();
        for name in self.meetings.between(from, until) {
            let id = self.app.engine.head(name);
            let Some(lead) = self.app.engine.lead(id) else {
                continue;
            };
            let Some(at) = meeting_of(&lead).filter(|at| from <= *at && *at < until) else {
                continue;
            };
            if lead.test != endpoint.test || !self.was_told(endpoint, id, &lead) {
                continue;
            }
            let minutes = at.since(from).as_secs() / 60;
            let (who, owner) = self.names(endpoint, id, &lead);
            let text = format!("{}:{:02} {who}{owner}", minutes / 60, minutes % 60);
            found.push((at, self.mention(Section::Meeting, id, &text)?));
        }
        found.sort_by_key(|(at, _)| *at);
        Ok(found.into_iter().map(|(_, mention)| mention).collect())
    }

    /// Whether an endpoint got a message about somebody, or would have.
    fn was_told(&self, endpoint: &Endpoint, id: LeadId, lead: &Lead) -> bool {
        let mut names: Vec<LeadId> = lead.content.members.iter().map(|member| member.id).collect();
        names.push(id);
        let book = self.log.book();
        book.told(&names, &endpoint.id).any(|(kind, _, standing)| {
            let asks = matches!(kind, Some(AlertKind::Hot | AlertKind::Action | AlertKind::Signal));
            let never = matches!(
                standing,
                Standing::Filtered
                    | Standing::HeldBack
                    | Standing::Superseded
                    | Standing::Retracted
            );
            asks && !never
        })
    }

    /// What somebody is called, and whose they are, as far as the endpoint is shown it.
    fn names(&self, endpoint: &Endpoint, id: LeadId, lead: &Lead) -> (String, String) {
        let attributes = lead.attributes();
        let shown = |name: &str| {
            let value = attributes.get(name).filter(|_| !endpoint.hide.contains(name));
            value.map(String::as_str).filter(|value| !value.is_empty())
        };
        let id = id.to_string();
        let name = shown("name").or_else(|| shown("email")).unwrap_or(&id);
        let company = shown("company").unwrap_or_default();
        let owner = lead.owner().or_else(|| shown("owner"));
        let owners = self.app.owners.load();
        let owner = owner.filter(|_| !endpoint.hide.contains("owner"));
        let owner = owner.map(|mail| (mail, owners.find(mail)));
        if endpoint.look.lang == Lang::En {
            let who =
                if company.is_empty() { name.to_owned() } else { format!("{name}, {company}") };
            let owner = owner.map(|(mail, it)| it.map_or(mail, |it| &it.name_en));
            return (who, owner.map_or_else(String::new, |owner| format!(" ({owner})")));
        }
        let owner = owner.map(|(mail, it)| it.map_or(mail, |it| &it.name_ja));
        let who = format!("{company} {}さん", name.replace([' ', '\u{3000}'], ""));
        let owner = owner.map_or_else(String::new, |owner| format!("（{owner}）"));
        (who.trim().to_owned(), owner)
    }

    fn mention(&self, section: Section, lead: LeadId, text: &str) -> Result<Mention, NotNow> {
        let url = self.app.settings.admin.admin_url.as_deref();
        let line = Line::new(text, url.map(|url| format!("{url}/leads/{lead}")).as_deref());
        let sealed = self.app.sealer.seal(lead, &line.encode()).map_err(|_| NotNow)?;
        Ok(Mention { section, lead, alert: None, line, sealed: base64(&sealed) })
    }

    /// The lines of messages that were kept back, as they were frozen.
    fn kept(
        &self,
        endpoint: &Endpoint,
        section: Section,
        kept: &[Kept],
    ) -> Result<Vec<Mention>, NotNow> {
        let mut found = Vec::new();
        for kept in kept {
            let sealed = self.line_of(endpoint, kept.entry)?;
            let open = from_base64(&sealed).and_then(|it| self.app.sealer.unseal(kept.lead, &it));
            // Of whoever is forgotten nothing is said; the entry is listed all the same, or it
            // would wait for ever.
            let line = open.and_then(|it| Line::decode(&it)).unwrap_or_default();
            let alert = Some(kept.alert.clone());
            found.push(Mention { section, lead: kept.lead, alert, line, sealed });
        }
        Ok(found)
    }

    fn line_of(&self, endpoint: &Endpoint, entry: Position) -> Result<String, NotNow> {
        let record = match timeline::read(&self.app, entry) {
            Ok(record) => record,
            // It waited for longer than the journal is kept: for a room that there was not.
            Err(ReadError::Removed { .. }) => return Ok(String::new()),
            Err(_) => return Err(NotNow),
        };
        let Body::Outbox(bytes) = &record.body else {
            return Ok(String::new());
        };
        let Some(Entry::Queued(queued)) = Entry::decode(bytes) else {
            return Ok(String::new());
        };
        let mut bodies = queued.bodies.into_iter();
        let of_it = bodies.find(|frozen| frozen.endpoint.as_deref() == Some(&endpoint.id));
        Ok(of_it.map(|frozen| frozen.line).unwrap_or_default())
    }

    /// Writes the entries of a digest: as many as its room needs for all the lines.
    fn write(
        &mut self,
        endpoint: &Endpoint,
        chat: &Chat,
        (calendar, slot): (&Calendar, &Slot),
        mut mentions: Vec<Mention>,
        now: Timestamp,
    ) {
        mentions.sort_by_key(|mention| mention.section);
        let not_before = chat.quiet.and_then(|quiet| calendar.rests_until(&quiet, now));
        while !mentions.is_empty() {
            let part = self.plan.part(&endpoint.id, slot);
            let item = |mention: &Mention| Item {
                section: mention.section.name().to_owned(),
                lead: mention.lead.to_string(),
                alert: mention.alert.clone(),
                line: mention.sealed.clone(),
            };
            let mut digest = Digest {
                alert: self.id_of(endpoint, slot, part),
                endpoint: endpoint.id.clone(),
                occasion: slot.occasion.name().to_owned(),
                slot: slot.at.0,
                day: slot.day,
                part,
                test: endpoint.test,
                not_before: not_before.map(|until| until.0),
                form: endpoint.look.form.name().to_owned(),
                lang: endpoint.look.lang.name().to_owned(),
                items: mentions.iter().map(item).collect(),
            };
            let lines: Vec<_> = mentions.iter().map(|it| Some(it.line.clone())).collect();
            let fitting = fitting(&digest, &lines);
            digest.items.truncate(fitting);
            mentions.drain(..fitting);
            let entry = Entry::Digest(digest);
            if push(&self.app, &entry).is_err() {
                return;
            }
            if let Entry::Digest(digest) = entry {
                count(&self.app.metrics.digests);
                self.log.book().digest(&digest);
                self.plan.digest(&digest);
                // At once: whoever is named may be erased before it is come to in the journal.
                self.digests.insert(digest.alert.clone(), digest);
            }
        }
    }

    /// The id of a digest: the same whenever it is made anew after a crash.
    fn id_of(&self, endpoint: &Endpoint, slot: &Slot, part: u32) -> String {
        let key = self.app.install.alert.hash128(&[
            b"digest v1",
            &self.app.journal.incarnation().to_le_bytes(),
            endpoint.id.as_bytes(),
            slot.occasion.name().as_bytes(),
            &slot.day.to_le_bytes(),
            &part.to_le_bytes(),
        ]);
        super::book::id_of(key)
    }
}

/// When somebody is to be met, by the last answer that says so and that none has ended.
fn meeting_of(lead: &Lead) -> Option<Timestamp> {
    let mut answers = lead.content.feedback.iter().rev();
    let last = answers.find(|it| it.kind != FeedbackKind::Snooze)?;
    last.until.filter(|_| last.kind == FeedbackKind::MeetingPlanned)
}
