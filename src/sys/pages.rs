//! Memory straight from the system, and straight back to it: mmap(2). For the large buffers of threads that come
//! and go; freed to malloc(3), they would stay behind in its arenas between the small pieces of idle sessions.

use super::check;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// How far into its mapping the memory begins. The kernel copies what recv(2) brings with `rep movsb`, and on common
/// processors that takes four times as long to the start of a page: 4 KiB aliasing with what it copies from. With 256 bytes
/// a filter took 258 messages of 10 MiB in the time of 172.
const OFFSET: usize = 256;

/// A piece of memory, zeroed at first. The default is none at all.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to the value alone, like that of a Box<[u8]>.
unsafe impl Send for Pages {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Pages {}

impl Pages {
    /// `length` bytes, all zero. None of them costs memory before it is used.
    ///
    /// # Errors
    /// The system has no memory, or `length` is 0.
    pub fn new(length: usize) -> io::Result<Self> {
        let mapped = match length.checked_add(OFFSET) {
            Some(mapped) if length > 0 => mapped,
            _ => return Err(io::ErrorKind::OutOfMemory.into()),
        };
        #[cfg(any(test, fuzzing))]
        if super::memory::shortage::strikes() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: a new anonymous mapping at an address of the system's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is longer than that.
        let start = unsafe { start.cast::<u8>().add(OFFSET) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self { start: NonNull::dangling(), length: 0 }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.length == 0 {
            return; // the default
        }
        // SAFETY: the mapping was made by `new`, begins OFFSET bytes before the memory, and nobody borrows it any more. It
        // can't fail for a whole mapping.
        let _ = check(unsafe { libc::munmap(self.start.as_ptr().sub(OFFSET).cast(), self.length + OFFSET) });
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has this length, is initialised (zero), and lives as long as `self`; without one the
        // length is 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_and_writable() {
        let mut pages = Pages::new(70_000).unwrap();
        assert!(pages.iter().all(|&byte| byte == 0));
        pages[69_999] = 1;
        assert_eq!(pages.len(), 70_000);
        assert!(Pages::default().is_empty());
        assert!(Pages::new(0).is_err());
        assert!(Pages::new(usize::MAX).is_err() && Pages::new(usize::MAX - 4096).is_err());
    }
}
