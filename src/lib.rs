//! A drop-in replacement for sendmail's libmilter.

pub mod ffi;
mod log;
pub mod mta;
pub mod protocol;
pub mod server;
pub mod session;
pub mod sys;
