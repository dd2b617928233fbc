//! A drop-in replacement for sendmail's libmilter: a C library to the outside, and inside
//!
//! ```text
//! ffi ──► server ──► session ──► protocol        all three may use: sys, log, count, panics
//! (raw C)  (process)  (one MTA)   (pure)
//!                          mta ──► protocol      the mail server's side, for tests, benchmarks and milter-send
//! ```
//!
//! An arrow to the left never exists: nothing below [`ffi`] sees a C function pointer, so all of it runs in unit
//! tests without C. The path of one packet:
//!
//! ```text
//! server::engine   accepts a connection, or is told that a silent one speaks; a thread calls Session::run
//!   1 Link::receive            bytes   → Inbox → Frame          session::link, protocol::frame
//!   2 Stage::leads_to          may this command follow?         protocol::state
//!   3 Command::decode          Frame   → Command                protocol::command
//!   4 Filter::helo, ...        Command → Verdict                session::filter, ffi::callbacks → C
//!   5 Reply                    Verdict → bytes in the outbox    protocol::reply, session::context
//!   6 Link::send               outbox  → bytes                  session::link
//! ```
//!
//! What an administrator wants to see of it (docs/man/libmilter.7) goes to [`observe`] from steps 1, 4 and 6.
//!
//! A callback comes back in through `ffi::{context, message}`, which borrow the session's `Context`: no `&mut` and no
//! lock is held while C runs. `unsafe` lives in [`ffi`] and [`sys`]. "Contract" in comments is
//! docs/contract, "the reference" is sendmail's library.

mod count;
mod ffi;
#[cfg(fuzzing)]
pub mod fuzzing;
mod log;
pub mod mta;
mod observe;
mod panics;
pub mod protocol;
mod server;
mod session;
mod sys;

/// What milter-send needs of the operating system.
pub mod system {
    pub use crate::sys::processor_time;
    pub use crate::sys::signal::{Blocked, Received, SignalSet, end_by, is_ignored, wait};
}
