//! The MTA's side of the milter protocol: what Postfix and Sendmail do with a filter, without being a mail
//! server. Built on `protocol` alone; the library that filters link does not use it, `milter-send` and tests do.
//!
//! | module | does |
//! |---|---|
//! | `address` | finds and connects to a filter |
//! | `link` | frames over a connection, with deadlines |
//! | `session`, `terms` | negotiation, single commands and their answers |
//! | `exchange`, `answer` | what came of a command, and how an MTA reads the frames that answer it |
//! | `play` | whole SMTP sessions |
//! | `message`, `envelope` | what is sent |
//! | `change`, `given`, `apply` | what the filter wants changed, reading it, and changing it |
//! | `judge`, `smtp_text`, `disposition` | what an answer amounts to, and what the SMTP client reads |
//! | `warning` | what the MTA repairs, ignores or answers otherwise than the filter meant |
//! | `habits`, `macros` | what differs between MTAs |
#![forbid(unsafe_code)]

mod address;
mod answer;
mod apply;
mod change;
mod disposition;
mod envelope;
mod error;
mod exchange;
mod given;
mod habits;
mod judge;
mod link;
mod macros;
mod message;
mod play;
mod request;
mod session;
mod smtp_text;
mod terms;
mod warning;

#[cfg(test)]
mod tests;

pub use address::{BadAddress, FilterAddress, Stream};
pub use apply::{Mail, Manner};
pub use change::Change;
pub use disposition::{DefaultAction, Disposition};
pub use envelope::{Envelope, Mailbox};
pub use error::{Error, Fault, flag_list, flag_names};
pub use exchange::{Exchange, Failure, Omission, Outcome, Verdict};
pub use habits::{Flavor, HOST_NAME, NEWEST_VERSION, OLDEST_VERSION, offer};
pub use link::{Limits, Link};
pub use macros::{Definitions, MacroLists, MacroSetting, MacroValues};
pub use message::{Body, BodyPieces, Header, LineEnd, Message};
pub use play::{Client, ClientAddress, Delivery, Observer, Player, Submission};
pub use request::Request;
pub use session::{Policy, Session};
pub use warning::Warning;
