//! A person: what their browsers did, in the order of the journal, and what the model makes of it.

use std::collections::BTreeMap;

use super::account::{Account, Fact};
use super::model::{Lead, News, Row, Stated};
use super::rules::{Rules, Sight};
use super::sent::{Did, FORM, THANKS};
use crate::scenario::Scenario;

/// Rules, and the pages that they speak of.
pub struct Site {
    /// The rules.
    pub rules: Rules,
    pages: Vec<String>,
    form: [String; 2],
    events: Vec<String>,
}

/// Of one browser, what has to be remembered.
#[derive(Default)]
struct Browser {
    first: Option<Fact>,
    admitted: bool,
    /// Whose it is was said.
    bound: bool,
    /// Page view -> how long it was read so far.
    read_ms: BTreeMap<u32, u64>,
    /// What it earned while it was nobody's.
    rows: Vec<Row>,
}

/// A person's life, as far as it was recorded.
pub struct Life {
    facts: Vec<Fact>,
    firsts: BTreeMap<u32, Fact>,
}

impl Site {
    /// Of a scenario.
    pub fn new(rules: Rules, scenario: &Scenario) -> Site {
        Site {
            rules,
            pages: scenario.pages.iter().map(|page| page.path.clone()).collect(),
            form: [scenario.form.page.clone(), scenario.form.thanks.clone()],
            events: scenario.visits.event_names.clone(),
        }
    }

    /// The path of a page.
    pub fn path(&self, place: u16) -> &str {
        match place {
            FORM => &self.form[0],
            THANKS => &self.form[1],
            page => &self.pages[usize::from(page)],
        }
    }

    /// What the server must call a hit: its event and its path, of which a last slash is none.
    pub fn what(&self, did: Did, place: u16) -> (String, String) {
        let event = match did {
            Did::View | Did::Robot => "page_view",
            Did::Stay(_) => "engagement",
            Did::Event(event) => &self.events[usize::from(event)],
            Did::Identify(_) => "identify",
        };
        let path = self.path(place);
        let shorter = path.strip_suffix('/').filter(|path| !path.is_empty());
        (event.to_owned(), shorter.unwrap_or(path).to_owned())
    }
}

impl Life {
    /// Of some browsers; nothing if nobody said whose they are.
    pub fn of(account: &Account, browsers: &[u32]) -> Option<Life> {
        let (mut facts, mut firsts) = (Vec::new(), BTreeMap::new());
        for browser in browsers {
            let (first, own) = account.facts(*browser);
            firsts.extend(first.map(|first| (*browser, first)));
            facts.extend(own);
        }
        facts.sort_unstable_by_key(|fact| fact.position);
        facts
            .iter()
            .any(|fact| matches!(fact.did, Did::Identify(_)))
            .then_some(Life { facts, firsts })
    }

    /// The record of a position.
    pub fn fact(&self, position: u64) -> Option<&Fact> {
        let place = self.facts.binary_search_by_key(&position, |fact| fact.position);
        place.ok().map(|place| &self.facts[place])
    }

    /// What must have come of it until a moment.
    pub fn play<'a>(
        &self,
        site: &'a Site,
        stated: Stated<'a>,
        before: &'a [u64],
        until: u64,
    ) -> Lead<'a> {
        let mut lead = Lead::new(&site.rules, stated, before);
        let mut browsers: BTreeMap<u32, Browser> = BTreeMap::new();
        for fact in &self.facts {
            let browser = browsers.entry(fact.browser).or_default();
            if !browser.admitted {
                browser.admitted = true;
                // A page that sent its first hit again is here with it for the first time.
                let first = self.firsts.get(&fact.browser);
                browser.first = first.copied().filter(|first| first.number != fact.number);
            }
            let mut rows = Vec::new();
            if let Some(first) = browser.first.take() {
                browser.see(site, &first, fact.position, &mut rows);
            }
            browser.see(site, fact, fact.position, &mut rows);
            let (said, proves) = match fact.did {
                Did::Identify(proved) => (true, proved.then_some(fact.browser)),
                _ => (false, None),
            };
            if said && !browser.bound {
                browser.bound = true;
                rows.append(&mut browser.rows);
            }
            if browser.bound {
                let (position, received) = (fact.position, fact.received);
                lead.receive(News { position, received, proves }, rows);
            } else {
                browser.rows.append(&mut rows);
            }
        }
        lead.pass_time(until);
        lead
    }
}

impl Browser {
    /// The rows of a hit, which stands in the journal with that record.
    fn see(&mut self, site: &Site, fact: &Fact, position: u64, rows: &mut Vec<Row>) {
        let path = site.path(fact.place);
        let sight = match fact.did {
            Did::View => Sight::View { path },
            Did::Event(event) => Sight::Event { name: &site.events[usize::from(event)], path },
            Did::Stay(ms) => {
                let ms = u64::from(ms);
                let read = self.read_ms.entry(fact.view).or_default();
                let before = *read;
                *read = before.max(ms);
                Sight::Stay { path, ms, before }
            }
            Did::Identify(_) | Did::Robot => return,
        };
        for rule in site.rules.matching(sight) {
            let key = (fact.when, position, rows.len() as u16);
            rows.push(Row::new(&site.rules, rule, key, fact.browser));
        }
    }
}
