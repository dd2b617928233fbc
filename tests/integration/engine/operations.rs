//! What an administrator sets by environment variables (docs/man/libmilter.7).

use super::{Filter, Mta, SERVE, program};
use crate::support::{Library, ServiceManager, compile_c_with, temp_dir};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A filter on our library with environment variables.
fn start(variables: &[(&str, &str)], steps: &[&str]) -> Filter {
    let mut command = Library::Ours.command(program());
    command.envs(variables.iter().copied());
    Filter::start_with(command, steps)
}

/// A value that is none is named once, with what is allowed, and the filter serves as if it were not set.
#[test]
fn bad_values_are_logged_and_not_used() {
    let bad = [("LIBMILTER_DRAIN", "5s"), ("LIBMILTER_THREADS", "many"), ("LIBMILTER_SIGHUP", "")];
    let mut filter = start(&bad, &SERVE);
    Mta::greet(&filter).quit();
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert_eq!(
        filter.log(),
        [
            "3 steered: LIBMILTER_DRAIN: \"5s\" is not a number of seconds from 0 to 86400, the default holds",
            "3 steered: LIBMILTER_THREADS: \"many\" is not park or session, the default holds",
        ]
    );
}

/// A program with more rights than its caller takes no orders from it: secure_getenv(3).
#[test]
fn a_program_with_more_rights_than_its_caller_has_no_variables() {
    let dir = Library::Ours.dir();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("steerable-filter-setgid");
    // The loader ignores LD_LIBRARY_PATH there.
    let path = format!("-Wl,-rpath,{}", dir.display());
    compile_c_with("c-tests/steerable-filter.c", &program, &["-rdynamic", &path]);
    let run = |mode| {
        chown(&program, Some(0), Some(65_534)).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
        let mut command = std::process::Command::new(&program);
        command.env("LIBMILTER_DRAIN", "bad");
        let mut filter = Filter::start_with(command, &["register", SERVE[1], "stop", "main"]);
        filter.end();
        filter.log().len()
    };
    assert_eq!((run(0o755), run(0o2755)), (1, 0));
}

#[test]
fn messages_have_the_time_that_is_set() {
    let long = start(&[("LIBMILTER_DRAIN", "3600")], &SERVE);
    let none = start(&[("LIBMILTER_DRAIN", "0")], &SERVE);
    let mut filters = [long, none].map(|filter| {
        let mut mta = Mta::order(&filter, "message");
        mta.begin_message();
        (filter, mta)
    });
    for (filter, _) in &filters {
        filter.daemon.signal(libc::SIGTERM);
    }
    let start = Instant::now();
    let (filter, mta) = &mut filters[1];
    assert!(mta.has_ended());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(filter.end().ends_with(&["abort 1".into(), "close 1".into(), "main 0".into()]));
    // By default it would have been cut off.
    std::thread::sleep(Duration::from_millis(6_500).saturating_sub(start.elapsed()));
    let (filter, mta) = &mut filters[0];
    assert_eq!(mta.end_message(b"text\r\n"), 'c');
    assert!(mta.has_ended());
    assert!(filter.end().ends_with(&["close 1".into(), "main 0".into()]));
    assert_eq!(filter.count("abort"), 0);
}

/// The words for the two ways to serve.
#[test]
fn threads_may_be_shared_by_name() {
    let filter = start(&[("LIBMILTER_THREADS", "park")], &SERVE);
    let _idle: Vec<Mta> = (0..20).map(|_| Mta::order(&filter, "idle")).collect();
    filter.wait_until("all are parked", || filter.threads() <= 6);
    assert_eq!(filter.log(), [""; 0]);
}

/// With "ignore", SIGHUP is the filter's: its handler runs, or its thread that waits for it gets it. What would end the
/// process is ignored.
#[test]
fn a_hangup_may_be_the_filters() {
    for own in ["tell=1", "await=1", "mask"] {
        let mut filter = start(&[("LIBMILTER_SIGHUP", "ignore")], &["register", own, SERVE[1], "main"]);
        let mut mta = Mta::order(&filter, "message");
        mta.begin_message();
        for count in 1..=5 {
            filter.daemon.signal(libc::SIGHUP);
            filter.wait_until("the filter gets it", || own == "mask" || filter.count("signal 1") == count);
        }
        Mta::order(&filter, "still served").quit();
        filter.daemon.signal(libc::SIGTERM);
        super::stop::wait_until_refused(&filter);
        assert_eq!(mta.end_message(b"text\r\n"), 'c', "{own}");
        assert!(mta.has_ended());
        assert_eq!(filter.end().last().unwrap(), "main 0", "{own}");
        assert_eq!(filter.log(), [""; 0]);
    }
}

/// Without it a handler of the filter's in the same thread hears nothing, and the filter stops.
#[test]
fn by_default_a_hangup_stops_any_filter() {
    super::on_both(|library| {
        let mut filter = Filter::start(library, &["register", "tell=1", SERVE[1], "main"]);
        Mta::greet(&filter).quit();
        filter.daemon.signal(libc::SIGHUP);
        assert_eq!(filter.end().last().unwrap(), "main 0", "{library:?}");
        assert_eq!(filter.count("signal"), 0, "{library:?}");
    });
}

/// What the library has changed is put back, unless a signal has stopped it: whoever stops a filter may send more of them.
#[test]
fn afterwards_a_hangup_does_what_it_did() {
    let ignore = [("LIBMILTER_SIGHUP", "ignore")];
    let mut filter = start(&ignore, &["register", SERVE[1], "main", "mask", "raise=1"]);
    assert_eq!(Mta::greet(&filter).helo("stop"), 'c');
    assert_eq!(filter.daemon.wait().signal(), Some(libc::SIGHUP));
    assert_eq!(filter.count("blocked 000"), 1);

    let mut filter = start(&ignore, &["register", SERVE[1], "main", "mask", "raise=1"]);
    Mta::greet(&filter).quit();
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(filter.end().last().unwrap(), "blocked 011");
}

/// Whatever the umask, and whether smfi_opensocket or smfi_main opens the socket.
#[test]
fn a_unix_socket_has_the_mode_and_the_owner_that_are_set() {
    for umask in ["umask=0", "umask=63"] {
        for steps in [&["open=0"][..], &["main"]] {
            let variables = [
                ("LIBMILTER_SOCKET_MODE", "0606"),
                ("LIBMILTER_SOCKET_OWNER", "daemon"),
                ("LIBMILTER_SOCKET_GROUP", "65534"),
            ];
            let filter =
                start(&variables, &[&["register", SERVE[1], umask], steps, &["wait={dir}/go"]].concat());
            drop(Mta::connect(&filter));
            let found = std::fs::metadata(filter.file("s")).unwrap();
            assert_eq!(
                (found.mode() & 0o7777, found.uid(), found.gid()),
                (0o606, 1, 65_534),
                "{umask}, {steps:?}"
            );
            assert_eq!(filter.log(), [""; 0]);
        }
    }
}

/// A filter does not serve a socket that the wrong people can use, and leaves nothing behind.
#[test]
fn a_socket_that_cannot_be_given_away_is_not_opened() {
    let variables = [("LIBMILTER_SOCKET_GROUP", "daemon")];
    let steps = ["register", "wait={dir}/go", SERVE[1], "become=65534", "open=0"];
    let mut filter = start(&variables, &steps);
    std::fs::set_permissions(filter.dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(filter.file("go"), "").unwrap();
    assert_eq!(filter.end().last().unwrap(), "open -1");
    assert!(
        filter.log()[0].contains("cannot set the owner and the group of the socket: Operation not permitted")
    );
    assert!(!filter.file("s").exists());
}

/// The mode, the owner and the group are set between bind(2) and listen(2).
#[test]
fn nobody_can_connect_before_the_mode_is_set() {
    let mut command = std::process::Command::new("strace");
    command
        .args(["-f", "-o", "/dev/stderr", "-e", "trace=bind,listen,fchownat,chmod,fchmodat"])
        .arg(program());
    command.env("LD_LIBRARY_PATH", Library::Ours.dir());
    command.env("LIBMILTER_SOCKET_MODE", "0660").env("LIBMILTER_SOCKET_GROUP", "65534");
    let dir = crate::support::temp_dir();
    let trace = std::fs::File::create(dir.path().join("trace")).unwrap();
    command.stderr(trace);
    let mut filter = Filter::start_with(command, &["register", SERVE[1], "open=0"]);
    filter.end();
    let trace = std::fs::read_to_string(dir.path().join("trace")).unwrap();
    let calls: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(call, _)| call))
        .collect();
    assert!(matches!(calls[..], ["bind", "chmod" | "fchmodat", "fchownat", "listen"]), "{trace}");
}

/// A second start takes over what nobody serves, and fails at what somebody serves. By default it takes both, as with the
/// reference.
#[test]
fn a_socket_that_is_served_is_not_stolen_if_that_is_set() {
    let second = |filter: &Filter, variables: &[(&str, &str)]| {
        let conn = format!("conn=unix:{}", filter.file("s").display());
        let mut second = start(variables, &["register", &conn, "open=1"]);
        (second.end().last().unwrap().clone(), second.log())
    };
    let keep = [("LIBMILTER_SOCKET_STEAL", "no")];
    let mut filter = start(&keep, &["register", SERVE[1], "main"]);
    Mta::greet(&filter).quit();
    let (result, log) = second(&filter, &keep);
    assert_eq!(result, "open -1");
    assert!(log[0].ends_with("cannot remove the old socket: another process listens on it"), "{log:?}");
    Mta::greet(&filter).quit();
    assert_eq!(filter.log(), [""; 0], "the look leaves no line");

    filter.daemon.signal(libc::SIGKILL);
    filter.daemon.wait();
    assert!(filter.file("s").exists());
    assert_eq!(second(&filter, &keep), ("open 0".into(), vec![]));

    for library in Library::BOTH {
        let filter = Filter::serve(library);
        Mta::greet(&filter).quit();
        let conn = format!("conn=unix:{}", filter.file("s").display());
        let mut second = Filter::start(library, &["register", &conn, "open=1"]);
        assert_eq!(second.end().last().unwrap(), "open 0", "{library:?}");
    }
}

/// In callbacks, whatever the process's limits say; by default it is these that count.
#[test]
fn callbacks_have_the_stack_that_is_set() {
    for (set, limit, found) in
        [("", "8192", 8 << 20), ("256K", "8192", 256 << 10), ("3000000", "1024", 3_000_000)]
    {
        let mut command = Library::Ours.command("sh");
        let script = format!("ulimit -s {limit}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(program()).env("LIBMILTER_STACK", set);
        let filter = Filter::start_with(command, &SERVE);
        Mta::order(&filter, "stack").quit();
        let line = filter.output().iter().find_map(|line| line.strip_prefix("stack ").map(str::to_owned));
        let size: usize = line.unwrap().parse().unwrap();
        // Whole pages.
        assert!(size.abs_diff(found) <= 4096, "{set}: {size}");
        assert_eq!(filter.log(), [""; 0]);
    }
}

/// From the first moment to the last, and how many sessions there are.
#[test]
fn the_service_manager_hears_how_it_goes() {
    let mut manager = ServiceManager::new();
    let mut filter =
        start(&[("NOTIFY_SOCKET", &manager.path())], &["register", SERVE[1], "wait={dir}/go", "main"]);
    filter.wait_for("waiting");
    std::fs::write(filter.file("go"), "").unwrap();
    manager.wait_for("READY=1");
    // It can be connected to, without any waiting.
    let mut mta = Mta::try_connect(&filter).unwrap();
    mta.negotiate();
    manager.wait_for("STATUS=serving, 1 session");
    assert_eq!(mta.helo("message"), 'c');
    mta.begin_message();
    filter.daemon.signal(libc::SIGTERM);
    manager.wait_for("STATUS=stopping, 1 session");
    assert_eq!(mta.end_message(b"text\r\n"), 'c');
    assert_eq!(filter.end().last().unwrap(), "main 0");
    // The first look may have come before the connection.
    let said: Vec<&str> = manager
        .heard
        .iter()
        .map(|line| &**line)
        .filter(|&line| line != "STATUS=serving, 0 sessions")
        .collect();
    assert_eq!(said, ["READY=1", "STATUS=serving, 1 session", "STOPPING=1", "STATUS=stopping, 1 session"]);
    assert!(!manager.heard.iter().any(|line| line == "WATCHDOG=1"), "nobody asked for it");
}

/// Also while a callback hangs, and while it stops.
#[test]
fn the_watchdog_is_fed() {
    let mut manager = ServiceManager::new();
    // The watchdog is for the process with this number.
    let mut command = Library::Ours.command("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""]).arg(program());
    command.env("NOTIFY_SOCKET", manager.path()).env("WATCHDOG_USEC", "600000");
    let filter = Filter::start_with(command, &SERVE);
    let mut stuck = Mta::greet(&filter);
    assert_eq!(stuck.connect_from("client"), 'c');
    stuck.command(milter::protocol::Kind::Helo, b"hang\0");
    for _ in 0..5 {
        manager.wait_for("WATCHDOG=1");
        manager.heard.clear();
    }
    filter.daemon.signal(libc::SIGTERM);
    manager.wait_for("STOPPING=1");
    manager.heard.clear();
    manager.wait_for("WATCHDOG=1");
}

/// A manager that is away, or that does not read, does not hold the filter up. One that wants to hear nothing of the library,
/// because the filter tells it itself, hears nothing.
#[test]
fn the_filter_does_not_wait_for_the_service_manager() {
    let mut filter = start(&[("NOTIFY_SOCKET", "/nonexistent")], &SERVE);
    Mta::greet(&filter).quit();
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(filter.end().last().unwrap(), "main 0");
    let line =
        "3 steered: cannot tell the service manager how it goes: No such file or directory (os error 2)";
    assert_eq!(filter.log(), [line]);

    let mut manager = ServiceManager::new();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to(b"X=1\n", manager.path()).is_ok() {}
    let mut filter = start(&[("NOTIFY_SOCKET", &manager.path())], &SERVE);
    Mta::greet(&filter).quit();
    manager.wait_for("READY=1");
    while sender.send_to(b"X=1\n", manager.path()).is_ok() {}
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert_eq!(filter.log(), [""; 0]);

    let manager = ServiceManager::new();
    let variables = [("NOTIFY_SOCKET", &*manager.path()), ("LIBMILTER_NOTIFY", "no")];
    let mut filter = start(&variables, &SERVE);
    Mta::greet(&filter).quit();
    filter.daemon.signal(libc::SIGTERM);
    filter.end();
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0]).is_err());
}

/// The socket is systemd's, and the filter starts with the first connection.
#[test]
fn systemd_may_open_the_socket() {
    let dir = temp_dir();
    let path = dir.path().join("activated");
    let mut command = std::process::Command::new("systemd-socket-activate");
    command.arg(format!("--setenv=LD_LIBRARY_PATH={}", Library::Ours.dir().display()));
    command.arg("-l").arg(&path).arg(program());
    let mut filter = Filter::start_with(command, &["register", "conn=fd:3", "main"]);
    std::os::unix::fs::symlink(&path, filter.file("s")).unwrap();
    let mut mta = Mta::greet(&filter);
    assert_eq!(mta.helo("message"), 'c');
    mta.begin_message();
    filter.daemon.signal(libc::SIGTERM);
    assert_eq!(mta.end_message(b"text\r\n"), 'c');
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert_eq!(filter.log(), [""; 0]);
    assert!(path.exists(), "not the filter's file");
}
