//! What the service manager, systemd, is told: that the server is ready, how many sessions it has, that it is alive, that it
//! stops. The thread of smfi_main tells it, which would hear of a dead listener. It never waits for the manager.

use crate::count::Count;
use crate::log::{self, LineKind};
use crate::sys::datagram;
use sd_notify::NotifyState;
use std::ffi::CStr;
use std::fmt::Write;
use std::io;
use std::time::{Duration, Instant};

/// How often it looks whether the number of sessions has changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long to wait for a manager that has not read what came before.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The shortest time between two signs of life, however impatient the manager is.
const SHORTEST_PING: Duration = Duration::from_millis(10);

/// At most one complaint in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(600);

/// How to reach the service manager: sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The path of its socket, or `@` and an abstract name.
    pub socket: Vec<u8>,
    /// It takes the server for dead if it hears nothing for so long.
    pub watchdog: Option<Duration>,
}

/// The service manager, if there is one who wants to know.
pub struct Manager<'a>(Option<Told<'a>>);

struct Told<'a> {
    name: &'a CStr,
    address: &'a Address,
    /// What it has not got yet.
    news: String,
    is_stopping: bool,
    /// The number of sessions that it was told last.
    sessions: Option<usize>,
    next_look: Instant,
    next_ping: Option<Instant>,
}

impl<'a> Manager<'a> {
    /// A manager that knows nothing yet; complaints are in the name of the filter.
    pub fn new(name: &'a CStr, address: Option<&'a Address>) -> Self {
        let now = Instant::now();
        Self(address.map(|address| Told {
            name,
            address,
            news: String::new(),
            is_stopping: false,
            sessions: None,
            next_look: now,
            next_ping: address.watchdog.map(|_| now),
        }))
    }

    /// The server accepts connections; to be told with the next [`Self::tell`].
    pub fn is_ready(&mut self) {
        self.add(&NotifyState::Ready);
    }

    /// The server has begun to stop.
    pub fn is_stopping(&mut self) {
        self.add(&NotifyState::Stopping);
        if let Some(told) = &mut self.0 {
            told.is_stopping = true;
            (told.sessions, told.next_look) = (None, Instant::now());
        }
    }

    /// Tells what there is to tell; when to call it again.
    pub fn tell(&mut self, sessions: impl FnOnce() -> usize) -> Option<Instant> {
        self.0.as_mut().map(|told| told.tell(sessions))
    }

    fn add(&mut self, news: &NotifyState<'_>) {
        if let Some(told) = &mut self.0 {
            told.add(news);
        }
    }
}

impl Told<'_> {
    fn add(&mut self, news: &NotifyState<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.news, "{news}");
    }

    fn tell(&mut self, sessions: impl FnOnce() -> usize) -> Instant {
        let now = Instant::now();
        // What has not been sent must not pile up.
        if self.news.is_empty() {
            self.look(now, sessions);
        }
        let next = self.next_ping.map_or(self.next_look, |ping| ping.min(self.next_look));
        if self.news.is_empty() {
            return next;
        }
        match datagram::send(&self.address.socket, self.news.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return now + RETRY_DELAY,
            Err(error) => log::error_at_most(
                COMPLAIN_EVERY,
                LineKind("manager", 0),
                self.name,
                format_args!("cannot tell the service manager how it goes: {error}"),
            ),
            Ok(()) => {}
        }
        self.news.clear();
        next
    }

    /// Looks whether there is something to tell.
    fn look(&mut self, now: Instant, sessions: impl FnOnce() -> usize) {
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            let sessions = sessions();
            if self.sessions.replace(sessions) != Some(sessions) {
                let what = if self.is_stopping { "stopping" } else { "serving" };
                let status = format!("{what}, {}", Count(sessions, "session"));
                self.add(&NotifyState::Status(&status));
            }
        }
        if let (Some(ping), Some(watchdog)) = (self.next_ping, self.address.watchdog)
            && now >= ping
        {
            // More often than sd_watchdog_enabled(3) advises, so that there is time for a retry.
            self.next_ping = Some(now + (watchdog / 3).max(SHORTEST_PING));
            self.add(&NotifyState::Watchdog);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_a_manager_does_not_read_does_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = UnixDatagram::bind(&path).unwrap();
        let bytes = path.to_str().unwrap().as_bytes();
        let waiting = (0..).find(|_| datagram::send(bytes, b"before").is_err()).unwrap();
        let address = Address { socket: bytes.to_owned(), watchdog: Some(Duration::from_micros(1)) };
        let mut manager = Manager::new(c"name", Some(&address));
        manager.is_ready();
        for sessions in 0..1000 {
            assert!(manager.tell(|| sessions).unwrap() > Instant::now(), "no reason to hurry");
        }
        let buffer = &mut [0; 100];
        for _ in 0..waiting {
            assert_eq!(socket.recv(buffer).unwrap(), 6);
        }
        manager.tell(|| 3);
        let length = socket.recv(buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
        manager.tell(|| 3);
        let length = socket.recv(buffer).unwrap();
        assert_eq!(&buffer[..length], b"STATUS=serving, 3 sessions\nWATCHDOG=1\n");
        assert_eq!(log::take_lines(), [""; 0]);
    }
}
