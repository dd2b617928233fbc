//! Debian's OpenDKIM, unmodified, on our library: it signs what a real mail server hands it, and dkimpy, which has
//! nothing in common with it, verifies the signature. What counts here is what leaves the server, Postfix or Sendmail;
//! `filters/opendkim.rs` runs OpenDKIM as a service, in both its modes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

use crate::mail_servers::filter::{Endpoint, Family};
use crate::mail_servers::messages;
use crate::mail_servers::server::{Kind, MailServer};
use crate::mail_servers::smtp_client::Client;
use crate::mail_servers::smtp_sink::Sink;
use crate::mail_servers::transcript::normalise;
use crate::support::{
    Daemon, Library, ServiceManager, milter_send, repository, run, stdout, temp_dir, wait_until,
    waiting_threads,
};

/// How OpenDKIM comes by its libmilter.
#[derive(Clone, Copy, Debug)]
enum Loading {
    /// As installed: Debian's.
    Installed,
    /// Ours, by `LD_LIBRARY_PATH`.
    LibraryPath,
    /// Ours, by `LD_PRELOAD`.
    Preload,
}

impl Loading {
    /// The command that runs OpenDKIM.
    fn command(self) -> Command {
        let mut command = Command::new("/usr/sbin/opendkim");
        match self {
            Self::Installed => &mut command,
            Self::LibraryPath => command.env("LD_LIBRARY_PATH", Library::Ours.dir()),
            Self::Preload => command.env("LD_PRELOAD", Library::Ours.file()),
        };
        command
    }

    /// The library that it must be running on, and the one that it must not have.
    fn libraries(self) -> (Library, Library) {
        match self {
            Self::Installed => (Library::Reference, Library::Ours),
            Self::LibraryPath | Self::Preload => (Library::Ours, Library::Reference),
        }
    }
}

/// Makes a key pair in `dir`; returns the public half, as DNS would publish it.
fn make_key(dir: &Path) -> String {
    run(Command::new("opendkim-genkey")
        .args(["-b", "2048", "-d", "example.com", "-s", "test", "-D"])
        .arg(dir));
    let zone = fs::read_to_string(dir.join("test.txt")).unwrap();
    zone.split('"').skip(1).step_by(2).collect()
}

/// Whether dkimpy finds the message's signature valid.
fn is_signed(message: &[u8], record: &str) -> bool {
    // Debian's Python, for which python3-dkim is packaged.
    let mut verifier = Command::new("/usr/bin/python3")
        .arg(repository().join("tests/integration/verify_dkim.py"))
        .arg(record)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    verifier.stdin.take().unwrap().write_all(message).unwrap();
    let output = verifier.wait_with_output().unwrap();
    // Python also exits with 1 when it fails, for instance to find dkimpy; then it says so.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

/// Sends one message through the mail server and OpenDKIM; returns the client's reply and what was delivered, its
/// signature verified.
fn sign(kind: Kind, loading: Loading, key: &Path, record: &str) -> String {
    let dir = temp_dir();
    let endpoint = Endpoint::free(Family::Inet, dir.path());
    let settings = format!(
        "Mode s\nDomain example.com\nSelector test\nKeyFile {}\nRequireSafeKeys no\nSocket {}\nBackground no\n\
         Canonicalization relaxed/simple\nOversignHeaders From\nPidFile {}\n",
        key.display(),
        endpoint.spec(),
        dir.path().join("pid").display()
    );
    fs::write(dir.path().join("conf"), settings).unwrap();
    let mut opendkim = Daemon::start(loading.command().arg("-x").arg(dir.path().join("conf")));
    endpoint.await_listener();
    let (wanted, unwanted) = loading.libraries();
    assert!(opendkim.has_mapped(&wanted.file()), "{loading:?}: not on {wanted:?}");
    assert!(!opendkim.has_mapped(&unwanted.file()), "{loading:?}: {unwanted:?} is there too");

    let sink = Sink::open();
    let server = MailServer::start(kind, &endpoint, &sink);
    let mut client = Client::connect([127, 0, 0, 1].into(), server.port());
    client.say("EHLO client.example.com");
    let reply = client.send("ann@example.com", &["bob@example.net"], &messages::intricate());
    assert!(reply.starts_with("250 "), "{reply}");
    client.quit();
    let message = sink.deliveries(1)[0].message.clone();

    assert!(is_signed(&message, record), "{loading:?}: no valid signature in\n{}", message.escape_ascii());
    // The verifier is one that can say no.
    let mut forged = message.clone();
    let place = forged.windows(7).position(|bytes| bytes == b"A line.").unwrap();
    forged[place] = b'B';
    assert!(!is_signed(&forged, record));

    drop(server);
    // By SIGTERM it takes more than four seconds to end on the reference.
    opendkim.signal(if wanted == Library::Ours { libc::SIGTERM } else { libc::SIGKILL });
    let status = opendkim.wait();
    assert!(wanted == Library::Reference || status.success(), "{loading:?}: {status}");
    reply + std::str::from_utf8(&message).unwrap()
}

/// Signs on either library, loaded in each way; but for dates and the signature itself the messages must be equal.
fn sign_on_both(kind: Kind) {
    let dir = temp_dir();
    let record = make_key(dir.path());
    let signature = Regex::new(r"(\st=|\sb=)[^;]*?(;|\r\n\S)").unwrap();
    let messages = [Loading::Installed, Loading::LibraryPath, Loading::Preload].map(|loading| {
        let message = normalise(&sign(kind, loading, &dir.path().join("test.private"), &record), &[]);
        signature.replace_all(&message, "$1...$2").into_owned()
    });
    assert!(messages[0].contains("DKIM-Signature: "), "{}", messages[0]);
    assert_eq!(messages[0], messages[1], "by LD_LIBRARY_PATH");
    assert_eq!(messages[0], messages[2], "by LD_PRELOAD");
}

#[test]
fn opendkim_signs_under_postfix() {
    sign_on_both(Kind::Postfix);
}

#[test]
fn opendkim_signs_under_sendmail() {
    sign_on_both(Kind::Sendmail);
}

/// A configuration that signs; the rest is on the command line.
pub fn configure(dir: &Path) -> Command {
    make_key(dir);
    let key = dir.join("test.private");
    let settings = format!(
        "Mode s\nDomain example.com\nSelector test\nKeyFile {}\nRequireSafeKeys no\nUMask 077\nInternalHosts 192.0.2.1\n",
        key.display()
    );
    fs::write(dir.join("conf"), settings).unwrap();
    let mut command = Loading::LibraryPath.command();
    command.args(["-f", "-x"]).arg(dir.join("conf")).arg("-p");
    command
}

/// Has a message signed.
pub fn sign_by_milter_send(socket: &Path) {
    let message = repository().join("examples-c/demo.eml");
    let mut command = Command::new(milter_send());
    command.args(["--from", "a@example.com", "--expect", "header DKIM-Signature"]).arg(socket).arg(message);
    run(&mut command);
}

/// Settings of libmilter(7) for a filter that knows nothing of them.
#[test]
fn opendkim_is_set_up_by_variables() {
    let dir = temp_dir();
    let socket = dir.path().join("s");
    let mut manager = ServiceManager::new();
    let start = || {
        let mut command = configure(dir.path());
        command.arg(format!("local:{}", socket.display()));
        command.env("LIBMILTER_SOCKET_MODE", "0660").env("LIBMILTER_SOCKET_GROUP", "postfix");
        command.env("LIBMILTER_SOCKET_STEAL", "no").env("NOTIFY_SOCKET", manager.path());
        Daemon::start(&mut command)
    };
    let mut opendkim = start();
    manager.wait_for("READY=1");
    let found = fs::metadata(&socket).unwrap();
    let group: u32 = stdout(Command::new("id").args(["-g", "postfix"])).trim().parse().unwrap();
    assert_eq!((found.mode() & 0o7777, found.gid()), (0o660, group));
    sign_by_milter_send(&socket);
    opendkim.signal(libc::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert!(opendkim.wait().success());
}

/// Something else than an MTA connects: the line says from where, and what it speaks.
#[test]
fn opendkim_says_who_speaks_http_to_it() {
    let dir = temp_dir();
    let endpoint = Endpoint::free(Family::Inet, dir.path());
    let errors = dir.path().join("errors");
    let mut command = configure(dir.path());
    command.arg(endpoint.spec()).env("LIBMILTER_LOG", "json").stderr(fs::File::create(&errors).unwrap());
    let _opendkim = Daemon::start(&mut command);
    endpoint.await_listener();
    let Endpoint::Inet(port) = endpoint else { unreachable!() };
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut line = String::new();
    crate::support::wait_until("the line", || {
        line = fs::read_to_string(&errors).unwrap();
        line.ends_with('\n')
    });
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["peer"], client.local_addr().unwrap().to_string());
    assert!(line["message"].as_str().unwrap().ends_with("the other end speaks HTTP"), "{line}");
    assert_eq!((&line["filter"], &line["reason"]), (&"OpenDKIM Filter".into(), &"frame".into()));
}

/// OpenDKIM knows of one socket, and serves three: IPv4 and IPv6 together.
#[test]
fn opendkim_listens_on_several_sockets() {
    let dir = temp_dir();
    let socket = dir.path().join("s");
    let port = crate::support::free_port("127.0.0.1");
    let mut command = configure(dir.path());
    command.arg(format!("local:{}", socket.display()));
    command.env("LIBMILTER_LISTEN", format!("+inet:{port}@127.0.0.1 inet6:{port}@[::1]"));
    let mut opendkim = Daemon::start(&mut command);
    Endpoint::Inet6(port).await_listener();
    for place in
        [socket.display().to_string(), format!("inet:{port}@127.0.0.1"), format!("inet6:{port}@[::1]")]
    {
        sign_by_milter_send(Path::new(&place));
    }
    opendkim.signal(libc::SIGTERM);
    assert!(opendkim.wait().success());
}

/// More clients than sessions and threads are allowed: all of them are served.
#[test]
fn opendkim_serves_all_within_limits() {
    let dir = temp_dir();
    let socket = dir.path().join("s");
    let mut command = configure(dir.path());
    command.arg(format!("local:{}", socket.display()));
    command.env("LIBMILTER_MAX_SESSIONS", "2").env("LIBMILTER_MAX_THREADS", "3");
    let opendkim = Daemon::start(&mut command);
    crate::support::wait_until("the socket", || socket.exists());
    std::thread::scope(|scope| {
        let clients = [(); 12].map(|()| scope.spawn(|| sign_by_milter_send(&socket)));
        while !clients.iter().all(|client| client.is_finished()) {
            // With the thread of smfi_main, and those of the library and of OpenDKIM that wait for signals.
            let now = waiting_threads(opendkim.pid());
            assert!(now <= 3 + 3, "{now} threads");
        }
    });
}

/// systemd opens the socket and starts OpenDKIM with the first connection, as `docs/systemd/opendkim.socket` says.
#[test]
fn opendkim_takes_over_a_socket_of_systemd() {
    let dir = temp_dir();
    let socket = dir.path().join("s");
    let opendkim = configure(dir.path());
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--setenv=LD_LIBRARY_PATH={}", Library::Ours.dir().display()));
    command.arg("-l").arg(&socket).arg(opendkim.get_program()).args(opendkim.get_args()).arg("fd:3");
    let mut daemon = Daemon::start(&mut command);
    crate::support::wait_until("the socket", || socket.exists());
    sign_by_milter_send(&socket);
    assert!(daemon.has_mapped(&Library::Ours.file()));
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait().success());
}

/// systemd takes the units of `docs/systemd` as they stand, with Debian's own.
#[test]
fn the_units_for_opendkim_are_valid() {
    let dir = temp_dir();
    let docs = repository().join("docs/systemd");
    fs::copy("/lib/systemd/system/opendkim.service", dir.path().join("opendkim.service")).unwrap();
    fs::create_dir(dir.path().join("opendkim.service.d")).unwrap();
    let drop_in = dir.path().join("opendkim.service.d/libmilter.conf");
    fs::copy(docs.join("opendkim.service.d-libmilter.conf"), drop_in).unwrap();
    fs::copy(docs.join("opendkim.socket"), dir.path().join("opendkim.socket")).unwrap();
    for unit in ["opendkim.service", "opendkim.socket"] {
        let output =
            run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(dir.path().join(unit)));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("opendkim."), "{said}");
    }
}

/// As the unit file for Debian's OpenDKIM has it: the socket is for Postfix, though OpenDKIM is root no more when it opens it.
#[test]
fn the_unit_file_lets_postfix_in() {
    let unit =
        fs::read_to_string(repository().join("docs/systemd/opendkim.service.d-libmilter.conf")).unwrap();
    let setting =
        |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let dir = temp_dir();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", setting("User"), "--regid", setting("Group")]);
    command.args(["--groups", setting("SupplementaryGroups"), "--"]);
    // That user can read neither where the library is built nor a private directory of root's.
    fs::copy(Library::Ours.file(), dir.path().join("libmilter.so.1.0.1")).unwrap();
    run(Command::new("chown").args(["-R", "opendkim"]).arg(dir.path()));
    let socket = dir.path().join("s");
    let variables = unit.lines().filter_map(|line| line.strip_prefix("Environment=LIBMILTER_"));
    command.arg("env").args(variables.map(|variable| format!("LIBMILTER_{variable}")));
    command.arg(format!("LD_LIBRARY_PATH={}", dir.path().display()));
    // Debian's own settings: without a key it verifies.
    command.args(["/usr/sbin/opendkim", "-f", "-x", "/etc/opendkim.conf", "-p"]);
    command.arg(format!("local:{}", socket.display()));
    let mut opendkim = Daemon::start(&mut command);
    wait_until("the socket", || UnixStream::connect(&socket).is_ok());
    let found = fs::metadata(&socket).unwrap();
    let group: u32 = stdout(Command::new("id").args(["-g", "postfix"])).trim().parse().unwrap();
    assert_eq!((found.mode() & 0o7777, found.gid()), (0o660, group));
    opendkim.signal(libc::SIGTERM);
    assert!(opendkim.wait().success());
}
