//! What the targets in `fuzz/` reach and programs do not. Only a build for fuzzing has it (`--cfg fuzzing`).

pub use crate::ffi::callbacks::Callbacks;
pub use crate::ffi::types::{SMFICTX, smfiDesc};
pub use crate::server::endpoint::{BadSpec, Endpoint};
pub use crate::session::context::NotSent;
pub use crate::session::{
    Buffers, Cause, Context, Filter, Link, NoMemory, Patience, Pause, Session, Shutdown, Timeouts, Verdict,
};
pub use crate::sys::memory::shortage;
pub use crate::sys::socket::Socket;
