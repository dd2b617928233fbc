//! What holds for every value: what one side encodes the other decodes as the same, and the table of stages is that
//! of the contract.

use super::command::encode;
use super::negotiate::{ReplyPolicy, agree};
use super::reply::{Negotiated, encode_custom};
use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Bytes that a string can have, up to a length.
fn text(length: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(1..=255_u8, 0..=length)
}

/// What was encoded as one command is handed to `check`, decoded.
fn decode(mut bytes: Vec<u8>, check: impl FnOnce(Command<'_>)) {
    assert_eq!(frame::measure(&bytes, usize::MAX), Ok(Some(bytes.len())));
    let frame = frame::read(&mut bytes);
    let kind = Kind::try_from(&frame).unwrap();
    check(Command::decode(kind, frame.payload).unwrap());
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

/// The answer that one frame is.
fn answer(bytes: &[u8]) -> Option<Answer<'_>> {
    assert_eq!(frame::measure(bytes, usize::MAX), Ok(Some(bytes.len())));
    Answer::decode(bytes[frame::LENGTH_FIELD], &bytes[frame::OVERHEAD..])
}

/// A modification of the kind that `which` says, of these strings.
fn modification<'a>(
    which: usize,
    index: u32,
    first: &'a [u8],
    second: &'a [u8],
    arguments: Option<&'a [u8]>,
) -> Modification<'a> {
    match which {
        0 => Modification::AddHeader { name: first, value: second },
        1 => Modification::InsertHeader { index, name: first, value: second },
        2 => Modification::ChangeHeader { index, name: first, value: second },
        3 => Modification::ChangeSender { address: first, arguments },
        4 => Modification::AddRecipient(first),
        5 => Modification::AddRecipientWith { address: first, arguments },
        6 => Modification::DeleteRecipient(first),
        7 => Modification::ReplaceBody(first),
        8 => Modification::Quarantine(first),
        _ => Modification::Progress,
    }
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in(
        frames in vec((any::<u8>(), vec(any::<u8>(), 0..300)), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(|out| {
            frames.iter().for_each(|(kind, payload)| frame::append(out, *kind, &[payload]));
        });
        // A part of the bytes is a part of the frames, and never another frame.
        let mut part = &bytes[..cut.index(bytes.len() + 1)];
        for (_, payload) in &frames {
            match frame::measure(part, 300).unwrap() {
                Some(length) => {
                    prop_assert_eq!(length, frame::OVERHEAD + payload.len());
                    part = part.get(length..).unwrap_or_default();
                }
                None => break,
            }
        }
        let mut rest = &mut bytes[..];
        for (kind, payload) in &frames {
            let length = frame::measure(rest, 300).unwrap().unwrap();
            let (first, behind) = rest.split_at_mut(length);
            prop_assert_eq!(frame::read(first), Frame { kind: *kind, payload: &mut payload.clone() });
            rest = behind;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_limit_cuts_between_two_lengths(payload in 0..100_000_usize, max in 0..100_000_usize) {
        let mut bytes = u32::try_from(payload + 1).unwrap().to_be_bytes().to_vec();
        bytes.push(b'B');
        let expected = if payload <= max {
            Ok(Some(payload + frame::OVERHEAD))
        } else {
            Err(FrameError::TooLong { payload, max })
        };
        prop_assert_eq!(frame::measure(&bytes, max), expected);
    }

    #[test]
    fn the_filter_reads_what_the_mta_says(
        first in text(60),
        rest in vec(text(40), 0..5),
        address in any::<u128>(),
        port in any::<u16>(),
        body in vec(any::<u8>(), 1..300),
    ) {
        let second: &[u8] = rest.first().map_or(b"", Vec::as_slice);
        for peer in [
            Peer::Unknown,
            Peer::Inet { address: (address as u32).into(), port },
            Peer::Inet6 { address: address.into(), port },
            Peer::Unix(second),
        ] {
            decode(encoded(|out| encode::connect(out, &first, peer)), |command| {
                let Command::Connect(host, heard) = command else { panic!("{command:?}") };
                assert_eq!((host.as_bytes(), heard), (&first[..], peer));
            });
        }
        decode(encoded(|out| encode::helo(out, &first)), |command| {
            let Command::Helo(name) = command else { panic!("{command:?}") };
            assert_eq!(name.as_bytes(), first);
        });
        let arguments: Vec<&[u8]> = std::iter::once(&first).chain(&rest).map(Vec::as_slice).collect();
        for kind in [Kind::Mail, Kind::Rcpt] {
            decode(encoded(|out| encode::envelope(out, kind, &arguments)), |command| {
                let (Command::Mail(heard) | Command::Rcpt(heard)) = command else { panic!("{command:?}") };
                let heard: Vec<Vec<u8>> = heard.texts().map(|text| text.as_bytes().to_vec()).collect();
                assert_eq!(heard, arguments);
            });
        }
        // An empty name takes the value as its own: see `Command::decode`.
        if !first.is_empty() {
            decode(encoded(|out| encode::header(out, &first, second)), |command| {
                let Command::Header(name, value) = command else { panic!("{command:?}") };
                assert_eq!((name.as_bytes(), value.as_bytes()), (&first[..], second));
            });
        }
        for kind in [Kind::Body, Kind::EndOfMessage, Kind::Unknown] {
            decode(encoded(|out| encode::raw(out, kind, &body)), |command| {
                let (Command::Body(heard) | Command::EndOfMessage(heard) | Command::Unknown(heard)) = command
                else {
                    panic!("{command:?}")
                };
                assert_eq!(heard, body);
            });
        }
    }

    #[test]
    fn no_payload_makes_decoding_fail_otherwise_than_by_an_error(payload in vec(any::<u8>(), 0..80)) {
        for kind in (0..=255).filter_map(|byte| Kind::try_from(byte).ok()) {
            if let Err(error) = Command::decode(kind, &mut payload.clone()) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
        for kind in 0..=255 {
            if let Some(Answer::Modification(modification)) = Answer::decode(kind, &payload)
                && modification != Modification::Progress
            {
                let again = encoded(|out| modification.encode(out, usize::MAX).unwrap());
                prop_assert_eq!(again, encoded(|out| frame::append(out, kind, &[&payload])));
            }
        }
    }

    #[test]
    fn the_mta_reads_what_the_filter_answers(
        which in 0..10_usize,
        index in any::<u32>(),
        first in text(60),
        second in text(60),
        arguments in option::of(text(30)),
        max in 0..160_usize,
    ) {
        let modification = modification(which, index, &first, &second, arguments.as_deref());
        let bytes = encoded(|out| modification.encode(out, usize::MAX).unwrap());
        prop_assert_eq!(answer(&bytes), Some(Answer::Modification(modification)));
        // With a limit it is whole or not there at all.
        let limited = encoded(|out| {
            let fits = bytes.len() - frame::OVERHEAD <= max;
            assert_eq!(modification.encode(out, max).is_ok(), fits);
        });
        prop_assert!(limited.is_empty() || limited == bytes);

        let bytes = encoded(|out| encode_custom(&first, out));
        prop_assert_eq!(answer(&bytes), Some(Answer::Custom(&first)));
        for reply in
            [Reply::Continue, Reply::Accept, Reply::Reject, Reply::TempFail, Reply::Discard, Reply::Skip]
        {
            let bytes = encoded(|out| reply.encode(out));
            prop_assert_eq!(answer(&bytes), Some(Answer::Reply(reply)));
        }
    }

    #[test]
    fn the_terms_of_a_session_survive_the_wire(
        (version, actions, steps) in any::<(u32, u32, u32)>(),
        macro_lists in vec((0..MacroStage::COUNT, text(40)), 0..8),
        offered in any::<(u32, u32)>(),
    ) {
        let macro_lists = macro_lists.into_iter().map(|(stage, list)| (MacroStage::ALL[stage], list)).collect();
        let negotiated = Negotiated { version, actions, steps, macro_lists };
        let bytes = encoded(|out| negotiated.encode(out, usize::MAX).unwrap());
        prop_assert_eq!(answer(&bytes), Some(Answer::Negotiated(negotiated)));

        // 0 stands for what the oldest MTAs offered.
        let offer = Offer {
            version: 2 + version % 5,
            actions: Actions::from_bits_retain(offered.0.max(1)),
            steps: Steps::from_bits_retain(offered.1.max(1)),
        };
        prop_assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
    }

    #[test]
    fn nothing_is_agreed_on_that_was_not_offered(
        (version, offered_actions, offered_steps) in any::<(u32, u32, u32)>(),
        (actions, off) in any::<(u32, u32)>(),
        own in option::of(option::of(any::<(u32, u32)>())),
    ) {
        let offer = Offer {
            version: 2 + version % 8,
            actions: Actions::from_bits_retain(offered_actions),
            steps: Steps::from_bits_retain(offered_steps),
        };
        // Masked with the offer now and then, or hardly anything would ever be agreed on.
        let mask = if version & 0x100 == 0 { (offered_actions, offered_steps) } else { (u32::MAX, u32::MAX) };
        let actions = Actions::from_bits_retain(actions & mask.0);
        let wants = Wants { actions, off: Steps::from_bits_retain(off & mask.1 & 0x37f) };
        let choice = match own {
            None => Choice::Registered,
            Some(None) => Choice::AllOptions,
            Some(Some((actions, steps))) => Choice::Own(
                Actions::from_bits_retain(actions & mask.0),
                Steps::from_bits_retain(steps & mask.1),
            ),
        };
        if let Ok(agreement) = agree(&offer, &wants, choice) {
            prop_assert!((2..=6).contains(&agreement.version()));
            prop_assert!(offer.actions.contains(agreement.actions()));
            prop_assert!(offer.steps.difference(Steps::INTERNAL).contains(agreement.told()));
            prop_assert!(agreement.off().contains(wants.off));
            prop_assert_eq!(agreement.steps().off(&wants), agreement.off());
            for stage in stages().into_values() {
                let nobody = agreement.steps().answers(stage) == ReplyPolicy::Nobody;
                prop_assert!(!nobody || offer.steps.intersects(stage.no_reply()), "{:?} has to be answered", stage);
            }
        }
    }

    #[test]
    fn macros_are_found_by_name_and_the_latest_stage_wins(
        definitions in vec((0..MacroStage::COUNT, vec(("[a-c]|\\{[a-c]\\}|\\{x[yz]\\}", text(8)), 0..5)), 0..10),
        name in "[a-c]|\\{[a-c]\\}|\\{x[yz]\\}",
    ) {
        let bare = |name: &str| name.trim_matches(|c| name.len() == 3 && "{}".contains(c)).to_owned();
        let mut store = MacroStore::default();
        let mut stages: BTreeMap<usize, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        for (stage, pairs) in definitions {
            let bytes: Vec<(&[u8], &[u8])> =
                pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
            decode(encoded(|out| encode::macros(out, MacroStage::ALL[stage], &bytes)), |command| {
                let Command::Macro(Some(heard), definitions) = command else { panic!("{command:?}") };
                assert_eq!(heard, MacroStage::ALL[stage]);
                store.take_in(heard, definitions);
            });
            // A frame that defines nothing changes nothing.
            if !pairs.is_empty() {
                stages.insert(stage, pairs.into_iter().map(|(name, value)| (bare(&name), value)).collect());
            }
        }
        let expected = stages.values().rev().find_map(|pairs| {
            pairs.iter().find(|(key, _)| *key == bare(&name)).map(|(_, value)| [value, &b"\0"[..]].concat())
        });
        prop_assert_eq!(store.value(name.as_bytes()).map(<[u8]>::to_vec), expected);
    }

    #[test]
    fn a_move_is_legal_if_only_switched_off_stages_are_stepped_over(off in any::<u32>(), more in any::<u32>()) {
        let off = Steps::from_bits_retain(off);
        let stages: Vec<Stage> = stages().into_values().collect();
        let in_order = ordered(&stages);
        for (at, &from) in in_order.iter().enumerate() {
            // `from`, and whatever can be reached by stepping into stages that are switched off.
            let skipped = in_order[at + 1..].iter().take_while(|stage| off.intersects(stage.switch()));
            let starts: Vec<Stage> = std::iter::once(from).chain(skipped.copied()).collect();
            for &target in &in_order {
                let legal = starts.iter().any(|start| start.is_followed_by(target));
                prop_assert_eq!(from.leads_to(target, off), legal, "{:?} to {:?}", from, target);
                let with_more = from.leads_to(target, off | Steps::from_bits_retain(more));
                prop_assert!(!legal || with_more, "switching off more forbids nothing");
            }
        }
    }
}

/// The stages by their names in the contract.
fn stages() -> BTreeMap<&'static str, Stage> {
    BTreeMap::from([
        ("INIT", Stage::Init),
        ("OPTS", Stage::Options),
        ("CONN", Stage::Connect),
        ("HELO", Stage::Helo),
        ("MAIL", Stage::Mail),
        ("RCPT", Stage::Rcpt),
        ("DATA", Stage::Data),
        ("HDRS", Stage::Header),
        ("EOHS", Stage::EndOfHeader),
        ("BODY", Stage::Body),
        ("ENDM", Stage::EndOfMessage),
        ("QUIT", Stage::Quit),
        ("ABRT", Stage::Abort),
        ("UNKN", Stage::Unknown),
        ("Q_NC", Stage::QuitNewConnection),
    ])
}

fn ordered(stages: &[Stage]) -> Vec<Stage> {
    let mut stages = stages.to_vec();
    stages.sort();
    stages
}

#[test]
fn the_table_of_stages_is_that_of_the_contract() {
    let contract = include_str!("../../docs/contract/1-wire.md");
    let (_, section) = contract.split_once("## 6. Session states").unwrap();
    let stages = stages();
    let order =
        section.split_once("In this order").unwrap().1.split_once(':').unwrap().1.split_once('.').unwrap().0;
    let order: Vec<Stage> = order.split_whitespace().map(|name| stages[name]).collect();
    assert_eq!(order, ordered(&order));
    assert_eq!(order.len(), stages.len());

    let mut seen = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let followers: Vec<Stage> =
            cells[1].split(' ').filter(|name| *name != "-").map(|name| stages[name]).collect();
        for from in cells[0].split(", ").map(|name| stages[name]) {
            seen += 1;
            for &target in &order {
                assert_eq!(
                    from.is_followed_by(target),
                    followers.contains(&target),
                    "{from:?} to {target:?}"
                );
            }
        }
    }
    assert_eq!(seen, stages.len());
}
