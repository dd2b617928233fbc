//! Debian's Sendmail, unpacked by `make deps` into a private directory (as a package it excludes Postfix), with a
//! configuration of a few lines of its own: what comes in by SMTP goes to the filter and then out by SMTP. It has
//! none of the rule sets that a real server wants against abuse.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use milter::mta::DefaultAction;

use super::server::{HOST, Settings};
use crate::support::{Daemon, repository, run};

/// Starts it.
pub fn start(settings: &Settings) -> Daemon {
    let dir = settings.dir;
    let path = dir.display();
    fs::create_dir(dir.join("queue")).unwrap();
    fs::write(dir.join("switch"), "hosts files\naliases files\n").unwrap();
    fs::write(dir.join("helpfile"), "").unwrap();
    // A rule's two sides are separated by tabs.
    fs::write(
        dir.join("sendmail.cf"),
        format!(
            "V10/Berkeley
             O ServiceSwitchFile={path}/switch
             O QueueDirectory={path}/queue
             O PidFile={path}/pid
             O HelpFile={path}/helpfile
             O DaemonPortOptions=Name=MTA, Family=inet, Addr=127.0.0.1, Port={port}
             O DontProbeInterfaces=true
             O SmtpGreetingMessage=$j
             O AllowBogusHELO=true
             O AuthMechanisms=
             O Timeout.ident=0
             O DeliveryMode=background
             O EightBitMode=pass8
             O SuperSafe=true
             O RefuseLA=10000
             O QueueLA=10000
             O DefaultUser=nobody
             O DontBlameSendmail=TrustStickyBit
             O OperatorChars=.:%@!^/[]+
             O InputMailFilters=filter
             O Milter.macros.connect=j, _, {{daemon_name}}, {{if_name}}, {{if_addr}}
             O Milter.macros.helo={{tls_version}}, {{cipher}}, {{cipher_bits}}, {{cert_subject}}, {{cert_issuer}}
             O Milter.macros.envfrom=i, {{auth_type}}, {{auth_authen}}, {{mail_mailer}}, {{mail_host}}, {{mail_addr}}
             O Milter.macros.envrcpt={{rcpt_mailer}}, {{rcpt_host}}, {{rcpt_addr}}
             O Milter.macros.eom={{msg_id}}
             Xfilter, S={milter}, {action}T=C:30s;S:30s;R:{timeout}s;E:60s
             Dj{HOST}
             D{{defaulted}}VALUE
             DnMAILER-DAEMON
             Cwlocalhost
             Troot daemon
             H?P?Return-Path: <$g>
             HReceived: from $s ($_) by $j ($v) with $r id $i; $b
             H?D?Resent-Date: $a
             H?D?Date: $a
             H?F?Resent-From: $g
             H?F?From: $g
             H?x?Full-Name: $x
             H?M?Resent-Message-Id: <$t.$i@$j>
             H?M?Message-Id: <$t.$i@$j>
             Mlocal, P=[IPC], F=lsmDFMXa8u, E=\\r\\n, L=990, T=DNS/RFC822/SMTP, A=TCP $h {sink}
             Mprog, P=/bin/false, F=lsDFM, A=false
             Mrelay, P=[IPC], F=mDFMXa8u, r=1000, E=\\r\\n, L=990, T=DNS/RFC822/SMTP, A=TCP $h {sink}
             S3
             R$* < $* > $*\t$2
             S0
             R$*\t$#relay $@ [127.0.0.1] $: $1
             S4
             ",
            action = action(settings.conduct.default_action),
            port = settings.port,
            milter = settings.milter.spec(),
            sink = settings.sink,
            timeout = settings.conduct.milter_timeout,
        )
        .replace("\n             ", "\n"),
    )
    .unwrap();
    Daemon::start(
        Command::new(program())
            .arg("-C")
            .arg(dir.join("sendmail.cf"))
            .arg("-bD")
            .env("LD_PRELOAD", private_host())
            .env("SENDMAIL_LOG", dir.join("log"))
            .process_group(0),
    )
}

/// Sendmail's flag for what it does when its filter fails.
fn action(action: DefaultAction) -> &'static str {
    match action {
        DefaultAction::TempFail => "F=T, ",
        DefaultAction::Reject => "F=R, ",
        DefaultAction::Shutdown => "F=4, ",
        DefaultAction::Accept => "",
        DefaultAction::Quarantine => panic!("Sendmail has no such flag"),
    }
}

/// The unpacked program.
fn program() -> PathBuf {
    let program = repository().join("target/deps/sendmail/usr/libexec/sendmail/sendmail");
    assert!(program.exists(), "{} is missing: run `make deps`", program.display());
    program
}

/// The library that shields it from the machine, compiled.
fn private_host() -> &'static Path {
    static COMPILED: OnceLock<PathBuf> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("private_host.so");
        // Another test program may be using it.
        let fresh = library.with_extension(std::process::id().to_string());
        run(Command::new("cc")
            .args([
                "-std=gnu11",
                "-O1",
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-shared",
                "-fPIC",
                "-o",
            ])
            .arg(&fresh)
            .arg(repository().join("tests/integration/mail_servers/private_host.c")));
        fs::rename(&fresh, &library).unwrap();
        library
    })
}

/// What is in quarantine: sender, recipients, reason, header; then the body.
pub fn held(dir: &Path) -> Vec<String> {
    let queue = dir.join("queue");
    let names = queue.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut held: Vec<_> = names.filter(|name| name.starts_with("hf")).collect();
    held.sort();
    held.iter()
        .map(|name| {
            let control = fs::read(queue.join(name)).unwrap();
            let body = fs::read(queue.join(name.replacen("hf", "df", 1))).unwrap();
            // Each line begins with a letter that tells what it is; a header goes on in lines that begin with a blank.
            let kept = |line: &&str| line.starts_with(['S', 'R', 'r', 'q', 'H', '\t', ' ']);
            let control = String::from_utf8_lossy(&control).into_owned();
            let control: Vec<_> = control.lines().filter(kept).collect();
            format!("{}\n\n{}", control.join("\n"), String::from_utf8_lossy(&body))
        })
        .collect()
}
