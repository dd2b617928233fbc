//! The MTA's side of the milter protocol: what Postfix and Sendmail do with a filter, without being a mail
//! server. Built on `protocol` alone; the library that filters link does not use it, `milter-send` and tests do.
//!
//! | module | does |
//! |---|---|
//! | `address` | finds and connects to a filter |
//! | `link` | frames over a connection, with deadlines |
//! | `session` | negotiation, single commands and their answers |
//! | `play` | whole SMTP sessions |
//! | `message`, `envelope` | what is sent |
//! | `change`, `apply` | what the filter wants changed, and changing it |
//! | `habits`, `macros` | what differs between MTAs |
#![forbid(unsafe_code)]

mod address;
mod apply;
mod change;
mod envelope;
mod error;
mod habits;
mod link;
mod macros;
mod message;
mod play;
mod request;
mod session;
#[cfg(test)]
mod tests;

pub use address::{BadAddress, FilterAddress, Stream};
pub use apply::{Mail, Manner};
pub use change::Change;
pub use envelope::{Envelope, Mailbox};
pub use error::{Error, Fault, flag_list, flag_names};
pub use habits::{Like, NEWEST_VERSION, OLDEST_VERSION, offer};
pub use link::Link;
pub use macros::{Definitions, MacroLists, MacroSetting, MacroValues};
pub use message::{Header, LineEnd, Message};
pub use play::{Client, ClientAddress, Delivery, Disposition, HOST_NAME, Player, Submission};
pub use request::Request;
pub use session::{Exchange, Omission, Outcome, Session, Verdict};
