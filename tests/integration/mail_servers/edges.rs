//! What a mail server's day brings besides ordinary mail: large messages, many recipients, clients and filters that
//! vanish. Compared like the rest, over the unix socket alone.

use super::filter::Family;
use super::messages;
use super::play::Play;
use super::server::Kind;
use super::transcript::assert_equal;
use super::{assert_contains, compare};
use crate::support::{Library, compile_c, temp_dir};

/// A message of 10 MiB keeps every byte of its body while a filter takes it all in and gives it back.
fn large_message(kind: Kind) {
    let message = messages::large();
    let body_of = |message: &[u8]| {
        let end = message.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        message[end + 4..].to_vec()
    };
    let mut expected = body_of(&message);
    expected.extend_from_slice(b"-- \r\nedited by edit-message\r\n");
    compare(kind, "edit-message", &[Family::Unix], |play| {
        let mut client = play.client();
        client.send("ann@example.com", &["bob@example.net"], &message);
        let delivered = &play.sink.deliveries(1)[0];
        assert!(body_of(&delivered.message) == expected, "the body came out changed");
        play.note(&delivered.recipients.join("\n"));
        play.note(&client.quit());
    });
}

#[test]
fn large_message_under_postfix() {
    large_message(Kind::Postfix);
}

#[test]
fn large_message_under_sendmail() {
    large_message(Kind::Sendmail);
}

/// Each of 200 recipients is judged by itself.
fn many_recipients(kind: Kind) {
    let transcript = compare(kind, "block-list", &[Family::Unix], |play| {
        let mut client = play.client();
        client.say("MAIL FROM:<ann@example.com>");
        for number in 0..200 {
            let domain = if number % 10 == 0 { "nobody@example.org" } else { "@example.net" };
            client.say(&format!("RCPT TO:<recipient-{number:03}{domain}>"));
        }
        client.data(&messages::short("many", ""));
        play.note_deliveries(1);
        play.note(&client.quit());
    });
    assert_eq!(transcript.matches("There is no such person\n").count(), 20, "{transcript}");
    assert_eq!(transcript.matches("delivered: RCPT <recipient-").count(), 180, "{transcript}");
}

#[test]
fn many_recipients_under_postfix() {
    many_recipients(Kind::Postfix);
}

#[test]
fn many_recipients_under_sendmail() {
    many_recipients(Kind::Sendmail);
}

/// A client that vanishes amid its message: the filter is told to forget the message, and the next client is served.
fn client_vanishes(kind: Kind) {
    let transcript = compare(kind, "log-everything", &[Family::Unix], |play| {
        let mut client = play.client();
        client.say("MAIL FROM:<ann@example.com>");
        client.say("RCPT TO:<bob@example.net>");
        client.say("DATA");
        client.message_lines(b"Subject: half\r\n\r\nThe first line.\r\n");
        play.note(&client.hang_up());
        play.await_sessions(1);
        // From elsewhere, because Sendmail's {client_connections} goes on counting the first one for a moment.
        let mut client = play.client_from("127.0.0.2");
        client.say("EHLO client.example.com");
        client.send("ann@example.com", &["bob@example.net"], &messages::short("whole", ""));
        play.note_deliveries(1);
        play.note(&client.quit());
        play.await_sessions(2);
        play.note_filter_output();
    });
    assert_contains(&transcript, &["1 abort\n", "1 close\n", "2 header: Subject: whole\n", "2 close\n"]);
    assert_eq!(transcript.matches("delivered: MAIL").count(), 1, "{transcript}");
}

#[test]
fn client_vanishes_under_postfix() {
    client_vanishes(Kind::Postfix);
}

#[test]
fn client_vanishes_under_sendmail() {
    client_vanishes(Kind::Sendmail);
}

/// A filter that dies within a session: the mail server asks its client to try again later, and goes on with the
/// filter's successor on the same socket.
fn filter_vanishes(kind: Kind) {
    let transcript = compare(kind, "add-header", &[Family::Unix], |play| {
        let deliver = |play: &mut Play, subject: &str| {
            let mut client = play.client();
            client.send("ann@example.com", &["bob@example.net"], &messages::short(subject, ""));
            play.note_deliveries(1);
            play.note(&client.quit());
        };
        deliver(play, "before");
        let mut client = play.client();
        client.say("MAIL FROM:<ann@example.com>");
        client.say("RCPT TO:<bob@example.net>");
        play.filter.kill();
        client.data(&messages::short("refused", ""));
        client.say("RSET");
        play.note(&client.hang_up());
        let mut client = play.client();
        client.say("MAIL FROM:<ann@example.com>");
        play.note(&client.quit());
        play.filter.start_again();
        deliver(play, "after");
    });
    assert_eq!(
        transcript.matches("| X-Filtered-By: add-header on mx.example.org").count(),
        2,
        "{transcript}"
    );
    assert_eq!(transcript.matches("\nS: 451 ").count(), 2, "{transcript}");
}

#[test]
fn filter_vanishes_under_postfix() {
    filter_vanishes(Kind::Postfix);
}

#[test]
fn filter_vanishes_under_sendmail() {
    filter_vanishes(Kind::Sendmail);
}

/// A filter that works for longer than the mail server waits: each change that it makes meanwhile is a sign of life.
fn slow_filter(kind: Kind) {
    const SECONDS: u32 = 3;
    let dir = temp_dir();
    let program = dir.path().join("slow-filter");
    compile_c("c-tests/slow-filter.c", &program);
    let [expected, transcript] = Library::BOTH.map(|library| {
        let mut play = Play::start_with_timeout(kind, &program, library, SECONDS);
        let mut client = play.client();
        client.send("ann@example.com", &["bob@example.net"], &messages::short("slow", ""));
        play.note(&client.quit());
        play.note_deliveries(1);
        let transcript = play.transcript();
        play.end();
        transcript
    });
    assert_equal(("on the reference", &expected), ("on ours", &transcript));
    assert_eq!(transcript.matches("| X-Slow: ").count(), 4, "{transcript}");
}

#[test]
fn slow_filter_under_postfix() {
    slow_filter(Kind::Postfix);
}

#[test]
fn slow_filter_under_sendmail() {
    slow_filter(Kind::Sendmail);
}
