//! The figures: counters, gauges and latencies as Prometheus text.

use std::fmt::Write as _;

use hyper::Response;

use super::Admin;
use crate::metrics::write_figure;
use crate::response;
use crate::server::Body;

impl Admin {
    /// All of it as Prometheus text.
    pub(super) fn metrics(&self) -> Response<Body> {
        let mut text = String::new();
        self.app.metrics.write(&mut text);
        for (name, help, value) in self.gauges().into_iter().chain(self.totals()) {
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
            ("mikomi_deliveries_pending", "Messages waiting or in flight.", queue.pending as u64),
            ("mikomi_deliveries_dead", "Dead letters kept.", queue.dead as u64),
            (
                "mikomi_clock_in_doubt",
                "1 while a jump of the clock is not believed.",
                u64::from(app.clock.is_in_doubt()),
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
            ("mikomi_journal_commits_total", "Groups made durable.", journal.commits),
            ("mikomi_journal_refused_total", "Reservations refused.", journal.refused),
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
