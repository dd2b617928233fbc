//! The poller of parked sessions: an epoll set, and an eventfd to wake whoever waits for it.

use super::parking::{Poller, Reports};
use crate::sys::epoll::{Epoll, Trigger};
use crate::sys::event::EventFd;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// The token of the eventfd; no session has it.
const WAKE: u64 = u64::MAX;

/// Reports when connections become readable.
#[derive(Debug)]
pub struct EpollPoller {
    epoll: Epoll,
    wake: EventFd,
}

impl EpollPoller {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let (epoll, wake) = (Epoll::new()?, EventFd::new()?);
        epoll.add(wake.as_fd(), WAKE, Trigger::Level)?;
        Ok(Self { epoll, wake })
    }
}

impl<T: AsFd> Poller<T> for EpollPoller {
    fn arm(&self, session: &T, token: u64, trigger: Trigger, is_new: bool) -> io::Result<()> {
        let fd = session.as_fd();
        if is_new { self.epoll.add(fd, token, trigger) } else { self.epoll.arm(fd, token, trigger) }
    }

    fn remove(&self, session: &T) {
        self.epoll.remove(session.as_fd());
    }

    fn wait(&self, time: Duration, reports: &mut Reports) -> io::Result<()> {
        let mut is_woken = false;
        self.epoll.wait(time, |report| match report.token {
            WAKE => is_woken = true,
            _ => reports.push(report),
        })?;
        if is_woken {
            self.wake.clear();
        }
        Ok(())
    }

    fn wake(&self) {
        self.wake.raise();
    }
}
