//! Behaviour at the edges that filters depend on (`docs/compatibility.md`): what they do around the library, with
//! processes, rights, signals, threads, stacks, shared objects. `c-tests/edges.c` is such a filter; `milter-send`
//! sends it a message. Edits of arguments in place are among the differential tests (`Scribble`), restarts,
//! signal masks and inherited descriptors among those of the engine.

use crate::support::{Daemon, Library, compile_c, milter_send, repository, run, temp_dir, wait_until};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The filter in a process of its own.
struct Filter {
    process: Daemon,
    dir: TempDir,
}

impl Filter {
    fn start(library: Library, mode: &str) -> Self {
        let dir = temp_dir();
        let program = dir.path().join("edges");
        compile_c("c-tests/edges.c", &program);
        let mut command = library.command(&program);
        command.arg(mode).arg(dir.path().join("socket"));
        let process = Daemon::start(command.stdout(File::create(dir.path().join("output")).unwrap()));
        Self { process, dir }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    /// Sends it a message; what the message becomes.
    fn deliver(&self) -> String {
        deliver(&self.dir.path().join("socket"))
    }

    /// Asks it to stop; everything that it has printed.
    fn stop(mut self) -> String {
        self.process.signal(libc::SIGTERM);
        let status = self.process.wait();
        assert!(status.success(), "{status}\n{}", self.output());
        self.output()
    }
}

/// Sends a message to the filter at `socket` as soon as it listens; what the message becomes.
fn deliver(socket: &Path) -> String {
    let dir = temp_dir();
    let message = dir.path().join("message");
    fs::write(&message, "Subject: edges\n\nbody\n").unwrap();
    let mut result = String::new();
    wait_until("the filter takes a message", || {
        let output = Command::new(milter_send()).arg(socket).arg(&message).output().unwrap();
        result = String::from_utf8(output.stdout).unwrap();
        output.status.success()
    });
    result
}

#[test]
fn a_filter_may_become_a_daemon_behind_opensocket() {
    for library in Library::BOTH {
        let filter = Filter::start(library, "fork");
        assert!(filter.deliver().contains("X-Edge: other"));
        let output = filter.stop();
        assert!(output.contains("daemon ended with 0\n"), "{library:?}: {output}");
    }
}

#[test]
fn a_filter_may_give_up_its_rights_behind_opensocket() {
    for library in Library::BOTH {
        let filter = Filter::start(library, "setuid");
        assert!(filter.deliver().contains("X-Edge: s"));
        let output = filter.stop();
        assert!(output.contains("close in a process of uid 65534\n"), "{library:?}: {output}");
        assert!(output.ends_with("main 0\n"), "{library:?}: {output}");
    }
}

#[test]
fn a_callback_may_need_a_megabyte_of_stack() {
    for library in Library::BOTH {
        let filter = Filter::start(library, "stack");
        assert!(filter.deliver().contains("X-Edge: s"));
        assert!(filter.stop().contains("stack 1\n"), "{library:?}");
    }
}

/// Ours only: the reference's threads may outlive smfi_main, and with them their values.
#[test]
fn values_of_threads_are_destroyed() {
    let filter = Filter::start(Library::Ours, "threads");
    for _ in 0..3 {
        filter.deliver();
    }
    assert!(filter.stop().contains("destroyed all of some 1\n"));
}

/// Ours only: with the reference the bytes of the frames mix (`whole-frames`).
#[test]
fn a_helper_thread_may_report_progress_during_eom() {
    let filter = Filter::start(Library::Ours, "helper");
    let message = filter.deliver();
    let values: Vec<&str> = message.lines().filter_map(|line| line.strip_prefix("X-Edge: ")).collect();
    assert_eq!(values, (0..200).map(|n: i32| n.to_string()).collect::<Vec<_>>());
    filter.stop();
}

/// As vrfydmn does it: smfi_main runs in a second thread, and SIGTERM belongs to the filter's main thread.
#[test]
fn signals_and_threads_of_the_filter_stay_its_own() {
    for library in Library::BOTH {
        let filter = Filter::start(library, "second");
        filter.deliver();
        filter.process.signal(libc::SIGUSR1);
        wait_until("the filter's thread takes its signal", || filter.output().contains("housekeeping 10\n"));
        let output = filter.stop();
        assert!(output.contains("own handler 15\n"), "{library:?}: {output}");
        assert!(output.ends_with("main 0\n"), "{library:?}: {output}");
    }
}

/// Ours only: the reference's threads may still run when smfi_main returns, in code that is unloaded then.
#[test]
fn an_object_that_is_linked_with_the_library_may_be_unloaded() {
    let dir = temp_dir();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let compiler = || {
        let mut command = Command::new("cc");
        command.args(["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"]);
        command.current_dir(repository());
        command
    };
    run(compiler()
        .args(["-fPIC", "-shared", "-Iinclude", "c-tests/plugin.c", "-lmilter", "-L"])
        .arg(Library::Ours.dir())
        .arg("-o")
        .arg(path("plugin.so")));
    run(compiler().args(["c-tests/loader.c", "-o"]).arg(path("loader")));
    let mut command = Library::Ours.command(path("loader"));
    command.arg(path("plugin.so")).arg(path("socket"));
    let mut loader = Daemon::start(command.stdout(File::create(path("output")).unwrap()));
    for round in 1..=3 {
        assert!(deliver(&path("socket")).contains("X-Plugin: loaded"));
        // Before that the next message could still reach this round's server, and one would be missing in the end.
        wait_until("the library is unloaded", || {
            fs::read_to_string(path("output")).unwrap().matches("unloaded").count() >= round
        });
    }
    assert!(loader.wait().success());
    assert_eq!(fs::read_to_string(path("output")).unwrap(), "served 0\nunloaded 0\n".repeat(3));
}
