//! The environment, as far as it may be trusted.

use std::ffi::OsString;

/// The value of an environment variable. As with secure_getenv(3), a program that was started with more rights than its
/// caller has (setuid, setgid, file capabilities) has none: the caller could give it orders.
pub fn variable(name: &str) -> Option<OsString> {
    // SAFETY: getauxval takes a number only.
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if is_secure { None } else { std::env::var_os(name) }
}
