//! Who may use a file: its mode, owner and group, by number and by name.

use super::{check, opened};
use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// The socket at a path, whatever takes its place there later.
pub struct SocketAt(OwnedFd);

impl SocketAt {
    /// The socket that this process has just made at `path`.
    ///
    /// # Errors
    /// Something else has taken its place.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the name ends with NUL and lives through the call; the descriptor is new.
        let socket = Self(unsafe { opened(libc::open(name.as_ptr(), flags)) }?);
        let metadata = fs::metadata(socket.path())?;
        // SAFETY: geteuid has no preconditions.
        let is_ours = metadata.file_type().is_socket() && metadata.uid() == unsafe { libc::geteuid() };
        if is_ours { Ok(socket) } else { Err(io::Error::other("it was replaced")) }
    }

    /// Sets the owner and the group, as far as they are given.
    ///
    /// # Errors
    /// As chown(2).
    pub fn set_owner(&self, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
        // SAFETY: an empty name that ends with NUL; -1 leaves the owner or the group as it is.
        check(unsafe {
            libc::fchownat(
                self.0.as_raw_fd(),
                c"".as_ptr(),
                owner.unwrap_or(u32::MAX),
                group.unwrap_or(u32::MAX),
                libc::AT_EMPTY_PATH,
            )
        })
        .map(drop)
    }

    /// Sets the mode, whatever the umask.
    ///
    /// # Errors
    /// As chmod(2), or /proc is not there.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.path(), PermissionsExt::from_mode(mode))
    }

    /// chmod(2) does not take such a descriptor, but a name that leads to it.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// The number of a user, given by name or as a number.
pub fn user(name: &str) -> Option<u32> {
    // SAFETY: it does what it is asked for there.
    number(name).or_else(|| unsafe { look_up(name, libc::getpwnam_r, |entry| entry.pw_uid) })
}

/// The number of a group, given by name or as a number.
pub fn group(name: &str) -> Option<u32> {
    // SAFETY: as above.
    number(name).or_else(|| unsafe { look_up(name, libc::getgrnam_r, |entry| entry.gr_gid) })
}

/// The last number means "as it is".
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| number != u32::MAX && !text.starts_with('+'))
}

/// getpwnam_r(3) or getgrnam_r(3).
type Look<T> = unsafe extern "C" fn(*const c_char, *mut T, *mut c_char, usize, *mut *mut T) -> c_int;

/// Looks up an entry with room enough for it: a group may have thousands of members. Its number.
///
/// # Safety
/// `look` fills in the entry and the buffer, as long as it says, and then points at the entry; or else at nothing.
unsafe fn look_up<T>(name: &str, look: Look<T>, number: fn(&T) -> u32) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut entry = MaybeUninit::<T>::uninit();
    let mut buffer = vec![0; 4096];
    loop {
        let mut found = std::ptr::null_mut();
        // SAFETY: the name ends with NUL, all variables are live, and the buffer is as long as it says.
        let result = unsafe {
            look(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match result {
            libc::ERANGE if buffer.len() < 1 << 24 => buffer.resize(buffer.len() * 4, 0),
            libc::EINTR => {}
            // SAFETY: NULL, or the entry, which was filled in.
            _ => return unsafe { found.as_ref() }.map(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_have_names_and_numbers() {
        assert_eq!((user("root"), user("nobody"), user("17")), (Some(0), Some(65_534), Some(17)));
        assert_eq!((group("root"), group("nogroup"), group("4711")), (Some(0), Some(65_534), Some(4711)));
        for bad in ["", "no-such-name", "-1", "+1", "4294967295", "4294967296", "a\0b"] {
            assert_eq!((user(bad), group(bad)), (None, None), "{bad:?}");
        }
    }

    #[test]
    fn only_a_socket_of_this_process_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(path("s")).unwrap();
        std::os::unix::fs::symlink("s", path("link")).unwrap();
        fs::write(path("file"), "").unwrap();
        SocketAt::open(&path("s")).unwrap().set_mode(0o604).unwrap();
        assert_eq!(fs::metadata(path("s")).unwrap().mode() & 0o7777, 0o604);
        assert!(SocketAt::open(&path("link")).is_err() && SocketAt::open(&path("file")).is_err());
    }
}
