//! What the engine's tests share: the example rules as literals, a naive model of the engine
//! that shares no code with it but types, and a small world to let visitors walk through.
#![allow(clippy::unwrap_used)]
#![allow(clippy::large_enum_variant, reason = "a model is plain before it is small")]
#![allow(dead_code, reason = "every test file is a crate of its own and uses another part")]

pub mod browser;
pub mod chance;
pub mod claims;
pub mod compare;
pub mod exact;
pub mod life;
pub mod matching;
pub mod oracle;
pub mod rules;
pub mod sales;
pub mod story;
pub mod told;
pub mod undo;
pub mod whole;
pub mod world;
