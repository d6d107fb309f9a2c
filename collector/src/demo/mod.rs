//! The demo.

use std::fmt;

/// Why.
#[derive(Debug)]
pub struct DemoError;

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("demo")
    }
}

/// Runs.
pub fn run(_once: bool) -> Result<(), DemoError> {
    Ok(())
}
