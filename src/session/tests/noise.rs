//! Random sessions: frames in any order, damaged ones among them, in one piece and cut anywhere. The dice fall
//! alike in every run.

use super::*;
use std::time::{Duration, Instant};

/// A small generator of numbers, the same ones in every run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Frames in any order, some damaged, some not frames at all.
fn noise(dice: &mut Dice) -> Vec<u8> {
    const COMMANDS: &[u8] = b"OOCHHMMRRTLNBEEAUQKDD";
    const PAYLOADS: [&[u8]; 12] = [
        b"",
        b"\0",
        b"a",
        b"a\0",
        b"a\0b\0",
        b"host\0U",
        b"h\x004\0\x19192.0.2.1\0",
        b"h\x006\0\x19IPv6:::1\0",
        b"Ci\x001\0{x}\x002\0",
        b"Ei\0odd",
        OPTNEG.1,
        b"\0\0\0\x02\0\0\0\0\0\0\0\0",
    ];
    let mut bytes = if dice.below(8) == 0 { vec![] } else { frames(&[OPTNEG, CONNECT, HELO, MAIL, RCPT]) };
    for _ in 0..dice.below(20) {
        let kind =
            if dice.below(60) == 0 { dice.below(256) as u8 } else { COMMANDS[dice.below(COMMANDS.len())] };
        frame::append(&mut bytes, kind, &[PAYLOADS[dice.below(PAYLOADS.len())]]);
    }
    if dice.below(3) == 0 && !bytes.is_empty() {
        let at = dice.below(bytes.len());
        bytes[at] = dice.below(256) as u8;
    }
    bytes
}

/// A filter whose answers follow from what it has seen so far, so that they are the same for the same commands.
fn moody(seed: usize) -> Recorder {
    let calls = Mutex::new(Dice(seed as u64 + 1));
    Recorder::new(move |kind, ctx| {
        let roll = calls.lock().below(24);
        let _ = ctx.macro_value(b"i");
        if kind == Kind::EndOfMessage {
            // Some sessions have not agreed on it.
            let _ = ctx.modify(Actions::ADDHDRS, Modification::AddHeader { name: b"X", value: b"y" });
        }
        match roll {
            0 => Verdict::REJECT,
            1 => Verdict::TEMPFAIL,
            2 => Verdict::ACCEPT,
            3 => Verdict::DISCARD,
            4 => Verdict::SKIP,
            5 => Verdict::NOREPLY,
            6 => Verdict(99),
            _ => Verdict::CONTINUE,
        }
    })
}

/// What holds for the callbacks of every session, whatever the MTA sends.
fn check_order(seen: &str) {
    let mut events: Vec<&str> = seen.split(' ').collect();
    assert_eq!(events.pop(), Some("close"), "{seen}");
    // A malformed MAIL begins a message that the filter hears of only by its abort.
    events.pop_if(|event| *event == "abort");
    let mut ended = false;
    for event in events {
        let ends = matches!(event, "abort" | "eom");
        assert!(!(ended && ends), "a message ends twice: {seen}");
        ended = ends;
    }
}

#[test]
fn random_bytes_never_break_a_session() {
    let mut dice = Dice(0x6d69_6c74_6572);
    let buffers = &mut Buffers::default();
    for round in 0..4_000 {
        let bytes = noise(&mut dice);
        let mut conversation = Conversation::new(moody(round));
        conversation.mta.write_all(&bytes).unwrap();
        conversation.mta.shutdown(Half::Write).unwrap();
        assert_eq!(
            conversation.session.run(&conversation.filter, buffers, Cause::Ready, Patience::Brief),
            Pause::Ended
        );
        check_order(&conversation.seen());
        conversation.heard();
        assert!(buffers.inbox.is_empty() && buffers.outbox.is_empty(), "{}", bytes.escape_ascii());
    }
}

/// Sends the bytes in pieces, then ends its sending.
fn send_cut(mut mta: UnixStream, bytes: &[u8], cuts: &[usize]) {
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        // The session may end before all is sent.
        if mta.write_all(&bytes[from..to]).is_err() {
            return;
        }
        from = to;
        std::thread::sleep(Duration::from_micros(20));
    }
    let _ = mta.shutdown(Half::Write);
}

#[test]
fn where_the_bytes_are_cut_makes_no_difference() {
    let mut dice = Dice(0x0063_7574);
    for round in 0..150 {
        let bytes = noise(&mut dice);
        let cuts: Vec<usize> = (0..bytes.len()).filter(|_| dice.below(6) == 0).collect();
        let mut whole = Conversation::new(moody(round));
        whole.say_last(&bytes, &mut Buffers::default());
        let (seen, heard) = (whole.seen(), whole.heard());

        // A thread of its own; and one that has other things to do whenever there is nothing to read.
        for patience in [Patience::Brief, Patience::None] {
            let mut pieces = Conversation::new(moody(round));
            let mta = pieces.mta.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| send_cut(mta, &bytes, &cuts));
                let buffers = &mut Buffers::default();
                while pieces.session.run(&pieces.filter, buffers, Cause::Ready, patience) != Pause::Ended {
                    assert!(buffers.inbox.is_empty() && buffers.outbox.is_empty());
                    pieces.session.shrink();
                    pieces.session.wait(pieces.session.deadline(Instant::now()));
                }
            });
            assert_eq!(pieces.seen(), seen, "{patience:?}");
            assert_eq!(pieces.heard(), heard, "{patience:?}");
        }
    }
}
