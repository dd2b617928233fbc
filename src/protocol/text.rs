//! Strings inside a frame. They are made from `&mut [u8]` and end with a NUL that is part of the slice, because C
//! filters get them as `char *` and some of them write into their arguments.

/// A string in a frame: at least one byte, and the last byte is NUL. What C sees ends at the first NUL.
#[derive(Debug, PartialEq, Eq)]
pub struct Text<'a>(&'a mut [u8]);

impl<'a> Text<'a> {
    /// Takes `bytes` as a string if they end with NUL.
    pub fn new(bytes: &'a mut [u8]) -> Option<Self> {
        matches!(bytes.last(), Some(0)).then_some(Self(bytes))
    }

    /// Splits `bytes` behind the first NUL at or after index `from`: the string, and the rest.
    pub fn split(bytes: &'a mut [u8], from: usize) -> Option<(Self, &'a mut [u8])> {
        let end = find_nul(bytes.get(from..)?)? + from;
        let (text, rest) = bytes.split_at_mut(end + 1);
        Some((Self(text), rest))
    }

    /// The string up to its first NUL.
    pub fn as_bytes(&self) -> &[u8] {
        let end = find_nul(self.0).expect("a text ends with NUL");
        &self.0[..end]
    }

    /// The address of the first byte, for C: readable and writable up to and including the last NUL.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}

/// The arguments of MAIL and RCPT: one or more NUL-ended strings, one behind the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments<'a>(&'a mut [u8]);

impl<'a> Arguments<'a> {
    /// Takes all up to the last NUL; `None` if there is no NUL at all.
    pub fn new(bytes: &'a mut [u8]) -> Option<Self> {
        let end = bytes.iter().rposition(|&b| b == 0)?;
        Some(Self(&mut bytes[..=end]))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|&&b| b == 0).count()
    }

    /// One after the other, at least one.
    pub fn texts(self) -> impl Iterator<Item = Text<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (text, behind) = Text::split(std::mem::take(&mut rest), 0)?;
            rest = behind;
            Some(text)
        })
    }
}

/// Where the first NUL is. Strings in frames are short, so this beats a search that has to get going first.
#[inline]
pub(super) fn find_nul(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        if let Some(at) = nul_in(*word) {
            return Some(bytes.len() - rest.len() + at);
        }
        rest = behind;
    }
    match bytes.last_chunk() {
        // What it has of the words before has no NUL.
        Some(word) => Some(bytes.len() - word.len() + nul_in(*word)?),
        None => bytes.iter().position(|&b| b == 0),
    }
}

/// Where the first NUL is in eight bytes.
#[inline]
fn nul_in(word: [u8; 8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let word = u64::from_le_bytes(word);
    // The lowest high bit that is set marks the first byte from which 1 cannot be taken.
    let nuls = word.wrapping_sub(LOW) & !word & HIGH;
    (nuls != 0).then(|| nuls.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nul_is_found_wherever_it_stands() {
        for length in 0..40 {
            let mut bytes: Vec<u8> = (0..length).map(|at| [1, 0x80, 0xff, b'a'][at % 4]).collect();
            assert_eq!(find_nul(&bytes), None);
            for at in (0..length).rev() {
                bytes[at] = 0;
                assert_eq!(find_nul(&bytes), Some(at), "of {length}");
            }
        }
    }

    #[test]
    fn a_text_ends_with_nul() {
        assert!(Text::new(&mut []).is_none());
        assert!(Text::new(&mut b"abc".to_vec()).is_none());
        assert_eq!(Text::new(&mut b"a\0b\0".to_vec()).unwrap().as_bytes(), b"a");
    }

    #[test]
    fn splitting_can_leave_out_the_first_byte() {
        let mut bytes = b"\0ab\0c\0".to_vec();
        let (text, rest) = Text::split(&mut bytes, 1).unwrap();
        assert_eq!(text, Text(&mut b"\0ab\0".to_vec()));
        assert_eq!(text.as_bytes(), b"");
        assert_eq!(rest, b"c\0");
        assert!(Text::split(&mut b"abc".to_vec(), 0).is_none());
        assert!(Text::split(&mut [], 1).is_none());
    }

    #[test]
    fn arguments_end_at_the_last_nul() {
        let mut bytes = b"<a@b>\0\0SIZE=1\0rest".to_vec();
        let arguments = Arguments::new(&mut bytes).unwrap();
        assert_eq!(arguments.count(), 3);
        let texts: Vec<_> = arguments.texts().map(|t| t.as_bytes().to_vec()).collect();
        assert_eq!(texts, [&b"<a@b>"[..], b"", b"SIZE=1"]);
        assert!(Arguments::new(&mut b"abc".to_vec()).is_none());
    }
}
