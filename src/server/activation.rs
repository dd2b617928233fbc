//! Sockets that a service manager has opened for this process: sd_listen_fds(3). One that is where the filter is to
//! listen is taken over.

use super::endpoint::{BadSpec, Endpoint};
use crate::sys::environment;
use crate::sys::socket::{Place, listens_at};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The number of the first descriptor that is passed.
const FIRST: RawFd = 3;

/// More than any service manager passes.
const MOST: usize = 1000;

/// The sockets that were passed, and their names.
#[derive(Debug, Default)]
pub struct Passed(Vec<(RawFd, String)>);

impl Passed {
    /// Those that the environment tells of.
    pub fn from_environment() -> Self {
        Self::from(&environment::variable)
    }

    fn from(lookup: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let number = |variable| lookup(variable)?.to_str()?.parse::<u32>().ok();
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Self::default();
        }
        let count = number("LISTEN_FDS").unwrap_or(0) as usize;
        let names = lookup("LISTEN_FDNAMES").unwrap_or_default().to_string_lossy().into_owned();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        Self((FIRST..).zip(names).take(count.min(MOST)).collect())
    }

    /// Reads a specification as [`Endpoint::parse`] does. But if a socket was passed that listens there, it is that one;
    /// and `fd:` may be followed by the name of one.
    ///
    /// # Errors
    /// See [`BadSpec`].
    pub fn resolve(&self, spec: &[u8]) -> Result<Endpoint, BadSpec> {
        match Endpoint::parse(spec) {
            Ok(endpoint) => Ok(self.at(&endpoint).map_or(endpoint, Endpoint::Inherited)),
            Err(BadSpec::Descriptor(name)) if !name.is_empty() => {
                let named = self.0.iter().find(|(_, passed)| *passed == name);
                named.map(|(fd, _)| Endpoint::Inherited(*fd)).ok_or(BadSpec::Descriptor(name))
            }
            Err(error) => Err(error),
        }
    }

    fn at(&self, endpoint: &Endpoint) -> Option<RawFd> {
        let wanted = match endpoint {
            Endpoint::Unix(path) => {
                let path = std::path::absolute(Path::new(OsStr::from_bytes(path))).ok()?;
                Place::Unix(path.into_os_string().into_encoded_bytes())
            }
            Endpoint::Inet(address) => Place::Inet(*address),
            Endpoint::Inherited(_) => return None,
        };
        self.0.iter().map(|(fd, _)| *fd).find(|&fd| listens_at(fd).as_ref() == Some(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(pid: u32, count: &str, names: &str) -> Vec<(RawFd, String)> {
        let lookup = |name: &str| match name {
            "LISTEN_PID" => Some(pid.to_string().into()),
            "LISTEN_FDS" => Some(count.into()),
            "LISTEN_FDNAMES" => Some(names.into()),
            _ => None,
        };
        Passed::from(&lookup).0
    }

    #[test]
    fn sockets_are_passed_to_one_process_in_order() {
        let ours = std::process::id();
        assert_eq!(passed(ours, "2", "a:b"), [(3, "a".into()), (4, "b".into())]);
        assert_eq!(passed(ours, "2", ""), [(3, String::new()), (4, String::new())]);
        for (pid, count) in [(ours + 1, "2"), (ours, "0"), (ours, "x")] {
            assert_eq!(passed(pid, count, "a:b"), []);
        }
        assert_eq!(passed(ours, "4000000000", "a").len(), MOST);
    }

    #[test]
    fn a_name_stands_for_its_descriptor() {
        let passed = Passed(vec![(3, "a".into()), (4, "milter".into())]);
        assert_eq!(passed.resolve(b"fd:milter"), Ok(Endpoint::Inherited(4)));
        assert_eq!(passed.resolve(b"fd:7"), Ok(Endpoint::Inherited(7)));
        assert_eq!(passed.resolve(b"fd:other"), Err(BadSpec::Descriptor("other".into())));
        assert_eq!(Passed::default().resolve(b"fd:milter"), Err(BadSpec::Descriptor("milter".into())));
    }
}
