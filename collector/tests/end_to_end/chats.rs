//! The recipes of endpoints.toml against receivers as strict as those they stand for: Slack,
//! Chatwork, kintone and Salesforce take nothing that is not as they want it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::support::receiver::{Received, Receiver};
use super::support::server::{Server, Setup};
use super::support::story::{TANAKA, story_one};
use super::support::{at, wait_for};

const ENDPOINTS: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/endpoints.toml"));
const KINTONE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/templates/kintone.j2"));
const OWNERS: &str = "[[owner]]\nmail = \"sato@vendor.example\"\nname = \"佐藤\"\n\
                      slack = \"U0SATO\"\nchatwork = \"1234567\"\n";
/// What must never be printed.
const SECRETS: [&str; 4] = ["T0SECRET", "cw-secret-token", "kt-secret-token", "00D-secret"];

/// A recipe of the file with its marks taken off, for a receiver of ours.
fn recipe(id: &str, host: &str, receiver: &Receiver) -> String {
    let (place, reach) = receiver.place();
    let marked = ENDPOINTS.split("# Recipes").nth(1).unwrap();
    let own =
        marked.split("# [[endpoint]]\n").find(|it| it.starts_with(&format!("# id = \"{id}\"")));
    let lines = own.unwrap().lines().map_while(|line| line.strip_prefix("# "));
    let text: Vec<&str> = lines.collect();
    let text = text.join("\n").replace("mode = \"shadow\"", "mode = \"live\"");
    let moved = text.replace(&format!("https://{host}"), &place);
    assert!(host.is_empty() || moved != text, "{id} does not go to {host}");
    format!("[[endpoint]]\n{moved}\n{reach}\n")
}

fn started(endpoints: &[String], slack: &str) -> Server {
    let mut setup = Setup::new(at("2026-12-01 08:00"), endpoints).with_admin_url();
    let crm = "[admin]\ncrm_url = \"https://crm.vendor.example/lead/{crm}\"";
    setup.mikomi = setup.mikomi.replace("[admin]", crm);
    setup.files = vec![
        ("owners.toml".to_owned(), OWNERS.to_owned()),
        ("keys/salesforce.txt".to_owned(), "00D-secret\n".to_owned()),
    ];
    let env = [
        ("SLACK_WEBHOOK_URL", slack),
        ("CHATWORK_TOKEN", "cw-secret-token"),
        ("KINTONE_TOKEN", "kt-secret-token"),
    ];
    Server::start_with(&setup, &env.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

/// Slack refuses what its blocks may not be.
fn slack(request: &Received) -> u16 {
    let is = |value: &Value, most: usize| {
        value.as_str().is_some_and(|text| (1..=most).contains(&text.encode_utf16().count()))
    };
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        return 400;
    };
    let good = |block: &Value| match block["type"].as_str() {
        Some("header") => block["text"]["type"] == "plain_text" && is(&block["text"]["text"], 150),
        Some("section") => {
            let fields = block["fields"].as_array();
            let short = |fields: &Vec<Value>| {
                (1..=10).contains(&fields.len()) && fields.iter().all(|it| is(&it["text"], 2_000))
            };
            fields.map_or_else(|| is(&block["text"]["text"], 3_000), short)
        }
        Some("actions") => block["elements"].as_array().is_some_and(|buttons| {
            let button = |it: &Value| is(&it["text"]["text"], 75) && is(&it["url"], 3_000);
            (1..=25).contains(&buttons.len()) && buttons.iter().all(button)
        }),
        Some("context") => {
            block["elements"].as_array().is_some_and(|it| (1..=10).contains(&it.len()))
        }
        _ => false,
    };
    let blocks = message["blocks"].as_array();
    let fine = request.method == "POST"
        && request.path == "/services/T0SECRET"
        && request.header("content-type") == "application/json"
        && blocks.is_some_and(|it| (1..=50).contains(&it.len()) && it.iter().all(good))
        && is(&message["text"], 40_000);
    if fine { 200 } else { 400 }
}

/// Chatwork wants its token, one form field and not too much in it.
fn chatwork(request: &Received) -> u16 {
    let form = request.form();
    let token = request.headers.iter().find(|(name, _)| name == "x-chatworktoken");
    if token.is_none_or(|(_, token)| token != "cw-secret-token") {
        return 401;
    }
    let fine = request.method == "POST"
        && request.path == "/v2/rooms/123456/messages"
        && request.header("content-type") == "application/x-www-form-urlencoded"
        && form.len() == 1
        && form[0].0 == "body"
        && (1..2_000).contains(&form[0].1.len());
    if fine { 200 } else { 400 }
}

#[test]
fn sales_reads_the_message_in_slack_and_in_chatwork() {
    let [slack_like, chatwork_like] = [Receiver::start(), Receiver::start()];
    slack_like.answer_with(slack);
    chatwork_like.answer_with(chatwork);
    let server = started(
        &[
            recipe("slack-sales", "", &slack_like),
            recipe("chatwork-sales", "api.chatwork.com", &chatwork_like),
        ],
        &format!("{}/services/T0SECRET", slack_like.place().0),
    );
    story_one(&server);
    server.wait_delivered(2);
    let message = slack_like.all().remove(0);
    let body = message.json();
    let headline = "【ホット】サンプル精機株式会社 田中恵さん 69点（B1）";
    assert_eq!(body["text"], format!("{headline}。料金ページを閲覧"));
    assert_eq!(body["blocks"][0]["text"]["text"], headline);
    let why = body["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(
        why.contains("*なぜ今* 8:56 に料金ページを閲覧（本日のメールから来訪。12/4 に続き2回目）"),
        "{why}"
    );
    assert!(why.ends_with("製品ページを3つ以上比較 7、その他 23"), "{why}");
    assert!(message.headers.iter().all(|(name, _)| name != "webhook-signature"));
    assert!(message.header("webhook-id").starts_with("msg_"));

    let form = chatwork_like.all().remove(0).form();
    let text = &form[0].1;
    assert!(text.contains(&format!("[info][title]{headline}[/title]")), "{text}");
    assert!(text.contains("■内訳（69点）\n料金ページを閲覧 22（2回）\n"), "{text}");
    for receiver in [&slack_like, &chatwork_like] {
        assert_eq!(receiver.all().len(), 1);
        let sent = String::from_utf8(receiver.all()[0].body.clone()).unwrap();
        assert!(!sent.contains(TANAKA) && !sent.contains("tanaka%40"), "a mail address in a chat");
    }
    no_secret_is_shown(&server);
}

fn no_secret_is_shown(server: &Server) {
    let shown = server.log()
        + &server.get("/api/deliveries").to_string()
        + &server.get("/api/problems").to_string()
        + &server.command(&["check"]).0;
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret}");
    }
    let journal = std::fs::read_dir(server.data().join("journal")).unwrap();
    for file in journal {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for secret in SECRETS {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} is in the journal");
        }
    }
}

/// Records by their key, and how often each was written.
type Records = Arc<Mutex<BTreeMap<String, (u32, Value)>>>;

fn write(records: &Records, key: &str, record: &Value) -> bool {
    let mut records = records.lock().unwrap();
    let known = records.entry(key.to_owned()).or_insert((0, Value::Null));
    known.0 += 1;
    known.1 = record.clone();
    known.0 > 1
}

/// The field codes that the template's head names.
fn kintone_fields() -> Vec<String> {
    let list = KINTONE.split("field codes:").nth(1).unwrap().split(". -#}").next().unwrap();
    let mut plain = String::new();
    let mut depth = 0;
    for letter in list.chars() {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        if depth == 0 && letter != ')' {
            plain.push(letter);
        }
    }
    plain.split(',').map(|word| word.trim().to_owned()).collect()
}

fn kintone(request: &Received, records: &Records) -> u16 {
    let body = request.json();
    let fields = kintone_fields();
    let record = &body["records"][0];
    let fine = request.method == "PUT"
        && request.path == "/k/v1/records.json"
        && request.header("x-cybozu-api-token") == "kt-secret-token"
        && body["app"] == 7
        && body["upsert"] == true
        && record["updateKey"]["field"] == "alert_id"
        && record["record"].as_object().is_some_and(|entries| {
            let known = |(name, field): (&String, &Value)| {
                fields.contains(name) && field.as_object().is_some_and(|it| it.len() == 1)
            };
            entries.iter().all(known) && entries.len() == fields.len() - 1
        });
    if !fine {
        return 400;
    }
    write(records, record["updateKey"]["value"].as_str().unwrap(), &record["record"]);
    200
}

fn salesforce(request: &Received, records: &Records) -> u16 {
    let body = request.json();
    let id =
        request.path.strip_prefix("/services/data/v62.0/sobjects/Mikomi_Alert__c/Alert_Id__c/");
    let (Some(id), Some(fields)) = (id, body.as_object()) else {
        return 404;
    };
    if request.header("authorization") != "Bearer 00D-secret" {
        return 401;
    }
    // Neither an Id nor the external id may stand in the body; fields of one's own end in __c.
    let own = |name: &String| name == "Name" || (name.ends_with("__c") && name != "Alert_Id__c");
    let named = body["Name"].as_str().is_some_and(|name| (1..=80).contains(&name.chars().count()));
    if request.method != "PATCH" || !fields.keys().all(own) || !named {
        return 400;
    }
    if write(records, id, &body) { 204 } else { 201 }
}

#[test]
fn a_message_is_one_record_in_kintone_and_in_salesforce_however_often_it_comes() {
    let [kintone_like, salesforce_like] = [Receiver::start(), Receiver::start()];
    let [kept, sold]: [Records; 2] = [Records::default(), Records::default()];
    let (writing, mut first) = (Arc::clone(&kept), true);
    kintone_like.answer_with(move |request| {
        // It took the message, and its answer is lost.
        let status = kintone(request, &writing);
        if std::mem::take(&mut first) && status == 200 { 500 } else { status }
    });
    let writing = Arc::clone(&sold);
    salesforce_like.answer_with(move |request| salesforce(request, &writing));
    let server = started(
        &[
            recipe("kintone", "example.cybozu.com", &kintone_like),
            recipe("salesforce", "example.my.salesforce.com", &salesforce_like),
        ],
        "https://hooks.slack.com/services/T0SECRET",
    );
    story_one(&server);
    server.wait_delivered(1);
    server.pass_ms(30_000);
    // Whoever delivers looks at the clock when there is something new, or after a while.
    let mut other = super::Browser::returning(&server, 7);
    other.form(super::OTHER, &serde_json::json!({}), "/thanks/contact/ok", "");
    server.wait_delivered(4);
    let about = |records: &Records, name: &str| {
        let records = records.lock().unwrap();
        let found = records.iter().find(|(_, (_, record))| record.to_string().contains(name));
        found.map(|(id, record)| (id.clone(), record.clone())).unwrap()
    };
    let (id, (writes, record)) = about(&kept, "田中恵");
    assert_eq!(writes, 2, "it came twice");
    assert_eq!(record["headline"]["value"], "【ホット】サンプル精機株式会社 田中恵さん 69点（B1）");
    assert_eq!(record["email"]["value"], TANAKA);
    assert_eq!(record["happened_at"]["value"], "2026-12-06T23:56:00Z");
    let (other_id, (writes, record)) = about(&sold, "田中恵");
    assert_eq!((&id, writes), (&other_id, 1), "the same id everywhere");
    assert_eq!(record["Type__c"], "lead.hot");
    assert_eq!(record["Happened_At__c"], "2026-12-06T23:56:00.000Z");
    let counts = [&kept, &sold].map(|records| records.lock().unwrap().len());
    assert_eq!(counts, [2, 2]);
    no_secret_is_shown(&server);
}

#[test]
fn a_layout_of_ones_own_is_tried_out_before_it_is_used_and_seen_as_a_sample() {
    let receiver = Receiver::start();
    let own = receiver.endpoint(
        "own",
        "body_template_file = \"templates/own.j2\"\ncontent_type = \"text/plain\"\nlang = \"en\"\n",
    );
    let mut setup = Setup::new(at("2026-12-01 08:00"), &[own]);
    let text = "{{ chat.person }}: {{ data.score.points }} {{ data.lead.phone }}";
    setup.files = vec![("templates/own.j2".to_owned(), text.to_owned())];
    let server = Server::start(&setup);
    let (sample, good) = server.command(&["sample", "hot", "--endpoint", "own"]);
    assert!(good, "{sample}");
    assert_eq!(sample.trim(), "田中 恵, 課長, 製造部: 69");
    story_one(&server);
    server.wait_delivered(1);
    let sent = receiver.all().remove(0);
    assert_eq!(String::from_utf8(sent.body.clone()).unwrap(), "田中 恵, 課長, 製造部: 69 ");
    assert_eq!(sent.header("content-type"), "text/plain");
    assert!(sent.is_signed_with(super::SECRET));

    let template = server.config().join("templates/own.j2");
    std::fs::write(&template, "{{ data.lead.nmae }}").unwrap();
    let problems = wait_for("the mistake is seen", || {
        Some(server.get("/api/problems")).filter(|it| it.to_string().contains("template"))
    });
    assert!(problems.to_string().contains("undefined value"), "{problems}");
}

#[test]
fn a_sample_is_what_an_endpoint_would_be_sent_and_wrong_words_are_named() {
    let server = Server::start(&Setup::new(at("2026-12-01 08:00"), &[]));
    let run = |arguments: &[&str]| server.command(&[&["sample"], arguments].concat());
    let (list, good) = run(&["--list"]);
    assert!(good && list.starts_with("lead.hot\nlead.cooled\n"), "{list}");
    assert!(list.contains("--as json slack chatwork kintone salesforce\n"), "{list}");
    let (text, good) = run(&["lead.hot", "--as", "chatwork", "--lang", "en"]);
    assert!(good && text.starts_with("[To:1234567]Sato-san\n[info][title]HOT: 田中 恵"), "{text}");
    let (json, good) = run(&["reminder"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(good && json["type"] == "lead.reminder", "{json}");
    for (wrong, meant) in [
        (&["hoot"][..], "there is no message \"hoot\"; did you mean \"hot\"?"),
        (&["lead.hott"], "did you mean \"lead.hot\"?"),
        (&["warm_soup"], "there is hot, cooled, action"),
        (&["hot", "--as", "slak"], "there is no form \"slak\"; did you mean \"slack\"?"),
        (&["hot", "--lang", "fr"], "there is no language \"fr\"; there is ja, en"),
        (&["hot", "--endpoint", "x"], "endpoints.toml has no endpoint \"x\""),
    ] {
        let (said, good) = run(wrong);
        assert!(!good && said.contains(meant), "{wrong:?}: {said}");
    }
    // Rules that never make the example's person hot are no reason to show nothing.
    let none = "rules = [\n]";
    let rules = super::support::server::RULES;
    let (head, rest) = rules.split_once("rules = [").unwrap();
    let rest = rest.split_once("\n]\n").unwrap().1;
    std::fs::write(server.config().join("scoring.toml"), format!("{head}{none}\n{rest}")).unwrap();
    let (said, good) = run(&["hot", "--as", "slack"]);
    assert!(good && said.contains("those that ship are used"), "{said}");
}

#[test]
fn what_is_too_much_for_a_day_is_one_message_as_the_room_takes_it() {
    let [slack_like, chatwork_like] = [Receiver::start(), Receiver::start()];
    slack_like.answer_with(slack);
    chatwork_like.answer_with(chatwork);
    let few = |recipe: String| recipe.replace("mode = ", "daily_max = 0\nmode = ");
    let server = started(
        &[
            few(recipe("slack-sales", "", &slack_like)),
            few(recipe("chatwork-sales", "api.chatwork.com", &chatwork_like)),
        ],
        &format!("{}/services/T0SECRET", slack_like.place().0),
    );
    story_one(&server);
    // What is decided at the end of the day is what was noted for it by then.
    wait_for("the message is noted", || {
        let alerts = server.get("/api/alerts")["alerts"].as_array().map(Vec::len);
        (alerts == Some(1)).then_some(())
    });
    server.to("2026-12-07 18:00:01");
    server.wait_delivered(2);
    let line = "【ホット】サンプル精機株式会社 田中恵さん 69点（B1）";
    let body = slack_like.all().remove(0).json();
    assert_eq!(body["text"], "【本日のまとめ】12/7（月）");
    let text = body["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(text.starts_with(&format!("*個別に送らなかった通知*\n• {line} <http://")), "{text}");
    let form = chatwork_like.all().remove(0).form();
    let text = &form[0].1;
    assert!(text.starts_with("[info][title]【本日のまとめ】12/7（月）[/title]■個別に"), "{text}");
    assert!(text.contains(line), "{text}");
    assert_eq!((slack_like.all().len(), chatwork_like.all().len()), (1, 1));
}

#[test]
fn a_long_history_still_says_where_it_began() {
    let sfa = Receiver::start();
    let setup = Setup::new(at("2026-12-01 08:00"), &[sfa.endpoint("sfa", "")]);
    let server = Server::start(&setup);
    let mut her = super::Browser::new(&server, 1);
    server.to("2026-12-01 09:00");
    her.page_from("/column/dx", "DXの進め方", "https://www.google.co.jp/");
    // More than a message looks back on.
    for visit in 0..52 {
        server.pass_ms(2 * 3_600_000);
        for page in 0..10 {
            her.page(&format!("/column/{visit}-{page}"), "記事");
        }
    }
    her.form(TANAKA, &serde_json::json!({}), "/thanks/contact/ok", "お問い合わせ完了");
    let history = sfa.wait_about(TANAKA, 1).remove(0).json()["data"]["history"].clone();
    assert_eq!(history["first_source"], "google / organic", "{history}");
    assert_eq!(history["last_source"], "direct");
    assert_eq!(history["pages"], 522);
}
