//! A drop-in replacement for sendmail's libmilter.

pub mod protocol;
