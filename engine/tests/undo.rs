//! Identity can be undone (law 4): whatever is undone, what is derived of everybody is what it
//! would have been, to the last integer.
#![allow(clippy::unwrap_used)]

mod model;

use model::chance::seeds;
use model::undo::{Checked, history, history_with_erasures};

/// Histories that were wrong once: a line that asked for urgency again after a version without
/// it, and a browser that said the same again across a step that was undone.
const ONCE_WRONG: [u64; 4] = [1_293, 1_519, 9_081, 9_497];

#[test]
fn what_is_undone_leaves_everything_derived_as_if_it_had_never_been() {
    let mut all = Checked::default();
    for seed in seeds(300).chain(ONCE_WRONG) {
        match history(seed) {
            Ok(checked) => all += checked,
            Err(wrong) => panic!("{wrong}"),
        }
    }
    assert!(all.undone > 600 || seeds(300).end < 300, "too little is undone: {all:?}");
}

#[test]
fn who_is_erased_leaves_everything_derived_as_if_they_had_never_come() {
    let mut all = Checked::default();
    for seed in seeds(300) {
        match history_with_erasures(seed) {
            Ok(checked) => all += checked,
            Err(wrong) => panic!("{wrong}"),
        }
    }
    assert!(all.erased > 250 || seeds(300).end < 300, "too few are erased: {all:?}");
}
