//! The figures: counters, gauges and latencies as Prometheus text.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use engine::record::NameKind;
use hyper::Response;

use super::Admin;
use crate::metrics::write_figure;

use crate::reader::days::{Day, Days};
use crate::response;
use crate::server::Body;

impl Admin {
    /// All of it as Prometheus text.
    pub(super) fn metrics(&self) -> Response<Body> {
        let mut text = String::new();
        self.app.metrics.write(&mut text);
        self.app.audit.write(&mut text);
        let gauges = self.gauges().into_iter().chain(self.kept());
        for (name, help, value) in gauges.chain(self.totals()) {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            write_figure(&mut text, name, help, kind, value as f64);
        }
        self.write_gaps(&mut text);
        let listeners = [("collector", &self.collector_counters), ("admin", &self.admin_counters)];
        for (listener, counters) in listeners {
            for (name, value) in counters.iter() {
                let name = format!("mikomi_{listener}_connections_{name}");
                write_figure(&mut text, &name, "A count of the listener.", "untyped", value as f64);
            }
        }
        self.write_sales(&mut text);
        response::file("text/plain; version=0.0.4; charset=utf-8", text)
    }

    /// What each endpoint has not got, by reason.
    fn write_gaps(&self, text: &mut String) {
        const NAME: &str = "mikomi_alert_gaps";
        let help = "Messages an endpoint has not got, by reason; /api/alerts/gaps lists them.";
        // Writing into a string does not fail.
        let _ = writeln!(text, "# HELP {NAME} {help}\n# TYPE {NAME} gauge");
        let book = self.log.book();
        for endpoint in self.endpoints.load().iter() {
            for (why, count) in book.missing(&endpoint.id, endpoint.test) {
                let (id, why) = (&endpoint.id, why.name());
                let _ = writeln!(text, "{NAME}{{endpoint=\"{id}\",why=\"{why}\"}} {count}");
            }
        }
    }

    /// What was told and what became of it, and what a survey finds.
    fn write_sales(&self, text: &mut String) {
        let total = self.lists.days(Days::total);
        let alerts = total.alerts.iter().map(|((kind, audience), count)| {
            (format!("type=\"{kind}\",audience=\"{audience}\""), *count as f64)
        });
        let counter = "counter";
        family(text, "mikomi_alerts_total", "Messages decided on.", counter, alerts);
        let answered = total
            .answered
            .iter()
            .map(|(kind, count)| (format!("kind=\"{}\"", kind.name()), *count as f64));
        let help = "Messages that sales answered, by its first answer.";
        family(text, "mikomi_alerts_answered_total", help, counter, answered);
        let cuts = total.cuts.iter().map(|(by, (rows, _))| (format!("by=\"{by}\""), *rows as f64));
        family(text, "mikomi_rows_cut_total", "New rows that a max cut.", counter, cuts);
        for (name, help, value) in [
            (
                "mikomi_alerts_answered_in_time_total",
                "Messages that sales answered in time.",
                total.in_time,
            ),
            (
                "mikomi_messages_waited_total",
                "Messages that had to wait for the cool-down.",
                total.waited,
            ),
            (
                "mikomi_messages_dropped_total",
                "Messages dropped after the cool-down: the lead was out again.",
                total.dropped,
            ),
        ] {
            write_figure(text, name, help, counter, value as f64);
        }
        self.write_verdicts(text, &total);
        self.write_survey(text);
    }

    fn write_verdicts(&self, text: &mut String, total: &Day) {
        let catalog = self.app.engine.catalog();
        let name = |kind, number| catalog.name(kind, number).unwrap_or_default();
        let hot = total.hot.iter().flat_map(|((line, rule), verdicts)| {
            let line = line.map_or("", |line| name(NameKind::Threshold, u16::from(line.0)));
            let rule = rule.map_or("", |rule| name(NameKind::Rule, rule.0));
            ["taken", "rejected"].into_iter().zip(verdicts).map(move |(verdict, count)| {
                let labels = format!("threshold=\"{line}\",rule=\"{rule}\",verdict=\"{verdict}\"");
                (labels, *count as f64)
            })
        });
        let help = "Messages that a lead is hot, by sales' last word on them.";
        family(text, "mikomi_hot_verdicts", help, "gauge", hot);
        let help = "Messages that ask sales for an answer, answered or not.";
        write_figure(text, "mikomi_alerts_asked", help, "gauge", total.asked as f64);
    }

    fn write_survey(&self, text: &mut String) {
        let survey = self.surveys.get(&self.app, &self.lists);
        let shut = survey.shut_out.iter().map(|((line, gate), leads)| {
            (format!("threshold=\"{line}\",gate=\"{gate}\""), *leads as f64)
        });
        let help = "Leads that have the points for a line and are kept out by a gate.";
        family(text, "mikomi_leads_shut_out", help, "gauge", shut);
        let listed =
            survey.listed.iter().map(|(id, leads)| (format!("list=\"{id}\""), *leads as f64));
        family(text, "mikomi_leads_listed", "Leads on a named list.", "gauge", listed);
        for (name, help, value) in [
            (
                "mikomi_messages_waiting",
                "Messages that wait for the cool-down now.",
                survey.waiting,
            ),
            ("mikomi_leads_untaken", "Leads that nobody took in time.", survey.untaken),
            (
                "mikomi_visitors_hot_unknown",
                "Browsers with the points of a hot lead that are nobody's.",
                survey.unknown,
            ),
        ] {
            write_figure(text, name, help, "gauge", value as f64);
        }
        let minutes = self.answer_minutes();
        let help = "From a message of the last 30 days to its first answer.";
        family(text, "mikomi_answer_minutes", help, "gauge", minutes.into_iter());
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let app = &self.app;
        let journal = app.journal.figures();
        let (visitors, leads) = app.engine.sizes();
        let (queue, durable) = (*self.queue.borrow(), app.journal.durable().ordinal());
        vec![
            ("mikomi_visitors", "Visitors in memory.", visitors as u64),
            ("mikomi_leads", "Leads in memory.", leads as u64),
            ("mikomi_timers", "Leads that time will act on.", app.engine.timers() as u64),
            ("mikomi_journal_bytes", "Valid bytes of the journal.", journal.journal_bytes),
            (
                "mikomi_journal_pending_bytes",
                "Bytes that wait for the disk.",
                journal.pending_bytes,
            ),
            ("mikomi_journal_durable_position", "The last durable position.", durable),
            (
                "mikomi_followers_stalled",
                "Of outbox and reader, how many cannot read the journal.",
                app.stalled.count(),
            ),
            (
                "mikomi_snapshot_bytes",
                "Bytes of the last snapshot of this run; 0 before the first.",
                app.snapshots.bytes.load(Ordering::Relaxed),
            ),
            (
                "mikomi_snapshot_took_ms",
                "Milliseconds that it took.",
                app.snapshots.took_ms.load(Ordering::Relaxed),
            ),
            (
                "mikomi_snapshot_at_ms",
                "When it was taken, in milliseconds since 1970.",
                app.snapshots.last.load(Ordering::Relaxed),
            ),
            ("mikomi_deliveries_pending", "Messages waiting or in flight.", queue.pending as u64),
            ("mikomi_deliveries_dead", "Dead letters kept.", queue.dead as u64),
            (
                "mikomi_disk_full",
                "1 while the disk has no space and hits are refused.",
                u64::from(journal.disk_full),
            ),
            (
                "mikomi_journal_reserve_bytes",
                "Kept free for a stop on a full disk; 0 while there is no space for it.",
                journal.reserve_bytes,
            ),
            (
                "mikomi_clock_in_doubt",
                "1 while a jump of the clock is not believed.",
                u64::from(app.clock.is_in_doubt()),
            ),
        ]
    }

    /// What is kept of the journal.
    fn kept(&self) -> [(&'static str, &'static str, u64); 3] {
        let (app, retention) = (&self.app, &self.app.retention);
        [
            (
                "mikomi_journal_first_position",
                "The oldest position kept.",
                app.journal.first().ordinal(),
            ),
            (
                "mikomi_journal_base_position",
                "The last position that the base stands for; 0 if everything is kept.",
                retention.base.load(Ordering::Relaxed),
            ),
            (
                "mikomi_journal_segments_held",
                "Segments older than journal.keep_days that something still needs.",
                retention.held.load(Ordering::Relaxed),
            ),
        ]
    }

    fn totals(&self) -> Vec<(&'static str, &'static str, u64)> {
        let journal = self.app.journal.figures();
        let sent = self.queue.borrow().counters;
        let over = journal.over_reserved;
        vec![
            (
                "mikomi_links_refused_total",
                "Ties refused: the lead has as many browsers as it may.",
                self.app.engine.links_refused(),
            ),
            (
                "mikomi_snapshots_taken_total",
                "Snapshots taken.",
                self.app.snapshots.taken.load(Ordering::Relaxed),
            ),
            (
                "mikomi_snapshots_failed_total",
                "Snapshots that could not be taken.",
                self.app.snapshots.failed.load(Ordering::Relaxed),
            ),
            (
                "mikomi_journal_segments_removed_total",
                "Segments removed, since they were older than journal.keep_days.",
                journal.removed,
            ),
            (
                "mikomi_retention_failed_total",
                "Times that something old enough could not be removed.",
                self.app.retention.failed.load(Ordering::Relaxed),
            ),
            ("mikomi_journal_commits_total", "Groups made durable.", journal.commits),
            ("mikomi_journal_refused_total", "Reservations refused.", journal.refused),
            ("mikomi_disk_full_total", "Times that the disk became full.", journal.disk_full_times),
            ("mikomi_journal_over_reserved_total", "Records above their reservation.", over),
            (
                "mikomi_journal_read_errors_total",
                "Errors of outbox and reader at reading the journal; each is tried again.",
                self.app.stalled.errors(),
            ),
            ("mikomi_deliveries_delivered_total", "Messages answered 2xx.", sent.delivered),
            ("mikomi_deliveries_failed_total", "Attempts that failed.", sent.failed),
            ("mikomi_deliveries_shadowed_total", "Messages kept in shadow.", sent.shadowed),
            (
                "mikomi_deliveries_superseded_total",
                "Messages dropped unsent: a newer one tells the state.",
                sent.superseded,
            ),
            (
                "mikomi_deliveries_retracted_total",
                "Messages dropped unsent: taken back, or taking one back that was dropped.",
                sent.retracted,
            ),
            ("mikomi_deliveries_refused_total", "Messages over a limit.", sent.refused_by_limit),
        ]
    }
}

/// Figures of one name that differ by their labels.
fn family(
    text: &mut String,
    name: &str,
    help: &str,
    kind: &str,
    figures: impl Iterator<Item = (String, f64)>,
) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in figures {
        let _ = writeln!(text, "{name}{{{labels}}} {value}");
    }
}
