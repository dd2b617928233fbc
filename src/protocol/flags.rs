//! What MTA and filter agree on: which modifications the filter may ask for, which steps of the SMTP dialogue
//! it wants to see and which of them it answers. Bits that this library does not know are kept, never dropped.

use bitflags::bitflags;

bitflags! {
    /// `SMFIF_*`: the modifications that a filter may ask for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Actions: u32 {
        /// `SMFIF_ADDHDRS`
        const ADDHDRS = 0x001;
        /// `SMFIF_CHGBODY`
        const CHGBODY = 0x002;
        /// `SMFIF_ADDRCPT`
        const ADDRCPT = 0x004;
        /// `SMFIF_DELRCPT`
        const DELRCPT = 0x008;
        /// `SMFIF_CHGHDRS`
        const CHGHDRS = 0x010;
        /// `SMFIF_QUARANTINE`
        const QUARANTINE = 0x020;
        /// `SMFIF_CHGFROM`
        const CHGFROM = 0x040;
        /// `SMFIF_ADDRCPT_PAR`
        const ADDRCPT_PAR = 0x080;
        /// `SMFIF_SETSYMLIST`
        const SETSYMLIST = 0x100;
        const _ = !0;
    }
}

bitflags! {
    /// `SMFIP_*`: steps that the MTA need not send (NO), steps that the filter does not answer (NR), and
    /// other habits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Steps: u32 {
        /// `SMFIP_NOCONNECT`
        const NOCONNECT = 0x0000_0001;
        /// `SMFIP_NOHELO`
        const NOHELO = 0x0000_0002;
        /// `SMFIP_NOMAIL`
        const NOMAIL = 0x0000_0004;
        /// `SMFIP_NORCPT`
        const NORCPT = 0x0000_0008;
        /// `SMFIP_NOBODY`
        const NOBODY = 0x0000_0010;
        /// `SMFIP_NOHDRS`
        const NOHDRS = 0x0000_0020;
        /// `SMFIP_NOEOH`
        const NOEOH = 0x0000_0040;
        /// `SMFIP_NR_HDR`
        const NR_HDR = 0x0000_0080;
        /// `SMFIP_NOUNKNOWN`
        const NOUNKNOWN = 0x0000_0100;
        /// `SMFIP_NODATA`
        const NODATA = 0x0000_0200;
        /// `SMFIP_SKIP`: the filter may answer "skip"
        const SKIP = 0x0000_0400;
        /// `SMFIP_RCPT_REJ`: the filter wants recipients that the MTA itself rejected
        const RCPT_REJ = 0x0000_0800;
        /// `SMFIP_NR_CONN`
        const NR_CONN = 0x0000_1000;
        /// `SMFIP_NR_HELO`
        const NR_HELO = 0x0000_2000;
        /// `SMFIP_NR_MAIL`
        const NR_MAIL = 0x0000_4000;
        /// `SMFIP_NR_RCPT`
        const NR_RCPT = 0x0000_8000;
        /// `SMFIP_NR_DATA`
        const NR_DATA = 0x0001_0000;
        /// `SMFIP_NR_UNKN`
        const NR_UNKN = 0x0002_0000;
        /// `SMFIP_NR_EOH`
        const NR_EOH = 0x0004_0000;
        /// `SMFIP_NR_BODY`
        const NR_BODY = 0x0008_0000;
        /// `SMFIP_HDR_LEADSPC`: header values keep their leading space
        const HDR_LEADSPC = 0x0010_0000;
        /// `SMFIP_MDS_256K`: data of up to 256 KiB - 1 in one frame
        const MDS_256K = 0x1000_0000;
        /// `SMFIP_MDS_1M`: data of up to 1 MiB - 1 in one frame
        const MDS_1M = 0x2000_0000;
        const _ = !0;
    }
}

impl Steps {
    /// The nine "the filter does not answer" bits.
    pub const NO_REPLY: Self = Self::NR_HDR
        .union(Self::NR_CONN)
        .union(Self::NR_HELO)
        .union(Self::NR_MAIL)
        .union(Self::NR_RCPT)
        .union(Self::NR_DATA)
        .union(Self::NR_UNKN)
        .union(Self::NR_EOH)
        .union(Self::NR_BODY);

    /// `SMFI_INTERNAL`: bits between MTA and library that the filter never sees.
    pub const INTERNAL: Self = Self::from_bits_retain(0x7000_0000);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_bits_are_kept() {
        assert_eq!(Actions::from_bits_retain(0x8000_0001).bits(), 0x8000_0001);
        assert_eq!((!Steps::NOHELO).bits(), !2);
    }

    #[test]
    fn the_nine_no_reply_bits() {
        assert_eq!(Steps::NO_REPLY.bits(), 0x000f_f080);
    }
}
