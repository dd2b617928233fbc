//! Tests that drive the built `libmilter.so` from outside: through real C programs, real sockets, real mail
//! servers. One test program, so that the support code is compiled and linked once.
//!
//! The library under test is the release build (`make` first; `make check` does it).

mod abi;
mod abi_types;
mod administration;
mod answers;
mod boundary;
mod c_tests;
mod chaos;
mod dashboard;
mod differential;
mod edges;
mod engine;
mod examples;
mod filters;
mod habits;
mod header;
mod install;
mod mail_servers;
mod manual;
mod memory;
mod metrics;
mod milter_send;
mod misbehaviour;
mod model;
mod opendkim;
mod packaging;
mod promises;
mod protocol;
mod relink;
mod rust_version;
mod scale;
mod soak;
mod support;
mod trace;
mod wire;
mod workshop;
