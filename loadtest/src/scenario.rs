//! A scenario: how people use a site, from a file. What a file leaves out is taken from the one
//! that is compiled in.

use std::path::Path;

use serde::Deserialize;

/// What is played unless another one is named.
pub const DEFAULT: &str = include_str!("../scenarios/readers.toml");
/// Browsers at most: each takes some 200 bytes here.
const VISITORS_MAX: usize = 20_000_000;
/// Hits of one request at most.
const BATCH_HITS_MAX: u32 = 500;

/// A scenario, checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The site's key.
    pub site: String,
    /// The site's id, which signatures are made for.
    pub site_id: String,
    /// Of the pages.
    pub origin: String,
    /// Who comes.
    pub visitors: Visitors,
    /// What carries hits.
    pub requests: Requests,
    /// What they do.
    pub visits: Visits,
    /// What is not as it should be.
    pub noise: Noise,
    /// How they say who they are.
    pub form: Form,
    /// The pages.
    #[serde(rename = "page")]
    pub pages: Vec<Page>,
}

/// Who comes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Visitors {
    /// How many.
    pub count: usize,
    /// Of the law by which some come more often.
    pub exponent: f64,
}

/// Shares of requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// By the pixel.
    pub pixel: f64,
    /// One hit a beacon.
    pub beacon: f64,
    /// Several hits a beacon.
    pub batch: f64,
    /// So many, from and to.
    pub batch_hits: [u32; 2],
}

/// What happens in a visit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Visits {
    /// Page views, from and to.
    pub pages: [u32; 2],
    /// The share of page views that tell how long they lasted.
    pub stays: f64,
    /// And how long, from and to.
    pub stay_ms: [u32; 2],
    /// The share of page views that are followed by an event.
    pub events: f64,
    /// Their names.
    pub event_names: Vec<String>,
    /// The share of visits that end with a form.
    pub forms: f64,
}

/// What is not as it should be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Repeated hits, a share of requests.
    pub duplicates: f64,
    /// Hits that tell of earlier, a share of hits.
    pub late: f64,
    /// How much earlier at most.
    pub late_ms_max: u32,
    /// Robots, a share of requests.
    pub robots: f64,
}

/// The form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Where it stands.
    pub page: String,
    /// Where one lands.
    pub thanks: String,
    /// Of the mail addresses.
    pub domain: String,
    /// The share of people whose forms are signed.
    pub proved: f64,
    /// The share of browsers that are the second one of somebody.
    pub second_browsers: f64,
}

/// A page.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Its path.
    pub path: String,
    /// How often a visit begins with it.
    pub weight: u32,
    /// Where its links lead.
    #[serde(default)]
    pub to: Vec<String>,
}

impl Scenario {
    /// From a file, or the one that is compiled in; `site` and `visitors` may be given besides.
    pub fn open(
        path: Option<&Path>,
        site: Option<&str>,
        visitors: Option<usize>,
    ) -> Result<Scenario, String> {
        let text = match path {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let name = path.map_or("the scenario".to_owned(), |path| path.display().to_string());
        let mut scenario = Scenario::parse(&text).map_err(|why| format!("{name}: {why}"))?;
        scenario.site = site.map_or(scenario.site, str::to_owned);
        scenario.visitors.count = visitors.unwrap_or(scenario.visitors.count);
        scenario.check().map_err(|why| format!("{name}: {why}"))?;
        Ok(scenario)
    }

    fn parse(text: &str) -> Result<Scenario, String> {
        let given: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut whole: toml::Table = toml::from_str(DEFAULT).map_err(|error| error.to_string())?;
        for (name, value) in given {
            match (whole.get_mut(&name), value) {
                (Some(toml::Value::Table(known)), toml::Value::Table(own)) => known.extend(own),
                (_, value) => drop(whole.insert(name, value)),
            }
        }
        whole.try_into().map_err(|error: toml::de::Error| error.to_string())
    }

    fn check(&self) -> Result<(), String> {
        let shares = [
            ("requests.pixel", self.requests.pixel),
            ("requests.beacon", self.requests.beacon),
            ("requests.batch", self.requests.batch),
            ("visits.stays", self.visits.stays),
            ("visits.events", self.visits.events),
            ("visits.forms", self.visits.forms),
            ("noise.duplicates", self.noise.duplicates),
            ("noise.late", self.noise.late),
            ("noise.robots", self.noise.robots),
            ("form.proved", self.form.proved),
            ("form.second_browsers", self.form.second_browsers),
        ];
        for (name, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("{name} is a share from 0 to 1, not {share}"));
            }
        }
        let sum = self.requests.pixel + self.requests.beacon + self.requests.batch;
        if (sum - 1.0).abs() > 1e-6 {
            return Err(format!("the shares of [requests] add up to {sum}, not to 1"));
        }
        let spans = [
            ("requests.batch_hits", self.requests.batch_hits),
            ("visits.pages", self.visits.pages),
            ("visits.stay_ms", self.visits.stay_ms),
        ];
        for (name, [from, to]) in spans {
            if from == 0 || from > to {
                return Err(format!("{name} goes from 1 or more to as much or more"));
            }
        }
        if self.requests.batch_hits[1] > BATCH_HITS_MAX {
            return Err(format!("requests.batch_hits are at most {BATCH_HITS_MAX}"));
        }
        if !(1..=VISITORS_MAX).contains(&self.visitors.count) {
            return Err(format!("visitors.count is 1 to {VISITORS_MAX}"));
        }
        if !(0.0..=10.0).contains(&self.visitors.exponent) {
            return Err("visitors.exponent is 0 to 10".to_owned());
        }
        if self.visits.event_names.is_empty() {
            return Err("visits.event_names has at least one".to_owned());
        }
        self.check_pages()
    }

    fn check_pages(&self) -> Result<(), String> {
        if self.pages.iter().all(|page| page.weight == 0) {
            return Err("no page has a weight".to_owned());
        }
        let links = self.pages.iter().flat_map(|page| &page.to);
        for path in links {
            if self.page(path).is_none() {
                return Err(format!("a page leads to \"{path}\", which is no page here"));
            }
        }
        let paths = self.pages.iter().map(|page| &page.path);
        for path in paths.chain([&self.form.page, &self.form.thanks]) {
            if !path.starts_with('/') || path.contains(['"', '\\', ' ', '?', '#', '&']) {
                return Err(format!("\"{path}\" is no path of a page"));
            }
        }
        Ok(())
    }

    /// Which page has a path.
    pub fn page(&self, path: &str) -> Option<usize> {
        self.pages.iter().position(|page| page.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Scenario::parse(text).and_then(|it| it.check()).unwrap_err()
    }

    #[test]
    fn what_is_compiled_in_is_sound_and_what_a_file_says_goes_before_it() {
        Scenario::open(None, None, None).unwrap();
        let own = Scenario::parse("site = \"x\"\n[visitors]\ncount = 7\n").unwrap();
        assert_eq!((own.site.as_str(), own.visitors.count), ("x", 7));
        assert!((own.visitors.exponent - 1.0).abs() < 1e-9);
        let whole = Scenario::open(None, Some("k"), Some(3)).unwrap();
        assert_eq!((whole.site.as_str(), whole.visitors.count), ("k", 3));
    }

    #[test]
    fn what_cannot_be_played_is_refused_by_its_name() {
        assert!(problem("[visitors]\ncuont = 7").contains("cuont"));
        assert!(problem("[noise]\nlate = 2.0").contains("noise.late"));
        assert!(problem("[requests]\npixel = 0.9").contains("add up to 1.6"));
        assert!(problem("[visits]\npages = [3, 2]").contains("visits.pages"));
        assert!(problem("[visitors]\ncount = 0").contains("visitors.count"));
        let page = "[[page]]\npath = \"/\"\nweight = 1\nto = [\"/nowhere\"]";
        assert!(problem(page).contains("/nowhere"));
        assert!(problem("[[page]]\npath = \"no\"\nweight = 1").contains("\"no\""));
        assert!(problem("site = ").contains("line 1"));
    }
}
