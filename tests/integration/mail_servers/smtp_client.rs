//! A small SMTP client that keeps the dialogue, so that a test can compare it. It says just what the test tells it to,
//! refuses nothing, and fails the test when the server falls silent.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::support::PATIENCE;

/// One SMTP session, and what was said in it.
pub struct Client {
    stream: BufReader<TcpStream>,
    dialogue: String,
}

impl Client {
    /// Connects from `source`, any address of the loopback network, and reads the greeting.
    pub fn connect(source: Ipv4Addr, port: u16) -> Self {
        let mut client = Self::open(source, port);
        client.reply();
        client
    }

    /// Connects, and reads nothing yet.
    pub fn open(source: Ipv4Addr, port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream), dialogue: String::new() }
    }

    /// The port that the server sees it come from.
    pub fn port(&self) -> u16 {
        self.stream.get_ref().local_addr().unwrap().port()
    }

    /// Says one command line and returns the server's reply.
    pub fn say(&mut self, line: &str) -> String {
        self.dialogue += &format!("C: {line}\n");
        self.write(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends one message from its sender to its recipients; all of them must be accepted. Returns the reply to
    /// the message itself.
    #[track_caller]
    pub fn send(&mut self, sender: &str, recipients: &[&str], message: &[u8]) -> String {
        let mut commands = vec![format!("MAIL FROM:<{sender}>")];
        commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        for command in commands {
            let reply = self.say(&command);
            assert!(reply.starts_with('2'), "{command}: {reply}");
        }
        self.data(message)
    }

    /// Sends the message (in whole CRLF lines) by DATA and returns the reply to it.
    #[track_caller]
    pub fn data(&mut self, message: &[u8]) -> String {
        let reply = self.say("DATA");
        assert!(reply.starts_with("354"), "DATA: {reply}");
        self.dialogue += "C: (the message)\n";
        self.message_lines(message);
        self.write(b".\r\n");
        self.reply()
    }

    /// Sends message lines, dots doubled, without an end.
    pub fn message_lines(&mut self, lines: &[u8]) {
        let mut stuffed = Vec::with_capacity(lines.len() + lines.len() / 64);
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            if line.first() == Some(&b'.') {
                stuffed.push(b'.');
            }
            stuffed.extend_from_slice(line);
        }
        self.write(&stuffed);
    }

    /// Ends the session in order, and returns all that was said.
    pub fn quit(mut self) -> String {
        self.say("QUIT");
        let mut rest = Vec::new();
        let _ = self.stream.read_until(0, &mut rest);
        assert!(rest.is_empty(), "after QUIT the server said {}", String::from_utf8_lossy(&rest));
        self.dialogue
    }

    /// Cuts the connection, and returns all that was said.
    pub fn hang_up(self) -> String {
        self.dialogue + "C: (hangs up)\n"
    }

    /// The greeting, as [`Self::ask`] has it.
    pub fn greeting(&mut self) -> Vec<u8> {
        self.all_of_a_reply()
    }

    /// Says one command line, and returns all that the server writes before it answers the NOOP behind it: also what
    /// is no proper reply, but without the last line end. Nothing comes behind the end of the connection.
    pub fn ask(&mut self, line: &str) -> Vec<u8> {
        self.write_if_open(format!("{line}\r\n").as_bytes());
        self.all_of_a_reply()
    }

    /// Says DATA; what comes is as for [`Self::ask`].
    pub fn begin_data(&mut self) -> Vec<u8> {
        self.write_if_open(b"DATA\r\n");
        let first = self.line();
        // Behind the go-ahead everything is the message.
        if first.starts_with(b"354") { without_line_end(first) } else { self.rest_of_a_reply(first) }
    }

    /// Sends the message (in whole CRLF lines) behind the go-ahead; what comes is as for [`Self::ask`].
    pub fn end_data(&mut self, message: &[u8]) -> Vec<u8> {
        self.message_lines(message);
        self.write_if_open(b".\r\n");
        self.all_of_a_reply()
    }

    /// Gives the message up.
    pub fn reset(&mut self) {
        self.write_if_open(b"RSET\r\n");
        self.line();
    }

    /// Says goodbye, whatever comes.
    pub fn leave(mut self) {
        self.write_if_open(b"QUIT\r\n");
        let _ = self.stream.read_to_end(&mut Vec::new());
    }

    fn all_of_a_reply(&mut self) -> Vec<u8> {
        let first = self.line();
        self.rest_of_a_reply(first)
    }

    fn rest_of_a_reply(&mut self, mut answer: Vec<u8>) -> Vec<u8> {
        // Sendmail does not like to be told more before it has answered EHLO.
        self.write_if_open(b"NOOP\r\n");
        loop {
            let line = self.line();
            if line.is_empty() || line.eq_ignore_ascii_case(b"250 2.0.0 OK\r\n") {
                return without_line_end(answer);
            }
            answer.extend_from_slice(&line);
        }
    }

    /// The next line, with its end; empty at the end of the connection.
    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(_) => line,
            // A server that hangs up may leave the NOOP unread, which makes the kernel reset the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Vec::new(),
            Err(error) => panic!("{error}, after {}", line.escape_ascii()),
        }
    }

    /// Writes, unless the server has hung up.
    fn write_if_open(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap_or_else(|e| panic!("{e}, after\n{}", self.dialogue));
    }

    /// Reads one reply, all its lines.
    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line);
            assert!(matches!(read, Ok(1..)), "{read:?} where a reply was due, after\n{}", self.dialogue);
            self.dialogue += &format!("S: {}\n", line.trim_end_matches("\r\n"));
            reply += &line;
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
        }
    }
}

fn without_line_end(mut answer: Vec<u8>) -> Vec<u8> {
    if answer.ends_with(b"\r\n") {
        answer.truncate(answer.len() - 2);
    }
    answer
}
