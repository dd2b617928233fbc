//! The SMTP client's address as CONNECT carries it (contract 1.2).

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest unix path that fits `sun_path` together with its NUL, in bytes.
pub const MAX_UNIX_PATH: usize = 107;

/// Who the MTA's client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'a> {
    /// `U`: the MTA does not know.
    Unknown,
    /// `4`
    Inet {
        /// The address.
        address: Ipv4Addr,
        /// The TCP port; 0 if the MTA does not know.
        port: u16,
    },
    /// `6`
    Inet6 {
        /// The address.
        address: Ipv6Addr,
        /// The TCP port; 0 if the MTA does not know.
        port: u16,
    },
    /// `L`: the path of a unix socket, at most [`MAX_UNIX_PATH`] bytes, without its NUL.
    Unix(&'a [u8]),
}

impl<'a> Peer<'a> {
    /// Reads a family byte, the port behind it and the text of the address (without its NUL).
    pub(super) fn decode(family: u8, port: u16, text: &'a [u8]) -> Option<Self> {
        Some(match family {
            b'4' => Self::Inet { address: inet_aton(text)?, port },
            b'6' => Self::Inet6 { address: inet6(text)?, port },
            b'L' if text.len() <= MAX_UNIX_PATH => Self::Unix(text),
            _ => return None,
        })
    }
}

/// An IPv6 address as inet_pton(3) reads it, with an optional `IPv6:` in front, in any case.
pub fn inet6(text: &[u8]) -> Option<Ipv6Addr> {
    const PREFIX: &[u8] = b"IPv6:";
    let bare = match text.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => text,
    };
    std::str::from_utf8(bare).ok()?.parse().ok()
}

/// An IPv4 address as inet_aton(3) of the GNU C library reads it: one to four numbers, decimal, octal (`0...`)
/// or hexadecimal (`0x...`), the last of which fills all bytes that are left; white space ends it.
pub fn inet_aton(text: &[u8]) -> Option<Ipv4Addr> {
    let (mut address, mut shift, mut rest) = (0, 24, text);
    loop {
        let (number, behind) = c_number(rest)?;
        match behind {
            [b'.', behind @ ..] if number <= 0xff && shift > 0 => {
                address |= number << shift;
                shift -= 8;
                rest = behind;
            }
            [] | [b' ' | b'\t'..=b'\r', ..] => {
                return (u64::from(number) < 1 << (shift + 8)).then(|| Ipv4Addr::from_bits(address | number));
            }
            _ => return None,
        }
    }
}

/// A number as C writes it, `0x` hexadecimal, `0` octal, else decimal, and what stands behind it.
fn c_number(text: &[u8]) -> Option<(u32, &[u8])> {
    match text {
        [b'0', b'x' | b'X', digits @ ..] => number::<16>(digits),
        [b'0', ..] => number::<8>(text),
        _ => number::<10>(text),
    }
}

/// At least one digit and all that follow, as a number, and what stands behind them.
#[inline]
fn number<const RADIX: u32>(text: &[u8]) -> Option<(u32, &[u8])> {
    let (mut number, mut length) = (0_u32, 0);
    while let Some(&byte) = text.get(length)
        && let Some(digit) = char::from(byte).to_digit(RADIX)
    {
        number = number.checked_mul(RADIX)?.checked_add(digit)?;
        length += 1;
    }
    (length > 0).then_some((number, &text[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_in_the_forms_of_inet_aton() {
        let v4 = |text: &str| inet_aton(text.as_bytes());
        assert_eq!(v4("192.0.2.1"), Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(v4("127.1"), Some(Ipv4Addr::new(127, 0, 0, 1)));
        assert_eq!(v4("10.1.258"), Some(Ipv4Addr::new(10, 1, 1, 2)));
        assert_eq!(v4("0x7f.0.0.010"), Some(Ipv4Addr::new(127, 0, 0, 8)));
        assert_eq!(v4("4294967295"), Some(Ipv4Addr::BROADCAST));
        assert_eq!(v4("0"), Some(Ipv4Addr::UNSPECIFIED));
        assert_eq!(v4("1.2.3.4 and more"), Some(Ipv4Addr::new(1, 2, 3, 4)));
    }

    #[test]
    fn what_is_no_ipv4_address() {
        for text in
            ["", ".", "1.", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "1.16777216", "4294967296", "+1", "1.+2"]
        {
            assert_eq!(inet_aton(text.as_bytes()), None, "{text}");
        }
        for text in ["08", "0x", "1.2.3.4x", "a.b.c.d", "::1"] {
            assert_eq!(inet_aton(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn ipv6_with_and_without_its_tag() {
        assert_eq!(inet6(b"::1"), Some(Ipv6Addr::LOCALHOST));
        assert_eq!(inet6(b"ipV6:2001:db8::1"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(inet6(b"IPv6:"), None);
        assert_eq!(inet6(b"127.0.0.1"), None);
    }

    #[test]
    fn a_unix_path_must_leave_room_for_its_nul() {
        assert_eq!(Peer::decode(b'L', 0, &[b'x'; 107]), Some(Peer::Unix(&[b'x'; 107])));
        assert_eq!(Peer::decode(b'L', 0, &[b'x'; 108]), None);
        assert_eq!(Peer::decode(b'X', 0, b"x"), None);
    }
}
