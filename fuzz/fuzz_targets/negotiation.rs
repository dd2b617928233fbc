//! The MTA's offer, whatever it is, against what a filter wants and chooses.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use milter::protocol::negotiate::{ReplyPolicy, agree};
use milter::protocol::{Actions, Choice, Kind, Offer, Stage, Steps, Wants};

#[derive(Debug, Arbitrary)]
struct Input {
    actions: u32,
    off: u32,
    /// Of the filter's negotiate callback, if it has one: what it returns, or "all options".
    choice: Option<Option<(u32, u32)>>,
    offer: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let offer = match Offer::decode(&input.offer) {
        Ok(offer) => offer,
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            return;
        }
    };
    let wants =
        Wants { actions: Actions::from_bits_retain(input.actions), off: Steps::from_bits_retain(input.off) };
    let choice = match input.choice {
        None => Choice::Registered,
        Some(None) => Choice::AllOptions,
        Some(Some((actions, steps))) => {
            Choice::Own(Actions::from_bits_retain(actions), Steps::from_bits_retain(steps))
        }
    };
    match agree(&offer, &wants, choice) {
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
        Ok(agreement) => {
            assert!((2..=6).contains(&agreement.version()));
            assert!(offer.actions.contains(agreement.actions()));
            assert!(offer.steps.contains(agreement.told()), "only what was offered");
            assert!(!agreement.told().intersects(Steps::INTERNAL));
            assert!(agreement.off().contains(wants.off));
            assert_eq!(agreement.steps().off(&wants), agreement.off());
            for stage in (0..=255).filter_map(|byte| Stage::of(Kind::try_from(byte).ok()?)) {
                let answers = agreement.steps().answers(stage);
                let may_be_silent = offer.steps.intersects(stage.no_reply());
                assert!(answers != ReplyPolicy::Nobody || may_be_silent, "an MTA that waits gets an answer");
                assert!(answers == ReplyPolicy::Filter || agreement.steps().has_silences());
            }
        }
    }
});
