//! Contexts of sessions that have ended. A filter's helper thread may still make a call with one: it shall fail, not read
//! freed memory. So some are kept, for as long as the library is loaded: such a thread outlives smfi_main as well.

use super::context::Context;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many are kept.
const KEPT: usize = 256;

static ENDED: Mutex<VecDeque<Arc<Context>>> = Mutex::new(VecDeque::new());

/// Keeps the context of a session that has ended, until so many others have.
pub fn remember(context: Arc<Context>) {
    let mut ended = ENDED.lock();
    let forgotten = if ended.len() == KEPT { ended.pop_front() } else { None };
    ended.push_back(context);
    drop(ended);
    drop(forgotten);
}
