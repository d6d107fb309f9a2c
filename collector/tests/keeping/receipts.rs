//! A receipt is proved on the disk, through power cuts; nobody but the installation makes one.

use collector::install::Install;
use collector::receipt::Receipt;
use engine::id::Position;
use serde_json::Value;

use crate::small;
use crate::support::browser::Browser;
use crate::support::http::Answer;
use crate::support::server::Server;

const TOKEN: &str = "load-token-of-the-acceptance-tests";

fn server() -> Server {
    let files = vec![("load.token".to_owned(), format!("{TOKEN}\n"))];
    small("load_token_file = \"load.token\"", files).0
}

fn asking(server: &Server, number: u64, token: &str) -> Browser {
    let mut browser = Browser::returning(server, number);
    browser.extra.push(("mikomi-load-token".into(), token.into()));
    browser.extra.push(("mikomi-receipt".into(), "1".into()));
    browser
}

fn receipt(answer: &Answer) -> String {
    let number = |name: &str| answer.header(name).unwrap().parse::<u64>().unwrap();
    assert!(number("mikomi-received-ms") > 1_700_000_000_000);
    let receipt = answer.header("mikomi-receipt").unwrap().to_owned();
    assert!(receipt.starts_with(&format!("r1.{:x}.", number("mikomi-position"))), "{receipt}");
    receipt
}

#[test]
fn every_receipt_is_proved_after_power_cuts_and_no_other_is() {
    // Given receipts of several lives, each ended without a word.
    let mut server = server();
    let mut receipts = Vec::new();
    for life in 0..3 {
        let mut browser = asking(&server, life, TOKEN);
        for page in 0..20 {
            receipts.push(receipt(&browser.page(&format!("/case/{page}"), "")));
        }
        let pixel = "/p.gif?s=www&u=https%3A%2F%2Fwww.vendor.example%2F&receipt=1";
        receipts.push(receipt(&browser.send("GET", pixel, b"")));
        server.kill();
        server.restart();
    }
    // When all are looked for in a file, beside the server that runs.
    let list = server.config().join("receipts");
    std::fs::write(&list, receipts.join("\n")).unwrap();
    let list = list.to_str().unwrap();
    let (text, well) = server.command(&["verify", "--json", "--receipts", list]);
    let said: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(well, "{text}");
    assert_eq!(said["receipts"], receipts.len());
    // Then no other is proved: changed, made up, of another batch, of a record that is not there.
    let key = Install::read(&server.data()).unwrap().alert;
    let known = Receipt::read(&receipts[7], &key).unwrap();
    let mut edited = receipts[7].clone();
    edited.replace_range(3..4, if &edited[3..4] == "1" { "2" } else { "1" });
    for (hostile, name) in [
        (edited, "receipt_forged"),
        ("r1.1.00000000.0000000000000000".to_owned(), "receipt_forged"),
        ("r9.1.00000000.0000000000000000".to_owned(), "receipt_version"),
        ("receipt".to_owned(), "receipt_malformed"),
        (Receipt { batch: known.batch ^ 1, ..known }.sign(&key), "receipt_other"),
        (Receipt { position: Position(1 << 40), ..known }.sign(&key), "receipt_missing"),
    ] {
        let arguments = ["verify", "--json", "--no-replay", "--receipt", &hostile];
        let (text, well) = server.command(&arguments);
        let said: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(!well, "{hostile}: {text}");
        assert_eq!(said["problems"][0]["name"], name, "{hostile}");
    }
}

#[test]
fn nobody_without_the_load_token_is_told_where_a_hit_stands() {
    let server = server();
    for token in
        ["", "x", "load-token-of-the-acceptance-tests-", "LOAD-TOKEN-OF-THE-ACCEPTANCE-TES"]
    {
        let answer = asking(&server, 1, token).page("/", "");
        for name in ["mikomi-position", "mikomi-received-ms", "mikomi-receipt"] {
            assert_eq!(answer.header(name), None, "{token:?}");
        }
    }
    let (off, _receiver) = small("", Vec::new());
    let answer = asking(&off, 1, TOKEN).page("/", "");
    assert_eq!(answer.header("mikomi-position"), None);
    // With the token, and without asking, only the position.
    let mut browser = asking(&server, 2, TOKEN);
    browser.extra.pop();
    let answer = browser.page("/", "");
    assert!(answer.header("mikomi-position").is_some());
    assert_eq!(answer.header("mikomi-receipt"), None);
}
