//! A journal replayed to a record or a moment is the state of then, and every record can be told.

use serde_json::Value;

use crate::support::story::TANAKA;
use crate::{lived, told};

#[test]
fn replayed_to_a_moment_a_lead_is_what_it_was_known_to_be_then() {
    let (mut server, _receiver) = lived();
    let id = server.lead_id(TANAKA);
    let moments =
        ["2026-12-04T09:45:00+09:00", "2026-12-04T09:50:30+09:00", "2026-12-07T08:56:00+09:00"];
    let mut scores = Vec::new();
    for moment in moments {
        let path = format!("/api/leads/{id}/score?at={}", moment.replace('+', "%2B"));
        let answer = server.ask("GET", &path, b"");
        let known = answer.status == 200;
        scores.push(if known { answer.json()["exact"].clone() } else { Value::Null });
    }
    assert!(scores[1].as_f64() < scores[2].as_f64(), "{scores:?}");
    server.stop();
    for (moment, score) in moments.into_iter().zip(&scores) {
        let said = told(&server, &["replay", "--until", moment, "--lead", &id]);
        let exact = if said["lead"].is_null() { &Value::Null } else { &said["lead"]["exact"] };
        assert_eq!(exact.as_f64(), score.as_f64(), "{moment}: {said}");
    }
}

#[test]
fn replayed_to_every_record_in_turn_the_hash_is_that_of_then_with_any_division() {
    let (mut server, _receiver) = lived();
    server.stop();
    let now = server.now().to_string();
    let whole = told(&server, &["replay", "--now", &now]);
    let last = whole["until"].as_u64().unwrap();
    let mut hashes = std::collections::BTreeSet::new();
    for until in [1, 5, last / 3, last / 2, last - 1] {
        let until = until.to_string();
        let one = told(&server, &["replay", "--now", &now, "--until", &until, "--shards", "2"]);
        let other = told(&server, &["replay", "--now", &now, "--until", &until]);
        assert_eq!(one, other);
        assert_eq!(one["records"].to_string(), until);
        hashes.insert(one["hash"].to_string());
    }
    assert!(hashes.len() >= 3, "{hashes:?}");
    assert_eq!(told(&server, &["replay", "--now", &now, "--until", &last.to_string()]), whole);
}

#[test]
fn every_record_has_a_line_and_what_it_did_to_a_lead_is_told() {
    let (mut server, _receiver) = lived();
    let id = server.lead_id(TANAKA);
    server.stop();
    let (text, well) = server.command(&["replay", "--trace"]);
    assert!(well, "{text}");
    let lines: Vec<&str> = text.trim().lines().collect();
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(lines.len() as u64 - 1, last["records"].as_u64().unwrap());
    for (nth, line) in lines[..lines.len() - 1].iter().enumerate() {
        assert!(line.starts_with(&format!("{}  2026-", nth + 1)), "{line}");
    }
    let (text, well) = server.command(&["replay", "--lead", &id]);
    assert!(well, "{text}");
    assert!(text.contains("hot Rise"), "{text}");
    assert!(text.contains("tells lead.hot"), "{text}");
    assert!(text.lines().filter(|line| line.contains("score ")).count() > 5, "{text}");
    for personal in ["tanaka", "サンプル精機", "山田"] {
        assert!(!text.contains(personal), "{text}");
    }
}

#[test]
fn decided_again_by_the_same_program_nothing_differs() {
    let (mut server, _receiver) = lived();
    server.stop();
    let (text, well) = server.command(&["replay", "--recheck"]);
    assert!(well, "{text}");
    let said: Value = serde_json::from_str(text.trim().lines().last().unwrap()).unwrap();
    let checked = &said["rechecked"];
    assert_eq!(checked["differ"], 0, "{text}");
    assert!(checked["visits"].as_u64() > Some(30) && checked["leads"].as_u64() > Some(5), "{said}");
    assert_eq!(checked["passed_over"], 0, "{said}");
}

#[test]
fn what_is_no_moment_and_no_record_is_refused_by_name() {
    let (mut server, _receiver) = crate::small("", Vec::new());
    server.stop();
    for until in ["yesterday", "-1", "@x", "2026-12-04", ""] {
        let (text, well) = server.command(&["replay", &format!("--until={until}")]);
        assert!(!well && text.contains("neither a position nor a moment"), "{until}: {text}");
    }
    let (text, well) = server.command(&["replay", "--lead", "nobody"]);
    assert!(!well && text.contains("not the id of a lead"), "{text}");
}
