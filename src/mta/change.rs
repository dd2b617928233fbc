//! A modification that a filter has asked for, kept: the frame that brought it is gone.

use std::fmt;

use crate::count::Count;
use crate::protocol::{Actions, Modification};

/// What a filter wants changed. Strings are as it sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A header field at the end.
    AddHeader {
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// A header field at a place.
    InsertHeader {
        /// How many fields stand before it, by the count of the MTA.
        index: u32,
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Another value for a field; an empty one removes it.
    ChangeHeader {
        /// Which of the fields of this name.
        index: u32,
        /// Its name.
        name: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
    },
    /// Another sender.
    ChangeSender {
        /// The address.
        address: Vec<u8>,
        /// ESMTP arguments.
        arguments: Option<Vec<u8>>,
    },
    /// One more recipient.
    AddRecipient {
        /// The address.
        address: Vec<u8>,
        /// ESMTP arguments.
        arguments: Option<Vec<u8>>,
    },
    /// One recipient less.
    DeleteRecipient {
        /// The address.
        address: Vec<u8>,
    },
    /// Another body; all its pieces, one behind the other.
    ReplaceBody {
        /// The body.
        body: Vec<u8>,
    },
    /// The message is to be held.
    Quarantine {
        /// Why.
        reason: Vec<u8>,
    },
}

/// What a modification frame brings, and the right that it needs.
pub(super) enum Brought {
    /// A change.
    Change(Change, Actions),
    /// Nothing but more time.
    Progress,
}

impl From<Modification<'_>> for Brought {
    fn from(modification: Modification<'_>) -> Self {
        let owned = |bytes: &[u8]| bytes.to_vec();
        let (change, right) = match modification {
            Modification::AddHeader { name, value } => {
                (Change::AddHeader { name: owned(name), value: owned(value) }, Actions::ADDHDRS)
            }
            Modification::InsertHeader { index, name, value } => {
                (Change::InsertHeader { index, name: owned(name), value: owned(value) }, Actions::ADDHDRS)
            }
            Modification::ChangeHeader { index, name, value } => {
                (Change::ChangeHeader { index, name: owned(name), value: owned(value) }, Actions::CHGHDRS)
            }
            Modification::ChangeSender { address, arguments } => (
                Change::ChangeSender { address: owned(address), arguments: arguments.map(owned) },
                Actions::CHGFROM,
            ),
            Modification::AddRecipient(address) => {
                (Change::AddRecipient { address: owned(address), arguments: None }, Actions::ADDRCPT)
            }
            Modification::AddRecipientWith { address, arguments } => (
                Change::AddRecipient { address: owned(address), arguments: arguments.map(owned) },
                Actions::ADDRCPT_PAR,
            ),
            Modification::DeleteRecipient(address) => {
                (Change::DeleteRecipient { address: owned(address) }, Actions::DELRCPT)
            }
            Modification::ReplaceBody(piece) => {
                (Change::ReplaceBody { body: owned(piece) }, Actions::CHGBODY)
            }
            Modification::Quarantine(reason) => {
                (Change::Quarantine { reason: owned(reason) }, Actions::QUARANTINE)
            }
            Modification::Progress => return Self::Progress,
        };
        Self::Change(change, right)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        let with = |arguments: &Option<Vec<u8>>| match arguments {
            Some(arguments) => format!(" {}", text(arguments)),
            None => String::new(),
        };
        match self {
            Self::AddHeader { name, value } => write!(f, "add header {}: {}", text(name), text(value)),
            Self::InsertHeader { index, name, value } => {
                write!(f, "insert header at {index} {}: {}", text(name), text(value))
            }
            Self::ChangeHeader { index, name, value } if value.is_empty() => {
                write!(f, "delete header {index} of {}", text(name))
            }
            Self::ChangeHeader { index, name, value } => {
                write!(f, "change header {index} of {}: {}", text(name), text(value))
            }
            Self::ChangeSender { address, arguments } => {
                write!(f, "change sender {}{}", text(address), with(arguments))
            }
            Self::AddRecipient { address, arguments } => {
                write!(f, "add recipient {}{}", text(address), with(arguments))
            }
            Self::DeleteRecipient { address } => write!(f, "delete recipient {}", text(address)),
            Self::ReplaceBody { body } => write!(f, "replace body by {}", Count(body.len(), "byte")),
            Self::Quarantine { reason } => write!(f, "quarantine: {}", text(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_in_words() {
        let change = |modification| match Brought::from(modification) {
            Brought::Change(change, _) => change.to_string(),
            Brought::Progress => panic!("no change"),
        };
        assert_eq!(
            change(Modification::ChangeHeader { index: 2, name: b"X", value: b"" }),
            "delete header 2 of X"
        );
        assert_eq!(
            change(Modification::AddRecipientWith { address: b"<a@b>", arguments: Some(b"NOTIFY=NEVER") }),
            "add recipient <a@b> NOTIFY=NEVER"
        );
    }
}
