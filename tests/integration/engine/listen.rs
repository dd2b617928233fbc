//! Sockets of an administrator: LIBMILTER_LISTEN, and those that a service manager has opened.

use super::{Filter, Mta, SERVE, program};
use crate::support::{Library, PATIENCE, free_port, temp_dir, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

fn start(listen: &str, steps: &[&str]) -> Filter {
    let mut command = Library::Ours.command(program());
    command.env("LIBMILTER_LISTEN", listen);
    Filter::start_with(command, steps)
}

/// Connects by TCP as soon as the filter listens.
fn dial(host: &str, port: u16) -> TcpStream {
    let mut stream = None;
    wait_until("a connection", || {
        stream = TcpStream::connect((host, port)).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A message, and the end of the session.
fn use_once<S: Read + Write>(stream: S) {
    let mut mta = Mta(stream);
    mta.negotiate();
    assert_eq!(mta.helo("client"), 'c');
    mta.begin_message();
    assert_eq!(mta.end_message(b"text\r\n"), 'c');
    mta.quit();
}

#[test]
fn several_sockets_may_take_the_place_of_the_filters_own() {
    let port = free_port("127.0.0.1");
    let dir = temp_dir();
    let path = dir.path().join("other");
    let listen = format!("inet:{port}@127.0.0.1 inet6:{port}@[::1] unix:{}", path.display());
    let mut filter = start(&listen, &SERVE);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            for host in ["127.0.0.1", "::1"] {
                scope.spawn(move || use_once(dial(host, port)));
            }
            scope.spawn(|| {
                wait_until("the socket", || path.exists());
                wait_until("a session", || UnixStream::connect(&path).map(use_once).is_ok());
            });
        }
    });
    assert_eq!(filter.count("eom"), 24);
    assert!(!filter.file("s").exists());

    // A message on each goes on when the filter stops, and nobody new is served.
    let [mut one, mut two] = ["127.0.0.1", "::1"].map(|host| Mta(dial(host, port)));
    for mta in [&mut one, &mut two] {
        mta.negotiate();
        assert_eq!(mta.helo("client"), 'c');
        mta.begin_message();
    }
    filter.daemon.signal(libc::SIGTERM);
    for host in ["127.0.0.1", "::1"] {
        wait_until("a refusal", || TcpStream::connect((host, port)).is_err());
    }
    for mta in [&mut one, &mut two] {
        assert_eq!(mta.end_message(b"text\r\n"), 'c');
        assert!(mta.has_ended());
    }
    assert_eq!(filter.end().last().unwrap(), "main 0");
    assert_eq!(filter.log(), [""; 0]);
}

/// Also when both are open to the whole world.
#[test]
fn sockets_may_be_added_to_the_filters_own() {
    for order in [["inet:", "inet6:"], ["inet6:", "inet:"]] {
        let port = free_port("127.0.0.1");
        let listen = order.map(|family| format!("{family}{port}")).join(" ");
        let filter = start(&format!("+{listen}"), &SERVE);
        use_once(Mta::connect(&filter).0);
        use_once(dial("127.0.0.1", port));
        use_once(dial("::1", port));
        assert_eq!(filter.log(), [""; 0]);
    }
}

/// The line says which one it is.
#[test]
fn if_one_cannot_be_opened_none_is() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = format!("inet:{}@127.0.0.1", taken.local_addr().unwrap().port());
    let mut filter = start(&format!("+{spec}"), &["register", SERVE[1], "open=0"]);
    assert_eq!(filter.end().last().unwrap(), "open -1");
    let line = format!(
        "3 steered: smfi_opensocket: connection \"{spec}\": cannot listen on the address: Address already in use (os \
         error 98)"
    );
    assert_eq!(filter.log(), [line]);

    let filter = start("inet:x", &SERVE);
    use_once(Mta::connect(&filter).0);
    assert!(filter.log()[0].starts_with("3 steered: LIBMILTER_LISTEN: \"inet:x\" is not a list of sockets"));
}

/// By its path, whatever the filter would do with an old file there, and by its name.
#[test]
fn a_socket_of_the_service_manager_is_taken_over() {
    for conn in ["conn=unix:{path}", "conn=fd:milter"] {
        let dir = temp_dir();
        let path = dir.path().join("activated");
        let mut command = Command::new("systemd-socket-activate");
        command.arg(format!("--setenv=LD_LIBRARY_PATH={}", Library::Ours.dir().display()));
        let other = dir.path().join("other");
        command.arg("--fdname=other:milter").arg("-l").arg(&other).arg("-l").arg(&path).arg(program());
        let conn = conn.replace("{path}", path.to_str().unwrap());
        let mut filter = Filter::start_with(command, &["register", &conn, "open=1", "main"]);
        wait_until("the socket", || path.exists());
        let inode = std::fs::metadata(&path).unwrap().ino();
        std::os::unix::fs::symlink(&path, filter.file("s")).unwrap();
        use_once(Mta::connect(&filter).0);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode, "{conn}");
        filter.daemon.signal(libc::SIGTERM);
        assert_eq!(filter.end().last().unwrap(), "main 0");
        assert_eq!(filter.log(), [""; 0]);
        assert!(path.exists(), "not the filter's file");
    }
}
