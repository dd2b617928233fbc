//! Threads as pthread_create(3) makes them for a C program: the default stack, no extra signal stack, no
//! bookkeeping. A thread for each connection should cost what the system charges and not more.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Mutex;

/// Callbacks were written for the stacks of C programs; musl's default is far smaller than glibc's.
const LEAST_STACK: usize = 1 << 20;

/// Starts a thread that runs `body`. It must be joined by a [`Reaper`], which `body` reaches by itself.
///
/// # Errors
/// The system has no thread to give.
pub fn spawn(body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let argument = Box::into_raw(Box::new(body));
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    let result = with_attributes(|attributes| {
        // SAFETY: `attributes` is initialised; `start` takes what `argument` is, and takes it exactly once.
        unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes, start, argument.cast()) }
    });
    if result == 0 {
        return Ok(());
    }
    // SAFETY: no thread was started, so the box is still ours.
    drop(unsafe { Box::from_raw(argument) });
    Err(io::Error::from_raw_os_error(result))
}

/// Calls `create` with the process's default thread attributes, the stack enlarged where it is tiny.
fn with_attributes(create: impl FnOnce(*const libc::pthread_attr_t) -> libc::c_int) -> libc::c_int {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: pthread_attr_init fills in the attributes that the pointer leads to.
    let result = unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    if result != 0 {
        return result;
    }
    let mut size = 0;
    // SAFETY: the attributes are initialised, and `size` is a live variable.
    unsafe {
        libc::pthread_attr_getstacksize(attributes.as_ptr(), &raw mut size);
        if size < LEAST_STACK {
            libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), LEAST_STACK);
        }
    }
    let result = create(attributes.as_ptr());
    // SAFETY: initialised above, and not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    result
}

extern "C" fn start(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `argument` is the box that `spawn` leaked for this thread.
    let body = unsafe { Box::from_raw(argument.cast::<Box<dyn FnOnce() + Send>>()) };
    body();
    std::ptr::null_mut()
}

/// Joins threads that end one by one: each, as its last act, joins the one before it, and the owner joins the
/// last. So no thread runs code of this library once the owner knows that all have ended, and none is
/// left behind as a zombie meanwhile.
#[derive(Debug, Default)]
pub struct Reaper(Mutex<Option<libc::pthread_t>>);

impl Reaper {
    /// The calling thread is about to end.
    pub fn leave(&self) {
        // SAFETY: pthread_self has no preconditions.
        let this = unsafe { libc::pthread_self() };
        let before = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(this);
        join(before);
    }

    /// Joins the last thread that has left.
    pub fn join(&self) {
        let last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        join(last);
    }
}

fn join(thread: Option<libc::pthread_t>) {
    if let Some(thread) = thread {
        // SAFETY: the thread put itself into the reaper as its last act, it was never detached, and whoever takes
        // it out of there joins it, so it is joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    }
}
