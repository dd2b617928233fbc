//! What speaks when the first bytes of a connection are no frame: they stand where the length of a frame would.

/// The name of the protocol whose connections begin with these bytes, if it is a known one.
pub fn protocol(first: [u8; 4]) -> Option<&'static str> {
    match &first {
        [0x16, 3, 0..=4, _] => Some("TLS"),
        b"PROX" | b"\r\n\r\n" => Some("the PROXY protocol"),
        b"SSH-" => Some("SSH"),
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"DELE" | b"PATC" | b"TRAC" | b"CONN" | b"PRI " => {
            Some("HTTP")
        }
        _ => {
            let verbs = [b"EHLO", b"HELO", b"LHLO", b"MAIL", b"RCPT", b"NOOP", b"RSET", b"QUIT"];
            verbs.iter().any(|verb| first.eq_ignore_ascii_case(&verb[..])).then_some("SMTP")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_protocols_have_names() {
        for (first, name) in [
            (b"GET ", "HTTP"),
            (b"PRI ", "HTTP"),
            (b"ehlo", "SMTP"),
            (b"\x16\x03\x01\x02", "TLS"),
            (b"PROX", "the PROXY protocol"),
            (b"\r\n\r\n", "the PROXY protocol"),
            (b"SSH-", "SSH"),
        ] {
            assert_eq!(protocol(*first), Some(name));
        }
        for first in [*b"\0\0\0\x0d", *b"get ", *b"\x16\x05\0\0", *b"\r\n\r\r"] {
            assert_eq!(protocol(first), None);
        }
    }
}
