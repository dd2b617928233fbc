//! What the hand-over of work between threads is built from. With the feature `model` the same code runs under a
//! scheduler that tries many orders of events instead of leaving them to chance.

#[cfg(not(feature = "model"))]
pub use {
    crate::sys::thread::ThreadGroup,
    parking_lot::{Condvar, Mutex, MutexGuard},
    std::sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(feature = "model")]
pub use super::model::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, ThreadGroup};
