//! Named lists: who is on them, page by page, counted, exported, and what a saved file does.

use std::fs;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::server::{Server, Setup};
use crate::support::{at, wait_for};

const MONDAY: &str = "2026-12-07 09:00";
const LISTS: &str = "\
[[list]]
id = \"hot-manufacturing\"
ja = \"製造業のホット\"
en = \"Hot, manufacturing\"
where = { stage = \"hot\", attribute = { attribute = \"industry\", is = \"manufacturing\" } }

[[list]]
id = \"middle\"
where = { score = { from = 15, to = 55 }, category = { name = \"intent\", from = 15 } }

[[list]]
id = \"graded\"
where = { grade = [\"A\", \"B\"], last_seen = { within = \"7d\" } }

[[list]]
id = \"sato\"
where = { owner = \"sato@vendor.example\", company = \"サンプル精機株式会社\" }

[[list]]
id = \"all\"
where = { score = { to = 1000 } }
";

fn ids(page: &Value) -> Vec<String> {
    let leads = page["leads"].as_array().unwrap();
    leads.iter().map(|lead| lead["email"].as_str().unwrap().to_owned()).collect()
}

fn counts(server: &Server) -> Vec<(String, u64)> {
    let lists = server.get("/api/lists");
    let of =
        |list: &Value| (list["id"].as_str().unwrap().to_owned(), list["count"].as_u64().unwrap());
    lists["lists"].as_array().unwrap().iter().map(of).collect()
}

fn counted(server: &Server) -> Vec<u64> {
    counts(server).into_iter().map(|(_, count)| count).collect()
}

fn save(server: &Server, text: &str) {
    fs::write(server.config().join("lists.toml"), text).unwrap();
    let answer = server.post("/api/reload", &json!({}));
    assert_eq!(answer.status, 200);
}

/// Four people and one under the test key, a minute apart.
fn people(server: &Server) {
    let factory = json!({
        "name": "田中 恵", "company": "サンプル精機株式会社", "title": "製造部長",
        "industry": "Manufacturing",
    });
    let person = |number: u64, email: &str, said: &Value, thanks: &str, site: &str| {
        let mut browser = Browser::new(server, number);
        site.clone_into(&mut browser.site);
        browser.page("/", "");
        browser.form(email, said, thanks, "");
        server.pass_ms(60_000);
    };
    person(1, "hot@a.example", &factory, "/thanks/contact/ok", "www");
    let other =
        json!({ "name": "=1+1", "company": "B, \"K.K.\"", "industry": "it", "phone": "+81-3" });
    person(2, "trial@b.example", &other, "/thanks/trial/pro", "www");
    person(3, "document@c.example", &factory, "/thanks/document/a", "www");
    person(4, "reader@d.example", &json!({}), "/column/dx", "www");
    person(5, "test@e.example", &factory, "/thanks/contact/ok", "www-test");
    let card = json!({
        "site": "www", "email": "document@c.example",
        "attributes": { "owner": "sato@vendor.example", "customer": true, "color": "red" },
    });
    assert_eq!(server.post("/api/attributes", &card).json()["kept"], 1);
    wait_for("all are listed", || {
        let found = server.get("/api/leads");
        (ids(&found).len() == 5).then_some(())
    });
}

fn started() -> Server {
    let server = Server::start(&Setup::new(at(MONDAY), &[]));
    assert_eq!(server.get("/api/lists")["lists"], json!([]), "a folder without the file has none");
    save(&server, LISTS);
    wait_for("the lists are there", || (counts(&server).len() == 5).then_some(()));
    people(&server);
    server
}

#[test]
fn who_is_on_a_list_is_counted_and_found_and_no_test_is() {
    let server = started();
    let named = server.get("/api/lists");
    assert_eq!(named["leads"], 4);
    assert_eq!(
        named["lists"][0],
        json!({
            "id": "hot-manufacturing", "count": 1,
            "label": { "ja": "製造業のホット", "en": "Hot, manufacturing" },
        })
    );
    assert_eq!(named["lists"][1]["label"], json!({ "ja": "middle", "en": "middle" }));
    assert_eq!(counted(&server), [1, 2, 2, 1, 4]);
    assert_eq!(server.figure("mikomi_leads_listed{list=\"middle\"}"), 2);

    let on = |list: &str| ids(&server.get(&format!("/api/leads?list={list}")));
    assert_eq!(on("hot-manufacturing"), ["hot@a.example"]);
    assert_eq!(on("middle"), ["document@c.example", "trial@b.example"], "seen last first");
    assert_eq!(on("graded"), ["document@c.example", "hot@a.example"]);
    assert_eq!(on("sato"), ["document@c.example"]);
    assert_eq!(on("middle&q=b.example"), ["trial@b.example"]);
    assert_eq!(on("all&test=true"), ["test@e.example"]);
    assert_eq!(ids(&server.get("/api/leads?test=1")), ["test@e.example"]);

    // Nobody is written into a list: time takes them out of it, and other attributes too.
    server.to("2026-12-15 09:00");
    // The document is worth 13 by now, the quote 40.
    assert_eq!(ids(&server.get("/api/leads?list=middle")), ["trial@b.example", "hot@a.example"]);
    assert_eq!(counted(&server), [1, 2, 0, 1, 4]);
    let card = json!({
        "site": "www", "email": "hot@a.example", "attributes": { "industry": "retail" },
    });
    assert_eq!(server.post("/api/attributes", &card).json()["kept"], 1);
    assert_eq!(counted(&server)[0], 0);
}

#[test]
fn a_list_is_read_page_by_page() {
    let server = started();
    let (mut seen, mut after) = (Vec::new(), String::new());
    for page in 0..4 {
        let found = server.get(&format!("/api/leads?list=all&limit=1{after}"));
        assert_eq!(ids(&found).len(), 1, "{page}");
        seen.extend(ids(&found));
        if page == 1 {
            // Whoever is seen meanwhile moves to the front, and is not shown twice.
            Browser::returning(&server, 9).identify("document@c.example", &json!({}));
        }
        match found["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => assert_eq!(page, 3),
        }
    }
    let expected = ["document@c.example", "reader@d.example", "trial@b.example", "hot@a.example"];
    assert_eq!(seen, expected);
    assert_eq!(server.get("/api/leads?limit=500")["next"], Value::Null);
}

#[test]
fn what_nobody_can_mean_is_refused_by_name() {
    let server = started();
    for (path, status, error, about) in [
        ("/api/leads?list=no", 404, "not_found", ""),
        ("/api/export/leads?list=no", 404, "not_found", ""),
        ("/api/leads?after=1", 400, "malformed", "after"),
        ("/api/leads?after=x-L0000000000000001", 400, "malformed", "after"),
        ("/api/leads?after=1-Lx", 400, "malformed", "after"),
        ("/api/leads?test=maybe", 400, "malformed", "test"),
        ("/api/leads?limit=501", 422, "too_much", "limit"),
        ("/api/leads?lsit=a", 400, "malformed", "there is no field \"lsit\" here"),
        ("/api/export/leads?as=xls", 400, "malformed", "as"),
        ("/api/export/leads?hide=emial", 400, "malformed", "hide"),
        ("/api/export/leads?hdie=email", 400, "malformed", "there is no field \"hdie\" here"),
        ("/api/figures?days=0", 422, "too_much", "days"),
        ("/api/figures?days=401", 422, "too_much", "days"),
        ("/api/figures?days=x", 400, "malformed", "days"),
        ("/api/hot?who=me", 400, "malformed", "who"),
        ("/api/untaken?all=yes", 400, "malformed", "all"),
    ] {
        let answer = server.ask("GET", path, b"");
        let said = answer.json();
        assert_eq!((answer.status, &said["error"]), (status, &json!(error)), "{path}");
        assert_eq!(said["about"], about, "{path}");
    }
    let many = format!("/api/export/leads?{}hide=email", "hide=name&".repeat(40));
    assert_eq!(server.ask("GET", &many, b"").json()["about"], "query");
}

fn lines(server: &Server, path: &str) -> Vec<String> {
    let answer = server.ask("GET", path, b"");
    assert_eq!(answer.status, 200, "{path}");
    answer.text().lines().map(str::to_owned).collect()
}

#[test]
fn an_export_holds_everybody_once_and_hides_what_is_to_be_hidden() {
    let server = started();
    let rows: Vec<Value> = lines(&server, "/api/export/leads?list=middle")
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    let of = |email: &str| rows.iter().find(|row| row["email"] == email).unwrap();
    let document = of("document@c.example");
    for (column, value) in [
        ("name", json!("田中 恵")),
        ("company", json!("サンプル精機株式会社")),
        ("owner", json!("sato@vendor.example")),
        ("stage", json!("known")),
        ("points", json!(19)),
        ("points_intent", json!(19.998)),
        ("points_interest", json!(0.0)),
        ("grade", json!("B")),
        ("cell", json!("B3")),
        ("assurance", json!("verified")),
        ("consent", json!(true)),
        ("customer", json!(true)),
        ("open_deal", Value::Null),
        ("registered_events", json!([])),
        ("test", json!(false)),
        ("visits", json!(1)),
        ("attributes", json!({ "color": "red" })),
    ] {
        assert_eq!(document[column], value, "{column}");
    }
    assert_eq!(of("trial@b.example")["stage"], "warm");

    let path = "/api/export/leads?list=all&hide=email,name&hide=phone,attributes";
    for line in lines(&server, path) {
        for word in ["@", "田中", "1+1", "+81", "\"red\"", "\"email\"", "\"attributes\""] {
            assert!(!line.replace("sato@", "").contains(word), "{word}: {line}");
        }
    }
    // All of them stand in one without a list, tests marked.
    let all = lines(&server, "/api/export/leads");
    assert_eq!(all.len(), 5);
    assert_eq!(all.iter().filter(|line| line.contains("\"test\":true")).count(), 1);
}

#[test]
fn a_table_is_read_by_a_spreadsheet_and_runs_nothing_in_it() {
    let server = started();
    let answer = server.ask("GET", "/api/export/leads?list=middle&as=csv", b"");
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"leads.csv\""));
    let text = answer.text();
    let text = text.strip_prefix('\u{feff}').expect("the mark that says UTF-8");
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("id,name,email,phone,company,title,"), "{}", lines[0]);
    assert!(
        lines[0].ends_with(",test,points_intent,points_interest,points_recruit"),
        "{}",
        lines[0]
    );
    let trial = lines.iter().find(|line| line.contains("trial@b.example")).unwrap();
    let cells = ",'=1+1,trial@b.example,'+81-3,\"B, \"\"K.K.\"\"\",";
    assert!(trial.contains(cells), "{trial}");
    assert!(trial.ends_with(",false,49.993,0.0,0.0"), "{trial}");
    let hidden =
        server.ask("GET", "/api/export/leads?list=middle&as=csv&hide=name,phone", b"").text();
    assert!(hidden.starts_with("\u{feff}id,email,company,"), "{hidden}");
    assert!(!hidden.contains("=1+1") && !hidden.contains("+81"), "{hidden}");
}

#[test]
fn a_saved_file_with_a_mistake_changes_nothing_and_is_shown_with_its_place() {
    let server = started();
    save(&server, &LISTS.replace("name = \"intent\"", "name = \"intend\""));
    let problems = wait_for("the mistake is shown", || {
        let found = server.get("/api/problems")["problems"].clone();
        (found != json!([])).then_some(found)
    });
    let problem = "lists.toml:9:63: there is no category \"intend\" in scoring.toml; \
                   did you mean \"intent\"?";
    assert_eq!(problems, json!([problem]));
    assert_eq!(counted(&server), [1, 2, 2, 1, 4], "the old ones stay");
    save(&server, "[[list]]\nid = \"hot\"\nwhere = { stage = \"hot\" }\n");
    wait_for("the new ones are there", || {
        (counts(&server) == [("hot".to_owned(), 1)]).then_some(())
    });
    wait_for("the mistake is gone", || {
        (server.get("/api/problems")["problems"] == json!([])).then_some(())
    });
    let (said, good) = server.command(&["check"]);
    assert!(good, "{said}");
}
