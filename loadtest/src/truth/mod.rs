//! Whether all of it is true: each hit that a run sent is remembered with its answer, a receiver
//! takes the messages, and at the end a model says by the acknowledged hits, in the order of the
//! server's own positions, what every score and every message must be. It is written from what the
//! scoring words mean (config/scoring.toml) and from FORMAT.md, and shares nothing with the server.

mod account;
mod ask;
mod fade;
mod findings;
mod heard;
mod judge;
mod model;
mod person;
mod rules;
pub mod sent;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use account::Account;
use ask::Admin;
use findings::{Findings, Sort};
use heard::{Heard, Shared};
use judge::{Judged, Took, judge};
use model::SLACK_MS;
use person::{Life, Site};
use rules::Rules;
use sent::Log;

use crate::cli;
use crate::clock::since_1970;
use crate::measured::{Times, add, times};
use crate::people;
use crate::report;
use crate::scenario::Scenario;

/// From the end of the load to the moment until which everything is judged: a while in which time
/// alone goes on.
const AFTER_LOAD_MS: u64 = 1_500;
/// The longest wait until all messages have been delivered.
const DRAIN: Duration = Duration::from_mins(5);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(200);
/// So many looks in a row find nothing that waits.
const QUIET_LOOKS: u32 = 10;

/// What a run is held against.
pub struct Truth {
    site: Site,
    scenario: Scenario,
    admin: (String, String),
    /// The figure that says how many messages wait.
    waiting: String,
    heard: Shared,
    began: Instant,
}

impl Truth {
    /// Begins to listen.
    pub fn open(
        words: &cli::Truth,
        rules: &Path,
        scenario: &Scenario,
        (url, token): (Option<&str>, Option<&str>),
    ) -> Result<Truth, String> {
        let admin = url.zip(token).ok_or("--truth asks the server: say --admin and its token")?;
        if words.sink_secrets.is_empty() {
            return Err("--truth takes messages: say --sink-secret".to_owned());
        }
        let began = Instant::now();
        Ok(Truth {
            site: Site::new(Rules::open(rules)?, scenario),
            scenario: scenario.clone(),
            admin: (admin.0.to_owned(), admin.1.to_owned()),
            waiting: waiting(words.sink_endpoint.as_deref()),
            heard: heard::listen(words.sink, &words.sink_secrets, began)?,
            began,
        })
    }

    /// A log for one thread.
    pub fn log(&self) -> Log {
        Log::new(self.began)
    }

    /// Judges what came of what was sent.
    pub fn judge(&self, logs: Vec<Log>) -> Result<report::truth::Truth, String> {
        let until = since_1970().as_millis() as u64 + AFTER_LOAD_MS;
        let mut admin = Admin::new(&self.admin.0, &self.admin.1)?;
        drain(&mut admin, &self.waiting, until)?;
        let judging = Instant::now();
        let mut findings = Findings::default();
        let mut account = Account::of(logs);
        let what = |did, place| self.site.what(did, place);
        admin.hits(&mut |record| account.record(record, &what, &mut findings))?;
        account.check(&mut findings);
        let mut sum = Sum { findings, ..Sum::default() };
        let mut heard = self.heard_by_person();
        self.judge_people(&account, &mut heard, (&mut admin, until), &mut sum)?;
        for told in heard.into_values().flatten().filter(|it| it.message.at <= until) {
            sum.findings.note(Sort::Invented, || format!("{} is about nobody", told.id));
        }
        let leads = admin.figure("mikomi_leads")? as u64;
        for _ in sum.leads..leads {
            sum.findings.note(Sort::Invented, || format!("{leads} leads, to be {}", sum.leads));
        }
        let book = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for broken in &book.broken {
            sum.findings.note(Sort::Wrong, || broken.clone());
        }
        let counts = account.counts();
        let count = |sort| sum.findings.count(sort);
        Ok(report::truth::Truth {
            lost: count(Sort::Lost),
            invented: count(Sort::Invented),
            missing: count(Sort::Missing),
            doubled: count(Sort::Doubled),
            wrong: count(Sort::Wrong),
            examples: sum.findings.examples().to_vec(),
            hits: report::truth::Hits {
                sent: counts.sent,
                sent_again: counts.again,
                acknowledged: counts.acknowledged,
                unanswered: counts.unanswered,
                unanswered_recorded: counts.unanswered_recorded,
                recorded: counts.recorded,
                refused_requests: counts.refused,
            },
            leads: sum.leads,
            rows: sum.rows,
            messages: report::truth::Messages {
                expected: sum.expected,
                heard: book.messages.len() as u64,
                repeated: book.repeated,
                refused: book.refused,
            },
            click_to_alert: report::Summary::of(sum.by_hits),
            due_to_alert: report::Summary::of(sum.by_time),
            judged_s: judging.elapsed().as_secs_f64(),
        })
    }

    fn judge_people(
        &self,
        account: &Account,
        heard: &mut BTreeMap<String, Vec<Heard>>,
        (admin, until): (&mut Admin, u64),
        sum: &mut Sum,
    ) -> Result<(), String> {
        let form = &self.scenario.form;
        let mut browsers_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for browser in 0..account.browsers().min(self.scenario.visitors.count as u32) {
            let person = people::person(browser, form.second_browsers);
            browsers_of.entry(person).or_default().push(browser);
        }
        let test = self.scenario.site != self.scenario.site_id;
        for (person, browsers) in browsers_of {
            let Some(life) = Life::of(account, &browsers) else {
                continue;
            };
            let email = people::mail(person, &form.domain);
            let seen = admin.lead(&self.scenario.site_id, test, &email)?;
            sum.leads += 1;
            sum.rows += seen.as_ref().map_or(0, |seen| seen.rows.len() as u64);
            let heard = heard.remove(&email).unwrap_or_default();
            let heard: Vec<&Heard> = heard.iter().collect();
            let judged = judge(&self.site, &life, &email, seen.as_ref(), &heard, until);
            sum.add(judged, |position| {
                life.fact(position).map(|fact| u64::from(account.sent_at(fact)) * 10)
            });
        }
        Ok(())
    }

    /// What was heard until now.
    fn heard_by_person(&self) -> BTreeMap<String, Vec<Heard>> {
        let book = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_person: BTreeMap<String, Vec<Heard>> = BTreeMap::new();
        for heard in book.messages.values() {
            by_person.entry(heard.message.email.clone()).or_default().push(heard.clone());
        }
        by_person
    }
}

/// What all people come to.
struct Sum {
    findings: Findings,
    leads: u64,
    rows: u64,
    expected: u64,
    by_hits: Times,
    by_time: Times,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum {
            findings: Findings::default(),
            leads: 0,
            rows: 0,
            expected: 0,
            by_hits: times(),
            by_time: times(),
        }
    }
}

impl Sum {
    /// Adds a person; `sent`: when the hit of a record was sent, in microseconds.
    fn add(&mut self, judged: Judged, sent: impl Fn(u64) -> Option<u64>) {
        self.findings.add(judged.findings);
        self.expected += judged.expected;
        for took in judged.took {
            match took {
                Took::Hit(position, read) => {
                    if let Some(sent) = sent(position) {
                        let took = Duration::from_micros(read.saturating_sub(sent));
                        add(&mut self.by_hits, took);
                    }
                }
                Took::Time(took) => add(&mut self.by_time, Duration::from_micros(took)),
            }
        }
    }
}

/// The figure that says how many messages wait: for all endpoints, or for one.
fn waiting(endpoint: Option<&str>) -> String {
    match endpoint {
        Some(id) => format!("mikomi_alert_gaps{{endpoint=\"{id}\",why=\"pending\"}}"),
        None => "mikomi_deliveries_pending".to_owned(),
    }
}

/// Waits until everything that must have been told until a moment has been delivered.
fn drain(admin: &mut Admin, waiting: &str, until: u64) -> Result<(), String> {
    let (patience, mut quiet) = (Instant::now() + DRAIN, 0);
    while quiet < QUIET_LOOKS {
        if Instant::now() > patience {
            return Err("messages are still waiting to be delivered".to_owned());
        }
        thread::sleep(LOOK);
        let over = since_1970().as_millis() as u64 > until + SLACK_MS;
        let none = admin.figure(waiting)? <= 0.0;
        // Leads go on cooling meanwhile: that is not what is waited for.
        quiet = if none && over { quiet + 1 } else { quiet };
    }
    Ok(())
}

/// The text of a file with a secret.
pub fn secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests;
