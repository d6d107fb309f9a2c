//! config/alert.schema.json says what a message is: every kind is one, and nothing else is.

use boon::{Compiler, SchemaIndex, Schemas};

use super::*;

const SCHEMA: &str = include_str!("../../../../config/alert.schema.json");

struct Checked {
    schemas: Schemas,
    index: SchemaIndex,
}

fn schema() -> Checked {
    let mut schemas = Schemas::new();
    let mut compiler = Compiler::new();
    compiler.enable_format_assertions();
    compiler.add_resource("alert.schema.json", serde_json::from_str(SCHEMA).unwrap()).unwrap();
    let index = compiler.compile("alert.schema.json", &mut schemas).unwrap();
    Checked { schemas, index }
}

impl Checked {
    fn allows(&self, body: &Value) -> Result<(), String> {
        let checked = self.schemas.validate(body, self.index);
        checked.map_err(|error| format!("{error:#}"))
    }
}

#[test]
fn every_kind_of_message_is_one_by_the_schema() {
    let schema = schema();
    for example in examples() {
        assert_eq!(schema.allows(&example.body), Ok(()), "{:?}", example.kind);
    }
    assert_eq!(examples().len(), AlertKind::ALL.len());
}

#[test]
fn a_message_from_which_much_is_hidden_or_cut_is_one_too() {
    let schema = schema();
    let hide = ["name", "email", "phone", "company", "owner", "crm_id", "industry", "title"];
    let hide: BTreeSet<String> = hide.map(str::to_owned).into();
    for kind in AlertKind::ALL {
        let body = Props::example().material(&scene(kind), |it| it.body(&hide)).unwrap();
        assert_eq!(schema.allows(&body), Ok(()), "{kind:?}");
        assert_eq!(body["data"]["links"]["crm"], Value::Null, "an id that is hidden is in no link");
        let largest = hostile::largest(kind);
        assert_eq!(schema.allows(&largest), Ok(()), "{kind:?}");
    }
}

#[test]
fn the_published_example_is_one() {
    let example: Value = serde_json::from_str(HOT).unwrap();
    assert_eq!(schema().allows(&example), Ok(()));
}

/// Every object in a value, by the way to it.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            found.push(at.to_owned());
            for (key, value) in entries {
                objects(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (place, value) in list.iter().enumerate() {
                objects(value, &format!("{at}/{place}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn a_key_that_nobody_knows_and_a_key_that_is_missing_are_refused_wherever_they_stand() {
    let schema = schema();
    let free = ["/data/score/by_category", "/data/lead/external_ids"];
    let mut tried = 0;
    for example in examples() {
        let mut all = Vec::new();
        objects(&example.body, "", &mut all);
        for at in all {
            let mut more = example.body.clone();
            more.pointer_mut(&at).unwrap()["unheard_of"] = json!("x");
            assert!(schema.allows(&more).is_err(), "{:?} {at}", example.kind);
            let keys: Vec<String> =
                example.body.pointer(&at).unwrap().as_object().unwrap().keys().cloned().collect();
            let needed = |key: &&String| *key != "also" && !free.contains(&at.as_str());
            for key in keys.iter().filter(needed) {
                let mut less = example.body.clone();
                less.pointer_mut(&at).unwrap().as_object_mut().unwrap().remove(key);
                assert!(schema.allows(&less).is_err(), "{:?} {at}/{key}", example.kind);
                tried += 1;
            }
        }
    }
    assert!(tried > 800, "{tried}");
}

#[test]
fn what_only_one_kind_says_is_refused_of_the_others() {
    let schema = schema();
    let hot = &examples().iter().find(|it| it.kind == AlertKind::Hot).unwrap().body;
    for (key, value) in [
        ("retracts", json!("msg_0000000000000000000000")),
        ("reason", json!("x")),
        ("from", json!("L7f3a9c1e5b2d4806")),
        ("into", json!("L7f3a9c1e5b2d4806")),
    ] {
        let mut wrong = hot.clone();
        wrong["data"][key] = value;
        assert!(schema.allows(&wrong).is_err(), "{key}");
    }
    let mut other = hot.clone();
    other["type"] = json!("lead.tepid");
    assert!(schema.allows(&other).is_err());
}
