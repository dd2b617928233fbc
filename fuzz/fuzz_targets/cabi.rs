//! Whole sessions through the C interface, with filters whose callbacks call every smfi_* function of a session, with
//! arguments of all kinds, on their own session and on others: see the module.
#![no_main]

mod c_filter;
mod conversation;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: c_filter::Input| c_filter::play(&input, &[]));
