//! The milter protocol: bytes to values and back. No input, no output, no threads.
#![forbid(unsafe_code)]
