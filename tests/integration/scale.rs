//! Several instances of a filter behind a load balancer, as docs/scale.md says: three of Debian's OpenDKIM, Debian's
//! HAProxy with the configuration of `docs/haproxy`, and Debian's Postfix.

use crate::mail_servers::filter::Endpoint;
use crate::mail_servers::server::{Kind, MailServer};
use crate::mail_servers::smtp_client::Client;
use crate::mail_servers::smtp_sink::Sink;
use crate::support::{Daemon, Library, free_port, repository, run, stdout, temp_dir, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SERVERS: [&str; 3] = ["one", "two", "three"];

/// Three filters, and HAProxy before them.
struct Cluster {
    dir: tempfile::TempDir,
    ports: [u16; 3],
    filters: Vec<Daemon>,
    front: Endpoint,
    _haproxy: Daemon,
}

impl Cluster {
    fn start() -> Self {
        let dir = temp_dir();
        run(Command::new("opendkim-genkey")
            .args(["-b", "2048", "-d", "example.com", "-s", "test", "-D"])
            .arg(dir.path()));
        let settings = format!(
            "Mode s\nDomain example.com\nSelector test\nKeyFile {}\nRequireSafeKeys no\nInternalHosts 0.0.0.0/0\n",
            dir.path().join("test.private").display()
        );
        fs::write(dir.path().join("conf"), settings).unwrap();
        let ports = [(); 3].map(|()| free_port("127.0.0.1"));
        let filters = ports.iter().map(|port| start_filter(dir.path(), *port)).collect();

        let front = free_port("127.0.0.1");
        let mut configuration = fs::read_to_string(repository().join("docs/haproxy/milter.cfg")).unwrap();
        let socket = dir.path().join("admin.sock").display().to_string();
        for (written, wanted) in [
            ("/run/haproxy/admin.sock", socket),
            ("bind :8891", format!("bind 127.0.0.1:{front}")),
            ("inter 2s", "inter 100ms".into()),
            ("192.0.2.11:8891", format!("127.0.0.1:{}", ports[0])),
            ("192.0.2.12:8891", format!("127.0.0.1:{}", ports[1])),
            ("192.0.2.13:8891", format!("127.0.0.1:{}", ports[2])),
        ] {
            assert_eq!(configuration.matches(written).count(), 1, "{written}");
            configuration = configuration.replace(written, &wanted);
        }
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, configuration).unwrap();
        run(Command::new("/usr/sbin/haproxy").arg("-c").arg("-f").arg(&file));
        let haproxy = Daemon::start(Command::new("/usr/sbin/haproxy").arg("-db").arg("-f").arg(&file));
        let front = Endpoint::Inet(front);
        front.await_listener();
        let cluster = Self { dir, ports, filters, front, _haproxy: haproxy };
        wait_until("all servers are up", || {
            SERVERS.iter().all(|server| cluster.column(server, 17).starts_with("UP"))
        });
        cluster
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// A column, from 0 on, of HAProxy's statistics on a server.
    fn column(&self, server: &str, column: usize) -> String {
        let mut admin = UnixStream::connect(self.socket()).unwrap();
        admin.write_all(b"show stat milters 4 -1\n").unwrap();
        let mut table = String::new();
        admin.read_to_string(&mut table).unwrap();
        let line = table.lines().find(|line| line.split(',').nth(1) == Some(server)).unwrap();
        line.split(',').nth(column).unwrap().to_owned()
    }

    /// How many sessions a server has had.
    fn sessions(&self, server: &str) -> usize {
        self.column(server, 7).parse().unwrap()
    }

    /// Restarts one filter by `docs/haproxy/rolling-restart`, whose command asks this process to do it.
    fn restart(&mut self, number: usize) {
        let (asked, done) = (self.dir.path().join("restart"), self.dir.path().join("restarted"));
        let command = "touch \"$0\"; until [ -e \"$1\" ]; do sleep 0.05; done; rm \"$0\" \"$1\"";
        let mut script = Command::new(repository().join("docs/haproxy/rolling-restart"));
        script.env("HAPROXY_SOCKET", self.socket()).env("DRAIN", "60");
        script.arg(SERVERS[number]).args(["sh", "-c", command]).arg(&asked).arg(&done);
        let mut script = Daemon::start(&mut script);
        wait_until("the drain", || asked.exists());
        self.filters[number].signal(libc::SIGTERM);
        assert!(self.filters[number].wait().success());
        self.filters[number] = start_filter(self.dir.path(), self.ports[number]);
        fs::write(&done, "").unwrap();
        assert!(script.wait().success());
    }
}

fn start_filter(dir: &Path, port: u16) -> Daemon {
    let endpoint = Endpoint::Inet(port);
    let mut command = Library::Ours.command("/usr/sbin/opendkim");
    command.args(["-f", "-x"]).arg(dir.join("conf")).arg("-p").arg(endpoint.spec());
    command.env("LIBMILTER_DRAIN", "60").env("LIBMILTER_LOG", "json");
    command
        .stderr(fs::File::options().create(true).append(true).open(dir.join(format!("log-{port}"))).unwrap());
    let daemon = Daemon::start(&mut command);
    endpoint.await_listener();
    assert!(daemon.has_mapped(&Library::Ours.file()));
    daemon
}

/// Clients that send messages, three in a session, until they are told to stop. Each must be accepted.
fn send_until(is_over: &AtomicBool, sent: &AtomicUsize, port: u16) {
    while !is_over.load(Ordering::SeqCst) {
        let mut client = Client::connect([127, 0, 0, 1].into(), port);
        client.say("EHLO client.example.com");
        for _ in 0..3 {
            let number = sent.fetch_add(1, Ordering::SeqCst);
            let message = format!("From: <a@example.com>\r\nSubject: {number}\r\n\r\ntext\r\n");
            let reply = client.send("a@example.com", &["b@example.net"], message.as_bytes());
            assert!(reply.starts_with("250 "), "{reply}");
        }
        client.quit();
    }
}

/// While mail comes in, all filters are restarted one after the other. Every message is accepted at the first try, signed and
/// delivered once.
#[test]
fn a_rolling_restart_of_all_costs_no_message() {
    let mut cluster = Cluster::start();
    let sink = Sink::open();
    let server = MailServer::start(Kind::Postfix, &cluster.front, &sink);
    let (is_over, sent, port) = (AtomicBool::new(false), AtomicUsize::new(0), server.port());
    std::thread::scope(|scope| {
        let clients = [(); 6].map(|()| scope.spawn(|| send_until(&is_over, &sent, port)));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..SERVERS.len() {
                let before = SERVERS.map(|server| cluster.sessions(server));
                wait_until("all servers have new sessions", || {
                    SERVERS.iter().zip(before).all(|(server, before)| cluster.sessions(server) > before + 2)
                });
                cluster.restart(number);
            }
            let before = SERVERS.map(|server| cluster.sessions(server));
            wait_until("all servers have new sessions", || {
                SERVERS.iter().zip(before).all(|(server, before)| cluster.sessions(server) > before + 2)
            });
        }));
        is_over.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        result.unwrap();
    });

    let sent = sent.load(Ordering::SeqCst);
    let deliveries = sink.deliveries(sent);
    assert_eq!(deliveries.len(), sent);
    let mut numbers: Vec<usize> = deliveries
        .iter()
        .map(|delivery| {
            let text = String::from_utf8(delivery.message.clone()).unwrap();
            assert!(text.contains("DKIM-Signature: "), "{text}");
            let number = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
            number.parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..sent), "each once");
    for port in cluster.ports {
        let log = fs::read_to_string(cluster.dir.path().join(format!("log-{port}"))).unwrap();
        assert_eq!(log, "", "no session was cut, and a health check leaves no line");
    }
    println!("{sent} messages");
}

/// What the restart above avoids: a filter that dies amid a message is seen by the client.
#[test]
fn a_filter_that_is_killed_amid_a_message_is_seen_outside() {
    let mut cluster = Cluster::start();
    let sink = Sink::open();
    let server = MailServer::start(Kind::Postfix, &cluster.front, &sink);
    let mut client = Client::connect([127, 0, 0, 1].into(), server.port());
    client.say("EHLO client.example.com");
    assert!(client.say("MAIL FROM:<a@example.com>").starts_with("250"));
    assert!(client.say("RCPT TO:<b@example.net>").starts_with("250"));
    for filter in &mut cluster.filters {
        filter.signal(libc::SIGKILL);
        filter.wait();
    }
    let reply = client.data(b"Subject: x\r\n\r\ntext\r\n");
    assert!(reply.starts_with("451 "), "deferred: {reply}");
}

/// HAProxy notices an instance that is gone, and one that listens but does not negotiate.
#[test]
fn the_health_check_speaks_milter() {
    let cluster = Cluster::start();
    cluster.filters[0].signal(libc::SIGSTOP);
    cluster.filters[1].signal(libc::SIGKILL);
    wait_until("both are down", || {
        ["one", "two"].iter().all(|server| cluster.column(server, 17).starts_with("DOWN"))
    });
    assert!(cluster.column("three", 17).starts_with("UP"));
    cluster.filters[0].signal(libc::SIGCONT);
    wait_until("it is back", || cluster.column("one", 17).starts_with("UP"));
    let version = stdout(Command::new("/usr/sbin/haproxy").arg("-v"));
    assert!(version.starts_with("HAProxy version 2."), "{version}");
}
