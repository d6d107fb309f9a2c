//! Random hits, and what they say of whom: several people with several names each, on a few
//! browsers, proved and unproved, alone and together, on a kiosk and by a link.

use std::time::Duration;

use engine::attribute::Level;
use engine::hit::{Claim, Exclusion, Hit, HitKind, Named};
use engine::identity::{Assurance, IdentityKind};
use engine::time::Timestamp;

use super::chance::Chance;
use super::world::{browser, named, seal};

const PATHS: [&str; 13] = [
    "/column/dx",
    "/case/line",
    "/product/a",
    "/product/b",
    "/product/c",
    "/product/d",
    "/pricing",
    "/thanks/document/guide",
    "/thanks/event/dx",
    "/thanks/contact",
    "/thanks/trial",
    "/careers",
    "/thanks/careers",
];
/// Followed without a nonce; the others have one, so that no more than eight are open at once.
pub const FOLLOWED: [&str; 3] = ["/pricing", "/case/line", "/thanks/contact"];
pub const EVENTS: [&str; 4] = ["mail_click", "download", "unsubscribe", "upgrade_click"];
/// Nobody we look for, somebody, and somebody more.
pub const TITLES: [&str; 3] = ["学生", "課長", "部長"];
/// How many people there are.
const PEOPLE: u64 = 4;

/// A hit of one of a few browsers, or of none, received at a moment.
pub fn random_hit(chance: &mut Chance, now: Timestamp) -> Hit {
    let late = if chance.percent(12) { chance.below(86_400_000) } else { 0 };
    let mut hit = Hit {
        visitor: Some(browser(chance.below(super::undo::BROWSERS))),
        received: now,
        when: now.minus(Duration::from_millis(late)),
        path: (*chance.pick(&PATHS)).to_owned(),
        id: if chance.percent(50) { 1 + chance.below(200) } else { 0 },
        page: if chance.percent(40) { 1 + chance.below(4) } else { 0 },
        authenticated: chance.percent(10),
        ..Hit::default()
    };
    if hit.page == 0 && !FOLLOWED.contains(&hit.path.as_str()) {
        hit.page = 1 + chance.below(4);
    }
    if chance.percent(4) {
        hit.excluded = Some(Exclusion::Robot);
    }
    match chance.below(40) {
        0..19 => {}
        19..24 => {
            hit.kind = HitKind::Engagement;
            hit.path = "/pricing".into();
            hit.page = 1 + chance.below(2);
            hit.engaged_ms = (chance.below(5) * 20_000) as u32;
        }
        24..28 => {
            hit.kind = HitKind::Event;
            (*chance.pick(&EVENTS)).clone_into(&mut hit.event);
        }
        28..38 => say_who(chance, &mut hit),
        _ => hit.kind = HitKind::Reset,
    }
    hit
}

fn say_who(chance: &mut Chance, hit: &mut Hit) {
    let how = chance.below(10);
    let mut claim = Claim { names: names(chance, how), ..Claim::default() };
    hit.by_server = how < 3;
    if how < 3 {
        claim.attributes_by = Assurance::Verified;
    }
    for (name, values) in [
        ("title", &TITLES),
        ("industry", &["law", "it", "manufacturing"]),
        ("employees", &["3", "300", "9000"]),
    ] {
        if chance.percent(40) {
            claim.attributes.insert(name.into(), (*chance.pick(values)).to_owned());
        }
    }
    if chance.percent(15) {
        claim.level = Level::Company;
    }
    claim.consent = chance.percent(15).then(|| chance.percent(60));
    claim.sealed = seal(&claim.attributes);
    claim.kiosk = how > 3 && chance.percent(6);
    claim.by_link = how < 2 && chance.percent(30);
    match chance.below(10) {
        0..6 => hit.kind = HitKind::Identify,
        6..9 => {
            hit.kind = HitKind::Event;
            (*chance.pick(&EVENTS)).clone_into(&mut hit.event);
        }
        _ => {}
    }
    hit.claim = Some(claim);
    if hit.by_server && chance.percent(35) {
        hit.visitor = None;
    }
}

/// One to three names, in the order in which they head a person: mostly of one person. A
/// server proves all, an identity secret the first, a browser none.
fn names(chance: &mut Chance, how: u64) -> Vec<Named> {
    let person = chance.below(PEOPLE);
    let mut names = Vec::new();
    for kind in IdentityKind::ORDER {
        let common = if kind == IdentityKind::Email { 80 } else { 25 };
        if !chance.percent(common) {
            continue;
        }
        let person = if chance.percent(8) { chance.below(PEOPLE) } else { person };
        let proved = how < 3 || (how == 3 && names.is_empty());
        let assurance = if proved { Assurance::Verified } else { Assurance::Claimed };
        names.push(named(kind, &format!("person{person}@x.example"), assurance));
    }
    if names.is_empty() {
        let (kind, mail) = (IdentityKind::Email, format!("person{person}@x.example"));
        let assurance = if how < 4 { Assurance::Verified } else { Assurance::Claimed };
        names.push(named(kind, &mail, assurance));
    }
    names
}
