//! Functions that no header declares, but that programs take from the reference: configure scripts look for
//! `mi_stop`, and filters that came out of sendmail's house call its string functions. They are part of the ABI and
//! not of the API, so the header leaves them out. `libmilter.a` has them as weak symbols (Makefile): a program may
//! have functions of its own by these names.
//!
//! The sizes are signed: with one that is not positive nothing is written. What does not fit is cut off; the result
//! is always the length that would have been needed, without the NUL.

use super::variadic::{Variable, variadic};
use crate::server::signals;
use std::ffi::{CStr, c_char, c_int};

/// What smfi_main is about to do: 0 to go on, 1 to stop, 2 to stop at once.
#[unsafe(no_mangle)]
pub extern "C" fn mi_stop() -> c_int {
    signals::requested().into()
}

/// Copies a string.
///
/// # Safety
/// `src` is a string, and `dst` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcpy(dst: *mut c_char, src: *const c_char, size: isize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { append(dst, size, 0, [src]) }
}

/// Appends a string.
///
/// # Safety
/// As [`sm_strlcpy`], and `dst` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcat(dst: *mut c_char, src: *const c_char, size: isize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { append(dst, size, libc::strlen(dst), [src]) }
}

/// Appends two strings.
///
/// # Safety
/// As [`sm_strlcat`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcat2(
    dst: *mut c_char,
    src1: *const c_char,
    src2: *const c_char,
    size: isize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe { append(dst, size, libc::strlen(dst), [src1, src2]) }
}

variadic! {
    /// Copies the `n` strings that follow as one.
    sm_strlcpyn => copy_strings
}

/// The function proper.
///
/// # Safety
/// As [`sm_strlcpy`]; there are `n` strings.
unsafe extern "C" fn copy_strings(dst: *mut c_char, size: isize, n: c_int, sources: &Variable) -> usize {
    if n <= 0 && size > 0 {
        // SAFETY: there is room for a byte.
        unsafe { *dst = 0 };
    }
    // SAFETY: the caller's promise; no more arguments are read than there are.
    unsafe { append(dst, size, 0, (0..usize::try_from(n).unwrap_or(0)).map(|index| sources.get(index))) }
}

/// Puts strings behind the first `length` bytes of `dst`, as far as `size` bytes allow; the length without that limit.
///
/// # Safety
/// `sources` are strings; `dst` has room for `size` bytes, and for `length`.
unsafe fn append(
    dst: *mut c_char,
    size: isize,
    mut length: usize,
    sources: impl IntoIterator<Item = *const c_char>,
) -> usize {
    let room = usize::try_from(size).ok().and_then(|size| size.checked_sub(1));
    for source in sources {
        // SAFETY: it is a string.
        let count = unsafe { libc::strlen(source) };
        if let Some(left) = room.and_then(|room| room.checked_sub(length)) {
            let fits = count.min(left);
            // SAFETY: `length + fits` is at most `room`, and behind that there is a byte left. A program may use a
            // string as its own source, so the two may overlap.
            unsafe {
                std::ptr::copy(source, dst.add(length), fits);
                *dst.add(length + fits) = 0;
            }
        }
        length += count;
    }
    length
}

/// The text of an error: errno's, or one of sendmail's own numbers for files and databases.
#[unsafe(no_mangle)]
pub extern "C" fn sm_errstring(number: c_int) -> *const c_char {
    match own_error(number) {
        Some(text) => text.as_ptr(),
        // SAFETY: it takes a number, and gives a string that lives until the thread's next call.
        None => unsafe { libc::strerror(number) },
    }
}

fn own_error(number: c_int) -> Option<&'static CStr> {
    Some(match number {
        256 => c"Timeout on file open",
        257 => c"Symbolic links not allowed",
        258 => c"Hard links not allowed",
        259 => c"Regular files only",
        260 => c"Executable files not allowed",
        261 => c"World writable directory",
        262 => c"Group writable directory",
        263 => c"File changed after open",
        264 => c"World writable file",
        265 => c"Group writable file",
        266 => c"Group readable file",
        267 => c"World readable file",
        297 => c"Memory allocation failed",
        298 => c"GDBM is not supported",
        299 => c"Unsupported action",
        300 | 307 => c"Key already exists",
        301 => c"Database open failed",
        302 => c"Key not found",
        303 => c"Unknown database type",
        304 => c"Support for database type not compiled into this program",
        305 => c"DB sync did not finish",
        306 => c"Key is empty",
        308 => c"Locker killed to resolve deadlock",
        309 => c"Lock unavailable",
        310 => c"Lock not held by locker",
        311 => c"Database panic, run recovery",
        312 => c"I/O error",
        313 => c"Database opened read-only",
        314 => c"Name too long",
        315 => c"Invalid parameter",
        316 => c"Only one cursor allowed",
        317 => c"Invalid cursor",
        319 => c"Berkeley DB file is an old version, recreate it",
        320 => c"Berkeley DB version mismatch between include file and library",
        _ => return None,
    })
}
