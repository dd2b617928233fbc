//! Figures of several subjects that were measured in turns: the same round ran at about the same time for all, so
//! that whatever else the machine does meets all alike. What is told of them is a median over the rounds, or the
//! median of each round's ratio.

use crate::stats::median;
use crate::subject::Subject;

/// What each subject gave in each round.
pub struct Rounds<T> {
    entries: Vec<(Subject, Vec<T>)>,
}

impl<T> Rounds<T> {
    /// Measures so many rounds, in an order that rotates; `measure` is told the place of the subject in the list.
    pub fn measured(subjects: &[Subject], rounds: usize, mut measure: impl FnMut(usize) -> T) -> Self {
        let mut entries: Vec<(Subject, Vec<T>)> =
            subjects.iter().map(|&subject| (subject, Vec::with_capacity(rounds))).collect();
        for round in 0..rounds {
            for turn in 0..subjects.len() {
                let which = (round + turn) % subjects.len();
                entries[which].1.push(measure(which));
            }
        }
        Self { entries }
    }

    /// Who was measured, in the order of the tables.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.entries.iter().map(|(subject, _)| *subject)
    }

    /// The rounds of one subject; none if it was not measured.
    pub fn of(&self, subject: Subject) -> &[T] {
        self.entries.iter().find(|(which, _)| *which == subject).map_or(&[], |(_, rounds)| rounds)
    }

    /// The median of a figure over the rounds of a subject.
    pub fn typical(&self, subject: Subject, figure: impl Fn(&T) -> f64) -> Option<f64> {
        median(self.of(subject).iter().map(figure).collect())
    }

    /// The median of each round's ratio of a figure between two subjects.
    pub fn ratio(&self, subject: Subject, to: Subject, figure: impl Fn(&T) -> f64) -> Option<f64> {
        let pairs = self.of(subject).iter().zip(self.of(to));
        median(pairs.map(|(one, other)| figure(one) / figure(other)).collect())
    }
}
