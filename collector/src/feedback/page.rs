//! The page behind a one-tap link: a button, and what became of it. It names nobody: whoever
//! forwards the link forwards no more than that.

use std::fmt::Write;

use engine::sales::Unheard;
use engine::stage::FeedbackKind;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue};
use hyper::{Response, StatusCode};

use super::Refused;
use crate::response;
use crate::server::Body;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The button of an answer.
    Button(FeedbackKind),
    /// It was recorded.
    Done(FeedbackKind),
    /// It changed nothing.
    Unheard(Unheard),
    /// It could not be taken.
    Failed(Refused),
    /// No link of ours, or too old.
    Void,
}

/// Reasons that are offered with "not a lead"; anything else may be said by the sales system.
const REASONS: [(&str, &str); 5] = [
    ("not_now", "時期が合わない / not now"),
    ("no_budget", "予算がない / no budget"),
    ("wrong_person", "担当者が違う / wrong person"),
    ("competitor", "同業・競合 / competitor"),
    ("other", "その他 / other"),
];

/// The page.
pub(super) fn page(shown: Shown) -> Response<Body> {
    let (status, content) = match shown {
        Shown::Button(kind) => (StatusCode::OK, button(kind)),
        Shown::Done(kind) => {
            let (ja, en) = words(kind);
            (StatusCode::OK, format!("<p>記録しました: {ja}<p>Recorded: {en}"))
        }
        Shown::Unheard(why) => (StatusCode::OK, unheard(why).to_owned()),
        Shown::Failed(Refused::TooLong(_) | Refused::MalformedField(_)) => (
            StatusCode::BAD_REQUEST,
            "<p>入力を確かめてください。<p>Please check what you wrote.".to_owned(),
        ),
        Shown::Failed(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "<p>いま記録できません。少し待ってからもう一度お試しください。\
             <p>It cannot be recorded just now. Please try again in a minute."
                .to_owned(),
        ),
        Shown::Void => (
            StatusCode::NOT_FOUND,
            "<p>このリンクは使えません。<p>This link is not valid.".to_owned(),
        ),
    };
    let mut response = response::file("text/html; charset=utf-8", whole(&content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                  frame-ancestors 'none'; base-uri 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex, nofollow"));
    response
}

/// What an answer is called on its button.
fn words(kind: FeedbackKind) -> (&'static str, &'static str) {
    match kind {
        FeedbackKind::Rejected => ("見送る", "Not a lead"),
        FeedbackKind::Snooze => ("あとで（翌営業日）", "Later (next working day)"),
        _ => ("対応する", "I take it"),
    }
}

fn button(kind: FeedbackKind) -> String {
    let (ja, en) = words(kind);
    let reasons = if kind == FeedbackKind::Rejected { reasons() } else { String::new() };
    format!("<form method=post>{reasons}<button>{ja}<small>{en}</small></button></form>")
}

fn reasons() -> String {
    let mut select = String::from("<label>理由 / Reason<select name=reason><option value=\"\">-");
    for (value, text) in REASONS {
        let _ = write!(select, "<option value={value}>{text}");
    }
    select.push_str("</select></label>");
    select
}

fn unheard(why: Unheard) -> &'static str {
    match why {
        Unheard::Repeated => "<p>記録済みです。<p>It was recorded already.",
        Unheard::Older | Unheard::NotHere(_) | Unheard::TooMany => {
            "<p>別の回答が先に記録されているため、変更はありません。\
             <p>Another answer stands; nothing was changed."
        }
    }
}

fn whole(content: &str) -> String {
    const STYLE: &str = "\
:root{color-scheme:light dark;font:17px/1.6 system-ui,sans-serif}\
body{margin:0;min-height:100vh;display:grid;place-items:center;background:Canvas;color:CanvasText}\
main{box-sizing:border-box;width:min(24rem,100%);padding:1.5rem;text-align:center}\
form{display:grid;gap:1.25rem}\
label{display:grid;gap:.35rem;text-align:left;font-size:.9rem}\
select{font:inherit;padding:.6rem;border-radius:.5rem;border:1px solid GrayText}\
button{font:inherit;font-size:1.2rem;font-weight:600;padding:1rem;border:0;border-radius:.75rem;\
background:#0b5cad;color:#fff;cursor:pointer}\
button:focus-visible{outline:3px solid Highlight;outline-offset:3px}\
small{display:block;font-size:.8rem;font-weight:400}";
    format!(
        "<!doctype html><html lang=ja><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><title>mikomi</title>\
         <style>{STYLE}</style><main>{content}</main>\n"
    )
}
