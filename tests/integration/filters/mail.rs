//! The mail that the filters get to see, and sending it to them with `milter-send` as the MTA.

use std::fs;
use std::process::Command;

use super::Run;
use super::process::Filter;
use crate::support::milter_send;

/// A message and its envelope. The default is a clean one that example.org may send.
pub struct Mail {
    pub client: &'static str,
    pub helo: &'static str,
    pub sender: &'static str,
    pub recipient: &'static str,
    pub message: String,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            client: "192.0.2.1",
            helo: "mail.example.org",
            sender: "<alice@example.org>",
            recipient: "<bob@example.com>",
            message: text("Shall we have lunch on Friday?"),
        }
    }
}

/// What came of a mail.
pub struct Sent {
    /// `accepted at BODYEOB`, `rejected (550 ...) at RCPT` and so on.
    pub verdict: String,
    /// The message as it would be delivered.
    pub message: String,
}

/// A plain text message from example.org. Old enough for spam rules about the date to stay the same.
pub fn text(body: &str) -> String {
    format!(
        "From: Alice <alice@example.org>\n\
         To: Bob <bob@example.com>\n\
         Subject: Lunch\n\
         Date: Tue, 20 Nov 2001 12:00:00 +0000\n\
         Message-ID: <lunch-1@example.org>\n\
         MIME-Version: 1.0\n\
         Content-Type: text/plain; charset=us-ascii\n\
         \n\
         Hello Bob,\n\
         \n\
         {body}\n"
    )
}

/// A message with a program attached.
pub fn with_program() -> String {
    text("The program.\n")
        .replace("text/plain; charset=us-ascii", "multipart/mixed; boundary=\"parts\"")
        .replace("Hello Bob,\n", "--parts\n\nHello Bob,\n")
        + "--parts\n\
           Content-Type: application/octet-stream; name=\"setup.exe\"\n\
           Content-Disposition: attachment; filename=\"setup.exe\"\n\
           Content-Transfer-Encoding: base64\n\
           \n\
           TVqQAAMAAAAEAAAA\n\
           --parts--\n"
}

/// The anti-virus test file, in two pieces so that scanners leave this source file alone.
pub fn eicar() -> String {
    text(&[r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-", "STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat())
}

/// The anti-spam test line.
pub fn gtube() -> String {
    text(&["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"].concat())
}

impl Run<'_> {
    /// Sends the mail to the filter as Postfix would, and records the whole dialogue and the resulting message, in
    /// which `masked` hides what may vary.
    pub fn send(&self, title: &str, filter: &Filter, mail: &Mail, masked: impl Fn(&str) -> String) -> Sent {
        let (dialogue, sent) = self.play(filter, mail);
        self.record(title, &masked(&format!("{dialogue}\n{}", sent.message)));
        sent
    }

    /// Sends the mail and returns the dialogue and what came of it.
    pub fn play(&self, filter: &Filter, mail: &Mail) -> (String, Sent) {
        let eml = self.dir().join("message.eml");
        fs::write(&eml, &mail.message).unwrap();
        let output = Command::new(milter_send())
            .arg(filter.socket())
            .arg(format!("--client={}:4321", mail.client))
            .arg("--client-name=mail.example.org")
            .arg(format!("--helo={}", mail.helo))
            .arg(format!("--from={} SIZE=1000", mail.sender))
            .arg(format!("--to={}", mail.recipient))
            .args([
                "--macro=j=mx.example.com",
                "--macro=i=4Vq3Zk",
                "--no-received",
                "--no-times",
                "--timeout=120",
                "--unknown=FROBNICATE it",
            ])
            .arg(&eml)
            .output()
            .expect("milter-send, which `make` makes");
        let dialogue = String::from_utf8(output.stderr).unwrap();
        let message = String::from_utf8(output.stdout).unwrap();
        assert!(
            matches!(output.status.code(), Some(0 | 1 | 3 | 4 | 5)),
            "milter-send: {}\n{dialogue}",
            output.status
        );
        let verdict = dialogue.lines().find_map(|line| line.strip_prefix("* "));
        let verdict = verdict.unwrap_or_else(|| panic!("no verdict\n{dialogue}")).to_owned();
        (dialogue, Sent { verdict, message })
    }
}
