//! Leads as a file: a JSON object or a line of CSV each, made one by one while they are sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::facts::Profile;
use engine::id::LeadId;
use engine::identity::IdentityKind;
use engine::lead::{Lead, terms_of, urgency};
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::leads::Wanted;
use super::live::{CHUNK_BYTES, Chunks};
use super::view::View;
use super::{Admin, Query, Refusal};
use crate::app::App;
use crate::facts::{do_not_send, facts};
use crate::named::LeadView;
use crate::outbox::message::{iso, points};
use crate::server::{Body, stream};

/// What is said of a lead, in the order of the columns; what each category is worth follows.
const COLUMNS: [&str; 30] = [
    "id",
    "name",
    "email",
    "phone",
    "company",
    "title",
    "department",
    "industry",
    "owner",
    "stage",
    "points",
    "exact",
    "grade",
    "cell",
    "urgency",
    "assurance",
    "consent",
    "first_seen",
    "known_since",
    "last_seen",
    "visits",
    "pages",
    "user_id",
    "crm_id",
    "customer",
    "open_deal",
    "trial_until",
    "registered_events",
    "do_not_send",
    "test",
];
/// What else is known of them; not in a table.
const ATTRIBUTES: &str = "attributes";
/// The columns that are attributes as they are.
const AS_SAID: [&str; 7] = ["name", "email", "phone", "company", "title", "department", "industry"];

/// What a row becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
}

/// An export that is asked for.
struct Export {
    app: Arc<App>,
    wanted: Wanted,
    form: Form,
    hide: BTreeSet<String>,
}

impl Admin {
    /// All leads, or those on a list.
    pub(super) fn export_leads(&self, query: &Query) -> Result<Response<Body>, Refusal> {
        query.only(&["list", "as", "hide", "test"])?;
        let form = match query.get("as") {
            None | Some("ndjson") => Form::Json,
            Some("csv") => Form::Csv,
            Some(_) => return Err(Refusal::Malformed("as")),
        };
        let export = Export {
            app: Arc::clone(&self.app),
            wanted: Wanted::of(self, query)?,
            form,
            hide: hidden(&self.app, query)?,
        };
        let ids = self.lists.ids();
        let (sender, receiver) = mpsc::channel(16);
        std::thread::spawn(move || export.run(&ids, &sender));
        let mut response = Response::new(stream(Chunks(receiver)));
        let (kind, name) = match form {
            Form::Json => ("application/x-ndjson", "leads.ndjson"),
            Form::Csv => ("text/csv; charset=utf-8", "leads.csv"),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let disposition = format!("attachment; filename=\"{name}\"");
        headers.extend(HeaderValue::from_str(&disposition).map(|it| (CONTENT_DISPOSITION, it)));
        Ok(response)
    }
}

/// The columns left out. One that is not there is refused: it was meant to be another.
fn hidden(app: &App, query: &Query) -> Result<BTreeSet<String>, Refusal> {
    let worth: Vec<String> = worth_columns(&View::new(app)).collect();
    let known = |word: &str| {
        COLUMNS.contains(&word) || word == ATTRIBUTES || worth.iter().any(|column| column == word)
    };
    let words = query.all("hide").flat_map(|text| text.split(',')).map(str::trim);
    let words: BTreeSet<String> =
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.iter().all(|word| known(word)) { Ok(words) } else { Err(Refusal::Malformed("hide")) }
}

fn worth_columns<'a>(view: &'a View<'_>) -> impl Iterator<Item = String> + 'a {
    view.scoring().labels.categories.iter().map(|category| format!("points_{}", category.name))
}

impl Export {
    fn run(&self, ids: &[LeadId], sender: &mpsc::Sender<bytes::Bytes>) {
        let view = View::new(&self.app);
        let columns = COLUMNS.iter().map(|&name| name.to_owned()).chain(worth_columns(&view));
        let columns: Vec<String> = columns.filter(|name| !self.hide.contains(name)).collect();
        let mut chunk = String::new();
        if self.form == Form::Csv {
            // Without the mark, a spreadsheet would read another encoding into it.
            chunk.push('\u{feff}');
            write_csv(&mut chunk, columns.iter().map(|name| Value::String(name.clone())));
        }
        for id in ids {
            // A name that is another's is told with whose it is.
            let lead = self.app.engine.entry(*id).filter(Lead::is_person);
            let now = self.app.clock.now();
            let Some(lead) = lead.filter(|lead| self.wanted.takes(lead, &view, now)) else {
                continue;
            };
            self.write(&mut chunk, &columns, (*id, &lead), &view);
            let full = chunk.len() >= CHUNK_BYTES;
            if full && sender.blocking_send(std::mem::take(&mut chunk).into()).is_err() {
                return;
            }
        }
        // A listener who left needs no end.
        let _ = sender.blocking_send(chunk.into());
    }

    fn write(
        &self,
        chunk: &mut String,
        columns: &[String],
        (id, lead): (LeadId, &Lead),
        view: &View<'_>,
    ) {
        let profile = lead.profile();
        let mut said = self.columns((id, lead), &profile, view);
        if self.form == Form::Csv {
            let cells = columns.iter().map(|name| said.remove(name).unwrap_or_default());
            return write_csv(chunk, cells);
        }
        said.retain(|name, _| !self.hide.contains(name));
        if !self.hide.contains(ATTRIBUTES) {
            let rest = profile.attributes.iter().filter(|(name, value)| {
                !COLUMNS.contains(&name.as_str()) && !value.trim().is_empty()
            });
            let rest: Map<String, Value> =
                rest.map(|(name, value)| (name.clone(), json!(value))).collect();
            said.insert(ATTRIBUTES.to_owned(), Value::Object(rest));
        }
        chunk.push_str(&Value::Object(said).to_string());
        chunk.push('\n');
    }

    /// Everything said of a lead, by column.
    fn columns(
        &self,
        (id, lead): (LeadId, &Lead),
        profile: &Profile,
        view: &View<'_>,
    ) -> Map<String, Value> {
        let now = self.app.clock.now();
        let scoring = view.scoring();
        let terms = terms_of(lead, scoring, now);
        let shown = LeadView::of(lead, scoring, now);
        let (counts, facts) = (lead.counts(), facts(&profile.attributes, now));
        let urgency = urgency(&lead.content.rows, terms, now);
        let said = json!({
            "id": id.to_string(),
            "owner": shown.attributes.get("owner").filter(|owner| !owner.is_empty()),
            "stage": shown.stage.name(),
            "points": shown.score.shown(),
            "exact": points(shown.score),
            "grade": shown.grade.letter(),
            "cell": terms.cell(shown.grade, shown.score),
            "urgency": scoring.labels.urgency.level(urgency),
            "assurance": profile.assurance.name(),
            "consent": profile.consent,
            "first_seen": iso(lead.first_seen()),
            "known_since": lead.known_since().map(|(since, _)| iso(since)),
            "last_seen": shown.last_seen.map(iso),
            "visits": counts.visits,
            "pages": counts.pages,
            "customer": facts.customer,
            "open_deal": facts.open_deal,
            "trial_until": facts.trial_until,
            "registered_events": facts.registered_events,
            "do_not_send": do_not_send(&profile.attributes),
            "test": lead.test,
        });
        let Value::Object(mut said) = said else {
            return Map::new();
        };
        let ids = [IdentityKind::UserId, IdentityKind::CrmId].map(IdentityKind::name);
        for name in AS_SAID.into_iter().chain(ids) {
            let value = profile.attributes.get(name).filter(|value| !value.is_empty());
            said.insert(name.to_owned(), json!(value));
        }
        for (name, worth) in &shown.categories {
            said.insert(format!("points_{name}"), points(*worth));
        }
        said
    }
}

/// A line of CSV, as RFC 4180 has it.
fn write_csv(text: &mut String, cells: impl Iterator<Item = Value>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            text.push(',');
        }
        match cell {
            Value::Null => {}
            Value::String(said) => write_cell(text, &said),
            Value::Array(items) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                write_cell(text, &items.join("; "));
            }
            other => text.push_str(&other.to_string()),
        }
    }
    text.push_str("\r\n");
}

/// A cell of text. What a spreadsheet would take for a formula gets a mark in front that makes it
/// text: a stranger wrote it into a form.
fn write_cell(text: &mut String, said: &str) {
    const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    let begins = said.trim_start_matches(|letter: char| letter.is_whitespace());
    let formula = begins.starts_with(FORMULA) || said.starts_with(char::is_control);
    let quoted = said.contains([',', '"', '\r', '\n', ';']) || said.trim() != said;
    if quoted {
        text.push('"');
    }
    if formula {
        text.push('\'');
    }
    for letter in said.chars() {
        match letter {
            '"' => text.push_str("\"\""),
            '\n' => text.push('\n'),
            letter if letter.is_control() => text.push(' '),
            letter => text.push(letter),
        }
    }
    if quoted {
        text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(said: &str) -> String {
        let mut text = String::new();
        write_cell(&mut text, said);
        text
    }

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for formula in ["=1+1", "+81-3-1234", "-2+3", "@SUM(A1)", "＝1+1", "＋1", "－1", "＠x"]
        {
            assert_eq!(cell(formula), format!("'{formula}"));
        }
        assert_eq!(
            cell("=HYPERLINK(\"http://x\",\"y\")"),
            "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""
        );
        assert_eq!(cell(" \t=1+1"), "\"'  =1+1\"");
        assert_eq!(cell("\u{0}=1+1"), "' =1+1");
        assert_eq!(cell("\n=1"), "\"'\n=1\"");
    }

    #[test]
    fn a_cell_is_quoted_where_it_must_be() {
        for (said, written) in [
            ("", ""),
            ("田中 恵", "田中 恵"),
            ("a,b", "\"a,b\""),
            ("a;b", "\"a;b\""),
            ("a\"b", "\"a\"\"b\""),
            ("a\nb", "\"a\nb\""),
            ("a\r\nb", "\"a \nb\""),
            (" a", "\" a\""),
            ("a=b", "a=b"),
            ("a\u{7}b", "a b"),
        ] {
            assert_eq!(cell(said), written, "{said:?}");
        }
    }

    #[test]
    fn numbers_and_lists_and_nothing_are_written_as_they_are() {
        let mut text = String::new();
        let cells = [json!(-69.923), json!(null), json!(true), json!(["a", "=b"]), json!(["=a"])];
        write_csv(&mut text, cells.into_iter());
        assert_eq!(text, "-69.923,,true,\"a; =b\",'=a\r\n");
    }
}
