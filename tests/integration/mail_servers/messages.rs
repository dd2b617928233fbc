//! The messages that the tests send. Their dates are of 2001, so that they can be told from those that the mail servers
//! add.

/// Mail with what filters and mail servers find hard: folded and 8-bit headers, a header given several times, dots at
/// the beginning of lines, long and 8-bit lines, empty lines at the end. Also the headers that edit-message acts on.
pub fn intricate() -> Vec<u8> {
    let long = "0123456789".repeat(98);
    format!(
        "From: \"Ann O'Nym\" <ann@example.com>
To: Bob <bob@example.net>,
\tCarol <carol@example.net>,
 \"Dave, D.\" <dave@example.net>
Date: Mon, 01 Jan 2001 00:00:00 +0000
Message-Id: <intricate@example.com>
Subject: first line
\tsecond, after a tab
  third, after two blanks
X-Internal: one
X-Raw: gr\u{fc}n \u{2713}
X-Internal: two
X-Empty:
X-No-Blank:value
X-Blanks:   three before, two behind  \nX-Internal: three
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

A line.
.
..two dots
.one dot
{long}
\u{201e}8 bit\u{201c} \u{e4}\u{f6}\u{fc}

From here on only empty lines.


"
    )
    .replace('\n', "\r\n")
    .into_bytes()
}

/// A short one with a subject and further header lines of the caller's choice.
pub fn short(subject: &str, headers: &str) -> Vec<u8> {
    format!(
        "From: ann@example.com\r\nTo: bob@example.net\r\nDate: Mon, 01 Jan 2001 00:00:00 +0000\r\n\
         Message-Id: <short@example.com>\r\nSubject: {subject}\r\n{headers}\r\nShort.\r\n"
    )
    .into_bytes()
}

/// 10 MiB of MIME: a text and an attachment.
pub fn large() -> Vec<u8> {
    let mut message = b"From: ann@example.com\r\nTo: bob@example.net\r\nDate: Mon, 01 Jan 2001 00:00:00 +0000\r\n\
        Message-Id: <large@example.com>\r\nSubject: a large attachment\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=\"=-part\"\r\n\r\n--=-part\r\nContent-Type: text/plain\r\n\r\n\
        See the attachment.\r\n.\r\n--=-part\r\nContent-Type: application/octet-stream; name=\"data.bin\"\r\n\
        Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"data.bin\"\r\n\r\n"
        .to_vec();
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Numbers that don't repeat, so that a lost, doubled or moved piece shows.
    let mut number = 1_u32;
    while message.len() < 10 * 1024 * 1024 {
        for _ in 0..76 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            message.push(DIGITS[(number >> 26) as usize]);
        }
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"--=-part--\r\n");
    message
}
