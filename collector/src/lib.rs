//! mikomi's collector: everything that touches the world. Hits come in over HTTP, are decided by
//! the engine, stand in the journal before they are acknowledged, and leave as signed messages.
//!
//! Reading order: [`serve`] puts it together; a hit goes through [`server`], [`route`],
//! [`ingest`] and the [`journal`]; a message through [`outbox`] and [`webhook`]; [`admin`] shows.

pub mod admin;
pub mod app;
pub mod audit;
pub mod background;
pub mod backup;
pub mod clock;
pub mod command;
pub mod config;
pub mod cookie;
pub mod demo;
pub mod entry_log;
pub mod erasures;
pub mod facts;
pub mod feedback;
pub mod followers;
pub mod ids;
pub mod ingest;
pub mod install;
pub mod journal;
pub mod lately;
pub mod limits;
pub mod link;
pub mod metrics;
pub mod named;
pub mod net;
pub mod notice;
pub mod outbox;
pub mod past;
pub mod patience;
pub mod privacy;
pub mod reader;
pub mod receipt;
pub mod replay;
pub mod response;
pub mod retention;
pub mod route;
pub mod sample;
pub mod seal;
pub mod serve;
pub mod server;
pub mod snapshots;
pub mod steps;
pub mod store;
pub mod stories;
pub mod timeline;
pub mod token;
pub mod tokens;
pub mod verify;
pub mod webhook;
pub mod words;
