//! Debian's OpenDKIM, unmodified, on our library: it signs what a real mail server hands it, and dkimpy, which has
//! nothing in common with it, verifies the signature. What counts here is what leaves the server, Postfix or Sendmail;
//! `filters/opendkim.rs` runs OpenDKIM as a service, in both its modes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

use crate::mail_servers::filter::{Endpoint, Family};
use crate::mail_servers::messages;
use crate::mail_servers::server::{Kind, MailServer};
use crate::mail_servers::smtp_client::Client;
use crate::mail_servers::smtp_sink::Sink;
use crate::mail_servers::transcript::normalise;
use crate::support::{Daemon, Library, repository, run, temp_dir};

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
