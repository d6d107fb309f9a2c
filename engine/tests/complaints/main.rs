//! What users of other systems complain about, and what holds here instead: a story for each
//! complaint, named for what holds; the line above it names the complaint.
//!
//! Met elsewhere, since the engine does not decide it:
//! - A score for the company (mautic/mautic#7076) is not built: leads alone have scores.
//! - Which click is a machine's (Marketo Nation, "clicked before delivered"; the signals of
//!   mautic/mautic#16263) is judged by the collector, `collector/src/link/scanners.rs`. Here is
//!   what such a click is worth, and how one that passed is taken back.
//! - Farms of browsers that never come back (Embassy-of-the-Free-Mind/sourcelibrary-v2#3400)
//!   are not admitted to memory by the collector, `./measure cookieless`.
//! - Identities that a program should have signed (PostHog/posthog#3602): the collector checks
//!   the signature, `collector/src/ingest/claim.rs`. Here is what an unsigned one may do.
//! - Sales that ignores scores, leads of poor quality (decisense.co.jp) is no matter of one
//!   test: each message carries its reasons (`engine/tests/scenarios.rs`), each lead a grade.
#![allow(clippy::unwrap_used)]

mod identity;
#[path = "../model/mod.rs"]
mod model;
mod robots;
mod scoring;

use engine::engine::StepError;
use engine::hit::{Claim, Hit, HitKind};
use engine::id::{LeadId, Position};
use engine::identity::Assurance;
use engine::points::Points;

use model::rules::example_scoring;
use model::world::{World, browser, claim, claim_with, lead_of};

const ANNA: &str = "anna@x.example";
const BEN: &str = "ben@x.example";

/// Monday at ten. Nothing fades until a story goes to another moment.
fn monday() -> World {
    let mut world = World::new(example_scoring());
    world.at("2026-12-07 10:00");
    world
}

/// A hit of a browser, or of none, now.
fn send(world: &mut World, number: Option<u64>, hit: Hit) {
    let now = world.now();
    world.ingest(Hit { visitor: number.map(browser), received: now, when: now, ..hit });
}

/// A server's word that a browser is somebody's: they have logged in.
fn log_in(world: &mut World, number: u64, mail: &str) {
    let claim = Some(claim(mail, Assurance::Verified));
    let hit = Hit { kind: HitKind::Identify, claim, by_server: true, ..Hit::default() };
    send(world, Some(number), hit);
}

/// A server's word about somebody, with more of what it knows.
fn card(world: &mut World, mail: &str, words: &[(&str, &str)]) {
    let claim = Some(claim_with(mail, Assurance::Verified, words));
    let hit = Hit { kind: HitKind::Identify, claim, by_server: true, ..Hit::default() };
    send(world, None, hit);
}

/// A form with more fields than the address.
fn form_with(world: &mut World, number: u64, mail: &str, words: &[(&str, &str)]) {
    let claim = Some(claim_with(mail, Assurance::Claimed, words));
    send(world, Some(number), Hit { kind: HitKind::Identify, claim, ..Hit::default() });
}

/// A page reached by the link in somebody's mail.
fn land(world: &mut World, number: u64, mail: &str, path: &str) {
    let said = claim(mail, Assurance::Verified);
    let claim = Some(Claim { by_link: true, ..said });
    let hit = Hit { path: path.to_owned(), claim, via_our_link: true, ..Hit::default() };
    send(world, Some(number), hit);
}

/// The click on that link, before any page: of no browser.
fn click(mail: &str) -> Hit {
    let said = claim(mail, Assurance::Verified);
    let claim = Some(Claim { by_link: true, ..said });
    let event = "mail_click".to_owned();
    Hit { kind: HitKind::Event, event, claim, via_our_link: true, ..Hit::default() }
}

fn merge(world: &mut World, one: &str, other: &str) -> (Position, LeadId) {
    let (one, other) = (lead_of(one), lead_of(other));
    world.step(|engine, why, means| engine.merge(one, other, why, means)).unwrap()
}

/// Undoes the step taken last.
fn undo(world: &mut World) -> Result<Position, StepError> {
    let (position, step) = world.steps().pop().unwrap();
    world.step(|engine, why, means| engine.undo((&step, position), why, means))
}

/// Whose a browser is now.
fn bound(world: &World, number: u64) -> Option<LeadId> {
    Some(world.engine.visitor(browser(number), world.now())?.bound?.origin)
}

fn known(world: &World, mail: &str, attribute: &str) -> Option<String> {
    world.lead(mail).attributes().get(attribute).cloned()
}

/// What each row of a rule was granted to somebody, in order.
fn granted(world: &World, mail: &str, rule: &str) -> Vec<i64> {
    let id = world.scoring.rules.rules().iter().find(|it| it.name == rule).unwrap().id;
    let rows = world.lead(mail).content.rows.into_iter().filter(|row| row.rule == id);
    rows.map(|row| row.granted.0 / Points::whole(1).0).collect()
}
