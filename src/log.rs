//! Log lines: syslog(3) with the identity and facility that the process itself chose by openlog(). Every line
//! begins with the filter's name. Debug output goes to standard error.

use std::ffi::{CStr, CString};
use std::fmt::Arguments;
use std::sync::atomic::{AtomicI32, Ordering};

/// How much debug output is wanted; 0 is none.
static DEBUG_LEVEL: AtomicI32 = AtomicI32::new(0);

/// Something failed.
pub fn error(name: &CStr, message: Arguments<'_>) {
    write(libc::LOG_ERR, name, message);
}

/// Something is not as it should be.
pub fn warning(name: &CStr, message: Arguments<'_>) {
    write(libc::LOG_WARNING, name, message);
}

/// Sets how much debug output is wanted.
pub fn set_debug_level(level: i32) {
    DEBUG_LEVEL.store(level, Ordering::Relaxed);
}

/// Whether debug output of this level is wanted. To be asked first: making the message costs more than asking.
#[inline]
pub fn debug_wanted(level: i32) -> bool {
    DEBUG_LEVEL.load(Ordering::Relaxed) >= level
}

/// Writes a line of debug output.
#[cold]
pub fn debug(name: &CStr, message: Arguments<'_>) {
    eprintln!("{}: {message}", name.to_string_lossy());
}

fn write(priority: libc::c_int, name: &CStr, message: Arguments<'_>) {
    // A message never holds a NUL, unless bytes from outside got into it unescaped; those it loses.
    let mut text = message.to_string().into_bytes();
    text.retain(|&byte| byte != 0);
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: the format takes two strings, and both end with NUL and live through the call.
    unsafe { libc::syslog(priority, c"%s: %s".as_ptr(), name.as_ptr(), text.as_ptr()) };
}
