//! The Catalog is the names the journal has given numbers to: sites, rules, categories,
//! thresholds, endpoints. A number is never reused, so old records keep their meaning.

use std::collections::BTreeMap;

use crate::record::{Name, NameKind, Published};
use crate::terms::Versions;

/// Names and their numbers, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    numbers: BTreeMap<(NameKind, String), u16>,
    names: BTreeMap<(NameKind, u16), String>,
    /// The terms of all versions that are kept.
    pub versions: Versions,
    /// The rule file that the last version was made from.
    pub text: Vec<u8>,
}

impl Catalog {
    /// All names, as a record that gives them their numbers.
    pub fn names(&self) -> Vec<Name> {
        let named = self.names.iter();
        let name = |((kind, number), name): (&(NameKind, u16), &String)| Name {
            kind: *kind,
            number: *number,
            name: name.clone(),
        };
        named.map(name).collect()
    }

    /// The number of a name, if it has one.
    pub fn number(&self, kind: NameKind, name: &str) -> Option<u16> {
        self.numbers.get(&(kind, name.to_owned())).copied()
    }

    /// The name behind a number.
    pub fn name(&self, kind: NameKind, number: u16) -> Option<&str> {
        self.names.get(&(kind, number)).map(String::as_str)
    }

    /// The number of a name, or the next free one and the entry that must be journaled.
    pub fn intern(&self, new: &mut Vec<Name>, kind: NameKind, name: &str) -> u16 {
        if let Some(number) = self.number(kind, name) {
            return number;
        }
        if let Some(known) = new.iter().find(|known| known.kind == kind && known.name == name) {
            return known.number;
        }
        let taken = self.names.range((kind, 0)..=(kind, u16::MAX)).count();
        let also = new.iter().filter(|known| known.kind == kind).count();
        let number = (taken + also) as u16;
        new.push(Name { kind, number, name: name.to_owned() });
        number
    }

    /// The last published version; 0 before the first.
    pub fn version(&self) -> u32 {
        self.versions.latest().map_or(0, |terms| terms.version)
    }

    /// Applies names from a record.
    pub fn evolve_names(&mut self, names: &[Name]) {
        for name in names {
            self.numbers.insert((name.kind, name.name.clone()), name.number);
            self.names.insert((name.kind, name.number), name.name.clone());
        }
    }

    /// Applies a published version.
    pub fn evolve_published(&mut self, published: &Published) {
        self.evolve_names(&published.names);
        self.versions.publish(published.terms.clone());
        self.text.clone_from(&published.text);
    }

    /// Everything that replay must restore, in a fixed form.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version().to_le_bytes());
        for ((kind, number), name) in &self.names {
            out.push(*kind as u8);
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&(name.len() as u32).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_for_ever() {
        let mut catalog = Catalog::default();
        let mut new = Vec::new();
        assert_eq!(catalog.intern(&mut new, NameKind::Rule, "pricing"), 0);
        assert_eq!(catalog.intern(&mut new, NameKind::Rule, "document"), 1);
        assert_eq!(catalog.intern(&mut new, NameKind::Rule, "pricing"), 0);
        assert_eq!(catalog.intern(&mut new, NameKind::Site, "www"), 0);
        catalog.evolve_names(&new);
        let mut later = Vec::new();
        assert_eq!(catalog.intern(&mut later, NameKind::Rule, "document"), 1);
        assert_eq!(catalog.intern(&mut later, NameKind::Rule, "case"), 2);
        assert_eq!((later.len(), catalog.name(NameKind::Rule, 1)), (1, Some("document")));
    }
}
