//! The envelope of a message: sender and recipients with their ESMTP arguments, and whether it is held.

use std::fmt;

/// An address of the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The address without angle brackets; the null sender is empty.
    pub address: Vec<u8>,
    /// ESMTP arguments such as `SIZE=1000`.
    pub arguments: Vec<Vec<u8>>,
}

impl Mailbox {
    /// Reads `<address> ARGUMENT ...`; the brackets may be missing.
    pub fn parse(text: &[u8]) -> Self {
        let text = text.trim_ascii();
        let (address, rest) = match text.iter().position(|&b| b == b'>') {
            Some(end) if text.starts_with(b"<") => (&text[1..end], &text[end + 1..]),
            _ => text.split_at(text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len())),
        };
        Self { address: address.to_vec(), arguments: words(rest) }
    }

    /// What MAIL and RCPT carry: the address in angle brackets, then the arguments.
    pub fn for_filter(&self) -> Vec<Vec<u8>> {
        let mut all = vec![[b"<", &self.address[..], b">"].concat()];
        all.extend(self.arguments.iter().cloned());
        all
    }

    /// What follows the last `@` of the address.
    pub fn domain(&self) -> &[u8] {
        self.address.iter().rposition(|&b| b == b'@').map_or(b"", |at| &self.address[at + 1..])
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.for_filter().join(&b' ')))
    }
}

/// The envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub sender: Mailbox,
    /// The recipients.
    pub recipients: Vec<Mailbox>,
    /// Why the message is held, if it is.
    pub quarantine: Option<Vec<u8>>,
}

/// Words separated by white space.
pub(super) fn words(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_arguments() {
        let mailbox = Mailbox::parse(b" <a b@example.org>  SIZE=5 BODY=8BITMIME ");
        assert_eq!(mailbox.address, b"a b@example.org");
        assert_eq!(mailbox.for_filter(), [&b"<a b@example.org>"[..], b"SIZE=5", b"BODY=8BITMIME"]);
        assert_eq!(mailbox.to_string(), "<a b@example.org> SIZE=5 BODY=8BITMIME");
        assert_eq!(Mailbox::parse(b"a@b NOTIFY=NEVER").for_filter(), [&b"<a@b>"[..], b"NOTIFY=NEVER"]);
        assert_eq!(Mailbox::parse(b"<>").for_filter(), [b"<>"]);
        assert_eq!(Mailbox::parse(b"").for_filter(), [b"<>"]);
    }

    #[test]
    fn the_domain_of_an_address() {
        assert_eq!(Mailbox::parse(b"\"a@b\"@example.org").domain(), b"example.org");
        assert_eq!(Mailbox::parse(b"postmaster").domain(), b"");
    }
}
