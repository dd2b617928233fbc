//! The command line: what can be asked for, and the text that teaches it. Values that exist are valid.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum, ValueHint};
use clap_complete::Shell;
use milter::mta::{
    self, Client, ClientAddress, DefaultAction, FilterAddress, Flavor, Limits, MacroSetting, Policy,
};
use milter::protocol::{Actions, Kind, Offer, Steps};

use super::expect::Expectation;
use super::load::Demand;
use super::values::{
    Limit, Phase, Refused, parse_client, parse_flags, parse_limit, parse_rate, parse_refused, parse_seconds,
    parse_socket,
};

/// The client, and its name, if there is no other wish.
const DEFAULT_CLIENT: &str = "192.0.2.1:1025";
const DEFAULT_NAME: &str = "client.example.com";

const AFTER_HELP: &str = "\
Dialogue (standard error): a line for each command that the filter gets, with its answer behind the arrow. A + \
marks a change that the filter wants, a - a command that it does not get, and why, a ! what the server repairs, \
ignores or answers otherwise than the filter meant (see docs/protocol.md for the number), and other warnings. How long the \
filter took stands in brackets. Behind each message stands what became of it, with the resulting envelope. The \
resulting message goes to standard output.

Exit status: 0 accepted, 1 rejected, 2 usage, 3 tempfailed, 4 discarded, 5 accepted into quarantine, 6 the filter \
broke the protocol, 7 no connection, no answer in time, or another I/O error (a closed standard output among them), \
8 an expectation did not hold. Of several messages the first one that was not simply accepted decides. With --expect \
it is 0 if all expectations hold, whatever became of the messages.

Examples:
  What does my filter do with this message?
      milter-send inet:8891@localhost message.eml
  A bounce to two recipients, with ESMTP arguments:
      milter-send /run/f.sock -f '<> BODY=8BITMIME' -t a@example.org \\
          -t '<b@example.org> NOTIFY=NEVER' message.eml
  From an IPv6 client that has logged in:
      milter-send /run/f.sock --client '[2001:db8::1]:1025' \\
          --client-name mail.example.com -m auth_authen=joe message.eml
  As an old Sendmail would do it:
      milter-send /run/f.sock --like sendmail --protocol 2 message.eml
  All messages of a mailbox:
      milter-send /run/f.sock --mbox --show result inbox.mbox
  Test a filter:
      milter-send /run/f.sock --tap --expect accept --expect 'header X-Spam: yes' spam.eml
  How much does it bear?
      milter-send /run/f.sock --connections 20 --rate 500 --duration 30 message.eml
  Does it still do what it did when LIBMILTER_TRACE was set?
      milter-send /run/f.sock --replay /tmp/trace
  For a script:
      milter-send /run/f.sock --json message.eml | jq .messages[0].disposition";

/// Plays SMTP sessions to a mail filter (milter), as a mail server would, and shows what it answers and what it
/// makes of the message. No mail is sent.
#[derive(Debug, Parser)]
#[command(name = "milter-send", version, after_long_help = AFTER_HELP, max_term_width = 110)]
pub struct Options {
    /// Where the filter listens: unix:PATH, inet:PORT@HOST, inet6:PORT@HOST, or a path; or fd:NUMBER, a socket that
    /// is inherited and connected
    #[arg(value_parser = parse_socket, value_hint = ValueHint::FilePath)]
    pub socket: FilterAddress,

    /// Message files; - or none is standard input
    #[arg(value_name = "MESSAGE", value_hint = ValueHint::FilePath)]
    pub messages: Vec<PathBuf>,

    /// The sender, with ESMTP arguments behind it
    #[arg(short, long, value_name = "ADDRESS [ARGUMENT...]", default_value = "<sender@example.com>")]
    #[arg(help_heading = "Envelope and client")]
    pub from: String,

    /// A recipient, with ESMTP arguments behind it; can be repeated
    #[arg(short, long, value_name = "ADDRESS [ARGUMENT...]", default_value = "<recipient@example.org>")]
    #[arg(help_heading = "Envelope and client")]
    pub to: Vec<String>,

    /// A recipient that the server refuses by itself, given in front of the others, and its reply [default: 550 5.1.1
    /// User unknown]. Filters that ask for such (RCPT_REJ) hear of it; can be repeated
    #[arg(long, value_name = "ADDRESS [REPLY]", value_parser = parse_refused)]
    #[arg(help_heading = "Envelope and client")]
    pub refused: Vec<Refused>,

    /// Mail that does not come by SMTP, such as Postfix's own bounces: from localhost, each message in a session of
    /// its own, addresses without angle brackets. Not with Sendmail
    #[arg(long, help_heading = "Envelope and client")]
    pub non_smtp: bool,

    /// The client's address: IPv4 or [IPv6], with or without :PORT, unix:PATH, or unknown
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_CLIENT, value_parser = parse_client)]
    #[arg(help_heading = "Envelope and client")]
    pub client: ClientAddress,

    /// The client's host name [default: client.example.com for the default address, localhost for a local one,
    /// else the address in brackets]
    #[arg(long, value_name = "NAME", help_heading = "Envelope and client")]
    pub client_name: Option<String>,

    /// What the client says in HELO
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    #[arg(help_heading = "Envelope and client")]
    pub helo: String,

    /// Whose habits: which macros go with which command, how frames are written, how replies are judged and changes
    /// made, how header fields are counted. "postfix" is postfix-3.7
    #[arg(long, value_name = "MTA", default_value = "postfix-3.7", help_heading = "Mail server")]
    pub like: Habits,

    /// What the server does when the filter fails, and that it goes on with the further messages as it would. The exit
    /// status is still that of the failure. Without this, a failure is the end
    #[arg(long, value_name = "ACTION", help_heading = "Mail server")]
    pub default_action: Option<DefaultActionName>,

    /// Take everything that the server only gets over, or repairs, for a broken protocol: exit status 6
    #[arg(long, help_heading = "Mail server")]
    pub strict: bool,

    /// The milter protocol version to offer
    #[arg(long, value_name = "2..6", default_value_t = mta::NEWEST_VERSION)]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=6), help_heading = "Mail server")]
    pub protocol: u32,

    /// The modifications to offer, as names (ADDHDRS,CHGBODY) or a number [default: all of the version]
    #[arg(long, value_name = "FLAGS", value_parser = parse_flags::<Actions>, help_heading = "Mail server")]
    pub actions: Option<Actions>,

    /// The protocol steps to offer, as names (SKIP,NR_HDR) or a number [default: all of the version]
    #[arg(long, value_name = "FLAGS", value_parser = parse_flags::<Steps>, help_heading = "Mail server")]
    pub steps: Option<Steps>,

    /// A macro's value, and perhaps the stage to send it at: connect, helo, mail, rcpt, data, eoh, eom. Without a
    /// stage it goes with those that have it by habit or at the filter's wish, else with connect. Without a value
    /// it is not sent. Can be repeated
    #[arg(short, long = "macro", value_name = "[STAGE:]NAME[=VALUE]", help_heading = "Mail server")]
    pub macros: Vec<MacroSetting>,

    /// How long the filter may take: for the connection (connect), for each answer to an SMTP command (command) and
    /// to a part of the message (content), and for the whole end of the message, however often it asks for more time
    /// (eom). Without a PHASE it is for each of the first three. Can be repeated [default: those of the server]
    #[arg(long = "timeout", value_name = "[PHASE=]SECONDS", value_parser = parse_limit)]
    #[arg(help_heading = "Mail server")]
    pub timeouts: Vec<Limit>,

    /// The files are mailboxes (mbox): send every message that is in them
    #[arg(long, help_heading = "Course of the session")]
    pub mbox: bool,

    /// An SMTP command that the server does not know, sent behind HELO; can be repeated
    #[arg(long, value_name = "LINE", help_heading = "Course of the session")]
    pub unknown: Vec<String>,

    /// Give the message up when this command is through
    #[arg(long, value_name = "COMMAND", help_heading = "Course of the session")]
    pub abort_after: Option<AbortAfter>,

    /// Send the messages this many times on one connection
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), help_heading = "Course of the session")]
    pub repeat: u32,

    /// Let each message come from a client of its own, still on one connection to the filter (QUIT_NC). libmilter
    /// heeds that only behind a message that its filter let pass; behind others the client stays. Not a habit of
    /// Postfix
    #[arg(long, help_heading = "Course of the session")]
    pub quit_nc: bool,

    /// Play the sessions of a trace (LIBMILTER_TRACE, see libmilter(7)) to the filter, and tell where it answers otherwise
    /// than in the trace. The exit status is 0 if it nowhere does, 8 if it does
    #[arg(long, value_name = "TRACE", value_hint = ValueHint::FilePath, conflicts_with_all = NO_REPLAY)]
    #[arg(help_heading = "Tests")]
    pub replay: Option<PathBuf>,

    /// What must become of every message: accept, reject, tempfail, discard, quarantine [REASON], reply TEXT, at
    /// COMMAND, header NAME[: VALUE], sender ADDRESS, recipient ADDRESS, or body TEXT; "no" in front turns it
    /// around. Can be repeated. The exit status is 0 if all hold, 8 if not
    #[arg(long, value_name = "WHAT", help_heading = "Tests")]
    pub expect: Vec<Expectation>,

    /// Print a test report instead of the message, in the Test Anything Protocol
    #[arg(long, requires = "expect", conflicts_with_all = ["json", "junit"], help_heading = "Tests")]
    pub tap: bool,

    /// Print a test report instead of the message, in the XML of JUnit
    #[arg(long, requires = "expect", conflicts_with = "json", help_heading = "Tests")]
    pub junit: bool,

    /// See how much the filter bears: send the messages over and over on so many connections at once. --repeat is
    /// the number of messages on a connection before it is made anew [default: 1, if there is one of the others]
    #[arg(long, value_name = "NUMBER", conflicts_with_all = NO_LOAD, help_heading = "Load")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: Option<u32>,

    /// Send so many messages a second, on all connections together; the time of a message starts when it is due
    /// [default: each connection sends one after the other]
    #[arg(long, value_name = "MESSAGES", value_parser = parse_rate, conflicts_with_all = NO_LOAD, help_heading = "Load")]
    pub rate: Option<f64>,

    /// For how long [default: 10, if there is one of the others]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, conflicts_with_all = NO_LOAD, help_heading = "Load")]
    pub duration: Option<Duration>,

    /// What the dialogue tells
    #[arg(long, value_name = "LEVEL", help_heading = "Output")]
    #[arg(default_value = "steps", default_value_ifs = NO_DIALOGUE)]
    pub show: Show,

    /// Print all of it as JSON instead: negotiation, every exchange, what became of each message
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Leave out how long everything took, so that two runs can be compared
    #[arg(long, help_heading = "Output")]
    pub no_times: bool,

    /// Colours in the dialogue; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    pub color: Color,

    /// Do not print the resulting message
    #[arg(long, help_heading = "Output")]
    pub no_message: bool,

    /// Do not put a Received: field on top of the message; header positions count it all the same
    #[arg(long, help_heading = "Output")]
    pub no_received: bool,

    /// Print a script that completes the options in this shell
    #[arg(long, value_name = "SHELL", exclusive = true, help_heading = "Output")]
    pub completions: Option<Shell>,
}

/// Options that print something else than a dialogue.
const NO_DIALOGUE: [(&str, &str, &str); 3] =
    [("json", "true", "nothing"), ("tap", "true", "nothing"), ("junit", "true", "nothing")];

/// Options that make no sense when a trace says all that is sent.
const NO_REPLAY: [&str; 12] = [
    "messages",
    "mbox",
    "repeat",
    "unknown",
    "abort_after",
    "quit_nc",
    "non_smtp",
    "expect",
    "json",
    "connections",
    "rate",
    "duration",
];

/// Options that make no sense for many connections.
const NO_LOAD: [&str; 4] = ["expect", "quit_nc", "default_action", "non_smtp"];

/// When the dialogue has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Whose habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Habits {
    /// Postfix 3.7
    #[value(name = "postfix-3.7", alias = "postfix")]
    Postfix37,
    /// Postfix 3.12
    #[value(name = "postfix-3.12")]
    Postfix312,
    /// Sendmail 8.17
    Sendmail,
}

/// What the server does when the filter fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DefaultActionName {
    /// Refuse for now (Sendmail: F=T)
    Tempfail,
    /// Refuse for good (Sendmail: F=R)
    Reject,
    /// Go on without it (Sendmail: no F=)
    Accept,
    /// Accept and hold; not Sendmail
    Quarantine,
    /// Answer 421 and hang up (Sendmail: F=4)
    Shutdown,
}

/// What the dialogue tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Show {
    /// Nothing
    Nothing,
    /// What became of the message
    Result,
    /// Every command and its answer
    Steps,
    /// The macros too
    Macros,
}

/// The last command before the client gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AbortAfter {
    /// MAIL FROM
    Mail,
    /// The last RCPT TO
    Rcpt,
    /// DATA
    Data,
    /// The last header field
    Header,
    /// The end of the header
    Eoh,
    /// The last piece of the body
    Body,
}

impl Options {
    /// Reads the command line; ends the program if it is no good. `Err` is a shell whose completions are wanted.
    pub fn read() -> Result<Self, Shell> {
        let matches = Self::command().get_matches();
        if let Some(shell) = matches.get_one("completions") {
            return Err(*shell);
        }
        let options = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let Some(conflict) = options.conflict() {
            Self::command().error(ErrorKind::ArgumentConflict, conflict).exit();
        }
        Ok(options)
    }

    /// The script that completes the options in a shell.
    pub fn completions(shell: Shell) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Self::command(), "milter-send", &mut script);
        script
    }

    /// Options that are good each by itself but not together.
    fn conflict(&self) -> Option<&'static str> {
        match (self.like, self.default_action) {
            (Habits::Postfix37 | Habits::Postfix312, _) if self.quit_nc => {
                Some("--quit-nc needs --like sendmail")
            }
            _ if self.load().is_some() && matches!(self.socket, FilterAddress::Descriptor(_)) => {
                Some("a connection that is inherited cannot be made again and again")
            }
            (Habits::Sendmail, _) if self.non_smtp => Some("--non-smtp needs --like postfix"),
            (Habits::Sendmail, Some(DefaultActionName::Quarantine)) => {
                Some("Sendmail has no --default-action quarantine")
            }
            _ => None,
        }
    }

    /// Whose habits.
    pub fn like(&self) -> Flavor {
        match self.like {
            Habits::Postfix37 => Flavor::Postfix37,
            Habits::Postfix312 => Flavor::Postfix312,
            Habits::Sendmail => Flavor::Sendmail,
        }
    }

    /// How failures and warnings are taken.
    pub fn policy(&self) -> Policy {
        let default_action = self.default_action.map(|action| match action {
            DefaultActionName::Tempfail => DefaultAction::TempFail,
            DefaultActionName::Reject => DefaultAction::Reject,
            DefaultActionName::Accept => DefaultAction::Accept,
            DefaultActionName::Quarantine => DefaultAction::Quarantine,
            DefaultActionName::Shutdown => DefaultAction::Shutdown,
        });
        Policy { default_action, strict: self.strict }
    }

    /// How long the filter may take: the server's own limits, and what was asked for instead.
    pub fn limits(&self) -> Limits {
        let mut limits = self.like().limits();
        for limit in &self.timeouts {
            match limit.phase {
                None => limits = Limits { end_of_message: limits.end_of_message, ..Limits::all(limit.time) },
                Some(Phase::Connect) => limits.connect = limit.time,
                Some(Phase::Command) => limits.command = limit.time,
                Some(Phase::Content) => limits.content = limit.time,
                Some(Phase::EndOfMessage) => limits.end_of_message = Some(limit.time),
            }
        }
        limits
    }

    /// What the filter is offered.
    pub fn offer(&self) -> Offer {
        let all = mta::offer(self.protocol);
        Offer { actions: self.actions.unwrap_or(all.actions), steps: self.steps.unwrap_or(all.steps), ..all }
    }

    /// The client's address. Mail that does not come by SMTP comes from this host.
    fn client(&self) -> ClientAddress {
        match parse_client(DEFAULT_CLIENT) {
            Ok(default) if self.non_smtp && default == self.client => {
                ClientAddress::Inet(Ipv4Addr::LOCALHOST, 0)
            }
            _ => self.client.clone(),
        }
    }

    /// What the client says in HELO.
    fn helo(&self) -> &str {
        if self.non_smtp && self.helo == DEFAULT_NAME { "localhost" } else { &self.helo }
    }

    /// How hard to try, if that is what is wanted.
    pub fn load(&self) -> Option<Demand> {
        const DEFAULT: Duration = Duration::from_secs(10);
        let wanted = self.connections.is_some() || self.rate.is_some() || self.duration.is_some();
        wanted.then(|| Demand {
            connections: self.connections.unwrap_or(1),
            rate: self.rate,
            duration: self.duration.unwrap_or(DEFAULT),
        })
    }

    /// The lines that the server does not know.
    pub fn unknown(&self) -> Vec<Vec<u8>> {
        self.unknown.iter().map(|line| line.clone().into_bytes()).collect()
    }

    /// The SMTP client.
    pub fn smtp_client(&self) -> Client {
        Client {
            name: self.client_name().into_bytes(),
            address: self.client(),
            helo: self.helo().as_bytes().to_vec(),
        }
    }

    /// The client's host name.
    fn client_name(&self) -> String {
        let local =
            |address: IpAddr| if address.is_loopback() { "localhost".into() } else { format!("[{address}]") };
        match (&self.client_name, &self.client()) {
            (Some(name), _) => name.clone(),
            (None, client) if parse_client(DEFAULT_CLIENT).as_ref() == Ok(client) => DEFAULT_NAME.to_owned(),
            (None, ClientAddress::Inet(address, _)) => local(IpAddr::V4(*address)),
            (None, ClientAddress::Inet6(address, _)) => local(IpAddr::V6(*address)),
            (None, ClientAddress::Unix(_)) => "localhost".to_owned(),
            (None, ClientAddress::Unknown) => "unknown".to_owned(),
        }
    }

    /// The command behind which the client gives up.
    pub fn give_up_after(&self) -> Option<Kind> {
        self.abort_after.map(|after| match after {
            AbortAfter::Mail => Kind::Mail,
            AbortAfter::Rcpt => Kind::Rcpt,
            AbortAfter::Data => Kind::Data,
            AbortAfter::Header => Kind::Header,
            AbortAfter::Eoh => Kind::EndOfHeader,
            AbortAfter::Body => Kind::Body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["milter-send", "/f"].iter().chain(arguments))
    }

    #[test]
    fn the_command_line_holds_together() {
        Options::command().debug_assert();
        let plain = options(&[]).unwrap();
        assert_eq!((plain.show, plain.to.len()), (Show::Steps, 1));
        assert_eq!(plain.offer(), mta::offer(6));
        assert_eq!(options(&["--json"]).unwrap().show, Show::Nothing);
        assert_eq!(options(&["--json", "--show", "macros"]).unwrap().show, Show::Macros);
        assert_eq!(options(&["--tap", "--expect", "accept"]).unwrap().show, Show::Nothing);
    }

    #[test]
    fn clients_have_names() {
        let name = |client| options(&["--client", client]).unwrap().client_name();
        assert_eq!(name("127.0.0.1"), "localhost");
        assert_eq!(name("unix:/x"), "localhost");
        assert_eq!(name("192.0.2.7:25"), "[192.0.2.7]");
        assert_eq!(name("2001:db8::1"), "[2001:db8::1]");
        assert_eq!(name("unknown"), "unknown");
        assert_eq!(options(&[]).unwrap().client_name(), "client.example.com");
        assert_eq!(options(&["--client-name", "a.example"]).unwrap().client_name(), "a.example");
    }

    #[test]
    fn what_is_not_said_is_offered_as_the_version_has_it() {
        let offer = options(&["--protocol", "4", "--actions", "ADDHDRS"]).unwrap().offer();
        assert_eq!((offer.version, offer.actions), (4, Actions::ADDHDRS));
        assert_eq!(offer.steps, mta::offer(4).steps);
    }

    #[test]
    fn mail_that_does_not_come_by_smtp_comes_from_here() {
        let local = options(&["--non-smtp"]).unwrap();
        assert_eq!(local.client(), ClientAddress::Inet(Ipv4Addr::LOCALHOST, 0));
        assert_eq!((local.client_name().as_str(), local.helo()), ("localhost", "localhost"));
        assert!(options(&["--non-smtp", "--like", "sendmail"]).unwrap().conflict().is_some());
    }

    #[test]
    fn limits_by_phase() {
        let limits = |arguments: &[&str]| options(arguments).unwrap().limits();
        let seconds = Duration::from_secs;
        assert_eq!(limits(&[]), Flavor::Postfix37.limits());
        assert_eq!(limits(&["--timeout", "5"]), Limits::all(seconds(5)));
        let some = limits(&["--like", "sendmail", "--timeout", "content=60", "--timeout", "eom=90"]);
        assert_eq!(
            some,
            Limits { content: seconds(60), end_of_message: Some(seconds(90)), ..Flavor::Sendmail.limits() }
        );
        assert!(options(&["--timeout", "body=5"]).is_err());
    }

    #[test]
    fn whom_it_is_like() {
        let like = |name| options(&["--like", name]).unwrap().like();
        assert_eq!(["postfix", "postfix-3.7"].map(like), [Flavor::Postfix37; 2]);
        assert_eq!(["postfix-3.12", "sendmail"].map(like), [Flavor::Postfix312, Flavor::Sendmail]);
        let strict = options(&["--strict", "--default-action", "shutdown"]).unwrap().policy();
        assert_eq!(strict, Policy { default_action: Some(DefaultAction::Shutdown), strict: true });
    }

    #[test]
    fn options_that_do_not_go_together() {
        let inherited = Options::try_parse_from(["milter-send", "fd:3", "--connections", "2"]).unwrap();
        assert!(inherited.conflict().is_some());
        let quarantine = ["--default-action", "quarantine"];
        assert!(options(&[&quarantine[..], &["--like", "sendmail"]].concat()).unwrap().conflict().is_some());
        assert!(options(&quarantine).unwrap().conflict().is_none());
        assert!(options(&["--quit-nc"]).unwrap().conflict().is_some());
        assert!(options(&["--quit-nc", "--like", "sendmail"]).unwrap().conflict().is_none());
    }

    #[test]
    fn one_option_of_the_load_is_enough() {
        assert_eq!(options(&[]).unwrap().load(), None);
        let load = |arguments| options(arguments).unwrap().load().unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(
            load(&["--connections", "8"]),
            Demand { connections: 8, rate: None, duration: 10 * second }
        );
        let demand = Demand { connections: 1, rate: Some(0.5), duration: second };
        assert_eq!(load(&["--rate", "0.5", "--duration", "1"]), demand);
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            &["--protocol", "7"][..],
            &["--repeat", "0"],
            &["--timeout", "0"],
            &["--timeout", "-1"],
            &["--timeout", "1e19"],
            &["--tap"],
            &["--rate", "0"],
            &["--rate", "nan"],
            &["--connections", "0"],
            &["--connections", "2", "--expect", "accept"],
            &["--junit", "--json", "--expect", "accept"],
            &["--macro", "="],
            &["--abort-after", "eom"],
        ] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
        assert!(Options::try_parse_from(["milter-send"]).is_err());
        let bad = |socket| Options::try_parse_from(["milter-send", socket]).unwrap_err().to_string();
        assert!(bad("smtp:25@localhost").contains("expected unix:PATH"));
        assert!(bad("localhost:8891").contains("perhaps you mean inet:8891@localhost"));
    }
}
