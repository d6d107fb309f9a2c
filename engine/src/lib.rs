//! The pure core of mikomi: what a hit means for a browser, what that earns a person, and which
//! lines they cross. It reads no clock, draws no number, opens no file and starts no thread
//! (`clippy.toml` makes that an error); time, ids and chance come in as values.
//!
//! One hit goes through it like this: [`visitor`] decides which rules match and whose the hit
//! is, [`lead`] what they earn and which lines they cross; the decisions make one [`record`],
//! which gets its place in the journal, and is then applied. Replay applies the same records
//! with the same code, and decides nothing.
//!
//! The modules stand in reading order; each uses only those above it. [`lead`] is the heart.

pub mod id;
mod locks;
pub mod time;
pub mod points;
pub mod identity;
pub mod attribute;
pub mod hit;
pub mod session;
pub mod glob;
pub mod memo;
pub mod rule;
pub mod decay;
pub mod grade;
pub mod stage;
pub mod hours;
pub mod sales;
pub mod threshold;
pub mod terms;
pub mod scoring;
pub mod facts;
pub mod ledger;
pub mod alert;
pub mod record;
pub mod wire;
pub mod explain;
pub mod visitor;
pub mod lead;
pub mod catalog;
pub mod snapshot;
pub mod engine;
