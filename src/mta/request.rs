//! What an MTA tells a filter, and how that becomes a command.

use super::envelope::Mailbox;
use super::message::Header;
use crate::count::Count;
use crate::protocol::command::encode;
use crate::protocol::{Kind, Peer};

/// What an MTA tells a filter.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// A client has connected.
    Connect {
        /// Its name.
        host: &'a [u8],
        /// Its address.
        peer: Peer<'a>,
    },
    /// Its HELO.
    Helo(&'a [u8]),
    /// The sender.
    Mail(&'a Mailbox),
    /// A recipient.
    Rcpt(&'a Mailbox),
    /// DATA.
    Data,
    /// A header field.
    Header(&'a Header),
    /// The header is over.
    EndOfHeader,
    /// A piece of the body.
    Body(&'a [u8]),
    /// The message is over.
    EndOfMessage,
    /// An SMTP command that the MTA does not know.
    Unknown(&'a [u8]),
}

/// How an MTA writes what it tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// With the leading space of header values.
    pub leading_space: bool,
    /// Addresses without angle brackets.
    pub bare_addresses: bool,
}

impl Style {
    /// An address and its ESMTP arguments. Without brackets the null address is an empty string.
    fn arguments(self, mailbox: &Mailbox) -> Vec<Vec<u8>> {
        let mut arguments = mailbox.for_filter();
        if self.bare_addresses {
            arguments[0] = mailbox.address.clone();
        }
        arguments
    }
}

impl Request<'_> {
    /// The command that carries it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. } => Kind::Connect,
            Self::Helo(_) => Kind::Helo,
            Self::Mail(_) => Kind::Mail,
            Self::Rcpt(_) => Kind::Rcpt,
            Self::Data => Kind::Data,
            Self::Header(_) => Kind::Header,
            Self::EndOfHeader => Kind::EndOfHeader,
            Self::Body(_) => Kind::Body,
            Self::EndOfMessage => Kind::EndOfMessage,
            Self::Unknown(_) => Kind::Unknown,
        }
    }

    /// The address that it carries, in angle brackets.
    pub(super) fn address(&self) -> Vec<u8> {
        match self {
            Self::Mail(mailbox) | Self::Rcpt(mailbox) => [b"<", &mailbox.address[..], b">"].concat(),
            _ => Vec::new(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, style: Style) {
        match self {
            Self::Connect { host, peer } => encode::connect(out, host, *peer),
            Self::Helo(name) => encode::helo(out, name),
            Self::Mail(mailbox) | Self::Rcpt(mailbox) => {
                let arguments = style.arguments(mailbox);
                let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                encode::envelope(out, self.kind(), &arguments);
            }
            Self::Header(header) => {
                encode::header(out, header.name(), &header.value_for_filter(style.leading_space))
            }
            Self::Unknown(line) => encode::unknown(out, line),
            Self::Body(piece) => encode::raw(out, Kind::Body, piece),
            Self::Data | Self::EndOfHeader | Self::EndOfMessage => encode::raw(out, self.kind(), b""),
        }
    }

    /// What it carries, for people.
    pub(super) fn describe(&self, style: Style) -> Vec<u8> {
        match self {
            Self::Connect { host, peer } => [host, &b" "[..], describe_peer(*peer).as_bytes()].concat(),
            Self::Helo(name) => name.to_vec(),
            Self::Mail(mailbox) | Self::Rcpt(mailbox) => style.arguments(mailbox).join(&b' '),
            Self::Header(header) => {
                [header.name(), b": ", &header.value_for_filter(style.leading_space)].concat()
            }
            Self::Unknown(line) => line.to_vec(),
            Self::Body(piece) => Count(piece.len(), "byte").to_string().into_bytes(),
            Self::Data | Self::EndOfHeader | Self::EndOfMessage => Vec::new(),
        }
    }
}

fn describe_peer(peer: Peer<'_>) -> String {
    match peer {
        Peer::Unknown => "(unknown address)".to_owned(),
        Peer::Inet { address, port } => format!("[{address}]:{port}"),
        Peer::Inet6 { address, port } => format!("[{address}]:{port}"),
        Peer::Unix(path) => format!("unix:{}", String::from_utf8_lossy(path)),
    }
}
