//! As `cabi`, while malloc(3) and mmap(2) now and then have nothing to give. Nobody may be without what he is owed then, and
//! the process may not end: whatever a peer or the filter sizes is asked for so that it can be refused, and the rest is
//! small. (A build for fuzzing refuses what is above 4 KiB; see `sys/memory.rs`.)
#![no_main]

mod c_filter;
mod conversation;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    /// For each turn of a session: how many requests are served, and how many refused then.
    shortages: Vec<(u8, u8)>,
    sessions: c_filter::Input,
}

fuzz_target!(|input: Input| {
    let shortages: Vec<_> = if input.shortages.is_empty() { vec![(0, u8::MAX)] } else { input.shortages };
    c_filter::play(&input.sessions, &shortages);
});
