//! Frames: a length, a command byte, a payload (contract 1.1). This file finds the first frame in received
//! bytes and appends frames to bytes to be sent; what a payload means is not its business.

use crate::count::Count;

/// Bytes of the length field in front of every frame.
pub const LENGTH_FIELD: usize = 4;

/// Bytes in front of the payload: the length field and the command byte.
pub const OVERHEAD: usize = LENGTH_FIELD + 1;

/// The largest payload unless a filter asks for another limit.
pub const DEFAULT_MAX_PAYLOAD: usize = 65_535;

/// One frame, decoded in place. It always has a command byte.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The command byte, not yet understood.
    pub kind: u8,
    /// What follows it.
    pub payload: &'a mut [u8],
}

/// Why received bytes can never become a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The length field is 0: not even a command byte.
    Empty,
    /// The payload would be larger than the limit, both in bytes.
    TooLong {
        /// What the length field announces.
        payload: usize,
        /// The limit.
        max: usize,
    },
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("frame of length 0"),
            Self::TooLong { payload, max } => {
                write!(f, "frame with {} of data, the limit is {max}", Count(*payload, "byte"))
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// How many bytes the frame at the start of `bytes` takes in all, length field included; `None` as long as
/// the length field or the command byte is missing.
///
/// # Errors
/// No frame can start with these bytes.
pub fn measure(bytes: &[u8], max_payload: usize) -> Result<Option<usize>, FrameError> {
    let Some(&[first, second, third, last, _]) = bytes.first_chunk() else {
        // Nothing that follows makes a frame of this.
        return if bytes == [0; LENGTH_FIELD] { Err(FrameError::Empty) } else { Ok(None) };
    };
    let length = u32::from_be_bytes([first, second, third, last]) as usize;
    match length.checked_sub(1) {
        None => Err(FrameError::Empty),
        Some(payload) if payload > max_payload => Err(FrameError::TooLong { payload, max: max_payload }),
        Some(_) => Ok(Some(LENGTH_FIELD + length)),
    }
}

/// Reads a frame that is complete: `bytes` is exactly as long as [`measure`] said.
pub fn read(bytes: &mut [u8]) -> Frame<'_> {
    let (head, payload) = bytes.split_at_mut(OVERHEAD);
    Frame { kind: head[LENGTH_FIELD], payload }
}

/// Appends one frame whose payload is the concatenation of `parts`.
pub fn append(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    append_with(out, kind, |out| parts.iter().for_each(|part| out.extend_from_slice(part)));
}

/// Appends one frame whose payload is what `write` appends.
pub fn append_with(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    write(out);
    let length =
        u32::try_from(out.len() - start - LENGTH_FIELD).expect("callers keep payloads far below 4 GiB");
    out[start..start + LENGTH_FIELD].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_measured_from_its_first_five_bytes() {
        assert_eq!(measure(&[0, 0, 0], 10), Ok(None));
        assert_eq!(
            measure(&[0, 0, 0, 12], 10),
            Ok(None),
            "whoever has no limit must not see this length either"
        );
        assert_eq!(measure(&[0, 0, 0, 1, b'Q'], 10), Ok(Some(5)));
        assert_eq!(measure(&[0, 0, 0, 11, b'B'], 10), Ok(Some(15)));
    }

    #[test]
    fn lengths_that_no_frame_has() {
        assert_eq!(measure(&[0, 0, 0, 0], 10), Err(FrameError::Empty));
        assert_eq!(measure(&[0, 0, 0, 12, b'B'], 10), Err(FrameError::TooLong { payload: 11, max: 10 }));
        assert_eq!(
            measure(&[0xff, 0xff, 0xff, 0xff, b'B'], 65_535),
            Err(FrameError::TooLong { payload: 0xffff_fffe, max: 65_535 })
        );
    }

    #[test]
    fn what_is_appended_is_read_back() {
        let mut bytes = Vec::new();
        append(&mut bytes, b'h', &[b"X-A\0", b"b\0"]);
        assert_eq!(bytes, b"\0\0\0\x07hX-A\0b\0");
        assert_eq!(measure(&bytes, 6), Ok(Some(bytes.len())));
        assert_eq!(read(&mut bytes), Frame { kind: b'h', payload: &mut b"X-A\0b\0".to_vec() });
    }
}
