//! The process of a filter under test: started in the foreground or as a daemon that forks away, known by its
//! pid, checked for the library it runs on, and ended with the test.

use std::fs;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Footing, Run};
use crate::support::{Daemon, Library, wait_until};

/// A running filter that listens at a unix socket.
pub struct Filter {
    process: Process,
    socket: PathBuf,
    log: PathBuf,
}

enum Process {
    Foreground(Daemon),
    /// A process that left its parent, by pid.
    Background(u32),
}

impl Run<'_> {
    /// Starts a filter that stays in the foreground, and waits until it listens at `socket`.
    pub fn start(&self, command: &mut Command, socket: &Path) -> Filter {
        let log = self.redirect(command, socket);
        let process = Process::Foreground(Daemon::start(command));
        self.ready(Filter { process, socket: socket.to_owned(), log })
    }

    /// Starts a filter that goes into the background and writes its pid to `pid_file`.
    pub fn start_daemon(&self, command: &mut Command, socket: &Path, pid_file: &Path) -> Filter {
        let log = self.redirect(command, socket);
        let status = command.stdin(Stdio::null()).status().unwrap();
        // clamav-milter's child tells its parent by SIGINT that it is ready, now and then before the parent, which
        // would end with 0, listens to it.
        let ready = status.success() || status.signal() == Some(libc::SIGINT);
        assert!(ready, "{command:?}: {status}\n{}", fs::read_to_string(&log).unwrap());
        let mut pid = None;
        wait_until("the daemon's pid file", || {
            pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        self.ready(Filter { process: Process::Background(pid.unwrap()), socket: socket.to_owned(), log })
    }

    /// Starts a daemon that the filter needs, and waits until it listens at `socket`.
    pub fn start_helper(&self, command: &mut Command, socket: &Path) -> Daemon {
        self.redirect(command, socket);
        let daemon = Daemon::start(command);
        wait_until(&format!("the daemon at {}", socket.display()), || self.enclosure.listens(socket));
        daemon
    }

    /// Sends what the command prints to a file, which is shown when the test fails.
    fn redirect(&self, command: &mut Command, socket: &Path) -> PathBuf {
        let log = socket.with_extension("log");
        let file = File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        log
    }

    /// The filter, once it listens and runs on the library it should.
    fn ready(&self, filter: Filter) -> Filter {
        wait_until(&format!("the filter at {}", filter.socket.display()), || {
            self.enclosure.listens(&filter.socket)
        });
        let maps = fs::read_to_string(format!("/proc/{}/maps", filter.pid())).unwrap();
        let mapped = |library: &Path| {
            let file = fs::canonicalize(library).unwrap();
            maps.lines().any(|line| line.ends_with(file.to_str().unwrap()))
        };
        assert!(mapped(&self.library_file()), "it does not run on {}", self.library_file().display());
        if self.footing != Footing::Installed {
            assert!(!mapped(&Library::Reference.file()), "it has loaded the reference too");
        }
        filter
    }
}

impl Filter {
    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Asks it to end by SIGTERM and waits for that; says what became of its socket.
    pub fn stop(mut self) -> &'static str {
        match &mut self.process {
            Process::Foreground(daemon) => {
                daemon.signal(libc::SIGTERM);
                daemon.wait();
            }
            Process::Background(pid) => {
                signal(*pid, libc::SIGTERM);
                wait_until("the daemon's end", || !runs(*pid));
            }
        }
        if self.socket.exists() { "ended, its socket is still there" } else { "ended, its socket is gone" }
    }

    /// Waits until it has ended by itself; all that it has printed.
    pub fn end(mut self, run: &Run) -> String {
        match &mut self.process {
            Process::Foreground(daemon) => {
                let status = daemon.wait();
                // The reference's smfi_main returns while the callback that called smfi_stop still runs, and now and
                // then (2 of 120 times) that crashes an interpreter which ends meanwhile.
                let has_crashed = run.footing == Footing::Installed && status.signal() == Some(libc::SIGSEGV);
                assert!(status.success() || has_crashed, "{status}");
            }
            Process::Background(pid) => wait_until("the daemon's end", || !runs(*pid)),
        }
        self.log()
    }

    fn pid(&self) -> u32 {
        match &self.process {
            Process::Foreground(daemon) => daemon.pid(),
            Process::Background(pid) => *pid,
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Process::Background(pid) = self.process
            && runs(pid)
        {
            signal(pid, libc::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill(2) takes numbers only. The pid is the one that the daemon wrote down for this purpose.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Whether the process exists and is no zombie that some init has yet to collect.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}
