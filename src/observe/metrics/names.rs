//! What is counted, and what it is called in the metrics. Nothing is counted here.

use crate::observe::{Ending, Fault};
use crate::protocol::Kind;

/// The callbacks, by the commands that call them; QUIT calls close.
pub const CALLBACKS: [(Kind, &str); 13] = [
    (Kind::Negotiate, "negotiate"),
    (Kind::Connect, "connect"),
    (Kind::Helo, "helo"),
    (Kind::Mail, "envfrom"),
    (Kind::Rcpt, "envrcpt"),
    (Kind::Data, "data"),
    (Kind::Unknown, "unknown"),
    (Kind::Header, "header"),
    (Kind::EndOfHeader, "eoh"),
    (Kind::Body, "body"),
    (Kind::EndOfMessage, "eom"),
    (Kind::Abort, "abort"),
    (Kind::Quit, "close"),
];

/// What a callback may return, `SMFIS_*`.
pub const VERDICTS: [(i32, &str); 7] = [
    (0, "continue"),
    (1, "reject"),
    (2, "discard"),
    (3, "accept"),
    (4, "tempfail"),
    (7, "noreply"),
    (8, "skip"),
];
/// What is in no table.
pub const OTHER: &str = "other";

/// The upper bounds of the buckets of a histogram: nanoseconds, and as they are shown, in seconds.
pub const BOUNDS: [(u64, &str); 17] = [
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (10_000_000_000, "10.0"),
    (30_000_000_000, "30.0"),
    (100_000_000_000, "100.0"),
];

/// The modifications, by the bytes of their frames.
pub const MODIFICATIONS: [(u8, &str); 10] = [
    (b'h', "addheader"),
    (b'i', "insheader"),
    (b'm', "chgheader"),
    (b'e', "chgfrom"),
    (b'+', "addrcpt"),
    (b'2', "addrcpt_par"),
    (b'-', "delrcpt"),
    (b'b', "replacebody"),
    (b'q', "quarantine"),
    (b'p', "progress"),
];

/// How sessions end; any [`Fault`] counts as the last one.
pub const ENDINGS: [Ending; 12] = [
    Ending::Quit,
    Ending::Closed,
    Ending::Stopped,
    Ending::TimedOut,
    Ending::NoMemory,
    Ending::Broken,
    Ending::Unused,
    Ending::NoAgreement,
    Ending::BadStatus,
    Ending::TooLarge,
    Ending::Internal,
    Ending::Fault(Fault::Frame),
];

/// What MTAs do against the protocol.
pub const FAULTS: [(Fault, &str); 8] = [
    (Fault::Frame, "frame"),
    (Fault::UnknownCommand, "unknown_command"),
    (Fault::NoData, "no_data"),
    (Fault::Unterminated, "unterminated"),
    (Fault::Header, "header"),
    (Fault::Address, "address"),
    (Fault::Negotiation, "negotiation"),
    (Fault::OutOfOrder, "out_of_order"),
];

/// For want of what a connection is refused.
pub const MISSING: [&str; 2] = ["thread", "memory"];

/// The macros that MTAs have. There must be no more series than these, whatever a filter asks for.
pub const MACROS: [&str; 53] = [
    "_",
    "auth_authen",
    "auth_author",
    "auth_ssf",
    "auth_type",
    "b",
    "cert_issuer",
    "cert_subject",
    "cipher",
    "cipher_bits",
    "client_addr",
    "client_connections",
    "client_name",
    "client_port",
    "client_ptr",
    "client_rate",
    "client_resolve",
    "cn_issuer",
    "cn_subject",
    "currHeader",
    "daemon_addr",
    "daemon_family",
    "daemon_info",
    "daemon_name",
    "daemon_port",
    "deliveryMode",
    "envid",
    "f",
    "hdr_name",
    "i",
    "if_addr",
    "if_family",
    "if_name",
    "j",
    "load_avg",
    "mail_addr",
    "mail_host",
    "mail_mailer",
    "msg_id",
    "msg_size",
    "nbadrcpts",
    "nrcpts",
    "ntries",
    "opMode",
    "r",
    "rcpt_addr",
    "rcpt_host",
    "rcpt_mailer",
    "s",
    "server_name",
    "tls_version",
    "v",
    "verify",
];
