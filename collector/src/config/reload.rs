//! Which saved files take effect. A good file becomes the next version; a bad one changes nothing,
//! and its problems are shown until it is right. Nothing here reads a file or waits: whoever polls
//! gives the contents.

use super::{
    Around, DoNotSend, Endpoint, FILE_NAMES, Fingerprint, ForRules, Known, Owners, Problem,
    ScoringFile, Settings, Surroundings,
};
use crate::named::NamedLists;

/// The files as they are now; nothing for one that is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents<'a> {
    /// mikomi.toml.
    pub mikomi: Option<&'a [u8]>,
    /// scoring.toml.
    pub scoring: Option<&'a [u8]>,
    /// endpoints.toml.
    pub endpoints: Option<&'a [u8]>,
    /// owners.toml.
    pub owners: Option<&'a [u8]>,
    /// lists.toml.
    pub named: Option<&'a [u8]>,
    /// lists/do_not_send.txt.
    pub do_not_send: Option<&'a [u8]>,
    /// All lists of words together.
    pub lists: Option<Fingerprint>,
    /// All templates together.
    pub templates: Option<Fingerprint>,
}

/// What to publish now.
#[derive(Debug, Default)]
pub struct Changes {
    /// mikomi.toml changed and is right.
    pub settings: Option<Box<Settings>>,
    /// scoring.toml changed and is right.
    pub scoring: Option<Box<ScoringFile>>,
    /// endpoints.toml changed and is right, or must be read anew.
    pub endpoints: Option<Vec<Endpoint>>,
    /// owners.toml changed and is right.
    pub owners: Option<Owners>,
    /// lists.toml changed and is right, or must be read anew.
    pub named: Option<NamedLists>,
    /// lists/do_not_send.txt changed and is right.
    pub do_not_send: Option<DoNotSend>,
    /// Whether [`Watcher::problems`] are others than before.
    pub problems_changed: bool,
}

/// Decides what saved files do.
pub struct Watcher {
    surroundings: Surroundings,
    files: [Watched; FILE_NAMES.len()],
    /// The scoring in force; the same text is not published twice. None after one that could not
    /// be published: whatever is saved next is tried.
    in_force: Option<Fingerprint>,
    /// The names endpoints may choose by: those of the scoring in force.
    known: Known,
    /// What the rules may name: as it was at the start, until the next one.
    for_rules: ForRules,
    insisted: bool,
}

/// A file at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Absent,
    /// What it says, and what it refers to.
    Content(Fingerprint, Option<Fingerprint>),
}

impl Seen {
    fn of(content: Option<&[u8]>, besides: Option<Fingerprint>) -> Seen {
        content.map_or(Seen::Absent, |bytes| Seen::Content(Fingerprint::of(bytes), besides))
    }
}

impl Contents<'_> {
    /// A file by its place, as it is now.
    fn seen(&self, file: usize) -> Seen {
        match file {
            0 => Seen::of(self.mikomi, None),
            1 => Seen::of(self.scoring, self.lists),
            2 => Seen::of(self.endpoints, self.templates),
            3 => Seen::of(self.owners, None),
            4 => Seen::of(self.named, self.lists),
            _ => Seen::of(self.do_not_send, None),
        }
    }
}

/// What is known of one file.
#[derive(Default)]
struct Watched {
    /// The content last judged, good or bad.
    judged: Seen,
    /// A content seen once. It is judged when it is seen again: until then an editor may still
    /// be writing it.
    arriving: Option<Seen>,
    problems: Vec<Problem>,
}

impl Watched {
    /// Whether a content must be judged now.
    fn is_due(&mut self, now: Seen, insisted: bool) -> bool {
        if insisted {
            self.arriving = None;
            return true;
        }
        if now == self.judged {
            self.arriving = None;
            return false;
        }
        if self.arriving == Some(now) {
            self.arriving = None;
            return true;
        }
        self.arriving = Some(now);
        false
    }
}

impl Watcher {
    /// Begins with the contents that were loaded, what the rules may name of them, and the scoring
    /// made of them.
    pub fn new(
        surroundings: Surroundings,
        loaded: Contents<'_>,
        for_rules: ForRules,
        (scoring, named): (&ScoringFile, &NamedLists),
    ) -> Watcher {
        let watched = |file| Watched { judged: loaded.seen(file), ..Watched::default() };
        Watcher {
            surroundings,
            files: std::array::from_fn(watched),
            in_force: Some(scoring.fingerprint),
            known: Known { lists: Some(named.ids()), ..Known::of(Some(scoring)) },
            for_rules,
            insisted: false,
        }
    }

    /// The next call of [`Watcher::changed`] reads everything at once, changed or not: somebody
    /// asked for it, and secrets in other files may be new.
    pub fn insist(&mut self) {
        self.insisted = true;
    }

    /// The scoring that was last given could not be published.
    pub fn refused(&mut self) {
        self.in_force = None;
    }

    /// What to publish, given the files as they are now. To be called at least once a second; a
    /// content takes effect when two calls in a row have seen it.
    pub fn changed(&mut self, now: Contents<'_>) -> Changes {
        let insisted = std::mem::take(&mut self.insisted);
        let mut changes = Changes::default();
        if self.is_due(0, now, insisted) {
            let settings = self.judge(0, now.mikomi, now, &mut changes, |bytes, watcher| {
                super::read_settings(Some(bytes), &watcher.surroundings)
            });
            changes.settings = settings.map(Box::new);
        }
        if self.is_due(1, now, insisted) {
            let scoring = self.judge(1, now.scoring, now, &mut changes, |bytes, watcher| {
                let (surroundings, settings) = (&watcher.surroundings, Some(&watcher.for_rules));
                super::read_scoring(Some(bytes), Around { surroundings, settings })
            });
            let scoring = scoring.filter(|scoring| Some(scoring.fingerprint) != self.in_force);
            if let Some(scoring) = &scoring {
                self.in_force = Some(scoring.fingerprint);
                let lists = self.known.lists.take();
                self.known = Known { lists, ..Known::of(Some(scoring)) };
            }
            changes.scoring = scoring.map(Box::new);
        }
        self.look_at_lists(now, insisted, &mut changes);
        // Endpoints name thresholds, categories and lists; when those change, they are judged
        // anew.
        let renamed = changes.scoring.is_some() || changes.named.is_some();
        let renamed = renamed && now.endpoints.is_some();
        if self.is_due(2, now, insisted) || renamed {
            changes.endpoints =
                self.judge(2, now.endpoints, now, &mut changes, |bytes, watcher| {
                    let known = &watcher.known;
                    super::read_endpoints(Some(bytes), true, known, &watcher.surroundings)
                });
        }
        if self.is_due(3, now, insisted) {
            let read = |bytes: &[u8], _: &Watcher| super::read_owners(bytes);
            changes.owners = self.judge(3, now.owners, now, &mut changes, read);
        }
        changes
    }

    fn look_at_lists(&mut self, now: Contents<'_>, insisted: bool, changes: &mut Changes) {
        // They name categories; when those change, they are judged anew.
        let renamed = changes.scoring.is_some() && now.named.is_some();
        if self.is_due(4, now, insisted) || renamed {
            changes.named = self.judge(4, now.named, now, changes, |bytes, watcher| {
                let categories = watcher.known.categories.as_deref();
                super::read_named(Some(bytes), true, categories, &watcher.surroundings)
            });
            if let Some(named) = &changes.named {
                self.known.lists = Some(named.ids());
            }
        }
        if self.is_due(5, now, insisted) {
            changes.do_not_send = self.judge(5, now.do_not_send, now, changes, |bytes, _| {
                super::read_do_not_send(Some(bytes))
            });
        }
    }

    /// Everything wrong with the files as last judged, in the order of the files.
    pub fn problems(&self) -> Vec<Problem> {
        let problems = self.files.iter().map(|file| &file.problems);
        problems.flatten().cloned().collect()
    }

    fn is_due(&mut self, file: usize, now: Contents<'_>, insisted: bool) -> bool {
        self.files[file].is_due(now.seen(file), insisted)
    }

    fn judge<T>(
        &mut self,
        file: usize,
        content: Option<&[u8]>,
        now: Contents<'_>,
        changes: &mut Changes,
        read: impl FnOnce(&[u8], &Watcher) -> Result<T, Vec<Problem>>,
    ) -> Option<T> {
        // A file that was never there is not missed; one that is gone keeps its last content.
        let was_there =
            self.files[file].judged != Seen::Absent || !self.files[file].problems.is_empty();
        let judgement = match content {
            Some(bytes) => read(bytes, self),
            None if !was_there => Err(Vec::new()),
            None => {
                let message = "is gone; what it said last stays in force";
                Err(vec![Problem::of_file(FILE_NAMES[file], message)])
            }
        };
        let watched = &mut self.files[file];
        watched.judged = now.seen(file);
        let (value, problems) = match judgement {
            Ok(value) => (Some(value), Vec::new()),
            Err(problems) => (None, problems),
        };
        changes.problems_changed |= watched.problems != problems;
        watched.problems = problems;
        value
    }
}
