//! The bytes that an MTA sends, encoded once: negotiation, a typical message as Postfix plays it, a big one,
//! one with its header block in a single write. It encodes only; it neither reads nor judges an answer.

use std::time::Duration;

/// What the MTA writes at one go; its last command is the one that is answered.
pub type Exchange = Vec<u8>;

/// Everything that one connection says.
pub struct Script {
    /// Negotiation, connect, helo: once for each connection.
    pub open: Vec<Exchange>,
    /// From the sender to the end of the message.
    pub message: Vec<Exchange>,
    /// Nothing answers it.
    pub quit: Vec<u8>,
    /// The most bytes that go into one write.
    pub write: usize,
}

/// How a script deviates from the typical one.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// Stop after the negotiation.
    pub negotiation_only: bool,
    /// Header lines and end of header in one write, answered once.
    pub header_block: bool,
    /// Bytes of the body instead of the typical 3 KiB.
    pub body: Option<usize>,
    /// The most bytes in one write; by default, an exchange is one write.
    pub write: Option<usize>,
}

/// The largest body chunk: what Postfix and Sendmail send of a long body.
const CHUNK: usize = 65535;

/// All actions, and all steps that Postfix 3.7 offers.
const OFFER: [u32; 3] = [6, 0x1ff, 0x1f_ffff];

/// Known from DATA on.
const QUEUE_ID: (&str, &str) = ("i", "4T2xYk1V8Zz9s");

const SENDER: [(&str, &str); 3] =
    [("{mail_addr}", "sender@example.org"), ("{mail_host}", "example.org"), ("{mail_mailer}", "smtp")];

const HEADERS: [(&str, &str); 15] = [
    (
        "Received",
        "from mail-wr1-f52.example.org (mail-wr1-f52.example.org [198.51.100.52])\n\t(using TLSv1.3 with \
         cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\n\t key-exchange X25519 server-signature RSA-PSS (2048 \
         bits))\n\t(No client certificate requested)\n\tby mx.example.net (Postfix) with ESMTPS id \
         4T2xYk1V8Zz9s\n\tfor <receiver@example.net>; Sat, 21 Nov 2026 10:12:44 +0000 (UTC)",
    ),
    (
        "Received",
        "by mail-wr1-f52.example.org with SMTP id ffacd0b85a97d-32d9effe314so2374661f8f.3\n        for \
         <receiver@example.net>; Sat, 21 Nov 2026 02:12:43 -0800 (PST)",
    ),
    (
        "DKIM-Signature",
        "v=1; a=rsa-sha256; c=relaxed/relaxed;\n        d=example.org; s=20230601; t=1700561563; \
         x=1701166363; darn=example.net;\n        h=to:subject:message-id:date:from:mime-version:from:to:cc:\
         subject\n         :date:message-id:reply-to;\n        bh=g3zLYH4xKxcPrHOD18z9YfpQcnk/GaJedfustWU5uGs=;\
         \n        b=VIhRZGoJ1bGmPZ8qmB3LRmnTV4zYPlNOaI4rNqVtYJm7nHlQ7vDr+qkF6E9nJXmwvR\n         \
         8cQzNtxqYb5mO3gqzYFJmPcK1sVh2W0dXx0dQ8s3qk4b5Xv4h7nEw==",
    ),
    ("X-Gm-Message-State", "AOJu0YzQ8b5v0Y7o3rQq0kE1a8V9v5m2u7bHq2nXw3c4T6yPz1K9s0dF"),
    (
        "X-Received",
        "by 2002:a5d:4b01:0:b0:32f:7c4d:8740 with SMTP id v1-20020a5d4b01mr1284321wrq.41.17005615",
    ),
    ("MIME-Version", "1.0"),
    ("References", "<CAF3q0h1Jx8b2@mail.example.org> <20261120184233.GA21467@mx.example.net>"),
    ("In-Reply-To", "<20261120184233.GA21467@mx.example.net>"),
    ("From", "Some Sender <sender@example.org>"),
    ("Date", "Sat, 21 Nov 2026 11:12:32 +0100"),
    ("Message-ID", "<CAF3q0h1Jx8b2Zr9Y5tWbVYwC4E7vQ=d0kS8mPqLr@mail.example.org>"),
    ("Subject", "Re: minutes of the meeting, and what is left to do before the end of the month"),
    ("To", "receiver@example.net"),
    ("Content-Type", "text/plain; charset=\"UTF-8\""),
    ("Content-Transfer-Encoding", "quoted-printable"),
];

impl Script {
    /// Encodes it.
    pub fn new(shape: Shape) -> Self {
        let negotiation = frame(b'O', &OFFER.map(u32::to_be_bytes).concat());
        let mut open = vec![negotiation];
        let mut message = Vec::new();
        if !shape.negotiation_only {
            open.push(with_macros(
                b'C',
                &[
                    ("j", "mx.example.net"),
                    ("{daemon_name}", "mx.example.net"),
                    ("{daemon_addr}", "192.0.2.25"),
                    ("v", "Postfix 3.7.11"),
                ],
                &[
                    b"mail-wr1-f52.example.org\0".as_slice(),
                    b"4",
                    &51234u16.to_be_bytes(),
                    b"198.51.100.52\0",
                ]
                .concat(),
            ));
            open.push(frame(b'H', b"mail-wr1-f52.example.org\0"));
            message = typical(shape);
        }
        Self { open, message, quit: frame(b'Q', b""), write: shape.write.unwrap_or(usize::MAX) }
    }
}

/// A message given up and the next one's sender, which makes the filter sleep for so long.
pub fn sleeper(time: Duration) -> Exchange {
    let mail = format!("<sleep-{}@example.org>\0", time.as_millis());
    [frame(b'A', b""), with_macros(b'M', &SENDER, mail.as_bytes())].concat()
}

fn typical(shape: Shape) -> Vec<Exchange> {
    let mut message = vec![
        with_macros(b'M', &SENDER, b"<sender@example.org>\0SIZE=5120\0BODY=8BITMIME\0"),
        with_macros(
            b'R',
            &[
                ("{rcpt_addr}", "receiver@example.net"),
                ("{rcpt_host}", "example.net"),
                ("{rcpt_mailer}", "local"),
            ],
            b"<receiver@example.net>\0",
        ),
        with_macros(b'T', &[QUEUE_ID], b""),
    ];
    let end_of_header = with_macros(b'N', &[QUEUE_ID], b"");
    let lines = HEADERS.map(|(name, value)| frame(b'L', format!("{name}\0{value}\0").as_bytes()));
    if shape.header_block {
        message.push([lines.concat(), end_of_header].concat());
    } else {
        message.extend(lines);
        message.push(end_of_header);
    }
    let line = b"A line of text as people write it, with =C3=A4 and =E2=80=93 here and there.\r\n";
    let body: Vec<u8> = line.iter().copied().cycle().take(shape.body.unwrap_or(3072)).collect();
    message.extend(body.chunks(CHUNK).map(|chunk| frame(b'B', chunk)));
    message.push(with_macros(b'E', &[QUEUE_ID], b""));
    message
}

fn frame(command: u8, payload: &[u8]) -> Exchange {
    let length = u32::try_from(payload.len() + 1).expect("a frame is small");
    [&length.to_be_bytes(), [command].as_slice(), payload].concat()
}

/// A command behind the macros of its stage, in one write, as Postfix does it.
fn with_macros(command: u8, definitions: &[(&str, &str)], payload: &[u8]) -> Exchange {
    let mut macros = vec![command];
    for (name, value) in definitions {
        macros.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    [frame(b'D', &macros), frame(command, payload)].concat()
}
