//! Single bugs, put into a copy of `src/` one at a time: the sessions must find each of them. A comparison that
//! misses one has a blind spot.

use super::compare::find_difference;
use super::play::Candidate;
use super::probe_program;
use crate::support::{SONAME, run, temp_dir};
use crate::workshop::{Mutant, Workshop};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const MUTANTS: [Mutant; 21] = [
    Mutant {
        name: "wrong reply byte",
        file: "src/protocol/reply.rs",
        good: "put(b'+', &[address, NUL])",
        bad: "put(b'-', &[address, NUL])",
    },
    Mutant {
        name: "macros kept too long: HELO",
        file: "src/session/mod.rs",
        good: "Kind::Helo => self.ctx.forget_macros_above(MacroStage::Helo),",
        bad: "Kind::Helo => {}",
    },
    Mutant {
        name: "macros kept too long: QUIT_NC",
        file: "src/session/mod.rs",
        good: "self.close(filter)?;\n                self.ctx.forget_macros();",
        bad: "self.close(filter)?;",
    },
    Mutant {
        name: "abort missing at the end of the connection",
        file: "src/session/mod.rs",
        good: "let _ = self.abort(filter);",
        bad: "",
    },
    Mutant {
        name: "skip of a declined step forgotten",
        file: "src/protocol/state.rs",
        good: "Self::Header => Steps::NOHDRS,",
        bad: "",
    },
    Mutant {
        name: "a transition forgotten",
        file: "src/protocol/state.rs",
        good: "Self::Mail => RCPT | ABORT | UNKNOWN,",
        bad: "Self::Mail => RCPT | ABORT,",
    },
    Mutant { name: "close twice", file: "src/session/mod.rs", good: "self.open = false;", bad: "" },
    Mutant {
        name: "stored reply not used up",
        file: "src/session/context.rs",
        good: "extras.reply.take_if(fits)",
        bad: "extras.reply.clone().filter(|reply| fits(&mut reply.clone()))",
    },
    Mutant {
        name: "stored reply used for the wrong verdict",
        file: "src/protocol/smtp.rs",
        good: "self.text[0] == b'5'",
        bad: "self.text[2] == b'0'",
    },
    Mutant {
        name: "verdict on a recipient ends the message",
        file: "src/session/mod.rs",
        good: "!matches!(kind, Kind::Rcpt | Kind::Unknown)",
        bad: "!matches!(kind, Kind::Unknown)",
    },
    Mutant {
        name: "no answer for an MTA that waits",
        file: "src/session/mod.rs",
        good: "ReplyPolicy::Library => Some(Reply::Continue),",
        bad: "ReplyPolicy::Library => None,",
    },
    Mutant {
        name: "internal protocol flags shown to the filter",
        file: "src/protocol/negotiate.rs",
        good: "(self.steps | Steps::NO_REPLY).difference(Steps::INTERNAL)",
        bad: "self.steps | Steps::NO_REPLY",
    },
    Mutant {
        name: "the MTA's protocol version answered as it came",
        file: "src/protocol/negotiate.rs",
        good: "version: offer.version.min(VERSION),",
        bad: "version: offer.version,",
    },
    Mutant {
        name: "limit of a frame off by one",
        file: "src/protocol/frame.rs",
        good: "Some(payload) if payload > max_payload =>",
        bad: "Some(payload) if payload >= max_payload =>",
    },
    Mutant {
        name: "body pieces off by one",
        file: "src/session/context.rs",
        good: "body.chunks(BODY_PIECE)",
        bad: "body.chunks(BODY_PIECE - 1)",
    },
    Mutant {
        name: "earlier stages hide the macros of later ones",
        file: "src/protocol/macros.rs",
        good: "(0..self.stages.len()).rev().find_map(",
        bad: "(0..self.stages.len()).find_map(",
    },
    Mutant {
        name: "changes of the message allowed at any time",
        file: "src/session/context.rs",
        good: "Changes::Refused => return Err(NotSent::NotAllowed),",
        bad: "Changes::Refused => true,",
    },
    Mutant {
        name: "abort for a malformed message behind an aborted one",
        file: "src/session/mod.rs",
        good: "if may_follow && aborts && filter.has(kind) {",
        bad: "if false {",
    },
    Mutant {
        name: "close again for a malformed command behind QUIT_NC",
        file: "src/session/mod.rs",
        good: "if filter.has(kind) {\n            Command::decode(kind, payload).map_err(malformed)?;",
        bad: "if false {",
    },
    Mutant {
        name: "a negotiation answer of any size",
        file: "src/protocol/reply.rs",
        good: "max_payload.min(LARGEST) {
            return Err(TooLarge);
        }
        append_with(out, b'O'",
        bad: "LARGEST.max(max_payload) {
            return Err(TooLarge);
        }
        append_with(out, b'O'",
    },
    Mutant {
        name: "a short form of an IPv4 address refused",
        file: "src/protocol/address.rs",
        good: "[b'0', b'x' | b'X', digits @ ..] => number::<16>(digits),",
        bad: "",
    },
];

/// Builds the library with one bug; the directory that it is in.
fn build(workshop: &Workshop, number: usize, mutant: &Mutant) -> PathBuf {
    workshop.with(mutant, || {
        run(workshop.cargo("rustc").args(["--lib", "--no-default-features", "--crate-type", "cdylib"]));
        let library = workshop.dir().join(format!("mutant{number}"));
        fs::create_dir(&library).unwrap();
        fs::copy(workshop.target().join("debug/libmilter.so"), library.join(SONAME)).unwrap();
        library
    })
}

/// Each bug is found.
#[test]
fn every_seeded_bug_is_found() {
    let workshop = Workshop::new("mutants");
    let dir = temp_dir();
    let program = &probe_program(dir.path());
    std::thread::scope(|scope| {
        for (number, mutant) in MUTANTS.iter().enumerate() {
            let library = build(&workshop, number, mutant);
            // The next one is built while the sessions run.
            scope.spawn(move || {
                let patience = Duration::from_secs(10);
                let candidate = Candidate { patience, ..Candidate::new(program, &library) };
                let found = find_difference(&candidate, 1, 12_000);
                let Err((seed, difference)) = found else { panic!("not found: {}", mutant.name) };
                let lines = difference.report().lines().count();
                println!("{}: found by group {seed}, {lines} lines", mutant.name);
            });
        }
    });
}
