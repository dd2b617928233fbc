//! An SMTP server in the test, where the mail server under test delivers everything: it takes each message and keeps
//! its envelope, ESMTP parameters included, and its bytes. It refuses no mail and checks nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::support::{PATIENCE, wait_until};

/// One message as it was delivered.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// `MAIL FROM:` and what follows it.
    pub sender: String,
    /// Each `RCPT TO:` and what follows it, in order.
    pub recipients: Vec<String>,
    /// The message, dots undoubled.
    pub message: Vec<u8>,
}

/// The server, on a port of its own until it is dropped.
pub struct Sink {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    deliveries: Mutex<Vec<Delivery>>,
    ended: Mutex<bool>,
}

impl Sink {
    /// Opens it.
    pub fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let listener = std::thread::spawn(move || {
            for client in listener.incoming() {
                if *accepting.ended.lock().unwrap() {
                    return;
                }
                let (client, shared) = (client.unwrap(), Arc::clone(&accepting));
                // Not joined: it ends with its connection, which the mail server closes at the latest when it stops.
                std::thread::spawn(move || serve(client, &shared));
            }
        });
        Self { port, shared, listener: Some(listener) }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The first `count` deliveries; waits for those that are still to come.
    #[track_caller]
    pub fn deliveries(&self, count: usize) -> Vec<Delivery> {
        wait_until(&format!("delivery {count}"), || self.shared.deliveries.lock().unwrap().len() >= count);
        self.shared.deliveries.lock().unwrap().clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap() = true;
        // Wakes the listener up, to see that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.listener.take().unwrap().join();
    }
}

/// Serves one connection; a broken one just ends.
fn serve(stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut delivery = Delivery::default();
    answer(&mut reader, "220 sink.example ESMTP")?;
    loop {
        let line = String::from_utf8(read_line(&mut reader)?).unwrap();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let argument = line.split_once(':').map(|(_, text)| text.trim().to_owned());
        match (verb.as_str(), argument) {
            ("EHLO", _) => {
                answer(&mut reader, "250-sink.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN")?
            }
            ("MAIL", Some(sender)) => {
                delivery = Delivery { sender, ..Delivery::default() };
                answer(&mut reader, "250 2.1.0 ok")?;
            }
            ("RCPT", Some(recipient)) => {
                delivery.recipients.push(recipient);
                answer(&mut reader, "250 2.1.5 ok")?;
            }
            ("DATA", _) => {
                answer(&mut reader, "354 go on")?;
                delivery.message = read_message(&mut reader)?;
                shared.deliveries.lock().unwrap().push(std::mem::take(&mut delivery));
                answer(&mut reader, "250 2.0.0 taken")?;
            }
            ("RSET", _) => answer(&mut reader, "250 2.0.0 ok")?,
            ("QUIT", _) => return answer(&mut reader, "221 2.0.0 bye"),
            _ => answer(&mut reader, "500 5.5.1 what?")?,
        }
    }
}

/// Writes one reply.
fn answer(reader: &mut BufReader<TcpStream>, reply: &str) -> Option<()> {
    reader.get_mut().write_all(format!("{reply}\r\n").as_bytes()).ok()
}

/// Reads one line, without its CRLF; `None` at the end of the connection.
fn read_line(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    line.ends_with(b"\r\n").then(|| line[..line.len() - 2].to_vec())
}

/// Reads a message up to its final dot.
fn read_message(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let line = read_line(reader)?;
        match line.strip_prefix(b".") {
            Some(b"") => return Some(message),
            Some(rest) => message.extend_from_slice(rest),
            None => message.extend_from_slice(&line),
        }
        message.extend_from_slice(b"\r\n");
    }
}
