//! What the engine's tests share: the example rules as literals, a naive model of the engine
//! that shares no code with it but types, and a small world to let visitors walk through.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "every test file is a crate of its own and uses another part")]

pub mod chance;
pub mod exact;
pub mod oracle;
pub mod rules;
pub mod world;
