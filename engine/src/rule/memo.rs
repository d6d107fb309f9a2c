//! Pages seen lately, with what their path decides. A site has few pages that most hits are on.
//!
//! Its locks are the standard ones also where a test schedules the threads: nobody waits for
//! anything else while holding one, so that no order of threads could matter here.

use std::sync::{Arc, Mutex, PoisonError};

use crate::id::Key;

use super::compiled::{Index, Page};

/// Pages remembered at once. Two that fall on the same place replace each other.
pub const MEMO_PAGES: usize = 4_096;
/// Longer paths are rare, and not remembered.
const PATH_BYTES_MAX: usize = 256;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Memo(Box<[Mutex<Option<Known>>]>);

#[derive(Debug)]
struct Known {
    path: Box<str>,
    page: Arc<Page>,
}

impl Memo {
    pub(super) fn new() -> Memo {
        Memo((0..MEMO_PAGES).map(|_| Mutex::default()).collect())
    }

    /// What a path decides, from memory if it is there.
    pub(super) fn page(&self, path: &str, index: &Index) -> Arc<Page> {
        if path.len() > PATH_BYTES_MAX {
            return index.page(path).into();
        }
        // Who makes two paths meet here makes himself slower, and nobody else wrong.
        let place = Key([0; 16]).hash64(&[path.as_bytes()]) as usize % MEMO_PAGES;
        let mut known = self.0[place].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| *known.path == *path) {
            return Arc::clone(&known.page);
        }
        let page = Arc::new(index.page(path));
        *known = Some(Known { path: path.into(), page: Arc::clone(&page) });
        page
    }
}
