//! The milter protocol: bytes to values and back, and the rules that need nothing but values. No input, no
//! output, no threads, no unsafe code; so all of it runs under unit tests, Miri and fuzzers as it is.
//!
//! Both directions are here: what a filter needs ([`Command`] decoded, [`Reply`] and [`Modification`] encoded)
//! and what an MTA needs ([`command::encode`], [`reply::Answer`]).
#![forbid(unsafe_code)]

pub mod address;
pub mod command;
pub mod flags;
pub mod frame;
pub mod kind;
pub mod macros;
pub mod negotiate;
pub mod reply;
pub mod smtp;
pub mod state;
pub mod text;

pub use address::Peer;
pub use command::{Command, Malformed};
pub use flags::{Actions, Steps};
pub use frame::{Frame, FrameError};
pub use kind::{Kind, KindSet};
pub use macros::{MacroStage, MacroStore, NoMemory};
pub use negotiate::{AgreedSteps, Agreement, Choice, Offer, Refusal, Wants};
pub use reply::{Answer, Modification, Reply};
pub use smtp::SmtpReply;
pub use state::Stage;
pub use text::{Arguments, Text};

#[cfg(test)]
mod tests;
