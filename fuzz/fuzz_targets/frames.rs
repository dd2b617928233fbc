//! Bytes as they come over the wire, from either side: frames, the payload of every command, and of every answer.
//! What was understood is written again and must be understood as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milter::protocol::command::encode;
use milter::protocol::reply::encode_custom;
use milter::protocol::{Answer, Command, Kind, Text, frame};

/// Commands of the filter's side, compared as what C sees of them.
fn command(kind: Kind, payload: &[u8]) {
    let mut copy = payload.to_vec();
    let command = match Command::decode(kind, &mut copy) {
        Ok(command) => command,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut again = Vec::new();
    match command {
        Command::Negotiate(offer) => {
            encode::negotiate(&mut again, offer);
            reread(&mut again, |command| assert_eq!(command, Command::Negotiate(offer)));
        }
        Command::Connect(host, peer) => {
            encode::connect(&mut again, host.as_bytes(), peer);
            reread(&mut again, |command| {
                let Command::Connect(same_host, same_peer) = command else { panic!("{command:?}") };
                assert_eq!((same_host.as_bytes(), same_peer), (host.as_bytes(), peer));
            });
        }
        Command::Helo(name) => {
            encode::helo(&mut again, name.as_bytes());
            reread(&mut again, |command| {
                let Command::Helo(same) = command else { panic!("{command:?}") };
                assert_eq!(same.as_bytes(), name.as_bytes());
            });
        }
        Command::Mail(arguments) | Command::Rcpt(arguments) => {
            let texts: Vec<Text<'_>> = arguments.texts().collect();
            let bytes: Vec<&[u8]> = texts.iter().map(Text::as_bytes).collect();
            assert!(!bytes.is_empty());
            encode::envelope(&mut again, kind, &bytes);
            reread(&mut again, |command| {
                let (Command::Mail(same) | Command::Rcpt(same)) = command else { panic!("{command:?}") };
                let same: Vec<Text<'_>> = same.texts().collect();
                assert_eq!(same.iter().map(Text::as_bytes).collect::<Vec<_>>(), bytes);
            });
        }
        // An empty name takes the value as its own: see `Command::decode`.
        Command::Header(name, value) if !name.as_bytes().is_empty() => {
            encode::header(&mut again, name.as_bytes(), value.as_bytes());
            reread(&mut again, |command| {
                let Command::Header(same_name, same_value) = command else { panic!("{command:?}") };
                assert_eq!(
                    (same_name.as_bytes(), same_value.as_bytes()),
                    (name.as_bytes(), value.as_bytes())
                );
            });
        }
        Command::Body(piece) | Command::EndOfMessage(piece) | Command::Unknown(piece) => {
            assert_eq!(piece, payload);
        }
        _ => {}
    }
}

fn reread(bytes: &mut [u8], check: impl FnOnce(Command<'_>)) {
    assert_eq!(frame::measure(bytes, usize::MAX), Ok(Some(bytes.len())));
    let frame = frame::read(bytes);
    let kind = Kind::try_from(&frame).expect("encoded as a command");
    check(Command::decode(kind, frame.payload).expect("encoded as a command"));
}

/// Answers of the MTA's side.
fn answer(kind: u8, payload: &[u8]) {
    let mut again = Vec::new();
    match Answer::decode(kind, payload) {
        None => return,
        Some(Answer::Negotiated(terms)) => terms.encode(&mut again, usize::MAX).unwrap(),
        Some(Answer::Reply(reply)) => reply.encode(&mut again),
        Some(Answer::Custom(text)) => encode_custom(text, &mut again),
        // It carries nothing, whatever stands in it.
        Some(Answer::Modification(milter::protocol::Modification::Progress)) => return,
        Some(Answer::Modification(modification)) => modification.encode(&mut again, usize::MAX).unwrap(),
    }
    let mut frame = Vec::new();
    frame::append(&mut frame, kind, &[payload]);
    assert_eq!(again, frame);
}

fuzz_target!(|bytes: &[u8]| {
    const MAX_PAYLOAD: usize = 1000;
    let mut rest = bytes.to_vec();
    loop {
        match frame::measure(&rest, MAX_PAYLOAD) {
            Ok(Some(length)) if length <= rest.len() => {
                let behind = rest.split_off(length);
                let frame = frame::read(&mut rest);
                assert!(frame.payload.len() <= MAX_PAYLOAD);
                if let Ok(kind) = Kind::try_from(frame.kind) {
                    command(kind, frame.payload);
                }
                answer(frame.kind, frame.payload);
                rest = behind;
            }
            Ok(_) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
});
