//! Time acts without a visit: whoever is due is acted on, within a second of the exact instant.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::app::App;

/// How often overdue leads are looked for.
pub(super) const TIMER_EVERY: Duration = Duration::from_millis(50);
/// Visitors long gone are swept this often.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// Records that one round reserves room for.
const DUE_RESERVED: usize = 1_024;
/// Bytes reserved for each.
const DUE_BYTES: usize = 2 * 1_024;

/// Acts on whoever is due. Nothing while the clock is in doubt.
pub(super) fn advance(app: &App) {
    let now = app.clock.now();
    let due = app.engine.next_due().is_some_and(|due| due <= now);
    if !due || app.clock.is_in_doubt() {
        return;
    }
    let Ok(mut reserved) = app.journal.reserve(DUE_RESERVED, DUE_RESERVED * DUE_BYTES) else {
        return;
    };
    let in_force = app.scoring.load();
    let mut bytes = Vec::new();
    app.engine.advance(now, &in_force.scoring, &mut |record| {
        bytes.clear();
        record.encode(&mut bytes);
        reserved.push(&bytes)
    });
}

/// Looks how much is kept: here, and not for each hit.
pub(super) fn note_full(app: &App) {
    let limits = &app.settings.limits;
    let (visitors, leads) = app.engine.sizes();
    let journal_bytes = app.journal.figures().journal_bytes;
    app.full.journal.store(journal_bytes > limits.journal_bytes_max, Ordering::Relaxed);
    app.full.visitors.store(visitors >= limits.visitors_max, Ordering::Relaxed);
    app.full.leads.store(leads >= limits.leads_max, Ordering::Relaxed);
}

/// Looks again and again until told to stop.
pub(super) fn run_timers(app: &App, stop: &AtomicBool) {
    let mut swept_ms = app.clock.boot_ms();
    while !stop.load(Ordering::Acquire) {
        note_full(app);
        advance(app);
        if app.clock.boot_ms() - swept_ms >= SWEEP_EVERY.as_millis() as u64 {
            swept_ms = app.clock.boot_ms();
            app.engine.sweep(app.clock.now());
        }
        thread::sleep(TIMER_EVERY);
    }
}
