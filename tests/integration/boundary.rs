//! Where C and Rust meet: what leaves a callback otherwise than by return, what a filter does with the memory that it is
//! handed, errno, contexts after their sessions.

use crate::support::{
    Daemon, Library, compile_c, compile_c_with, repository, run, stdout, temp_dir, wait_until,
};
use crate::wire::{ACTIONS, Mta, STEPS};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A filter one of whose callbacks does not return, and what it has printed before it ended by SIGABRT.
fn left(library: Library, program: &Path, how: &str, callback: &str) -> String {
    let place = temp_dir();
    let (socket, log) = (place.path().join("s"), place.path().join("log"));
    let output = File::create(&log).unwrap();
    let mut command = library.command(program);
    command.arg(&socket).args([how, callback]).stderr(output.try_clone().unwrap()).stdout(output);
    let mut filter = Daemon::start(&mut command);
    let mut mta = Mta::connect(&socket);
    mta.negotiate(ACTIONS, STEPS);
    match callback {
        // The process may be gone before anything else could be said.
        "helo" => mta.tell('H', b"client.example\0"),
        _ => {
            mta.ask('H', b"client.example\0");
            mta.tell('Q', b"")
        }
    };
    let status = filter.wait();
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{library:?} {how} {callback}: {status}\n{log}");
    log
}

#[test]
fn what_leaves_a_callback_ends_the_process() {
    let dir = temp_dir();
    let program = dir.path().join("unwinding");
    run(Command::new("g++")
        .args(["-std=gnu++17", "-O1", "-Wall", "-Wextra", "-Werror", "-rdynamic", "-pthread", "-I"])
        .arg(repository().join("include"))
        .arg(repository().join("c-tests/unwinding.cpp"))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(Library::Ours.dir())
        .arg("-lmilter"));
    for callback in ["helo", "close"] {
        let [reference, ours] = Library::BOTH.map(|library| left(library, &program, "throw", callback));
        let message = "terminate called after throwing an instance of 'std::runtime_error'\n  what():  nobody catches this\n";
        assert!(reference.ends_with(message), "{reference}");
        assert_eq!(reference, ours, "and the stack is still there: nothing on it was destroyed");
    }
    // The reference's thread ends, and its session hangs for ever.
    for callback in ["helo", "close"] {
        let log = left(Library::Ours, &program, "exit", callback);
        assert!(log.ends_with("left\nunwinding: pthread_exit left a callback, the process ends\n"), "{log}");
    }
}

/// The same without C++, whose compiler is not there for every processor that `tests/platforms/run` tests. What the unwinder
/// is told of a callback's frame is written for each processor.
#[test]
fn nothing_unwinds_out_of_a_callback() {
    let dir = temp_dir();
    let program = dir.path().join("raise");
    compile_c_with("c-tests/raise.c", &program, &["-fexceptions"]);
    let [reference, ours] = Library::BOTH.map(|library| {
        let place = temp_dir();
        let (socket, log) = (place.path().join("s"), place.path().join("log"));
        let output = File::create(&log).unwrap();
        let mut command = library.command(&program);
        command.arg(&socket).arg("raise").stderr(output.try_clone().unwrap()).stdout(output);
        let filter = Daemon::start(&mut command);
        let mut mta = Mta::connect(&socket);
        mta.negotiate(ACTIONS, STEPS).ask('H', b"client.example\0");
        let answer = mta.quit();
        filter.signal(libc::SIGKILL);
        (answer, fs::read_to_string(log).unwrap())
    });
    assert_eq!(reference.1, "nobody catches it\n");
    assert_eq!(reference, ours);
    let log = left(Library::Ours, &program, "exit", "helo");
    // An emulator has a line of its own to say.
    assert!(log.starts_with("raise: pthread_exit left a callback, the process ends\n"), "{log}");
}

#[test]
fn values_of_macros_may_be_cut_up_where_they_stand() {
    let dir = temp_dir();
    let program = dir.path().join("macros");
    compile_c("c-tests/macros.c", &program);
    let macros = b"H{words}\0one two three four\0{behind}\0yes\0j\0mx\0{empty}\0\0".as_slice();
    let printed = |library: Library, macros: &[u8]| {
        let place = temp_dir();
        let (socket, log) = (place.path().join("s"), place.path().join("log"));
        let filter =
            Daemon::start(library.command(&program).arg(&socket).stdout(File::create(&log).unwrap()));
        let mut mta = Mta::connect(&socket);
        mta.negotiate(ACTIONS, STEPS).tell('D', macros).ask('H', b"client.example\0");
        filter.signal(libc::SIGKILL);
        fs::read_to_string(log).unwrap()
    };
    let reference = printed(Library::Reference, macros);
    assert!(reference.contains("{words}=one\n{behind}=yes\n"), "{reference}");
    assert_eq!(reference, printed(Library::Ours, macros));
    // For ours alone: the reference reads on beyond its list, and on some processors crashes.
    assert_eq!(reference, printed(Library::Ours, &[macros, b"{unpaired}\0"].concat()));
}

#[test]
fn smfi_stop_leaves_errno_alone() {
    let dir = temp_dir();
    let program = dir.path().join("stopper");
    compile_c("c-tests/stopper.c", &program);
    let printed = stdout(Library::Ours.command(&program).arg(dir.path().join("s")));
    assert_eq!(printed, "stop 0, errno is as before\nmain 0\n");
}

/// For ours alone (`ended-context`). Under valgrind, which sees reads of freed memory that happen to go well.
#[test]
fn calls_with_a_session_that_has_ended_fail() {
    let dir = temp_dir();
    let path = |name: &str| dir.path().join(name);
    compile_c("c-tests/late.c", &path("late"));
    let mut command = Library::Ours.command("valgrind");
    command.args(["--quiet", "--error-exitcode=9"]).arg(path("late")).arg(path("s"));
    let mut filter = Daemon::start(command.stdout(File::create(path("output")).unwrap()));
    let lines = || fs::read_to_string(path("output")).unwrap().lines().count();
    for round in 0..2 {
        // The start of valgrind alone costs so much that a busy machine may need more than a test's patience for it.
        while lines() < round || UnixStream::connect(path("s")).is_err() {
            assert!(filter.ended().is_none(), "round {round}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut mta = Mta::connect(&path("s"));
        mta.negotiate(ACTIONS, STEPS).tell('C', b"client.example\0U").tell('Q', b"");
        wait_until("the calls", || lines() > round || filter.ended().is_some());
    }
    let status = filter.wait();
    assert!(status.success(), "{status}");
    let line = "-1 -1 -1 -1 -1 -1 -1 -1 -1 nothing nothing\n";
    assert_eq!(fs::read_to_string(path("output")).unwrap(), line.repeat(2));
}
