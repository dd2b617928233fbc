//! Negotiation (contract 1.4): from what the MTA offers and the filter wants to what the session keeps and the
//! MTA is told. Pure functions; the session asks the filter in between.

use super::flags::{Actions, Steps};
use super::state::Stage;
use crate::count::Count;

/// The newest protocol version that this library speaks.
pub const VERSION: u32 = 6;

/// The oldest protocol version that it accepts.
pub const OLDEST_VERSION: u32 = 2;

/// Actions of an MTA that offers none: `SMFI_V1_ACTS`.
const DEFAULT_ACTIONS: u32 = 0x0f;

/// Steps of an MTA that offers none.
const DEFAULT_STEPS: u32 = 0x3f;

/// What the MTA offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Its protocol version.
    pub version: u32,
    /// The modifications that it lets a filter make.
    pub actions: Actions,
    /// The steps that it can leave out, or send without waiting for an answer; [`Steps::INTERNAL`] included.
    pub steps: Steps,
}

/// Why a negotiation fails: the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// OPTNEG with fewer than 12 bytes.
    Short {
        /// How many.
        length: usize,
    },
    /// The MTA's protocol is too old.
    Version(i32),
    /// The filter's negotiate callback returned neither "all options" nor "continue".
    Callback(i32),
    /// The filter wants modifications that the MTA does not offer.
    Actions {
        /// What the filter wants.
        wanted: Actions,
        /// What the MTA offers.
        offered: Actions,
    },
    /// The filter wants steps left out that the MTA cannot leave out.
    Steps {
        /// What the filter wants.
        wanted: Steps,
        /// What the MTA offers.
        offered: Steps,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short { length } => {
                write!(f, "negotiation: {}, at least 12 are needed", Count(*length, "byte"))
            }
            Self::Version(version) => write!(
                f,
                "negotiation: the MTA speaks protocol version {version}, {OLDEST_VERSION} is the oldest known"
            ),
            Self::Callback(status) => write!(f, "negotiation: the negotiate callback returned {status}"),
            Self::Actions { wanted, offered } => write!(
                f,
                "negotiation: the filter wants actions {:#x}, the MTA offers {:#x}",
                wanted.bits(),
                offered.bits()
            ),
            Self::Steps { wanted, offered } => write!(
                f,
                "negotiation: the filter wants protocol steps {:#x}, the MTA offers {:#x}",
                wanted.bits(),
                offered.bits()
            ),
        }
    }
}

impl std::error::Error for Refusal {}

impl Offer {
    /// Reads the payload of OPTNEG; what stands behind 12 bytes is ignored.
    ///
    /// # Errors
    /// It is too short, or the version too old.
    pub fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *payload else {
            return Err(Refusal::Short { length: payload.len() });
        };
        let version = u32::from_be_bytes([a, b, c, d]);
        // The reference takes the number as signed, so the largest ones are too old.
        if version.cast_signed() < OLDEST_VERSION.cast_signed() {
            return Err(Refusal::Version(version.cast_signed()));
        }
        let or_default = |bits: u32, default: u32| if bits == 0 { default } else { bits };
        Ok(Self {
            version,
            actions: Actions::from_bits_retain(or_default(u32::from_be_bytes([e, f, g, h]), DEFAULT_ACTIONS)),
            steps: Steps::from_bits_retain(or_default(u32::from_be_bytes([i, j, k, l]), DEFAULT_STEPS)),
        })
    }

    /// The payload of OPTNEG.
    pub fn encode(&self) -> [u8; 12] {
        let mut payload = [0; 12];
        payload[..4].copy_from_slice(&self.version.to_be_bytes());
        payload[4..8].copy_from_slice(&self.actions.bits().to_be_bytes());
        payload[8..].copy_from_slice(&self.steps.bits().to_be_bytes());
        payload
    }

    /// The steps that a filter with a negotiate callback is offered: the no-reply bits always, because the
    /// session can answer in the filter's place.
    pub fn steps_for_callback(&self) -> Steps {
        (self.steps | Steps::NO_REPLY).difference(Steps::INTERNAL)
    }
}

/// What a filter registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// `xxfi_flags`.
    pub actions: Actions,
    /// The "do not send" bits of all callbacks that it does not have.
    pub off: Steps,
}

/// What a filter's negotiate callback chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// There is no such callback.
    Registered,
    /// `SMFIS_ALL_OPTS`: all actions, and the steps that follow from the callbacks.
    AllOptions,
    /// `SMFIS_CONTINUE`, with actions and steps of its own.
    Own(Actions, Steps),
}

/// What MTA and filter have agreed on, for one session. Only [`agree`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    version: u32,
    actions: Actions,
    told: Steps,
    off: Steps,
    steps: AgreedSteps,
}

/// The part of an [`Agreement`] that is needed for each command. The default is what holds before there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgreedSteps {
    chosen: Steps,
    offered: Steps,
}

/// Weighs the offer against what the filter wants and chose.
///
/// # Errors
/// The filter wants what the MTA does not offer.
pub fn agree(offer: &Offer, wants: &Wants, choice: Choice) -> Result<Agreement, Refusal> {
    let (actions, steps, mut told) = match choice {
        Choice::Registered => (wants.actions, wants.off, wants.off),
        Choice::AllOptions => (offer.actions, wants.off, wants.off | (offer.steps & Steps::SKIP)),
        Choice::Own(actions, steps) => (actions, steps, steps),
    };
    if !matches!(choice, Choice::Registered) {
        told = told.difference(Steps::NO_REPLY.difference(offer.steps));
    }
    if !offer.actions.contains(actions) {
        return Err(Refusal::Actions { wanted: actions, offered: offer.actions });
    }
    // What the MTA offers to the library is not the filter's to take.
    let offered = offer.steps.difference(Steps::INTERNAL);
    if !offered.contains(told) {
        told = told.difference((Steps::NODATA | Steps::NOUNKNOWN).difference(offered));
    }
    if !offered.contains(told) {
        return Err(Refusal::Steps { wanted: told, offered });
    }
    Ok(Agreement {
        version: offer.version.min(VERSION),
        actions,
        told,
        off: wants.off | steps,
        steps: AgreedSteps { chosen: steps, offered },
    })
}

impl Agreement {
    /// The protocol version of the session.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The modifications that the filter may make.
    pub fn actions(&self) -> Actions {
        self.actions
    }

    /// The steps as the MTA is told.
    pub fn told(&self) -> Steps {
        self.told
    }

    /// The steps that are switched off.
    pub fn off(&self) -> Steps {
        self.off
    }

    /// What the session goes by.
    pub fn steps(&self) -> AgreedSteps {
        self.steps
    }
}

impl AgreedSteps {
    /// [`Agreement::off`], of an agreement with a filter that `wants` this. It is not kept for each session.
    pub fn off(self, wants: &Wants) -> Steps {
        wants.off | self.chosen
    }

    /// Whether there are stages at which the filter does not answer.
    pub fn has_silences(self) -> bool {
        self.chosen.intersects(Steps::NO_REPLY)
    }

    /// Who answers a command that leads to this stage.
    pub fn answers(self, stage: Stage) -> ReplyPolicy {
        let no_reply = stage.no_reply();
        match (self.chosen.intersects(no_reply), self.offered.intersects(no_reply)) {
            (false, _) => ReplyPolicy::Filter,
            (true, true) => ReplyPolicy::Nobody,
            (true, false) => ReplyPolicy::Library,
        }
    }
}

/// Who answers a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyPolicy {
    /// The filter, by its callback's status.
    Filter,
    /// Nobody: the MTA does not wait.
    Nobody,
    /// The filter is silent but the MTA waits, because it does not know the bit: the library says "continue".
    Library,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(version: u32, actions: u32, steps: u32) -> Offer {
        let mut payload = Vec::new();
        for number in [version, actions, steps] {
            payload.extend_from_slice(&number.to_be_bytes());
        }
        Offer::decode(&payload).unwrap()
    }

    fn wants(actions: u32, off: u32) -> Wants {
        Wants { actions: Actions::from_bits_retain(actions), off: Steps::from_bits_retain(off) }
    }

    #[test]
    fn an_offer_has_twelve_bytes_and_defaults() {
        assert_eq!(Offer::decode(&[0; 11]), Err(Refusal::Short { length: 11 }));
        assert_eq!(Offer::decode(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Refusal::Version(1)));
        assert_eq!(Offer::decode(&[0xff; 12]), Err(Refusal::Version(-1)));
        let offer = offer(2, 0, 0);
        assert_eq!((offer.actions.bits(), offer.steps.bits()), (0x0f, 0x3f));
        assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
    }

    #[test]
    fn without_callback_the_registration_counts() {
        let agreement = agree(&offer(6, 0x1ff, 0x1f_ffff), &wants(0x11, 0x41), Choice::Registered).unwrap();
        assert_eq!(agreement.version(), 6);
        assert_eq!(agreement.actions().bits(), 0x11);
        assert_eq!(agreement.told().bits(), 0x41);
        assert_eq!(
            agree(&offer(6, 0x0f, 0x1f_ffff), &wants(0x1f, 0), Choice::Registered),
            Err(Refusal::Actions {
                wanted: Actions::from_bits_retain(0x1f),
                offered: Actions::from_bits_retain(0x0f)
            })
        );
    }

    #[test]
    fn an_old_mta_need_not_know_data_and_unknown() {
        let agreement = agree(&offer(2, 0x3f, 0x7f), &wants(0, 0x340), Choice::Registered).unwrap();
        assert_eq!(agreement.told().bits(), 0x40);
        assert_eq!(agreement.off().bits(), 0x340, "the session still knows that they are off");
        assert_eq!(agreement.version(), 2);
        assert!(matches!(
            agree(&offer(2, 0x3f, 0x3f), &wants(0, 0x340), Choice::Registered),
            Err(Refusal::Steps { .. })
        ));
    }

    #[test]
    fn all_options_means_all_actions_and_skip() {
        let agreement = agree(&offer(6, 0x1ff, 0x1f_ffff), &wants(0, 0x3), Choice::AllOptions).unwrap();
        assert_eq!(agreement.actions().bits(), 0x1ff);
        assert_eq!(agreement.told().bits(), 0x403);
    }

    #[test]
    fn no_reply_bits_are_faked_for_an_mta_that_lacks_them() {
        let offer = offer(6, 0x1ff, 0x7f | Steps::NR_HDR.bits());
        assert!(offer.steps_for_callback().contains(Steps::NO_REPLY));
        let own = Choice::Own(Actions::empty(), Steps::NR_HDR | Steps::NR_BODY);
        let agreement = agree(&offer, &wants(0, 0), own).unwrap();
        assert_eq!(agreement.told(), Steps::NR_HDR);
        assert_eq!(agreement.steps().answers(Stage::Header), ReplyPolicy::Nobody);
        assert_eq!(agreement.steps().answers(Stage::Body), ReplyPolicy::Library);
        assert_eq!(agreement.steps().answers(Stage::EndOfHeader), ReplyPolicy::Filter);
        assert_eq!(agreement.steps().answers(Stage::EndOfMessage), ReplyPolicy::Filter);
    }

    #[test]
    fn internal_bits_stay_between_mta_and_library() {
        let offer = offer(6, 0x1ff, 0x7000_007f);
        assert!(!offer.steps_for_callback().intersects(Steps::INTERNAL));
        let agreement = agree(&offer, &wants(0, 0x1), Choice::Registered).unwrap();
        assert_eq!(agreement.told().bits(), 0x1);
        for bit in [Steps::MDS_256K, Steps::MDS_1M, Steps::from_bits_retain(0x4000_0000)] {
            assert_eq!(
                agree(&offer, &wants(0, 0), Choice::Own(Actions::empty(), bit)),
                Err(Refusal::Steps { wanted: bit, offered: Steps::from_bits_retain(0x7f) })
            );
        }
    }
}
