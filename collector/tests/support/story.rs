//! The first two acceptance stories, told over HTTP.

use serde_json::{Value, json};

use super::browser::{Browser, server_call};
use super::receiver::Receiver;
use super::server::Server;
use super::wait_for;

pub const TANAKA: &str = "tanaka@sample-seiki.example";
/// What must be in no answer to a browser.
pub const PERSONAL: [&str; 6] =
    ["tanaka", "sample-seiki", "田中", "サンプル精機", "課長", "marker@"];

/// What she writes into the form.
pub fn form() -> Value {
    json!({
        "name": "田中 恵", "company": "サンプル精機株式会社", "department": "製造部",
        "title": "課長", "industry": "manufacturing",
    })
}

/// Tuesday and Friday of story 1, up to the form.
pub fn reads(server: &Server) -> Browser {
    reads_under(server, "www")
}

fn reads_under(server: &Server, key: &str) -> Browser {
    let mut her = Browser::new(server, 1);
    key.clone_into(&mut her.site);
    server.to("2026-12-01 09:00");
    her.page_from("/column/dx", "DXの進め方", "https://www.google.co.jp/");
    server.pass_ms(70_000);
    her.stay(70);
    server.to("2026-12-01 09:04");
    her.page("/case/line", "導入事例");
    server.pass_ms(65_000);
    her.stay(65);
    for (time, path, title) in [
        ("2026-12-04 09:30", "/product/a", "製品A"),
        ("2026-12-04 09:32", "/product/b", "製品B"),
        ("2026-12-04 09:34", "/product/c", "製品C"),
        ("2026-12-04 09:40", "/pricing/", "料金プラン"),
    ] {
        server.to(time);
        her.page(path, title);
    }
    server.pass_ms(80_000);
    her.stay(80);
    server.to("2026-12-04 09:50");
    her.form(TANAKA, &form(), "/thanks/document/guide", "資料ダウンロード完了");
    her
}

/// The click in our mail, which our mailer tells with the server key.
pub fn clicks_mail(server: &Server, her: &Browser) {
    let answer = server_call(
        server,
        &json!({
            "s": her.site, "e": "mail_click", "u": "https://www.vendor.example/lp/line-automation",
            "t": "ライン自動化キャンペーン", "v": her.jar["mikomi"], "at": server.now(),
            "id": { "email": TANAKA },
        }),
    );
    assert_eq!(answer.status, 204, "{}", answer.raw());
}

/// Story 1.
pub fn story_one(server: &Server) -> Browser {
    story_one_under(server, "www")
}

/// Story 1 with another key in the snippet.
pub fn story_one_under(server: &Server, key: &str) -> Browser {
    let mut her = reads_under(server, key);
    server.to("2026-12-07 08:55");
    clicks_mail(server, &her);
    server.to("2026-12-07 08:56");
    her.page(
        "/pricing/?utm_source=newsletter-2026-12&utm_medium=email&mail=a%40b.example",
        "料金プラン",
    );
    her
}

/// Story 1, and the stay after it.
pub fn story_two(server: &Server) -> Browser {
    let mut her = story_one(server);
    server.to("2026-12-07 08:57:20");
    her.stay(80);
    her
}

/// Waits until whatever is to be told by now has been told: somebody else becomes hot, and their
/// message comes after all others.
#[track_caller]
pub fn drain(server: &Server, receiver: &Receiver, number: u64) {
    let email = format!("marker@drain{number}.example");
    let mut somebody = Browser::returning(server, 900_000 + number);
    somebody.form(&email, &json!({}), "/thanks/contact/ok", "");
    receiver.wait_about(&email, 1);
    wait_for("everything is delivered", || {
        (server.figure("mikomi_deliveries_pending") == 0).then_some(())
    });
}
