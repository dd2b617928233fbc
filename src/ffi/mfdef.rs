//! The constants of the milter protocol under the names that C programs know: what cbindgen prints as
//! `libmilter/mfdef.h`. The library itself speaks in the types of `protocol`; a test below compares the two.

#![expect(dead_code, reason = "constants of the C header")]

use std::ffi::{c_int, c_long};

/// Bytes of the length in front of each packet.
pub const MILTER_LEN_BYTES: c_int = 4;
/// Bytes of an option negotiation.
pub const MILTER_OPTLEN: c_int = MILTER_LEN_BYTES * 3;
/// The largest piece of a body that a filter is sent.
pub const MILTER_CHUNK_SIZE: c_int = 65535;
/// The largest payload of a packet, unless smfi_setmaxdatasize says otherwise.
pub const MILTER_MAX_DATA_SIZE: c_int = 65535;

/// All actions of protocol version 1.
pub const SMFI_V1_ACTS: c_long = 0x0000_000f;
/// All actions of protocol version 2.
pub const SMFI_V2_ACTS: c_long = 0x0000_003f;
/// All actions of this version.
pub const SMFI_CURR_ACTS: c_long = 0x0000_01ff;

/// All steps of protocol version 1.
pub const SMFI_V1_PROT: c_long = 0x0000_003f;
/// All steps of protocol version 2.
pub const SMFI_V2_PROT: c_long = 0x0000_007f;
/// All steps of this version.
pub const SMFI_CURR_PROT: c_long = 0x001f_ffff;
/// Bits that the MTA and the library keep to themselves.
pub const SMFI_INTERNAL: c_long = 0x7000_0000;

/// Connection from nowhere that has an address.
pub const SMFIA_UNKNOWN: char = 'U';
/// Connection through a unix socket.
pub const SMFIA_UNIX: char = 'L';
/// Connection through IPv4.
pub const SMFIA_INET: char = '4';
/// Connection through IPv6.
pub const SMFIA_INET6: char = '6';

/// The message is given up.
pub const SMFIC_ABORT: char = 'A';
/// A piece of the body.
pub const SMFIC_BODY: char = 'B';
/// A client has connected.
pub const SMFIC_CONNECT: char = 'C';
/// Macro definitions.
pub const SMFIC_MACRO: char = 'D';
/// End of the body, perhaps with its last piece.
pub const SMFIC_BODYEOB: char = 'E';
/// HELO or EHLO.
pub const SMFIC_HELO: char = 'H';
/// Quit, but keep the connection for the next SMTP session.
pub const SMFIC_QUIT_NC: char = 'K';
/// A header line.
pub const SMFIC_HEADER: char = 'L';
/// MAIL FROM.
pub const SMFIC_MAIL: char = 'M';
/// End of the header.
pub const SMFIC_EOH: char = 'N';
/// Option negotiation.
pub const SMFIC_OPTNEG: char = 'O';
/// Quit.
pub const SMFIC_QUIT: char = 'Q';
/// RCPT TO.
pub const SMFIC_RCPT: char = 'R';
/// DATA.
pub const SMFIC_DATA: char = 'T';
/// An unknown SMTP command.
pub const SMFIC_UNKNOWN: char = 'U';

/// Add a recipient.
pub const SMFIR_ADDRCPT: char = '+';
/// Remove a recipient.
pub const SMFIR_DELRCPT: char = '-';
/// Add a recipient with ESMTP parameters.
pub const SMFIR_ADDRCPT_PAR: char = '2';
/// Answer 421 and close the connection.
pub const SMFIR_SHUTDOWN: char = '4';
/// Accept.
pub const SMFIR_ACCEPT: char = 'a';
/// Replace the body, piece by piece.
pub const SMFIR_REPLBODY: char = 'b';
/// Continue.
pub const SMFIR_CONTINUE: char = 'c';
/// Discard.
pub const SMFIR_DISCARD: char = 'd';
/// Change the sender.
pub const SMFIR_CHGFROM: char = 'e';
/// Cause the connection to fail.
pub const SMFIR_CONN_FAIL: char = 'f';
/// Add a header.
pub const SMFIR_ADDHEADER: char = 'h';
/// Insert a header.
pub const SMFIR_INSHEADER: char = 'i';
/// The macros that the filter wants.
pub const SMFIR_SETSYMLIST: char = 'l';
/// Change a header.
pub const SMFIR_CHGHEADER: char = 'm';
/// Still working.
pub const SMFIR_PROGRESS: char = 'p';
/// Quarantine the message.
pub const SMFIR_QUARANTINE: char = 'q';
/// Reject.
pub const SMFIR_REJECT: char = 'r';
/// Send no more of this kind.
pub const SMFIR_SKIP: char = 's';
/// Fail for now.
pub const SMFIR_TEMPFAIL: char = 't';
/// An SMTP reply of the filter's own.
pub const SMFIR_REPLYCODE: char = 'y';

/// The MTA need not send connections.
pub const SMFIP_NOCONNECT: c_long = 0x0000_0001;
/// The MTA need not send HELO.
pub const SMFIP_NOHELO: c_long = 0x0000_0002;
/// The MTA need not send MAIL.
pub const SMFIP_NOMAIL: c_long = 0x0000_0004;
/// The MTA need not send RCPT.
pub const SMFIP_NORCPT: c_long = 0x0000_0008;
/// The MTA need not send the body.
pub const SMFIP_NOBODY: c_long = 0x0000_0010;
/// The MTA need not send header lines.
pub const SMFIP_NOHDRS: c_long = 0x0000_0020;
/// The MTA need not send the end of the header.
pub const SMFIP_NOEOH: c_long = 0x0000_0040;
/// The filter does not answer header lines.
pub const SMFIP_NR_HDR: c_long = 0x0000_0080;
/// The filter does not answer header lines: the older name.
pub const SMFIP_NOHREPL: c_long = SMFIP_NR_HDR;
/// The MTA need not send unknown commands.
pub const SMFIP_NOUNKNOWN: c_long = 0x0000_0100;
/// The MTA need not send DATA.
pub const SMFIP_NODATA: c_long = 0x0000_0200;
/// The MTA understands SMFIS_SKIP.
pub const SMFIP_SKIP: c_long = 0x0000_0400;
/// The MTA sends rejected recipients too.
pub const SMFIP_RCPT_REJ: c_long = 0x0000_0800;
/// The filter does not answer connections.
pub const SMFIP_NR_CONN: c_long = 0x0000_1000;
/// The filter does not answer HELO.
pub const SMFIP_NR_HELO: c_long = 0x0000_2000;
/// The filter does not answer MAIL.
pub const SMFIP_NR_MAIL: c_long = 0x0000_4000;
/// The filter does not answer RCPT.
pub const SMFIP_NR_RCPT: c_long = 0x0000_8000;
/// The filter does not answer DATA.
pub const SMFIP_NR_DATA: c_long = 0x0001_0000;
/// The filter does not answer unknown commands.
pub const SMFIP_NR_UNKN: c_long = 0x0002_0000;
/// The filter does not answer the end of the header.
pub const SMFIP_NR_EOH: c_long = 0x0004_0000;
/// The filter does not answer pieces of the body.
pub const SMFIP_NR_BODY: c_long = 0x0008_0000;
/// Header values keep their leading space.
pub const SMFIP_HDR_LEADSPC: c_long = 0x0010_0000;
/// Packets of up to 256 KiB.
pub const SMFIP_MDS_256K: c_long = 0x1000_0000;
/// Packets of up to 1 MiB.
pub const SMFIP_MDS_1M: c_long = 0x2000_0000;

#[cfg(test)]
mod tests {
    use super::super::types::*;
    use super::*;
    use crate::protocol::{Actions, Kind, Steps};

    #[test]
    fn actions_are_the_protocols() {
        for (c, rust) in [
            (SMFIF_ADDHDRS, Actions::ADDHDRS),
            (SMFIF_CHGBODY, Actions::CHGBODY),
            (SMFIF_ADDRCPT, Actions::ADDRCPT),
            (SMFIF_DELRCPT, Actions::DELRCPT),
            (SMFIF_CHGHDRS, Actions::CHGHDRS),
            (SMFIF_QUARANTINE, Actions::QUARANTINE),
            (SMFIF_CHGFROM, Actions::CHGFROM),
            (SMFIF_ADDRCPT_PAR, Actions::ADDRCPT_PAR),
            (SMFIF_SETSYMLIST, Actions::SETSYMLIST),
        ] {
            assert_eq!(c, c_long::from(rust.bits()), "{rust:?}");
        }
    }

    #[test]
    fn steps_are_the_protocols() {
        for (c, rust) in [
            (SMFI_INTERNAL, Steps::INTERNAL),
            (SMFIP_NOCONNECT, Steps::NOCONNECT),
            (SMFIP_NOHELO, Steps::NOHELO),
            (SMFIP_NOMAIL, Steps::NOMAIL),
            (SMFIP_NORCPT, Steps::NORCPT),
            (SMFIP_NOBODY, Steps::NOBODY),
            (SMFIP_NOHDRS, Steps::NOHDRS),
            (SMFIP_NOEOH, Steps::NOEOH),
            (SMFIP_NR_HDR, Steps::NR_HDR),
            (SMFIP_NOUNKNOWN, Steps::NOUNKNOWN),
            (SMFIP_NODATA, Steps::NODATA),
            (SMFIP_SKIP, Steps::SKIP),
            (SMFIP_RCPT_REJ, Steps::RCPT_REJ),
            (SMFIP_NR_CONN, Steps::NR_CONN),
            (SMFIP_NR_HELO, Steps::NR_HELO),
            (SMFIP_NR_MAIL, Steps::NR_MAIL),
            (SMFIP_NR_RCPT, Steps::NR_RCPT),
            (SMFIP_NR_DATA, Steps::NR_DATA),
            (SMFIP_NR_UNKN, Steps::NR_UNKN),
            (SMFIP_NR_EOH, Steps::NR_EOH),
            (SMFIP_NR_BODY, Steps::NR_BODY),
            (SMFIP_HDR_LEADSPC, Steps::HDR_LEADSPC),
            (SMFIP_MDS_256K, Steps::MDS_256K),
            (SMFIP_MDS_1M, Steps::MDS_1M),
        ] {
            assert_eq!(c, c_long::from(rust.bits()), "{rust:?}");
        }
    }

    #[test]
    fn commands_are_the_protocols() {
        for (c, rust) in [
            (SMFIC_OPTNEG, Kind::Negotiate),
            (SMFIC_MACRO, Kind::Macro),
            (SMFIC_CONNECT, Kind::Connect),
            (SMFIC_HELO, Kind::Helo),
            (SMFIC_MAIL, Kind::Mail),
            (SMFIC_RCPT, Kind::Rcpt),
            (SMFIC_DATA, Kind::Data),
            (SMFIC_HEADER, Kind::Header),
            (SMFIC_EOH, Kind::EndOfHeader),
            (SMFIC_BODY, Kind::Body),
            (SMFIC_BODYEOB, Kind::EndOfMessage),
            (SMFIC_ABORT, Kind::Abort),
            (SMFIC_UNKNOWN, Kind::Unknown),
            (SMFIC_QUIT, Kind::Quit),
            (SMFIC_QUIT_NC, Kind::QuitNewConnection),
        ] {
            assert_eq!(Kind::try_from(c as u8), Ok(rust));
        }
    }
}
