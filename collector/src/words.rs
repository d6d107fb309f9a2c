//! Who took a step, and why: words of people about a person, which the journal holds sealed under
//! that person's key. A job that concerns many keeps them as they are; so does an erasure, whose
//! reason loses whatever it says of the person.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::attribute::Attributes;
use engine::engine::Authority;
use engine::id::LeadId;
use engine::record::{Body, Record, Step, StepRecord};

use crate::privacy::without_addresses;
use crate::seal::{Sealer, attributes_from_bytes, attributes_to_bytes};

/// How a sealed reason begins.
const SEALED: &str = "sealed:";
/// What stands for what a reason said of a person.
const LEFT_OUT: &str = "…";
/// Words of a person that are left out of a reason: shorter ones are in everything.
const WORD_CHARS_MIN: usize = 2;

/// The same record with its words sealed; nothing if they stay as they are.
pub fn sealed(sealer: &Sealer, record: &Record) -> Option<Record> {
    let Body::Step(step) = &record.body else {
        return None;
    };
    let lead = step.lead.as_ref().map(|part| part.lead)?;
    // What the program says by itself is about nobody.
    if step.actor.is_empty() || matches!(step.step, Step::Erase { .. }) {
        return None;
    }
    let (actor, reason) = seal(sealer, lead, &step.actor, &step.reason);
    let step = StepRecord { actor, reason, ..(**step).clone() };
    Some(Record { body: Body::Step(Box::new(step)), ..record.clone() })
}

/// The same authority with its words sealed for a person: for a record that names nobody itself.
pub fn about(sealer: &Sealer, lead: LeadId, why: &Authority) -> Authority {
    let (actor, reason) = seal(sealer, lead, &why.actor, &why.reason);
    Authority { actor, reason, ..why.clone() }
}

fn seal(sealer: &Sealer, lead: LeadId, actor: &str, reason: &str) -> (String, String) {
    let words: Attributes =
        [("actor".to_owned(), actor.to_owned()), ("reason".to_owned(), reason.to_owned())].into();
    let sealed = sealer.seal(lead, &attributes_to_bytes(&words));
    // Without a key they are left out: the step itself matters more.
    let reason = sealed.map(|it| format!("{SEALED}{:016x}:{}", lead.0, STANDARD.encode(it)));
    (String::new(), reason.unwrap_or_default())
}

/// Puts the plain words back, as far as their key is there: else there are none.
pub fn unseal(step: &mut StepRecord, open: impl Fn(LeadId, &[u8]) -> Option<Vec<u8>>) {
    let Some((lead, sealed)) = parts(&step.reason) else {
        return;
    };
    let words = open(lead, &sealed).and_then(|bytes| attributes_from_bytes(&bytes));
    let mut words = words.unwrap_or_default();
    let mut word = |name: &str| words.remove(name).unwrap_or_default();
    (step.actor, step.reason) = (word("actor"), word("reason"));
}

/// For whom words are sealed, and what; nothing if they stand there as they are.
pub fn parts(reason: &str) -> Option<(LeadId, Vec<u8>)> {
    let (lead, sealed) = reason.strip_prefix(SEALED)?.split_once(':')?;
    Some((LeadId(u64::from_str_radix(lead, 16).ok()?), STANDARD.decode(sealed).ok()?))
}

/// A text without anything that is known of a person, and without addresses.
pub fn without(text: &str, known: &Attributes) -> String {
    let mut text = text.to_owned();
    let mut values: Vec<&str> = known.values().map(String::as_str).collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values.into_iter().filter(|it| it.chars().count() >= WORD_CHARS_MIN) {
        text = text.replace(value, LEFT_OUT);
    }
    without_addresses(&text)
}

#[cfg(test)]
mod tests {
    use engine::record::LeadPart;
    use engine::time::Timestamp;

    use super::*;

    fn record(step: Step) -> Record {
        let step = StepRecord {
            step,
            actor: "sato".into(),
            reason: "tanaka@sample.example asked".into(),
            lead: Some(LeadPart { lead: LeadId(7), ..LeadPart::default() }),
            ..StepRecord::default()
        };
        Record { time: Timestamp(1), version: 1, body: Body::Step(Box::new(step)) }
    }

    #[test]
    fn the_words_of_a_step_are_read_with_the_person_s_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(folder.path()).unwrap();
        let sealed = sealed(&sealer, &record(Step::Confirm)).unwrap();
        let Body::Step(mut step) = sealed.body else { panic!("a step") };
        assert!(!format!("{step:?}").contains("tanaka") && step.actor.is_empty());
        let kept = step.clone();
        unseal(&mut step, |lead, sealed| sealer.unseal(lead, sealed));
        assert_eq!((&*step.actor, &*step.reason), ("sato", "tanaka@sample.example asked"));
        sealer.forget(&[LeadId(7)]).unwrap();
        let mut step = kept;
        unseal(&mut step, |lead, sealed| sealer.unseal(lead, sealed));
        assert_eq!((&*step.actor, &*step.reason), ("", ""));
    }

    #[test]
    fn an_erasure_keeps_who_did_it_and_a_reason_that_says_nothing_of_the_person() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(folder.path()).unwrap();
        assert_eq!(sealed(&sealer, &record(Step::Erase { names: Vec::new() })), None);
        let known: Attributes = [("name".into(), "田中 恵".into())].into();
        let reason = "田中 恵さん (megumi@x.example) asked by mail";
        assert_eq!(without(reason, &known), "…さん ((address)) asked by mail");
    }
}
