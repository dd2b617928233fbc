//! A mail server of the test's own: Postfix or Sendmail, on loopback ports, with its configuration and queue in a private
//! directory. It hands every message to one filter and delivers what the filter lets pass to the test's sink. An
//! installed mail server is neither used nor disturbed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use milter::mta::DefaultAction;
use tempfile::TempDir;

use super::filter::Endpoint;
use super::smtp_sink::Sink;
use super::{postfix, sendmail};
use crate::support::{Daemon, temp_dir};

/// The name by which each of the servers goes.
pub const HOST: &str = "mx.example.org";

/// The recipient that Postfix itself refuses.
pub const REFUSED: &str = "refused@example.net";

/// A client's address, and its name: Sendmail finds it (see `private_host.c`), Postfix must be told.
pub const NAMED_CLIENT: (&str, &str) = ("127.0.0.70", "mail.blocked.example");

/// Which mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postfix,
    Sendmail,
}

/// What the two need to know.
pub struct Settings<'a> {
    /// Their private directory.
    pub dir: &'a Path,
    /// Where they listen, on 127.0.0.1.
    pub port: u16,
    /// Their filter.
    pub milter: &'a Endpoint,
    /// Where they deliver everything, on 127.0.0.1.
    pub sink: u16,
    /// How they treat the filter.
    pub conduct: &'a Conduct,
}

/// How a mail server treats its filter.
pub struct Conduct {
    /// How long it waits for an answer or a sign of life, in seconds.
    pub milter_timeout: u32,
    /// What it does when the filter fails.
    pub default_action: DefaultAction,
    /// Whether the filter also gets mail that does not come by SMTP.
    pub local_mail: bool,
}

impl Default for Conduct {
    fn default() -> Self {
        Self { milter_timeout: 30, default_action: DefaultAction::TempFail, local_mail: false }
    }
}

/// The running server.
pub struct MailServer {
    kind: Kind,
    port: u16,
    daemon: Daemon,
    dir: TempDir,
}

impl MailServer {
    /// Starts one.
    #[track_caller]
    pub fn start(kind: Kind, milter: &Endpoint, sink: &Sink) -> Self {
        Self::start_with(kind, milter, sink, &Conduct::default())
    }

    /// Starts one that treats its filter so.
    #[track_caller]
    pub fn start_with(kind: Kind, milter: &Endpoint, sink: &Sink, conduct: &Conduct) -> Self {
        let dir = temp_dir();
        // Postfix gives up root's rights.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        let port = crate::support::free_port("127.0.0.1");
        let settings = Settings { dir: dir.path(), port, milter, sink: sink.port(), conduct };
        let daemon = match kind {
            Kind::Postfix => postfix::start(&settings),
            Kind::Sendmail => sendmail::start(&settings),
        };
        let server = Self { kind, port, daemon, dir };
        Endpoint::Inet(port).await_listener();
        server
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its private directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Hands in a message as a program on this host does; Postfix alone.
    pub fn submit(&self, sender: &str, recipients: &[&str], message: &[u8]) {
        assert_eq!(self.kind, Kind::Postfix);
        postfix::submit(self.dir(), sender, recipients, message);
    }

    /// The messages that it holds in quarantine: their envelopes, and their text with the reason.
    pub fn held(&self) -> Vec<String> {
        match self.kind {
            Kind::Postfix => postfix::held(self.dir()),
            Kind::Sendmail => sendmail::held(self.dir()),
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read(self.dir().join("log")).unwrap_or_default();
            eprintln!("log of {:?}:\n{}", self.kind, String::from_utf8_lossy(&log));
        }
        // Each of them leads the group of its own processes, which shall not outlive it.
        // SAFETY: kill(2) takes numbers only; the leader has not been waited for, so the group is still its own.
        unsafe { libc::kill(-(self.daemon.pid() as libc::pid_t), libc::SIGTERM) };
    }
}
