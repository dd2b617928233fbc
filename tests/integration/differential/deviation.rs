//! The deliberate differences that a session can show. Each belongs to an entry of `docs/compatibility.md`, which
//! says why; here stand the situations, each of which the model recognises by itself.

/// A deliberate difference from the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deviation {
    /// A frame of length 0 is a protocol error; the reference takes it as a command without data.
    FrameLengthZero,
    /// So is one of 2^31 bytes and more.
    FrameLengthHuge,
    /// HELO without its final NUL is a protocol error; the reference drops it and lets the MTA wait.
    HeloUnterminated,
    /// An UNKNOWN line without its final NUL is ended by us; the reference reads what is behind it.
    UnknownUnterminated,
    /// A last macro name without a value has no value; the reference reads beyond its list.
    MacroOdd,
    /// A negotiation frame that is too short ends the session; the reference may crash.
    NegotiationShort,
    /// A status that is none ends the session; the reference leaves the MTA waiting.
    StatusUnknown,
    /// The values 20 to 22 have no inner meaning where no answer is due.
    StatusInternal,
    /// What the body callback answers to data that came with the end of the message.
    BodyAnswerAtEnd,
    /// smfi_setmlreply without lines makes a complete reply.
    MlreplyWithoutLines,
    /// abort runs once when an empty or malformed command arrives inside a message, out of order.
    AbortOnce,
    /// close runs once when the connection ends behind QUIT_NC, or by a malformed command there.
    CloseOnce,
}

impl Deviation {
    pub const ALL: [Self; 12] = [
        Self::FrameLengthZero,
        Self::FrameLengthHuge,
        Self::HeloUnterminated,
        Self::UnknownUnterminated,
        Self::MacroOdd,
        Self::NegotiationShort,
        Self::StatusUnknown,
        Self::StatusInternal,
        Self::BodyAnswerAtEnd,
        Self::MlreplyWithoutLines,
        Self::AbortOnce,
        Self::CloseOnce,
    ];

    /// The name of its entry in `docs/compatibility.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FrameLengthZero => "frame-length-zero",
            Self::FrameLengthHuge => "frame-length-huge",
            Self::HeloUnterminated => "helo-unterminated",
            Self::UnknownUnterminated => "unknown-unterminated",
            Self::MacroOdd => "macro-odd",
            Self::NegotiationShort => "negotiation-short",
            Self::StatusUnknown => "status-unknown",
            Self::StatusInternal => "status-internal",
            Self::BodyAnswerAtEnd => "body-answer-at-end",
            Self::MlreplyWithoutLines => "mlreply-without-lines",
            Self::AbortOnce => "abort-once",
            Self::CloseOnce => "close-once",
        }
    }

    /// Whether the reference may be shown the situation itself: it reads foreign memory in the others.
    pub const fn is_safe_to_show(self) -> bool {
        !matches!(self, Self::MacroOdd | Self::NegotiationShort | Self::UnknownUnterminated)
    }
}
