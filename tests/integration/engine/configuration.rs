//! Configuration that is missing or wrong (contract 2.5, contract 3 entry 13): smfi_opensocket and smfi_main fail, and
//! each says why in one line of the log. And the descriptors that `fd:` takes over.

use super::{Filter, Mta, SERVE, on_both};
use crate::support::{Library, PATIENCE, temp_dir};
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

/// Runs these steps, the last of which must fail with just one line in the log; what that says.
#[track_caller]
fn complaint(steps: &[&str]) -> String {
    let mut filter = Filter::start(Library::Ours, steps);
    let output = filter.end();
    let (last, name) = (output.last().unwrap(), steps.last().unwrap().split('=').next().unwrap());
    assert_eq!(*last, format!("{name} -1"), "{output:#?}");
    let log = filter.log();
    assert_eq!(log.len(), 1, "{output:#?}");
    log[0].clone()
}

/// The same for a connection that neither smfi_opensocket nor smfi_main can open.
#[track_caller]
fn check_connection(spec: &str, before: &[&str], reason: &str) {
    let conn = format!("conn={spec}");
    for (step, function) in [("open=0", "smfi_opensocket"), ("main", "smfi_main")] {
        let steps = [before, &["register", &conn, step]].concat();
        let complaint = complaint(&steps);
        let start = format!("3 steered: {function}: connection \"");
        assert!(complaint.starts_with(&start) && complaint.contains(reason), "{spec}: {complaint}");
    }
}

/// The reference refuses it too, and says something. (Asked twice it takes some: its parsing changes the text.)
#[track_caller]
fn check_reference(spec: &str) {
    let conn = format!("conn={spec}");
    for (step, result) in [("open=0", "open -1"), ("main", "main -1")] {
        let mut filter = Filter::start(Library::Reference, &["register", &conn, step]);
        let output = filter.end();
        assert_eq!(output.last().unwrap(), result, "{output:#?}");
        assert!(filter.log()[0].starts_with("3 steered: "), "{output:#?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (steps, reason) in [
        (&["main"][..], "3 libmilter: smfi_main: no filter is registered"),
        (&["conn=inet:0", "open=0"], "3 libmilter: smfi_opensocket: no filter is registered"),
        (&["register", "main"], "3 steered: smfi_main: no connection is set"),
        (&["register", "open=1"], "3 steered: smfi_opensocket: no connection is set"),
        (&["register-version=1"], "3 libmilter: smfi_register: the filter was built for version 0x1 "),
        (&["register-version=5"], "3 libmilter: smfi_register: the filter was built for version 0x5 "),
        (
            &["register-version=33554433"],
            "3 libmilter: smfi_register: the filter was built for version 0x2000001 ",
        ),
    ] {
        // A failing smfi_register is named after the step.
        let steps: Vec<&str> = steps.to_vec();
        if steps[0].starts_with("register-version") {
            let mut filter = Filter::start(Library::Ours, &steps);
            assert_eq!(filter.end().last().unwrap(), "register -1");
            assert_eq!(filter.log().len(), 1);
            assert!(filter.log()[0].starts_with(reason), "{:?}", filter.log());
        } else {
            assert_eq!(complaint(&steps), reason);
        }
    }
    let mut filter = Filter::start(Library::Ours, &["conn=", "backlog=0", "backlog=-1", "backlog=1"]);
    assert_eq!(filter.end(), ["conn -1", "backlog -1", "backlog -1", "backlog 0"]);
}

#[test]
fn after_a_failed_register_nothing_is_registered() {
    let mut filter = Filter::start(Library::Ours, &["register", "register-version=1", SERVE[1], "main"]);
    assert_eq!(filter.end().last().unwrap(), "main -1");
    assert!(filter.log()[1].contains("smfi_main: no filter is registered"), "{:?}", filter.log());
}

#[test]
fn specifications_that_are_none() {
    let long = format!("unix:/{}", "x".repeat(107));
    for (spec, reason) in [
        ("tcp:2525", "unknown socket type \"tcp\""),
        ("inet:no-such-service", "\"no-such-service\" is neither a port number nor a known service"),
        ("inet6:1@[127.0.0.1]", "no address of this family for host \"[127.0.0.1]\""),
        ("inet:1@[::1]", "no address of this family for host \"[::1]\""),
        ("inet:1@[localhost]", "no address of this family for host \"[localhost]\""),
        ("inet:1@[255.255.255.255]", "no address of this family for host \"[255.255.255.255]\""),
        (&long, "the path of the socket has 108 bytes, 107 are possible"),
        (
            "inet:localhost:8891",
            "\"localhost:8891\" is neither a port number nor a known service; the port comes first: 8891@localhost",
        ),
        ("inet:", "\"\" is neither a port number nor a known service"),
        ("fd:x", "\"x\" is not the number of a descriptor"),
        ("fd:-1", "\"-1\" is not the number of a descriptor"),
        ("fd:2x", "\"2x\" is not the number of a descriptor"),
        ("fd:2 ", "\"2 \" is not the number of a descriptor"),
        ("fd:0x2", "\"0x2\" is not the number of a descriptor"),
        ("fd:999", "cannot take over the descriptor: Bad file descriptor"),
        ("fd:0", "cannot take over the descriptor"),
        ("unix:{dir}/none/s", "cannot listen on the path: No such file or directory"),
    ] {
        check_connection(spec, &[], reason);
        check_reference(spec);
    }
}

/// Contract 3, entry 13.
#[test]
fn specifications_that_the_reference_takes() {
    for (spec, reason) in [
        ("unix:", "the path of the socket is empty"),
        ("local:", "the path of the socket is empty"),
        (":", "the path of the socket is empty"),
        ("inet:65536", "\"65536\" is neither a port number nor a known service"),
        ("inet:70000@127.0.0.1", "\"70000\" is neither a port number nor a known service"),
        ("fd:", "\"\" is not the number of a descriptor"),
        ("inet6:25x@[::1]", "\"25x\" is neither a port number nor a known service"),
    ] {
        check_connection(spec, &[], reason);
    }
}

#[test]
fn places_that_are_taken() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("inet:{}@127.0.0.1", port.local_addr().unwrap().port());
    check_connection(&spec, &[], "cannot listen on the address: Address already in use");
    check_reference(&spec);

    let dir = temp_dir();
    let path = dir.path().join("taken");
    let _socket = UnixListener::bind(&path).unwrap();
    let spec = format!("unix:{}", path.display());
    check_connection(&spec, &[], "cannot listen on the path: Address already in use");
    check_reference(&spec);

    // Not even root's neighbours may write there.
    check_connection("unix:/root/s", &["become=65534"], "cannot listen on the path: Permission denied");
}

#[test]
fn only_a_socket_is_removed_to_make_room() {
    on_both(|library| {
        let dir = temp_dir();
        let path = dir.path().join("file");
        fs::write(&path, "precious").unwrap();
        let conn = format!("conn=unix:{}", path.display());
        let mut filter = Filter::start(library, &["register", &conn, "open=1"]);
        assert_eq!(filter.end().last().unwrap(), "open -1", "{library:?}");
        if library == Library::Ours {
            let reason = "cannot remove the old socket: the file is not a socket";
            assert!(filter.log().len() == 1 && filter.log()[0].contains(reason), "{:?}", filter.log());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious", "{library:?}");

        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let conn = format!("conn=unix:{}", path.display());
        let mut filter = Filter::start(library, &["register", &conn, "open=1", "open=1"]);
        assert_eq!(filter.end()[2..], ["open 0", "open 0"], "{library:?}");
        assert!(path.exists(), "{library:?}");
    });
}

/// A link to an old socket makes room, too; a link to anything else does not.
#[test]
fn a_link_to_a_socket_is_replaced_but_not_the_socket() {
    on_both(|library| {
        let dir = temp_dir();
        let path = |name: &str| dir.path().join(name);
        drop(UnixListener::bind(path("old")).unwrap());
        fs::write(path("file"), "precious").unwrap();
        for (name, target) in
            [("link", "old"), ("second", "link"), ("none", "gone"), ("data", "file"), ("loop", "loop")]
        {
            std::os::unix::fs::symlink(target, path(name)).unwrap();
        }
        // In this order, because the second one leads to the first.
        for (name, result) in [
            ("second", "open 0"),
            ("link", "open 0"),
            ("none", "open -1"),
            ("data", "open -1"),
            ("loop", "open -1"),
        ] {
            let conn = format!("conn=unix:{}", path(name).display());
            let mut filter = Filter::start(library, &["register", &conn, "open=1"]);
            assert_eq!(filter.end().last().unwrap(), result, "{library:?}, {name}");
            assert_eq!(
                filter.log().is_empty(),
                result == "open 0",
                "{library:?}, {name}: {:?}",
                filter.log()
            );
            let is_link = fs::symlink_metadata(path(name)).unwrap().is_symlink();
            assert_eq!(is_link, result != "open 0", "{library:?}, {name}");
        }
        assert!(path("old").exists(), "{library:?}");
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "precious", "{library:?}");
    });
}

/// Nobody accepts them yet, but a burst of connections need not wait to be made.
#[test]
fn many_connections_can_wait() {
    const CONNECTIONS: usize = 200;
    on_both(|library| {
        let filter = Filter::start(library, &["register", SERVE[1], "open=0", "wait={dir}/go", "main"]);
        filter.wait_for("waiting");
        let path = filter.file("s");
        let (made, connections) = std::sync::mpsc::sync_channel(0);
        std::thread::spawn(move || {
            // The receiver is gone if the test has failed.
            while made.send(UnixStream::connect(&path)).is_ok() {}
        });
        for number in 0..CONNECTIONS {
            let connection = connections.recv_timeout(PATIENCE);
            assert!(matches!(connection, Ok(Ok(_))), "{library:?}, {number}: {connection:?}");
        }
    });
}

/// A descriptor that is passed on to the filter, which has it under the number 2.
#[test]
fn a_listening_descriptor_is_taken_over() {
    on_both(|library| {
        let dir = temp_dir();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let mut command = library.command(super::program());
        command.stderr(Stdio::from(OwnedFd::from(listener)));
        let mut filter = Filter::start_with(command, &["register", "conn=fd:2", "main"]);
        // The path is the test's, so the filter's own directory gets a link to it.
        std::os::unix::fs::symlink(dir.path().join("s"), filter.file("s")).unwrap();
        Mta::greet(&filter).quit();
        filter.wait_for("close 1");
        filter.daemon.signal(libc::SIGTERM);
        assert_eq!(filter.end().last().unwrap(), "main 0", "{library:?}");
        assert!(dir.path().join("s").exists(), "{library:?}: not the filter's file");
    });
}

/// As strtol(3) reads numbers.
#[test]
fn a_descriptor_may_have_space_and_a_sign_in_front() {
    on_both(|library| {
        for spec in ["fd: 2", "fd:\t+2", "FD:002"] {
            let dir = temp_dir();
            let listener = UnixListener::bind(dir.path().join("s")).unwrap();
            let mut command = library.command(super::program());
            command.stderr(Stdio::from(OwnedFd::from(listener)));
            let mut filter = Filter::start_with(command, &["register", &format!("conn={spec}"), "open=0"]);
            assert_eq!(filter.end().last().unwrap(), "open 0", "{library:?}, {spec:?}");
        }
    });
}

#[test]
fn the_umask_decides_who_may_connect() {
    on_both(|library| {
        for (umask, mode) in [(0o000, 0o777), (0o077, 0o700), (0o117, 0o660)] {
            let umask = format!("umask={umask}");
            let mut filter = Filter::start(library, &["register", SERVE[1], &umask, "open=0"]);
            assert_eq!(filter.end().last().unwrap(), "open 0");
            let found = fs::metadata(filter.file("s")).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{library:?}, {umask}");
        }
    });
}
