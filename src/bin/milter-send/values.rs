//! Reads the values of single options.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use milter::mta::{self, ClientAddress, FilterAddress, Mailbox};

use super::hints;

/// A recipient that the server refuses, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The recipient.
    pub recipient: Mailbox,
    /// The server's reply.
    pub reply: Vec<u8>,
}

/// A time limit, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// `None` is each of the first three.
    pub phase: Option<Phase>,
    /// How long.
    pub time: Duration,
}

/// What a time limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connecting.
    Connect,
    /// An SMTP command.
    Command,
    /// A part of the message.
    Content,
    /// The whole end of the message.
    EndOfMessage,
}

/// Reads the address of a client.
pub fn parse_client(text: &str) -> Result<ClientAddress, String> {
    const DEFAULT_PORT: u16 = 1025;
    if text == "unknown" {
        return Ok(ClientAddress::Unknown);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(ClientAddress::Unix(path.as_bytes().to_vec()));
    }
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    let (address, port) = match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(address), _) => (address, DEFAULT_PORT),
        (Err(_), Ok(address)) => (address.ip(), address.port()),
        _ => return Err("expected ADDRESS, ADDRESS:PORT, [IPV6]:PORT, unix:PATH or unknown".to_owned()),
    };
    Ok(match address {
        IpAddr::V4(address) => ClientAddress::Inet(address, port),
        IpAddr::V6(address) => ClientAddress::Inet6(address, port),
    })
}

/// Reads an address, and perhaps a reply behind it.
pub fn parse_refused(text: &str) -> Result<Refused, String> {
    let text = text.trim();
    let end = match (text.starts_with('<'), text.find('>')) {
        (true, Some(close)) => close + 1,
        _ => text.find(char::is_whitespace).unwrap_or(text.len()),
    };
    let (address, reply) = text.split_at(end);
    let reply = if reply.trim().is_empty() { "550 5.1.1 User unknown" } else { reply.trim() };
    match reply.as_bytes() {
        [b'4' | b'5', tens, ones, b' ', ..] if tens.is_ascii_digit() && ones.is_ascii_digit() => {
            Ok(Refused { recipient: Mailbox::parse(address.as_bytes()), reply: reply.as_bytes().to_vec() })
        }
        _ => Err("expected an address, and a reply such as 550 5.1.1 User unknown".to_owned()),
    }
}

/// Reads a time limit, and perhaps what it is for.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    let Some((phase, seconds)) = text.split_once('=') else {
        return Ok(Limit { phase: None, time: parse_seconds(text)? });
    };
    let phase = match phase {
        "connect" => Phase::Connect,
        "command" => Phase::Command,
        "content" => Phase::Content,
        "eom" => Phase::EndOfMessage,
        _ => return Err("the phase must be connect, command, content or eom".to_owned()),
    };
    Ok(Limit { phase: Some(phase), time: parse_seconds(seconds)? })
}

/// Reads where the filter listens.
pub fn parse_socket(text: &str) -> Result<FilterAddress, String> {
    text.parse().map_err(|error: mta::BadAddress| match hints::meant(text) {
        Some(address) => format!("{error}; perhaps you mean {address}"),
        None => error.to_string(),
    })
}

/// A time that the clock can add to now: thirty years are enough for everybody.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    const MOST: f64 = 1e9;
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && seconds <= MOST => Ok(duration),
        _ => Err("expected a number of seconds above 0, and not above 1000000000".to_owned()),
    }
}

/// Reads how many a second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    const MOST: f64 = 1e6;
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= MOST => Ok(rate),
        _ => Err("expected a number above 0, and not above 1000000".to_owned()),
    }
}

/// Flags as a number, or as names separated by commas or white space; `SMFIF_` or `SMFIP_` may stand in front.
pub fn parse_flags<F: bitflags::Flags<Bits = u32>>(text: &str) -> Result<F, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    if let Some(bits) = number {
        return Ok(F::from_bits_retain(bits));
    }
    let mut flags = F::empty();
    for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("SMFIF_").or_else(|| upper.strip_prefix("SMFIP_")).unwrap_or(&upper);
        flags.insert(F::from_name(bare).ok_or_else(|| format!("no flag is called {name}"))?);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use milter::protocol::{Actions, Steps};
    use std::net::Ipv4Addr;

    #[test]
    fn clients_of_every_family() {
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        let v6 = "2001:db8::1".parse().unwrap();
        for (text, expected) in [
            ("192.0.2.7", ClientAddress::Inet(v4, 1025)),
            ("192.0.2.7:25", ClientAddress::Inet(v4, 25)),
            ("2001:db8::1", ClientAddress::Inet6(v6, 1025)),
            ("[2001:db8::1]", ClientAddress::Inet6(v6, 1025)),
            ("[2001:db8::1]:25", ClientAddress::Inet6(v6, 25)),
            ("unix:/run/x", ClientAddress::Unix(b"/run/x".to_vec())),
            ("unknown", ClientAddress::Unknown),
        ] {
            assert_eq!(parse_client(text), Ok(expected), "{text}");
        }
        assert!(parse_client("client.example.com").is_err());
    }

    #[test]
    fn flags_as_names_and_numbers() {
        assert_eq!(parse_flags("0x30"), Ok(Actions::CHGHDRS | Actions::QUARANTINE));
        assert_eq!(parse_flags("0"), Ok(Actions::empty()));
        assert_eq!(parse_flags("skip, SMFIP_NR_HDR"), Ok(Steps::SKIP | Steps::NR_HDR));
        assert!(parse_flags::<Steps>("ADDHDRS").is_err());
    }

    #[test]
    fn refused_recipients_have_a_reply() {
        let refused = |text| {
            parse_refused(text)
                .map(|refused| format!("{} {}", refused.recipient, String::from_utf8(refused.reply).unwrap()))
        };
        assert_eq!(refused("nobody@e.org").unwrap(), "<nobody@e.org> 550 5.1.1 User unknown");
        assert_eq!(refused(" <a b@e.org> 450 4.2.1 full ").unwrap(), "<a b@e.org> 450 4.2.1 full");
        for bad in ["a@e 250 ok", "a@e no", "a@e 5x0 no"] {
            assert!(refused(bad).is_err(), "{bad}");
        }
    }
}
