//! Who is who: a table of cases. Each has its promise, what happens, in order, and everything
//! that is to be seen then: all people, all browsers, all questions. What is not listed must
//! not be there.
#![allow(clippy::unwrap_used)]

mod model;

use std::time::Duration;

use engine::engine::StepError;
use engine::facts::Source;
use engine::hit::{Claim, Exclusion, Hit, HitKind, Named};
use engine::id::{Key, LeadId, Position};
use engine::identity::Assurance::{self, Claimed, Verified};
use engine::identity::{Identity, IdentityKind};
use engine::record::HitRecord;

use model::rules::example_scoring;
use model::whole::nothing_lost;
use model::world::{World, browser, seal};

/// The first of many browsers.
const CROWD: u64 = 100;

/// The promise; what happens; what is to be seen.
///
/// Numbers are browsers, letters are names: `U` and `V` of accounts, `C` of sales, `Z` Anna's own
/// at another business, the rest addresses. A word after a name is a title. `says` is a form or
/// a call in a browser, `signs` the same with a signature that covers the first name, `lands` a
/// page reached by a link in a mail, `click` that link's click before any page. `card` is a
/// server's word about a person, `server` one about a browser; `tests` is `says` under a test key.
/// Nothing fades unless minutes `wait`. `undo 2` undoes the last step but one, and `no` is a step
/// that is refused.
///
/// A person: the names, the head first; how sure it is that they exist; the points; the browsers,
/// each by a claim `?`, a proof `!`, or a proof of what is theirs by a claim `~`. A browser: whose
/// it is now, and whose each of its hits is; `-` is nobody, `f` what was passed on and `g` what
/// is told of a guest, both worth nothing. Then the questions, and the titles.
const CASES: [[&str; 3]; 70] = [
    // What is said in browsers.
    ["a browser on which nobody says who it is makes nobody", "1 views pricing", "1 is -: -"],
    [
        "a form brings along what its browser did as nobody",
        "1 views case, 1 views pricing, 1 says A, 1 views document",
        "A claimed 36.000 [1?]; 1 is A: AAAA",
    ],
    [
        "who says the same again is the same",
        "1 views pricing, 1 says A, 1 says A, 1 views document, 1 says A",
        "A claimed 32.000 [1?]; 1 is A: AAAAA",
    ],
    [
        "one person on two browsers is one lead, and once a day is once a day",
        "1 views pricing, 1 says A, 2 views pricing, 2 says A",
        "A claimed 12.000 [1? 2?]; 1 is A: AA; 2 is A: AA",
    ],
    [
        "a second person on a browser gets nothing of the first one's",
        "1 views pricing, 1 says A, 1 says B, 1 views document",
        "A claimed 12.000 [1?]; B claimed 20.000 [1?]; 1 is B: AABB",
    ],
    [
        "the first person who comes back gets nothing of the second one's",
        "1 says A, 1 says B, 1 views pricing, 1 says A, 1 views document",
        "A claimed 20.000 [1?]; B claimed 12.000 [1?]; 1 is A: ABBAA",
    ],
    [
        "after a reset the browser is nobody's, and brings along only what came after",
        "1 views pricing, 1 says A, 1 resets, 1 views document, 1 says B",
        "A claimed 12.000 [1?]; B claimed 20.000 [1?]; 1 is B: AAABB",
    ],
    [
        "who logs out and in again is one person, and what lies between comes along",
        "1 says A, 1 resets, 1 views pricing, 1 says A",
        "A claimed 12.000 [1?]; 1 is A: AAAA",
    ],
    [
        "a name of another kind is another name of the same person",
        "1 says A, 1 views pricing, 1 says U, 1 views document",
        "AU claimed 32.000 [1?]; 1 is A: AAAA",
    ],
    [
        "another name of the same kind is a second person, whatever else is known",
        "1 says UA, 1 views pricing, 1 says V, 1 views document",
        "UA claimed 12.000 [1?]; V claimed 20.000 [1?]; 1 is V: UUVV",
    ],
    [
        "of several names the account's heads the person, then that of sales, then the mail",
        "1 says ACU, 1 views pricing",
        "UAC claimed 12.000 [1?]; 1 is U: UU",
    ],
    [
        "a claim joins a name that nobody has to whom nobody proved",
        "1 says A, 1 views pricing, 2 says UA, 2 views document",
        "AU claimed 32.000 [1? 2?]; 1 is A: AA; 2 is U: UU",
    ],
    [
        "a claim joins nobody to anybody: two people who are known stay two",
        "1 says A, 2 says U, 3 says UA, 3 views pricing",
        "A claimed 0.000 [1?]; U claimed 12.000 [2? 3?]; 1 is A: A; 2 is U: U; 3 is U: UU; \
         another_name UA",
    ],
    [
        "a claim joins no new name to whom somebody proved, but asks",
        "card A, 1 says UA, 1 views pricing",
        "A verified 0.000 []; U claimed 12.000 [1?]; 1 is U: UU; another_name UA",
    ],
    [
        "nor does a browser that is theirs by a claim, in whatever order it says so",
        "card A, 1 says A, 1 says U, 1 views pricing",
        "A verified 0.000 [1?]; U claimed 12.000 [1?]; 1 is U: AUU; another_name AU",
    ],
    [
        "and what is proved of that name then changes nothing of the proved person",
        "card A director, 1 says A, 1 signs U, card U clown",
        "A verified 0.000 [1?]; U verified 0.000 [1!]; 1 is U: AU; another_name AU; \
         A is a director; U is a clown",
    ],
    [
        "on a browser that is somebody's, a claim of another's proved name asks",
        "card U, 1 says A, 1 says U, 1 views pricing",
        "U verified 0.000 []; A claimed 12.000 [1?]; 1 is A: AAA; another_name AU",
    ],
    [
        "one address at two businesses is two people",
        "1 views pricing, 1 says A, 2 views document, 2 says Z",
        "A claimed 12.000 [1?]; Z claimed 20.000 [2?]; 1 is A: AA; 2 is Z: ZZ",
    ],
    // What is claimed, and what is proved.
    [
        "a form on a proved person's name changes nothing of what is known of them",
        "card A, 1 views pricing, 1 says A clown",
        "A verified 12.000 [1?]; 1 is A: AA",
    ],
    [
        "of a person nobody proved, the later form is believed",
        "1 says A clerk, 2 says A manager",
        "A claimed 0.000 [1? 2?]; 1 is A: A; 2 is A: A; A is a manager",
    ],
    [
        "what a form said gives way to what a server says",
        "1 says A clown, card A director, 1 says A clown",
        "A verified 0.000 [1?]; 1 is A: AA; A is a director",
    ],
    [
        "a signed call proves the person and the browser, and its attributes stay a claim",
        "card A director, 1 signs A, 1 views pricing, 1 says A clown",
        "A verified 12.000 [1!]; 1 is A: AAA; A is a director",
    ],
    [
        "claims are worth eighty points together, and no more",
        "1 says A, 1 views contact, 1 views document, 1 views event",
        "A claimed 80.000 [1?]; 1 is A: AAAA",
    ],
    [
        "claims through several browsers share their limit",
        "1 says A, 1 views contact, 2 says A, 2 views document, 2 views event",
        "A claimed 80.000 [1? 2?]; 1 is A: AA; 2 is A: AAA",
    ],
    [
        "a click in our mail confirms the browser: all it earned counts",
        "1 says A, 1 views contact, 1 views document, 1 views event, 1 lands A case",
        "A verified 99.000 [1!]; 1 is A: AAAAA",
    ],
    [
        "a server's word about the browser confirms it",
        "1 says A, 1 views contact, 1 views document, 1 views event, server 1 A",
        "A verified 95.000 [1!]; 1 is A: AAAAA",
    ],
    [
        "a signed call confirms the browser",
        "1 says A, 1 views contact, 1 views document, 1 views event, 1 signs A",
        "A verified 95.000 [1!]; 1 is A: AAAAA",
    ],
    [
        "an operator confirms the browser, and so proves nothing else of the person",
        "1 says A, 1 views contact, 1 views document, 1 views event, confirm 1 A, \
         no not_undoable: undo 1, no not_linked: confirm 2 A",
        "A claimed 95.000 [1!]; 1 is A: AAAA",
    ],
    [
        "a proof on one browser confirms no other, and earns beside the limit",
        "1 says A, 1 views contact, 1 views document, 1 views event, 2 signs A, 2 views case",
        "A verified 84.000 [1? 2!]; 1 is A: AAAA; 2 is A: AA",
    ],
    [
        "a server's word makes a person without a browser, whom a click may earn points",
        "card A director, click A",
        "A verified 5.000 []; A is a director",
    ],
    [
        "a server's word about a browser brings along what that did as nobody",
        "1 views pricing, server 1 A, 1 views document",
        "A verified 32.000 [1!]; 1 is A: AAA",
    ],
    [
        "a server's word about somebody else's browser is about a second person there",
        "1 says A, 1 views pricing, server 1 B, 1 views document",
        "A claimed 12.000 [1?]; B verified 20.000 [1!]; 1 is B: AABB",
    ],
    [
        "a new name that is proved with a known one is proved to be theirs",
        "server 1 A, 1 views pricing, card UA, 2 signs U, 2 views document",
        "AU verified 32.000 [1! 2!]; 1 is A: AA; 2 is U: UU",
    ],
    [
        "what is proved of a name that is theirs by a claim is worked out, not proved",
        "1 says A, 1 says U, 2 signs U, 2 views pricing",
        "AU verified 12.000 [1? 2~]; 1 is A: AA; 2 is U: UU",
    ],
    [
        "a proof of two people joins them: the older one stays",
        "card A, wait 1, card U, card AU",
        "AU verified 0.000 []",
    ],
    [
        "of two people joined by a proof, whichever is said first, the older one stays",
        "card A, wait 1, card B, card BA",
        "AB verified 0.000 []",
    ],
    [
        "of two people whom an operator joins, the proved one stays, also if younger",
        "1 says A, wait 1, card B, merge A B",
        "BA verified 0.000 [1?]; 1 is A: A",
    ],
    [
        "whoever is named first to an operator, the same one stays",
        "1 says A, wait 1, card B, merge B A",
        "BA verified 0.000 [1?]; 1 is A: A",
    ],
    [
        "a signature covers the first name: the second is a claim and joins nobody",
        "card A, 1 signs UA, 1 views pricing",
        "A verified 0.000 []; U verified 12.000 [1!]; 1 is U: UU; another_name UA",
    ],
    [
        "a proved login of somebody known on another's browser is a second person's",
        "card U, 1 says A, 1 views pricing, 1 signs U, 1 views document",
        "U verified 20.000 [1!]; A claimed 12.000 [1?]; 1 is U: AAUU",
    ],
    // Mails, shared browsers, limits.
    [
        "a link in our mail ties a browser that is nobody's, and what it did comes along",
        "card A, 1 views pricing, 1 lands A case",
        "A verified 16.000 [1!]; 1 is A: AA",
    ],
    [
        "a link that was passed on earns nobody anything, and changes nobody's browser",
        "card A, 1 says B, 1 lands A pricing, 1 views document",
        "A verified 0.000 []; B claimed 20.000 [1?]; 1 is B: BfB; forwarded AB",
    ],
    [
        "a mail scanner's click earns nothing and ties nothing",
        "card A, scanner, click A",
        "A verified 5.000 []",
    ],
    [
        "a kiosk's form makes a person and ties no browser",
        "1 views pricing, 1 kiosk A, 1 views document",
        "A claimed 0.000 []; 1 is -: -g-",
    ],
    [
        "a kiosk's form on somebody's browser leaves it theirs",
        "1 says B, 1 kiosk A, 1 views pricing",
        "B claimed 12.000 [1?]; A claimed 0.000 []; 1 is B: BgB",
    ],
    [
        "three people a day on one browser are three people, and nobody need look",
        "1 says A, 1 says B, 1 says D, wait 31, 1 views pricing",
        "A claimed 0.000 [1?]; B claimed 0.000 [1?]; D claimed 12.000 [1?]; 1 is D: ABDD",
    ],
    [
        "a fourth makes it shared: ties end with the visit, and nothing comes along any more",
        "1 says A, 1 says B, 1 says D, 1 says E, 1 views case, wait 31, 1 views pricing, \
         1 says F, 1 views document",
        "A claimed 0.000 [1?]; B claimed 0.000 [1?]; D claimed 0.000 [1?]; E claimed 3.998 [1?]; \
         F claimed 20.000 [1?]; 1 is F: ABDEE-FF; shared_browser E",
    ],
    [
        "a sixth within a day is not tied to it at all",
        "1 says A, 1 says B, 1 says D, 1 says E, 1 says F, 1 says G, 1 views pricing",
        "A claimed 0.000 [1?]; B claimed 0.000 [1?]; D claimed 0.000 [1?]; E claimed 0.000 [1?]; \
         F claimed 12.000 [1?]; G claimed 0.000 []; 1 is F: ABDEFgF; shared_browser E; \
         too_many_names G",
    ],
    [
        "a day later a shared browser may name others again, each for a visit",
        "1 says A, 1 says B, 1 says D, 1 says E, 1 says F, wait 1440, 1 says G, 1 views pricing, \
         wait 30, 1 views document",
        "A claimed 0.000 [1?]; B claimed 0.000 [1?]; D claimed 0.000 [1?]; E claimed 0.000 [1?]; \
         F claimed 0.000 [1?]; G claimed 11.988 [1?]; 1 is -: ABDEFGG-; shared_browser E",
    ],
    [
        "fifty browsers say that they are one person; the next one is refused, and asked for",
        "50 say A, 1 views pricing, 1 says A, 1 views document",
        "A claimed 0.000 [50 more?]; 1 is -: ---; too_many_browsers A",
    ],
    [
        "a proved browser has room beside fifty claimed ones",
        "50 say A, 1 views pricing, 1 signs A, 1 views document",
        "A verified 32.000 [1! 50 more?]; 1 is A: AAA",
    ],
    // What operators do.
    [
        "an operator gives a browser's past to a person, and what it does from then on",
        "card A, 1 views pricing, link 1 A verified, 1 views document",
        "A verified 32.000 [1!]; 1 is A: AA",
    ],
    [
        "a link that is undone leaves a browser that is nobody's",
        "card A, 1 views pricing, link 1 A claimed, 1 views document, undo 1, 1 views case",
        "A verified 0.000 []; 1 is -: ---",
    ],
    [
        "what somebody says on a browser goes before an operator's link",
        "card A, 1 views pricing, link 1 A claimed, 1 says B, 1 views document",
        "A verified 12.000 [1?]; B claimed 20.000 [1?]; 1 is B: ABB",
    ],
    [
        "what somebody says on a linked browser stands by itself, also when the link is undone",
        "card A, 1 views pricing, link 1 A verified, 1 says A, 1 views document, undo 1",
        "A verified 32.000 [1?]; 1 is A: AAA",
    ],
    [
        "an operator takes a browser from a person: what it did there is nobody's",
        "card A, 1 says A, 1 views pricing, unlink 1 A, 1 views document",
        "A verified 0.000 []; 1 is -: ---",
    ],
    [
        "an unlinking that is undone leaves all as it was, and what came since is theirs too",
        "1 says A, 1 views pricing, unlink 1 A, 1 views document, undo 1",
        "A claimed 32.000 [1?]; 1 is A: AAA",
    ],
    [
        "a day on the wrong person's name is given to the right one",
        "1 says A, 1 views pricing, 2 says B, unlink 1 A, link 1 B claimed",
        "A claimed 0.000 []; B claimed 12.000 [1? 2?]; 1 is B: BB; 2 is B: B",
    ],
    [
        "taking from one person does not touch the other's part of the browser",
        "1 says A, 1 views pricing, 1 says B, 1 views document, unlink 1 A",
        "A claimed 0.000 []; B claimed 20.000 [1?]; 1 is B: --BB",
    ],
    [
        "links and unlinkings of what is not there are refused, each by its name",
        "1 says A, card B, 2 views case, no nothing_free: link 1 B verified, \
         no not_linked: unlink 1 B, no no_such_visitor: link 3 A verified, \
         no no_such_visitor: unlink 3 A, no no_such_lead: link 2 D verified",
        "A claimed 0.000 [1?]; B verified 0.000 []; 1 is A: A; 2 is -: -",
    ],
    [
        "two people joined are one, and once a day is once a day for both",
        "1 says A, 1 views pricing, 2 says B, 2 views pricing, 2 views document, wait 1, \
         3 says D, merge D A, merge B A, no already_one: merge A B, no already_one: merge D B",
        "ABD claimed 31.999 [1? 2? 3?]; 1 is A: AA; 2 is B: BBB; 3 is D: D",
    ],
    [
        "a joining that is undone leaves two people, each with what is theirs",
        "1 says A, 1 views pricing, 2 says B, 2 views pricing, merge A B, 2 views document, \
         undo 1, no not_undoable: undo 2",
        "A claimed 12.000 [1?]; B claimed 32.000 [2?]; 1 is A: AA; 2 is B: BBB",
    ],
    [
        "people who were parted are joined again when that is undone",
        "1 says A, 1 views pricing, wait 1, 2 says B, 2 views document, merge A B, unmerge B, \
         undo 1",
        "AB claimed 32.000 [1? 2?]; 1 is A: AA; 2 is B: BB",
    ],
    [
        "people whom one proved statement joined are parted like any others",
        "server 1 A, 1 views pricing, server 2 U, 2 views document, card UA, undo 1",
        "A verified 12.000 [1!]; U verified 20.000 [2!]; 1 is A: AA; 2 is U: UU",
    ],
    [
        "another name of somebody is parted by its own id, with what came by it",
        "1 says UA, 1 views pricing, 2 says A, 2 views document, unmerge A, \
         no not_merged: unmerge A, no not_merged: unmerge U",
        "A claimed 20.000 [2?]; U claimed 12.000 [1?]; 1 is U: UU; 2 is A: AA",
    ],
    [
        "every old name leads to who has it, through joinings of joined people",
        "1 says A, wait 1, 2 says B, wait 1, 3 says D, wait 1, 4 says E, merge D E, merge A B, \
         merge E B, wait 1, 4 views pricing",
        "ABDE claimed 12.000 [1? 2? 3? 4?]; 1 is A: A; 2 is B: B; 3 is D: D; 4 is E: EE",
    ],
    [
        "who is parted takes along whom they had before they were joined",
        "1 says A, wait 1, 2 says D, wait 1, 3 says E, 3 views pricing, merge D E, merge A D, \
         unmerge D",
        "A claimed 0.000 [1?]; DE claimed 12.000 [2? 3?]; 1 is A: A; 2 is D: D; 3 is E: EE",
    ],
    [
        "of two joinings the earlier one is undone alone",
        "1 says A, wait 1, 2 says B, 3 says D, merge A B, merge A D, undo 2",
        "AD claimed 0.000 [1? 3?]; B claimed 0.000 [2?]; 1 is A: A; 2 is B: B; 3 is D: D",
    ],
    [
        "of two who are as sure and as old, the smaller id stays",
        "1 says A, 2 says D, merge A D",
        "DA claimed 0.000 [1? 2?]; 1 is A: A; 2 is D: D",
    ],
    [
        "people of a test and real ones are never joined, nor is anybody to nobody",
        "1 says A, 2 tests T, no test_and_real: merge A T, no no_such_lead: merge A B, \
         no already_one: merge A A",
        "A claimed 0.000 [1?]; T claimed 0.000 [2?]; 1 is A: A; 2 is T: T",
    ],
];

fn name(letter: char) -> (IdentityKind, LeadId) {
    let kind = match letter {
        'U' | 'V' => IdentityKind::UserId,
        'C' => IdentityKind::CrmId,
        _ => IdentityKind::Email,
    };
    let (person, business) = if letter == 'Z' { ('A', "another") } else { (letter, "site") };
    let identity = Identity::parse(kind, &format!("{person}@x.example")).unwrap();
    (kind, identity.lead(&Key([7; 16]), business))
}

fn letter(id: LeadId) -> char {
    ('A'..='Z').find(|it| name(*it).1 == id).unwrap()
}

fn lead(letters: &str) -> LeadId {
    name(letters.chars().next().unwrap()).1
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn page(name: &str) -> Hit {
    let folder = if ["case", "pricing"].contains(&name) { "/" } else { "/thanks/" };
    Hit { path: format!("{folder}{name}"), ..Hit::default() }
}

/// Names in the order in which the edge hands them over, the one that heads a lead first; how
/// sure that one is, and how sure the others.
fn claim(letters: &str, title: &[&str], sure: [Assurance; 2]) -> Claim {
    let named = |(kind, id)| Named { kind, id, assurance: sure[1] };
    let mut names: Vec<Named> = letters.chars().map(name).map(named).collect();
    names.sort_by_key(|name| name.kind);
    names[0].assurance = sure[0];
    let attributes = title.iter().map(|it| ("title".to_owned(), (*it).to_owned())).collect();
    Claim { names, sealed: seal(&attributes), attributes, ..Claim::default() }
}

fn said(claim: Claim) -> Hit {
    Hit { kind: HitKind::Identify, claim: Some(claim), ..Hit::default() }
}

fn by_server(who: &str, title: &[&str]) -> Hit {
    let claim = claim(who, title, [Verified; 2]);
    Hit { by_server: true, ..said(Claim { attributes_by: Verified, ..claim }) }
}

fn by_link(who: &str, hit: Hit) -> Hit {
    let claim = by_server(who, &[]).claim.map(|claim| Claim { by_link: true, ..claim });
    Hit { claim, via_our_link: true, ..hit }
}

/// The hit of an act and its browser; nothing for what is no hit.
fn hit_of(words: &[&str]) -> Option<(Option<u64>, Hit)> {
    let click = Hit { kind: HitKind::Event, event: "mail_click".into(), ..Hit::default() };
    let (who, hit) = match words {
        [it, "views", path] => (Some(it), page(path)),
        [it, "says", who, title @ ..] => (Some(it), said(claim(who, title, [Claimed; 2]))),
        [it, "signs", who] => (Some(it), said(claim(who, &[], [Verified, Claimed]))),
        [it, "kiosk", who] => {
            let claim = claim(who, &[], [Claimed; 2]);
            (Some(it), said(Claim { kiosk: true, ..claim }))
        }
        [it, "tests", who] => (Some(it), Hit { test: true, ..said(claim(who, &[], [Claimed; 2])) }),
        [it, "lands", who, path] => (Some(it), by_link(who, page(path))),
        [it, "resets"] => (Some(it), Hit { kind: HitKind::Reset, ..Hit::default() }),
        ["server", it, who] => (Some(it), by_server(who, &[])),
        ["card", who, title @ ..] => (None, by_server(who, title)),
        ["click", who] => (None, by_link(who, click)),
        // The edge takes its name away: it is neither a person's nor about one.
        ["scanner"] => (None, Hit { excluded: Some(Exclusion::Scanner), ..click }),
        _ => return None,
    };
    Some((who.map(|it| number(it)), hit))
}

fn step(world: &mut World, words: &[&str]) -> Result<(), StepError> {
    let steps = world.steps();
    let on = |word: &str| browser(number(word));
    world.step(|engine, why, means| match words {
        ["link", it, who, sure] => {
            let sure = if *sure == Verified.name() { Verified } else { Claimed };
            engine.link(on(it), lead(who), sure, why, means).map(|_| ())
        }
        ["unlink", it, who] => engine.unlink(on(it), lead(who), why, means).map(|_| ()),
        ["confirm", it, who] => engine.confirm(on(it), lead(who), why, means).map(|_| ()),
        ["merge", one, other] => engine.merge(lead(one), lead(other), why, means).map(|_| ()),
        ["unmerge", name] => engine.unmerge(lead(name), why, means).map(|_| ()),
        ["undo", back] => {
            let (position, step) = &steps[steps.len() - number(back) as usize];
            engine.undo((step, *position), why, means).map(|_| ())
        }
        _ => panic!("nobody knows what {words:?} is"),
    })
}

fn play(promise: &str, world: &mut World, act: &str) {
    let words: Vec<&str> = act.split_whitespace().collect();
    if let Some((who, hit)) = hit_of(&words) {
        let now = world.now();
        world.ingest(Hit { visitor: who.map(browser), received: now, when: now, ..hit });
        return;
    }
    match words.as_slice() {
        ["wait", minutes] => {
            world.to(world.now().plus(Duration::from_mins(number(minutes))));
        }
        [many, "say", who] => {
            for it in CROWD..CROWD + number(many) {
                play(promise, world, &format!("{it} says {who}"));
            }
        }
        ["no", error, rest @ ..] => {
            let refused = step(world, rest).map_err(StepError::name);
            assert_eq!(refused, Err(error.trim_end_matches(':')), "{promise}: {act}");
        }
        step_words => assert_eq!(step(world, step_words), Ok(()), "{promise}: {act}"),
    }
}

/// What is to be seen in the end, in a fixed order.
fn seen(world: &World) -> Vec<String> {
    let mut lines: Vec<String> = (1..CROWD).filter_map(|it| whose(world, it)).collect();
    for id in world.engine.lead_ids() {
        lines.push(person(world, id));
        let attributes = world.engine.lead(id).unwrap().attributes();
        lines.extend(attributes.get("title").map(|title| format!("{} is a {title}", letter(id))));
    }
    for review in world.hits().iter().flat_map(|(_, record)| &record.review) {
        let about = [Some(review.lead), review.other].into_iter().flatten();
        let about: String = about.map(letter).collect();
        lines.push(format!("{} {about}", review.question.name()));
    }
    lines.sort();
    lines
}

fn person(world: &World, head: LeadId) -> String {
    let lead = world.engine.lead(head).unwrap();
    let mut names: Vec<char> = lead.content.members.iter().map(|it| letter(it.id)).collect();
    names[1..].sort_unstable();
    for it in &names {
        assert_eq!(world.engine.head(name(*it).1), head, "{it} leads to {names:?}");
    }
    let sure = |it: u64| {
        let source = Source::Visitor(browser(it));
        let ties = lead.content.ties.iter().filter(|tie| tie.source == source);
        ties.map(|tie| lead.content.assurance_of(source, tie.origin)).max()
    };
    let tie = |it: u64| Some(format!("{it}{}", ['?', '~', '!'][sure(it)? as usize]));
    let mut ties: Vec<String> = (1..CROWD).filter_map(tie).collect();
    let crowd = (CROWD..2 * CROWD).filter(|it| sure(*it) == Some(Claimed)).count();
    ties.extend((crowd > 0).then(|| format!("{crowd} more?")));
    let explained = engine::lead::explain(&lead.content.rows, world.scoring.terms(), world.now());
    let shown: i64 = explained.shares.iter().map(|(_, points)| points.0).sum();
    assert_eq!(shown, explained.score.0, "the rows of {names:?} are the score");
    let names: String = names.into_iter().collect();
    let exists = lead.profile().assurance;
    format!("{names} {} {} [{}]", exists.name(), explained.score, ties.join(" "))
}

/// Whose a browser is, and whose its hits are, by the names under which they count.
fn whose(world: &World, it: u64) -> Option<String> {
    let visitor = world.engine.visitor(browser(it), world.now())?;
    let of_hit = |(position, record): &(Position, HitRecord)| {
        let within = |after: Position| {
            let (after, until) = visitor.trail.span(after);
            after < *position && *position <= until
        };
        let owner = visitor.stretches().find(|it| within(it.after)).unwrap().owner;
        let excluded = record.hit.excluded.map(|it| it.name().chars().next().unwrap());
        excluded.unwrap_or_else(|| owner.map_or('-', letter))
    };
    let mut own = world.hits();
    own.retain(|(_, record)| record.hit.visitor == Some(browser(it)));
    let own: String = own.iter().map(of_hit).collect();
    let bound = visitor.bound.map_or('-', |bound| letter(bound.origin));
    Some(format!("{it} is {bound}: {own}"))
}

#[test]
fn every_case_of_who_is_who_ends_as_it_says() {
    assert!(lead("D") < lead("A"), "one case is about the smaller id");
    let mut wrong = Vec::new();
    for [promise, acts, then] in CASES {
        let mut world = World::new(example_scoring());
        world.at("2026-12-07 10:00");
        acts.split(", ").for_each(|act| play(promise, &mut world, act));
        let (seen, mut expected) = (seen(&world), then.split("; ").collect::<Vec<_>>());
        expected.sort_unstable();
        if seen != expected {
            wrong.push(format!("{promise}:\n  {}\n  not {}", seen.join("; "), expected.join("; ")));
        }
        nothing_lost(&world.engine, &world.journal, world.now()).expect(promise);
        let again = world.journal.replay(8).state_hash(world.now());
        assert_eq!(again, world.engine.state_hash(world.now()), "{promise}");
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
