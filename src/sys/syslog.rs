//! syslog(3), with the identity and facility that the process itself chose by openlog(3).

use std::ffi::CStr;

/// Logs one line: `name`, a colon, `text`.
pub fn write(priority: libc::c_int, name: &CStr, text: &CStr) {
    // SAFETY: the format takes two strings, and both end with NUL and live through the call.
    unsafe { libc::syslog(priority, c"%s: %s".as_ptr(), name.as_ptr(), text.as_ptr()) };
}
