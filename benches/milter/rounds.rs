//! Figures of several subjects. Those that are timed are measured in turns: the same round ran at about the same
//! time for all, so that whatever else the machine does meets all alike. What is told of them is a median over the
//! rounds, or the median of each round's ratio.

use crate::stats::median;
use crate::subject::Subject;

/// Something for each subject, in the order of the tables.
pub struct PerSubject<T>(Vec<(Subject, T)>);

/// What each subject gave in each round.
pub type Rounds<T> = PerSubject<Vec<T>>;

impl<T> PerSubject<T> {
    /// Asks for each; `figure` is told the place of the subject in the list.
    pub fn of(subjects: &[Subject], mut figure: impl FnMut(usize) -> T) -> Self {
        Self(subjects.iter().enumerate().map(|(which, &subject)| (subject, figure(which))).collect())
    }

    /// What there is for one subject, if it was measured.
    pub fn get(&self, subject: Subject) -> Option<&T> {
        self.0.iter().find(|(which, _)| *which == subject).map(|(_, figure)| figure)
    }

    /// Who was measured.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.0.iter().map(|(subject, _)| *subject)
    }

    /// Everything.
    pub fn iter(&self) -> impl Iterator<Item = (Subject, &T)> {
        self.0.iter().map(|(subject, figure)| (*subject, figure))
    }
}

impl<T> Rounds<T> {
    /// Measures so many rounds, in an order that rotates; `measure` is told the place of the subject in the list.
    pub fn measured(subjects: &[Subject], rounds: usize, mut measure: impl FnMut(usize) -> T) -> Self {
        let mut all = Self::of(subjects, |_| Vec::with_capacity(rounds));
        for round in 0..rounds {
            for turn in 0..subjects.len() {
                let which = (round + turn) % subjects.len();
                all.0[which].1.push(measure(which));
            }
        }
        all
    }

    /// The rounds of one subject; none if it was not measured.
    pub fn rounds(&self, subject: Subject) -> &[T] {
        self.get(subject).map_or(&[], Vec::as_slice)
    }

    /// The median of a figure over the rounds of a subject.
    pub fn typical(&self, subject: Subject, figure: impl Fn(&T) -> f64) -> Option<f64> {
        median(self.rounds(subject).iter().map(figure).collect())
    }

    /// The median of each round's ratio of a figure between two subjects.
    pub fn ratio(&self, subject: Subject, to: Subject, figure: impl Fn(&T) -> f64) -> Option<f64> {
        let pairs = self.rounds(subject).iter().zip(self.rounds(to));
        median(pairs.map(|(one, other)| figure(one) / figure(other)).collect())
    }
}
