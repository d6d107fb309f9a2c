//! A Grade is fit: how much a person is the customer we look for, from what they told us. It
//! never fades, and too little known is "?", not bad.

use crate::attribute::{AttributeTest, Attributes, value_of};
use crate::points::Points;

/// Fit, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// The customer we look for.
    A,
    /// A good one.
    B,
    /// A possible one.
    C,
    /// Not our target.
    D,
    /// Too little is known.
    #[default]
    Unknown,
}

impl Grade {
    /// All grades.
    pub const ALL: [Grade; 5] = [Grade::A, Grade::B, Grade::C, Grade::D, Grade::Unknown];

    /// What people read.
    pub fn letter(self) -> &'static str {
        match self {
            Grade::A => "A",
            Grade::B => "B",
            Grade::C => "C",
            Grade::D => "D",
            Grade::Unknown => "?",
        }
    }

    /// Reads what people write.
    pub fn parse(letter: &str) -> Option<Grade> {
        Grade::ALL.into_iter().find(|grade| grade.letter() == letter)
    }
}

/// What makes a grade: points for attributes, and the lines they must reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// So many of the attributes named below must have a value, whether or not they match.
    pub known_min: u32,
    /// From here on it is A, B, C; less is D.
    pub lines: [Points; 3],
    /// In the file's order.
    pub rules: Vec<FitRule>,
}

/// One line of fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitRule {
    /// What is asked.
    pub test: AttributeTest,
    /// What it gives.
    pub points: Points,
}

impl Fit {
    /// The grade of somebody. One attribute counts once: by the first of its lines that matches.
    pub fn grade(&self, attributes: &Attributes) -> Grade {
        let Some((points, known)) = self.points(attributes) else {
            return Grade::Unknown;
        };
        if known < self.known_min {
            return Grade::Unknown;
        }
        let reached = self.lines.iter().position(|line| points >= *line);
        [Grade::A, Grade::B, Grade::C].get(reached.unwrap_or(3)).copied().unwrap_or(Grade::D)
    }

    /// The points of fit, and how many of the attributes asked for are known. Nothing where
    /// nothing is asked.
    pub fn points(&self, attributes: &Attributes) -> Option<(Points, u32)> {
        if self.rules.is_empty() {
            return None;
        }
        let (mut points, mut known) = (0_i64, 0);
        let mut asked: Vec<&str> = Vec::new();
        let mut counted: Vec<&str> = Vec::new();
        for rule in &self.rules {
            let name = rule.test.attribute.as_str();
            if !asked.contains(&name) {
                asked.push(name);
                known += u32::from(value_of(attributes, name).is_some());
            }
            if !counted.contains(&name) && rule.test.holds(attributes) {
                counted.push(name);
                points = points.saturating_add(rule.points.0);
            }
        }
        Some((Points(points), known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::Test;

    fn fit() -> Fit {
        let rule = |attribute: &str, test, points| FitRule {
            test: AttributeTest::new(attribute.into(), test),
            points: Points::whole(points),
        };
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Fit {
            known_min: 2,
            lines: [60, 40, 20].map(Points::whole),
            rules: vec![
                rule("title", Test::Has(words(&["部長", "取締役"])), 30),
                rule("title", Test::Has(words(&["課長", "部"])), 20),
                rule("employees", Test::Between(Some(100), Some(5_000)), 30),
                rule("email_domain", Test::Ends(words(&[".ac.jp"])), -30),
            ],
        }
    }

    fn grade(attributes: &[(&str, &str)]) -> Grade {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        fit().grade(&attributes.iter().map(owned).collect())
    }

    #[test]
    fn too_little_known_is_no_grade_and_not_a_bad_one() {
        assert_eq!(grade(&[]), Grade::Unknown);
        assert_eq!(grade(&[("title", "部長")]), Grade::Unknown);
        assert_eq!(grade(&[("title", "学生"), ("employees", "")]), Grade::Unknown);
        assert_eq!(grade(&[("title", "学生"), ("employees", "3")]), Grade::D);
        assert_eq!(Fit::default().grade(&Attributes::new()), Grade::Unknown);
    }

    #[test]
    fn one_attribute_counts_once_by_its_first_line_that_matches() {
        assert_eq!(grade(&[("title", "営業部長"), ("employees", "300")]), Grade::A);
        assert_eq!(grade(&[("title", "課長"), ("employees", "300")]), Grade::B);
        assert_eq!(grade(&[("title", "課長"), ("employees", "3")]), Grade::C);
    }

    #[test]
    fn the_domain_of_an_address_is_an_attribute() {
        let professor = [("title", "取締役"), ("email", "a@u.ac.jp"), ("employees", "300")];
        assert_eq!(grade(&professor), Grade::C);
    }
}
