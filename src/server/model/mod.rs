//! The hand-over of work under a model checker: the pool and the parking as they are, between MTAs and a poller that are
//! simulated, in very many orders of events.
//!
//! `cargo test --features model server::model` runs it; MODEL_RUNS says how many orders each test tries.

pub mod sync;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests;
