//! The example filters under real mail servers: a message goes in by SMTP, through the filter, and out to a sink. What
//! the client was told and what was delivered must be the same on the reference library and on ours, over every kind
//! of socket, and must show that the filter did its work.

mod edges;
pub mod filter;
pub mod messages;
mod play;
mod postfix;
mod sendmail;
pub mod server;
pub mod smtp_client;
pub mod smtp_sink;
pub mod transcript;

use self::filter::Family;
use self::play::Play;
use self::server::{Kind, NAMED_CLIENT};
use self::transcript::assert_equal;
use crate::support::{Library, compile_c, temp_dir};

/// Plays the scenario on each library over each of these kinds of socket. All transcripts must be equal; returns them
/// as one.
#[track_caller]
fn compare(kind: Kind, filter: &str, families: &[Family], scenario: impl Fn(&mut Play)) -> String {
    let dir = temp_dir();
    let program = dir.path().join(filter);
    compile_c(&format!("examples-c/{filter}.c"), &program);
    let mut first: Option<(String, String)> = None;
    for library in Library::BOTH {
        for &family in families {
            let name = format!("{filter} under {kind:?} on {library:?} over {family:?}");
            let mut play = Play::start(kind, &program, library, family);
            scenario(&mut play);
            let transcript = play.transcript();
            play.end();
            match &first {
                None => first = Some((name, transcript)),
                Some((first_name, expected)) => assert_equal((first_name, expected), (&name, &transcript)),
            }
        }
    }
    first.unwrap().1
}

/// Fails the test unless the transcript has all of `parts`.
#[track_caller]
fn assert_contains(transcript: &str, parts: &[&str]) {
    for part in parts {
        assert!(transcript.contains(part), "no {part:?} in\n{transcript}");
    }
}

fn add_header(kind: Kind) {
    let transcript = compare(kind, "add-header", &Family::ALL, |play| {
        let mut client = play.client();
        client.send("ann@example.com", &["bob@example.net", "carol@example.net"], &messages::intricate());
        play.note_deliveries(1);
        client.send("ann@example.com", &["bob@example.net"], &messages::short("second", ""));
        play.note_deliveries(1);
        play.note(&client.quit());
    });
    assert_eq!(
        transcript.matches("| X-Filtered-By: add-header on mx.example.org\\r\\n").count(),
        2,
        "{transcript}"
    );
}

#[test]
fn add_header_under_postfix() {
    add_header(Kind::Postfix);
}

#[test]
fn add_header_under_sendmail() {
    add_header(Kind::Sendmail);
}

fn log_everything(kind: Kind) {
    let transcript = compare(kind, "log-everything", &Family::ALL, |play| {
        let mut client = play.client();
        client.say("FROBNICATE all \\ of it");
        client.say("MAIL FROM:<ann@example.com> BODY=8BITMIME RET=HDRS ENVID=abc");
        client.say("RCPT TO:<bob@example.net> NOTIFY=NEVER");
        client.say("RCPT TO:<carol@example.net> NOTIFY=FAILURE,DELAY ORCPT=rfc822;carol@example.org");
        client.data(&messages::intricate());
        play.note_deliveries(1);
        // The filter hears of a message that was given up, and of a second one in the same session.
        client.say("MAIL FROM:<>");
        client.say("RCPT TO:<dave@example.net>");
        client.say("RSET");
        client.say("EHLO again.example.com");
        client.say("MAIL FROM:<ann@example.com>");
        client.say("RCPT TO:<dave@example.net>");
        client.data(&messages::short("second", ""));
        play.note_deliveries(1);
        play.note(&client.quit());
        play.await_sessions(1);
        // A session without mail, with the older greeting; from elsewhere, because Sendmail's {client_connections}
        // goes on counting the first one for a moment.
        let mut client = play.client_from("127.0.0.2");
        client.say("HELO old.example.com");
        play.note(&client.quit());
        play.await_sessions(2);
        play.note_filter_output();
    });
    assert_contains(
        &transcript,
        &[
            "1 negotiate: ",
            ", address 127.0.0.1\n1   macro j = mx.example.org\n",
            "1 helo: client.example.com\n",
            "1 unknown: FROBNICATE",
            "1 mail: <ann@example.com>\n",
            "1   parameter ENVID=abc\n",
            "1 rcpt: <carol@example.net>\n",
            "1   parameter ORCPT=rfc822;carol@example.org\n",
            "1 data\n",
            "1 header: Subject: first line\\x0a\\x09second, after a tab\\x0a  third, after two blanks\n",
            "1 end of header\n",
            "1 body: ",
            "1 end of message\n",
            "1 abort\n",
            "1 helo: again.example.com\n",
            "1 header: Subject: second\n",
            "1 close\n",
            "2 helo: old.example.com\n",
            "2 close\n",
        ],
    );
}

#[test]
fn log_everything_under_postfix() {
    log_everything(Kind::Postfix);
}

#[test]
fn log_everything_under_sendmail() {
    log_everything(Kind::Sendmail);
}

fn block_list(kind: Kind) {
    let transcript = compare(kind, "block-list", &Family::ALL, |play| {
        let mut client = play.client_from("127.0.0.66");
        client.say("EHLO client.example.com");
        client.say("MAIL FROM:<ann@example.com>");
        play.note(&client.quit());

        // By its name.
        let mut client = play.client_from(NAMED_CLIENT.0);
        if play.server.kind() == Kind::Postfix {
            client.say(&format!("XCLIENT NAME={}", NAMED_CLIENT.1));
        }
        client.say("EHLO client.example.com");
        client.say("MAIL FROM:<ann@example.com>");
        play.note(&client.quit());

        let mut client = play.client();
        client.say("MAIL FROM:<spammer@blocked.example>");
        client.say("MAIL FROM:<hasty@slow.example>");
        client.say("MAIL FROM:<ann@example.com>");
        for recipient in ["nobody@example.org", "RETIRED@example.org", "full@example.org", "bob@example.net"]
        {
            client.say(&format!("RCPT TO:<{recipient}>"));
        }
        client.data(&messages::short("for Bob alone", ""));
        play.note_deliveries(1);
        client.say("MAIL FROM:<ann@example.com>");
        client.say("RCPT TO:<nobody@example.org>");
        client.say("DATA");
        play.note(&client.quit());
    });
    assert_contains(
        &transcript,
        &[
            "This sender is not welcome here\nS: 550-5.7.1 because of complaints by our users.\nS: 550 5.7.1 Ask <postmaster> if that is wrong\n",
            "S: 451 4.7.1 Too much mail from this sender, try again later\n",
            "There is no such person\n",
            "S: 551-5.1.6 This person has moved\nS: 551 5.1.6 Try <successor@example.org>\n",
            "S: 452 4.2.2 This mailbox is full\n",
            "delivered: RCPT <bob@example.net>",
        ],
    );
    assert_eq!(transcript.matches("delivered: RCPT").count(), 1, "{transcript}");
    match kind {
        Kind::Postfix => assert_contains(
            &transcript,
            &[
                "S: 554 5.7.1 Your address is on our block list\n",
                "S: 554-5.7.1 No mail from your network\nS: 554 5.7.1 Ask <postmaster> to be let in\n",
            ],
        ),
        // It does not pass on what a filter says of a client, only that it must go.
        Kind::Sendmail => {
            let refused = transcript.matches("S: 554 mx.example.org ESMTP not accepting messages\n").count();
            assert_eq!(refused, 2, "{transcript}");
        }
    }
}

#[test]
fn block_list_under_postfix() {
    block_list(Kind::Postfix);
}

#[test]
fn block_list_under_sendmail() {
    block_list(Kind::Sendmail);
}

fn edit_message(kind: Kind) {
    let transcript = compare(kind, "edit-message", &Family::ALL, |play| {
        let mut client = play.client();
        let recipients = ["bob@example.net", "drop@example.net", "carol@example.net", "Drop@example.org"];
        client.send("ann@example.com", &recipients, &messages::intricate());
        play.note_deliveries(1);
        client.send(
            "ann@example.com",
            &["bob@example.net"],
            &messages::short("held", "X-Quarantine: looks odd\r\n"),
        );
        for held in play.server.held() {
            play.note(&format!("held:\n{held}"));
        }
        // The filter starts anew with the next message of the session.
        client.send("", &["bob@example.net"], &messages::short("third", ""));
        play.note_deliveries(1);
        play.note(&client.quit());
    });
    assert_contains(
        &transcript,
        &[
            "| X-Edited-By: edit-message\\r\\n",
            "| X-Original-Sender: <ann@example.com>\\r\\n",
            "| Subject: [edited] first line\\r\\n\n| \\tsecond, after a tab\\r\\n",
            "| edited by edit-message\\r\\n",
            "delivered: MAIL <bounces@example.org>",
            "delivered: RCPT <archive@example.org>",
            "delivered: RCPT <audit@example.org> ",
            " NOTIFY=NEVER\n",
            "delivered: RCPT <carol@example.net>",
            "held:",
            "Subject: [edited] held",
            "| Subject: [edited] third\\r\\n",
        ],
    );
    for gone in ["| X-Internal", "delivered: RCPT <drop@", "delivered: RCPT <Drop@"] {
        assert!(!transcript.contains(gone), "{gone:?} is in\n{transcript}");
    }
}

#[test]
fn edit_message_under_postfix() {
    edit_message(Kind::Postfix);
}

#[test]
fn edit_message_under_sendmail() {
    edit_message(Kind::Sendmail);
}
