//! What the server counts: one number for every limit, time-out and refusal.
//!
//! Each runtime may own its `ServerCounters`, so that busy cores share no cache line; the metrics
//! page then adds them up by name.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows, except for gauges such as `active`.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One fewer; only gauges fall.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// Everything the server counts. Names are stable: they are shown as Prometheus series.
        #[derive(Debug, Default)]
        pub struct ServerCounters {
            $($(#[doc = $text])+ pub $name: Counter,)+
        }

        impl ServerCounters {
            /// Every counter as (name, value), in the order of the declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name.get()),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted, those refused right afterwards included.
    accepted,
    /// Connections open now (a gauge).
    active,
    /// Requests whose head was read whole and found good.
    requests,
    /// `accept` failed: no file descriptor left, or the peer gave up first.
    accept_errors,
    /// Closed at once, since the address already held its share of connections.
    refused_per_address,
    /// Closed: no byte within the time for the first one.
    timed_out_silent,
    /// Closed: the TLS handshake took too long.
    timed_out_handshake,
    /// Closed: the TLS handshake failed.
    handshake_failed,
    /// Answered 408: the head took too long.
    timed_out_header,
    /// Answered 408: the body, or a pause within it, took too long.
    timed_out_body,
    /// Answered 503: the handler took too long.
    timed_out_request,
    /// Cut off: the client did not take its answer.
    timed_out_write,
    /// Closed: kept alive, and nothing more came. Ordinary.
    timed_out_idle,
    /// Answered 414: the request line is too long.
    too_long_line,
    /// Answered 431: the header fields have too many bytes.
    too_large_headers,
    /// Answered 431: too many header fields.
    too_many_headers,
    /// Answered 413: the body is too large for its route.
    too_large_body,
    /// Answered 400: not HTTP/1.1 as it must be written.
    malformed,
    /// Answered 500: the handler panicked.
    panicked,
    /// Connections cut off at the end of a graceful stop.
    dropped_at_stop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_under_its_own_name() {
        let counters = ServerCounters::default();
        counters.too_long_line.up();
        counters.too_long_line.up();
        counters.active.up();
        counters.active.down();
        let listed: Vec<_> = counters.iter().filter(|(_, value)| *value > 0).collect();
        assert_eq!(listed, [("too_long_line", 2)]);
    }
}
