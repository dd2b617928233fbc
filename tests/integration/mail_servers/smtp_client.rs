//! A small SMTP client that keeps the dialogue, so that a test can compare it. It says just what the test tells it to,
//! refuses nothing, and fails the test when the server falls silent.

use std::io::{BufRead, BufReader, Write};
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
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { stream: BufReader::new(stream), dialogue: String::new() };
        client.reply();
        client
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
