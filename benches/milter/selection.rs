//! Which part of the plan a run is limited to, and for how long it measures: what the words of the command line say.

use std::time::Duration;

use crate::subject::Subject;

/// What a run is limited to; by default to nothing.
#[derive(Default)]
pub struct Selection {
    scenarios: Vec<String>,
    subjects: Vec<Subject>,
    time: Option<Duration>,
}

/// Whether it is the name of the scenario, or with a `*` at the end the beginning of its name.
fn means(name: &str, scenario: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => scenario.starts_with(start),
        None => scenario == name,
    }
}

impl Selection {
    /// Reads `only=`, `subjects=` (lists with commas) and `seconds=`; `None` if a word is none of them, or names
    /// nothing in `scenarios`.
    pub fn parse(words: &[&str], scenarios: &[String]) -> Option<Self> {
        let mut selection = Self::default();
        for word in words {
            let (name, value) = word.split_once('=')?;
            let mut list = value.split(',');
            match name {
                "only" => {
                    selection.scenarios = list.map(str::to_owned).collect();
                    let known = |name: &String| scenarios.iter().any(|scenario| means(name, scenario));
                    if !selection.scenarios.iter().all(known) {
                        return None;
                    }
                }
                "subjects" => {
                    let named = |word| Subject::ALL.into_iter().find(|subject| subject.word() == word);
                    selection.subjects = list.by_ref().map(named).collect::<Option<_>>()?;
                }
                "seconds" => selection.time = Some(Duration::try_from_secs_f64(value.parse().ok()?).ok()?),
                _ => return None,
            }
        }
        Some(selection)
    }

    /// Whether it is limited to some scenarios, so that the figures are not those of a document.
    pub fn is_partial(&self) -> bool {
        !self.scenarios.is_empty() || !self.subjects.is_empty() || self.time.is_some()
    }

    /// Whether a scenario is to be measured.
    pub fn wants(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|name| means(name, scenario))
    }

    /// Those of `subjects` that are to be measured: Debian's libmilter always, because the ratios are to it.
    pub fn of(&self, subjects: &[Subject]) -> Vec<Subject> {
        let wanted =
            |s: &&Subject| self.subjects.is_empty() || **s == Subject::Debian || self.subjects.contains(s);
        subjects.iter().filter(wanted).copied().collect()
    }

    /// How many rounds of slices, where so many are usual.
    pub fn rounds(&self, usual: usize, slice: Duration) -> usize {
        self.time.map_or(usual, |time| ((time.as_secs_f64() / slice.as_secs_f64()).round() as usize).max(1))
    }
}
