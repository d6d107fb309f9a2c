//! Delivery set up: the task that sends, what it journals, what it tells.

use std::sync::Arc;

use arc_swap::ArcSwap;
use engine::id::Position;
use engine::time::Timestamp;
use tokio::sync::{mpsc, watch};

use super::{Parts, StartError};
use crate::app::App;
use crate::config::{Endpoint, EndpointMode, Settings};
use crate::outbox::Log;
use crate::outbox::entry::{Attempt, Entry};
use crate::webhook::breaker::Rest;
use crate::webhook::client::{Client, Resolver, Timeouts};
use crate::webhook::driver::{self, Command, JournalStopped, Notice, World};
use crate::webhook::queue::{EndpointSettings, Figures, Input, Limits, Mode, Queue};
use crate::webhook::{AttemptRecord, Delivery, EndpointId};

/// The limits of the queue.
fn queue_limits(settings: &Settings) -> Limits {
    let webhooks = &settings.webhooks;
    Limits {
        endpoints_max: webhooks.endpoints_max,
        pending_max: webhooks.pending_max,
        dead_max: webhooks.dead_max,
        bodies_bytes_max: webhooks.bodies_bytes_max,
        body_bytes_max: webhooks.body_bytes_max,
    }
}

/// A queue that is loading and knows the endpoints.
pub(super) fn loading_queue(endpoints: &[Endpoint], settings: &Settings, now: Timestamp) -> Queue {
    let mut queue = Queue::new(queue_limits(settings));
    for endpoint in endpoints {
        if let Some(known) = endpoint_settings(endpoint, settings, false) {
            queue.step(Input::EndpointChanged(known), now);
        }
    }
    queue
}

/// An endpoint as the queue knows it.
pub(super) fn endpoint_settings(
    endpoint: &Endpoint,
    settings: &Settings,
    disabled: bool,
) -> Option<EndpointSettings> {
    Some(EndpointSettings {
        id: EndpointId::parse(&endpoint.id).ok()?,
        mode: match endpoint.mode {
            _ if disabled => Mode::Disabled,
            EndpointMode::Live => Mode::Live,
            EndpointMode::Shadow => Mode::Shadow,
        },
        test: endpoint.test,
        in_flight_max: endpoint.in_flight_max.unwrap_or(settings.webhooks.in_flight_max),
        schedule: settings.webhooks.retry_schedule.clone().into(),
        supersede: endpoint.supersede,
        rest: Rest { min: settings.webhooks.rest_min, max: settings.webhooks.rest_max },
    })
}

/// An endpoint as the driver knows it.
pub(super) fn driver_endpoint(
    endpoint: &Endpoint,
    settings: &Settings,
    disabled: bool,
) -> Option<driver::Endpoint> {
    Some(driver::Endpoint {
        settings: endpoint_settings(endpoint, settings, disabled)?,
        target: endpoint.target.clone(),
        manner: endpoint.manner.clone(),
    })
}

/// Starts the task that sends.
pub(super) fn spawn_driver(
    app: &Arc<App>,
    parts: &Parts,
    (commands, queue, endpoints): (mpsc::Receiver<Command>, Queue, Vec<driver::Endpoint>),
    figures: watch::Sender<Figures>,
    mut stopped: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<driver::Stopped>, StartError> {
    let webhooks = &app.settings.webhooks;
    let timeouts =
        Timeouts { resolve: webhooks.connect, connect: webhooks.connect, total: webhooks.timeout };
    let reading = Arc::clone(app);
    let clock = Arc::new(move || reading.clock.now());
    let version = env!("CARGO_PKG_VERSION");
    let client = Client::new(version, Resolver::System, timeouts, clock.clone(), None);
    let client = client.map_err(StartError::Client)?;
    let (journaling, log) = (Arc::clone(app), Arc::clone(&parts.log));
    let (disabling, known) = (Arc::clone(app), Arc::clone(&parts.endpoints));
    let jittering = Arc::clone(app);
    let world = World {
        journal: move |records| {
            journal_attempts(Arc::clone(&journaling), Arc::clone(&log), records)
        },
        notice: move |notice| note(&disabling, &known, notice),
        clock: move || clock(),
        jitter: move || jittering.ids.fraction() * 2.0 - 1.0,
        figures,
    };
    Ok(tokio::spawn(driver::run(commands, queue, endpoints, client, world, async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    })))
}

/// Makes what became of deliveries durable, and counts those delivered.
async fn journal_attempts(
    app: Arc<App>,
    log: Arc<Log>,
    records: Vec<AttemptRecord>,
) -> Result<(), JournalStopped> {
    // What a receiver answered about somebody who was erased meanwhile goes as they did.
    let about = |alert: &str| {
        let cause = log.cause(alert)?;
        let lead = log.book().lead(alert)?;
        (!app.engine.is_erased_since(lead, cause)).then_some(lead)
    };
    let entries: Vec<Attempt> = records.iter().map(Attempt::from).collect();
    let sealed = |attempt: &Attempt| {
        let lead = about(&attempt.alert);
        Entry::Attempt(attempt.sealed(|answer| app.sealer.seal(lead?, answer).ok()))
    };
    let pushed: Vec<Entry> = entries.iter().map(sealed).collect();
    let pushing = Arc::clone(&app);
    let last = tokio::task::spawn_blocking(move || {
        let mut last = Ok(Position::NONE);
        for entry in &pushed {
            last = crate::outbox::push(&pushing, entry);
        }
        last
    });
    let last = last.await.map_err(|_| JournalStopped)?.map_err(|_| JournalStopped)?;
    app.journal.wait(last).await.map_err(|_| JournalStopped)?;
    for (record, mut line) in records.iter().zip(entries) {
        let delivered = matches!(record.state, Delivery::Delivered { .. });
        let done = record.state.is_final();
        let received = done.then(|| log.take_received(record.message.as_str())).flatten();
        if let Some(received) = received.filter(|_| delivered) {
            app.metrics.click_to_alert.record(record.at.since(received).as_millis() as u64);
        }
        if about(&line.alert).is_none() {
            line.answer.clear();
        }
        log.add(line);
    }
    Ok(())
}

fn note(app: &Arc<App>, endpoints: &ArcSwap<Vec<Endpoint>>, notice: Notice) {
    match notice {
        Notice::Dead { endpoint, message, .. } => {
            tracing::warn!(%endpoint, %message, "a message became a dead letter");
        }
        Notice::Refused { endpoint, why, .. } => {
            tracing::warn!(%endpoint, ?why, "a message was not taken");
        }
        Notice::Skew { endpoint, ms } if ms.abs() > 60_000 => {
            tracing::warn!(%endpoint, ms, "the receiver's clock differs; it may refuse signatures");
        }
        Notice::Skew { .. } => {}
        Notice::Disabled { endpoint, why } => {
            tracing::error!(%endpoint, ?why, "the endpoint is disabled until its settings change");
            let endpoints = endpoints.load();
            let known = endpoints.iter().find(|known| known.id == endpoint.as_str());
            let entry = Entry::Disabled {
                endpoint: endpoint.as_str().to_owned(),
                fingerprint: known.map_or(0, |known| known.fingerprint.crc32c),
            };
            let app = Arc::clone(app);
            tokio::task::spawn_blocking(move || crate::outbox::push(&app, &entry));
        }
    }
}
