//! The filter's answer to the negotiation, as an MTA reads it: what it refuses, and what it gets over.

use super::error::{Fault, flag_names};
use super::habits::{Flavor, OLDEST_VERSION};
use super::warning::Warning;
use crate::protocol::reply::Negotiated;
use crate::protocol::{Actions, Frame, MacroStage, Offer, Steps};

/// What was agreed on.
pub(super) struct Terms {
    pub agreed: Negotiated,
    pub warnings: Vec<Warning>,
}

impl Terms {
    /// Reads the first frame of a filter.
    ///
    /// # Errors
    /// The MTA does not take it.
    pub fn read(frame: &Frame<'_>, like: Flavor, offer: Offer) -> Result<Self, Fault> {
        let (kind, length) = (frame.kind, frame.payload.len());
        if kind != b'O' {
            return Err(Fault::OutOfPlace { kind });
        }
        let malformed = Fault::Malformed { kind, length };
        let Some((numbers, lists)) = frame.payload.split_first_chunk::<12>() else { return Err(malformed) };
        let number = |at: usize| u32::from_be_bytes(numbers[at..at + 4].try_into().expect("four bytes"));
        let mut terms = Self {
            agreed: Negotiated {
                version: number(0),
                actions: number(4),
                steps: number(8),
                macro_lists: Vec::new(),
            },
            warnings: Vec::new(),
        };
        terms.agree_on_version(like, offer)?;
        let actions = Actions::from_bits_retain(terms.agreed.actions);
        if !offer.actions.contains(actions) {
            return Err(Fault::Actions(actions.difference(offer.actions)));
        }
        terms.agree_on_steps(like, offer)?;
        terms.read_lists(lists, like).then_some(terms).ok_or(malformed)
    }

    /// Postfix takes 0 and 1 for the version that it offered. Sendmail takes 0 for an old one, and what is above its own for
    /// its own.
    fn agree_on_version(&mut self, like: Flavor, offer: Offer) -> Result<(), Fault> {
        let version = self.agreed.version;
        let taken = match version {
            OLDEST_VERSION.. if version <= offer.version => return Ok(()),
            OLDEST_VERSION.. if like == Flavor::Sendmail => offer.version,
            0 | 1 if like.is_postfix() => offer.version,
            0 => OLDEST_VERSION,
            _ => return Err(Fault::Version(version)),
        };
        let statement = if version > offer.version { "B5" } else { "B6" };
        let text = format!("{} takes version {version} of the protocol for {taken}", like.name());
        self.warnings.push(Warning::new(statement, text));
        self.agreed.version = taken;
        Ok(())
    }

    fn agree_on_steps(&mut self, like: Flavor, offer: Offer) -> Result<(), Fault> {
        let steps = Steps::from_bits_retain(self.agreed.steps);
        let unknown = steps.difference(offer.steps);
        if unknown.is_empty() {
            return Ok(());
        }
        if like == Flavor::Sendmail {
            return Err(Fault::Steps(unknown));
        }
        let text = format!("Postfix goes on with a filter that wants {}, not offered", flag_names(&unknown));
        self.warnings.push(Warning::new("B10", text));
        Ok(())
    }

    /// Reads the lists of macros; `false` if one is not complete, and the MTA minds.
    fn read_lists(&mut self, mut lists: &[u8], like: Flavor) -> bool {
        while !lists.is_empty() {
            let Some((stage, tail)) = lists.split_first_chunk::<4>() else { return false };
            let number = i32::from_be_bytes(*stage);
            let (list, rest) = match tail.iter().position(|&b| b == 0) {
                Some(end) => (&tail[..end], &tail[end + 1..]),
                None if like == Flavor::Sendmail => {
                    let text = "Sendmail takes a list of macros that has no NUL at its end";
                    self.warnings.push(Warning::new("A8", text));
                    (tail, &[][..])
                }
                None => return false,
            };
            match MacroStage::from_number(number) {
                Some(stage) => self.agreed.macro_lists.push((stage, list.to_vec())),
                None => {
                    let text = format!("{} ignores a list of macros for the stage {number}", like.name());
                    self.warnings.push(Warning::new("B25", text));
                }
            }
            lists = rest;
        }
        true
    }
}
