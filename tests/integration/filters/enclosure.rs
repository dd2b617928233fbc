//! A private network for the filters under test and the daemons they ask: no interface but loopback, a name
//! server for `tests/filters/zone`, and an `/etc/resolv.conf` of its own. Nothing in it can reach the machine's
//! network, and no port in it is a port of the machine. Refuses to run as anyone but root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Daemon, repository, run, stdout, temp_dir, wait_until};

/// The network; its processes must be ended before it.
pub struct Enclosure {
    server: Daemon,
    dir: tempfile::TempDir,
}

impl Enclosure {
    /// Starts the network, with a DKIM key for example.org that the name server publishes.
    pub fn start() -> Self {
        // SAFETY: geteuid(2) has no preconditions.
        let user = unsafe { libc::geteuid() };
        assert_eq!(user, 0, "the tests with real filters need root, for a private network");
        let dir = temp_dir();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let zone = dir.path().join("zone");
        let records = fs::read_to_string(data("zone")).unwrap();
        fs::write(&zone, records + &make_dkim_key(dir.path())).unwrap();
        let server = Daemon::start(
            Command::new("unshare")
                .args(["--mount", "--net", "--", "/usr/bin/python3"])
                .arg(data("nameserver.py"))
                .arg(&zone)
                .arg(dir.path()),
        );
        wait_until("the private network's name server", || dir.path().join("ready").exists());
        Self { server, dir }
    }

    /// A directory that every user can enter and that goes away with the network.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The private DKIM key whose public half is at test._domainkey.example.org.
    pub fn dkim_key(&self) -> PathBuf {
        self.dir().join("test.private")
    }

    /// A command that runs inside. The program keeps the process id of the command.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.server.pid())).args(["--mount", "--net", "--"]);
        command
    }

    /// Whether a process inside listens at the unix socket `path`.
    pub fn listens(&self, path: &Path) -> bool {
        listens(&self.server.pid().to_string(), path)
    }
}

/// Whether somebody listens at the unix socket `path`, in the network of the process `pid` ("self" for this one).
pub fn listens(pid: &str, path: &Path) -> bool {
    /// `__SO_ACCEPTCON` in the Flags column.
    const LISTENING: &str = "00010000";
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(3);
        fields.next() == Some(LISTENING) && fields.nth(3) == path.to_str()
    })
}

/// A file of `tests/filters/`.
pub fn data(name: &str) -> PathBuf {
    repository().join("tests/filters").join(name)
}

/// Makes a DKIM key pair for example.org in `dir`; its DNS record as a line of the zone file.
fn make_dkim_key(dir: &Path) -> String {
    run(Command::new("opendkim-genkey")
        .args(["-b", "2048", "-d", "example.org", "-s", "test", "-D"])
        .arg(dir));
    let record = fs::read_to_string(dir.join("test.txt")).unwrap();
    let strings: Vec<_> = record.split('"').skip(1).step_by(2).collect();
    format!("test._domainkey.example.org TXT \"{}\"\n", strings.join("\" \""))
}

/// Makes a directory `path` that belongs to `user`, who can be the only one to write there.
pub fn make_dir(path: &Path, user: &str) {
    let group = stdout(Command::new("id").args(["-gn", user]));
    run(Command::new("install").args(["-d", "-m", "755", "-o", user, "-g", group.trim()]).arg(path));
}
