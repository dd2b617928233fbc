//! Replies and modifications, filter to MTA (contract 1.3): encoding for the filter, [`Answer::decode`] for the
//! MTA.

use super::frame::{OVERHEAD, append, append_with};
use super::macros::MacroStage;

const NUL: &[u8] = b"\0";

/// The answer to a command, unless the filter has an SMTP reply of its own: `SMFIR_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// SMFIR_CONTINUE
    Continue = b'c',
    /// SMFIR_ACCEPT
    Accept = b'a',
    /// SMFIR_REJECT
    Reject = b'r',
    /// SMFIR_TEMPFAIL
    TempFail = b't',
    /// SMFIR_DISCARD
    Discard = b'd',
    /// SMFIR_SKIP
    Skip = b's',
}

impl Reply {
    /// The frame.
    #[inline]
    pub fn frame(self) -> [u8; OVERHEAD] {
        [0, 0, 0, 1, self as u8]
    }

    /// Appends the frame.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.frame());
    }
}

/// Appends the answer `y` SMFIR_REPLYCODE: SMTP reply lines, without NUL.
pub fn encode_custom(text: &[u8], out: &mut Vec<u8>) {
    append(out, b'y', &[text, NUL]);
}

/// The answer to OPTNEG, `O`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Protocol version.
    pub version: u32,
    /// `SMFIF_*`, as sent.
    pub actions: u32,
    /// `SMFIP_*`, as sent.
    pub steps: u32,
    /// The macros that the filter asks for, by stage: names separated by space, without NUL.
    pub macro_lists: Vec<(MacroStage, Vec<u8>)>,
}

/// The largest payload that the length of a frame can tell.
const LARGEST: usize = u32::MAX as usize - 1;

impl Negotiated {
    /// How many bytes of data its frame has.
    pub fn payload_length(&self) -> usize {
        let lists = self.macro_lists.iter().map(|(_, list)| size_of::<u32>() + list.len() + NUL.len());
        3 * size_of::<u32>() + lists.sum::<usize>()
    }

    /// Appends the frame, unless its payload would be larger than `max_payload` bytes.
    ///
    /// # Errors
    /// It would; nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>, max_payload: usize) -> Result<(), TooLarge> {
        if self.payload_length() > max_payload.min(LARGEST) {
            return Err(TooLarge);
        }
        append_with(out, b'O', |out| {
            for number in [self.version, self.actions, self.steps] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            for (stage, list) in &self.macro_lists {
                out.extend_from_slice(&stage.number().to_be_bytes());
                out.extend_from_slice(list);
                out.push(0);
            }
        });
        Ok(())
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (numbers, mut rest) = payload.split_first_chunk::<12>()?;
        let number = |at: usize| u32::from_be_bytes(numbers[at..at + 4].try_into().expect("four bytes"));
        let mut macro_lists = Vec::new();
        while !rest.is_empty() {
            let (stage, tail) = rest.split_first_chunk::<4>()?;
            let stage = MacroStage::from_number(i32::from_be_bytes(*stage))?;
            let end = tail.iter().position(|&b| b == 0)?;
            macro_lists.push((stage, tail[..end].to_vec()));
            rest = &tail[end + 1..];
        }
        Some(Self { version: number(0), actions: number(4), steps: number(8), macro_lists })
    }
}

/// A change to the message or its envelope, sent between BODYEOB and the answer to it. Strings are without NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modification<'a> {
    /// `h` SMFIR_ADDHEADER: a header field at the end
    AddHeader {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `i` SMFIR_INSHEADER: a header field at a place
    InsertHeader {
        /// How many fields stand before it.
        index: u32,
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `m` SMFIR_CHGHEADER: another value for a field, or, when it is empty, its removal
    ChangeHeader {
        /// Which of the fields of this name; 1 is the first.
        index: u32,
        /// Its name.
        name: &'a [u8],
        /// The new value.
        value: &'a [u8],
    },
    /// `e` SMFIR_CHGFROM: another envelope sender
    ChangeSender {
        /// The address.
        address: &'a [u8],
        /// ESMTP arguments.
        arguments: Option<&'a [u8]>,
    },
    /// `+` SMFIR_ADDRCPT: one more recipient
    AddRecipient(&'a [u8]),
    /// `2` SMFIR_ADDRCPT_PAR: one more recipient, with ESMTP arguments
    AddRecipientWith {
        /// The address.
        address: &'a [u8],
        /// ESMTP arguments.
        arguments: Option<&'a [u8]>,
    },
    /// `-` SMFIR_DELRCPT: one recipient less
    DeleteRecipient(&'a [u8]),
    /// `b` SMFIR_REPLBODY: the next piece of a new body
    ReplaceBody(&'a [u8]),
    /// `q` SMFIR_QUARANTINE: hold the message, with a reason
    Quarantine(&'a [u8]),
    /// `p` SMFIR_PROGRESS: no change, but a sign of life
    Progress,
}

impl<'a> Modification<'a> {
    /// Appends the frame, unless its payload would be larger than `max_payload` bytes.
    ///
    /// # Errors
    /// It would; nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>, max_payload: usize) -> Result<(), TooLarge> {
        if self.payload_length() > max_payload.min(LARGEST) {
            return Err(TooLarge);
        }
        self.with_parts(|kind, parts| append(out, kind, parts));
        Ok(())
    }

    /// How many bytes of data its frame has.
    pub fn payload_length(&self) -> usize {
        self.with_parts(|_, parts| parts.iter().map(|part| part.len()).sum())
    }

    /// Calls `put` with the command byte and the parts of the payload.
    fn with_parts<T>(&self, put: impl FnOnce(u8, &[&[u8]]) -> T) -> T {
        match *self {
            Self::AddHeader { name, value } => put(b'h', &[name, NUL, value, NUL]),
            Self::InsertHeader { index, name, value } => {
                put(b'i', &[&index.to_be_bytes(), name, NUL, value, NUL])
            }
            Self::ChangeHeader { index, name, value } => {
                put(b'm', &[&index.to_be_bytes(), name, NUL, value, NUL])
            }
            Self::ChangeSender { address, arguments: None } => put(b'e', &[address, NUL]),
            Self::ChangeSender { address, arguments: Some(args) } => put(b'e', &[address, NUL, args, NUL]),
            Self::AddRecipient(address) => put(b'+', &[address, NUL]),
            Self::AddRecipientWith { address, arguments: None } => put(b'2', &[address, NUL]),
            Self::AddRecipientWith { address, arguments: Some(args) } => {
                put(b'2', &[address, NUL, args, NUL])
            }
            Self::DeleteRecipient(address) => put(b'-', &[address, NUL]),
            Self::ReplaceBody(piece) => put(b'b', &[piece]),
            Self::Quarantine(reason) => put(b'q', &[reason, NUL]),
            Self::Progress => put(b'p', &[]),
        }
    }
}

/// A frame that would exceed the largest payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Anything that a filter sends, as the MTA reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The answer to OPTNEG.
    Negotiated(Negotiated),
    /// The answer to any other command.
    Reply(Reply),
    /// The same, as SMTP reply lines.
    Custom(&'a [u8]),
    /// A modification or a sign of life; an answer is still to come.
    Modification(Modification<'a>),
}

impl<'a> Answer<'a> {
    /// Decodes a frame's command byte and payload; `None` if no filter may send it.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Option<Self> {
        let reply = |reply| payload.is_empty().then_some(Self::Reply(reply));
        let modification = match kind {
            b'O' => return Negotiated::decode(payload).map(Self::Negotiated),
            b'c' => return reply(Reply::Continue),
            b'a' => return reply(Reply::Accept),
            b'r' => return reply(Reply::Reject),
            b't' => return reply(Reply::TempFail),
            b'd' => return reply(Reply::Discard),
            b's' => return reply(Reply::Skip),
            b'y' => return only_string(payload).map(Self::Custom),
            b'h' => {
                let (name, value) = two_strings(payload)?;
                Modification::AddHeader { name, value: value? }
            }
            b'i' | b'm' => {
                let (index, rest) = payload.split_first_chunk::<4>()?;
                let index = u32::from_be_bytes(*index);
                let (name, value) = two_strings(rest)?;
                let value = value?;
                if kind == b'i' {
                    Modification::InsertHeader { index, name, value }
                } else {
                    Modification::ChangeHeader { index, name, value }
                }
            }
            b'e' => {
                let (address, arguments) = two_strings(payload)?;
                Modification::ChangeSender { address, arguments }
            }
            b'2' => {
                let (address, arguments) = two_strings(payload)?;
                Modification::AddRecipientWith { address, arguments }
            }
            b'+' => Modification::AddRecipient(only_string(payload)?),
            b'-' => Modification::DeleteRecipient(only_string(payload)?),
            b'b' => Modification::ReplaceBody(payload),
            b'q' => Modification::Quarantine(only_string(payload)?),
            b'p' => Modification::Progress,
            _ => return None,
        };
        Some(Self::Modification(modification))
    }
}

/// The string that a payload is.
fn only_string(payload: &[u8]) -> Option<&[u8]> {
    match payload {
        [text @ .., 0] if !text.contains(&0) => Some(text),
        _ => None,
    }
}

/// One string, and a second one if there is more.
fn two_strings(payload: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = payload.iter().position(|&b| b == 0)?;
    let (first, rest) = (&payload[..end], &payload[end + 1..]);
    if rest.is_empty() { Some((first, None)) } else { Some((first, Some(only_string(rest)?))) }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    fn round_trip(answer: &Answer<'_>) {
        let mut bytes = Vec::new();
        match answer {
            Answer::Negotiated(negotiated) => negotiated.encode(&mut bytes, 65_535).unwrap(),
            Answer::Reply(reply) => reply.encode(&mut bytes),
            Answer::Custom(text) => encode_custom(text, &mut bytes),
            Answer::Modification(modification) => modification.encode(&mut bytes, 65_535).unwrap(),
        }
        let frame = frame::read(&mut bytes);
        assert_eq!(Answer::decode(frame.kind, frame.payload).as_ref(), Some(answer));
    }

    #[test]
    fn what_the_filter_encodes_the_mta_decodes() {
        for reply in
            [Reply::Continue, Reply::Accept, Reply::Reject, Reply::TempFail, Reply::Discard, Reply::Skip]
        {
            round_trip(&Answer::Reply(reply));
        }
        round_trip(&Answer::Custom(b"550 5.7.1 no"));
        for modification in [
            Modification::AddHeader { name: b"X", value: b"" },
            Modification::InsertHeader { index: 2_147_483_647, name: b"X", value: b"y" },
            Modification::ChangeHeader { index: 1, name: b"X", value: b"y" },
            Modification::ChangeSender { address: b"<a>", arguments: None },
            Modification::ChangeSender { address: b"<a>", arguments: Some(b"SIZE=1") },
            Modification::AddRecipient(b"<a>"),
            Modification::AddRecipientWith { address: b"<a>", arguments: Some(b"") },
            Modification::DeleteRecipient(b"<a>"),
            Modification::ReplaceBody(b"a\0b"),
            Modification::Quarantine(b"why"),
            Modification::Progress,
        ] {
            round_trip(&Answer::Modification(modification));
        }
        round_trip(&Answer::Negotiated(Negotiated {
            version: 6,
            actions: 0x1ff,
            steps: 0x400,
            macro_lists: vec![(MacroStage::Helo, b"{tls_version}".to_vec()), (MacroStage::Data, vec![])],
        }));
    }

    #[test]
    fn the_bytes_of_an_inserted_header() {
        let mut bytes = Vec::new();
        let modification = Modification::InsertHeader { index: 1, name: b"A", value: b"b" };
        modification.encode(&mut bytes, 8).unwrap();
        assert_eq!(bytes, b"\0\0\0\x09i\0\0\0\x01A\0b\0");
        assert_eq!(modification.encode(&mut bytes, 7), Err(TooLarge));
        assert_eq!(bytes.len(), 13, "what is too large is not sent in part");
    }

    #[test]
    fn a_negotiation_answer_has_a_limit_too() {
        let macro_lists = vec![(MacroStage::Helo, b"{x}".to_vec()), (MacroStage::Data, vec![])];
        let answer = Negotiated { version: 6, actions: 0, steps: 0, macro_lists };
        let mut bytes = Vec::new();
        assert_eq!(answer.encode(&mut bytes, 24), Err(TooLarge));
        assert!(bytes.is_empty());
        answer.encode(&mut bytes, 25).unwrap();
        assert_eq!(bytes.len(), 5 + 25);
    }

    #[test]
    fn what_no_filter_may_send() {
        for (kind, payload) in [
            (b'c', &b"x"[..]),
            (b'y', b"550 no"),
            (b'h', b"X\0"),
            (b'i', b"\0\0\x01"),
            (b'+', b"a\0b\0"),
            (b'Z', b""),
        ] {
            assert_eq!(Answer::decode(kind, payload), None, "{} {payload:?}", kind.escape_ascii());
        }
    }
}
