//! Debian's Postfix, its master process started straight from here with a private configuration, queue and data
//! directory. Postfix insists on being started by root; its services run as its own user.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use milter::mta::DefaultAction;

use super::server::{HOST, REFUSED, Settings};
use crate::support::{Daemon, run, stdout};

/// Where Debian keeps its daemons.
const DAEMONS: &str = "/usr/lib/postfix/sbin";

/// The services of a server that takes mail by SMTP and passes it on by SMTP.
const SERVICES: &str = "
cleanup unix n - n - 0 cleanup
pickup unix n - n 60 1 pickup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
";

/// Starts it.
pub fn start(settings: &Settings) -> Daemon {
    let master = Path::new(DAEMONS).join("master");
    assert!(master.exists(), "Postfix is missing: run `make deps`");
    let dir = settings.dir;
    let path = dir.display();
    make_directories(dir);
    fs::write(
        dir.join("etc/main.cf"),
        format!(
            "compatibility_level = 3.6
             queue_directory = {path}/queue
             data_directory = {path}/data
             maillog_file = {path}/log
             maillog_file_prefixes = {path}
             myhostname = {HOST}
             mydestination =
             local_recipient_maps =
             alias_maps =
             inet_interfaces = 127.0.0.1
             inet_protocols = all
             mynetworks = 0.0.0.0/0
             smtpd_relay_restrictions = permit_mynetworks, reject
             smtpd_recipient_limit = 1000
             smtpd_soft_error_limit = 1000
             smtpd_hard_error_limit = 1000
             smtpd_peername_lookup = no
             smtpd_authorized_xclient_hosts = 127.0.0.0/8
             smtpd_recipient_restrictions = check_recipient_access inline:{{{{{REFUSED} = 550 5.1.1 not here}}}},
              permit_mynetworks, reject
             smtpd_milters = {milter}
             non_smtpd_milters = {local}
             milter_default_action = {action}
             milter_content_timeout = {timeout}s
             milter_macro_defaults = {{defaulted}}=VALUE
             enable_long_queue_ids = yes
             message_size_limit = 50000000
             default_transport = smtp:[127.0.0.1]:{sink}
             disable_dns_lookups = yes
             smtp_destination_recipient_limit = 1000
             ",
            action = action(settings.conduct.default_action),
            // Not both: mail that the filter has discarded in SMTP would go to it once more as local mail.
            local = if settings.conduct.local_mail { settings.milter.postfix_spec() } else { String::new() },
            milter = settings.milter.postfix_spec(),
            sink = settings.sink,
            timeout = settings.conduct.milter_timeout,
        )
        .replace("\n             ", "\n"),
    )
    .unwrap();
    fs::write(
        dir.join("etc/master.cf"),
        format!("127.0.0.1:{} inet n - n - - smtpd{SERVICES}", settings.port),
    )
    .unwrap();
    Daemon::start(Command::new(master).arg("-c").arg(dir.join("etc")))
}

/// Postfix's word for what it does when its filter fails.
fn action(action: DefaultAction) -> &'static str {
    match action {
        DefaultAction::TempFail => "tempfail",
        DefaultAction::Reject => "reject",
        DefaultAction::Accept => "accept",
        DefaultAction::Quarantine => "quarantine",
        DefaultAction::Shutdown => "shutdown",
    }
}

/// What is in quarantine, which Postfix calls hold: sender, recipients, message.
pub fn held(dir: &Path) -> Vec<String> {
    let mut files: Vec<_> = dir.join("queue/hold").read_dir().unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|file| {
            let envelope = stdout(postcat(dir).arg("-e").arg(file));
            let kept = |line: &&str| line.starts_with("sender:") || line.starts_with("recipient:");
            let envelope: Vec<_> = envelope.lines().filter(kept).collect();
            let message = run(postcat(dir).arg("-bh").arg(file)).stdout;
            format!("{}\n\n{}", envelope.join("\n"), String::from_utf8_lossy(&message))
        })
        .collect()
}

/// Hands in a message as a program on this host does.
pub fn submit(dir: &Path, sender: &str, recipients: &[&str], message: &[u8]) {
    let mut child = Command::new("/usr/sbin/sendmail")
        .arg("-C")
        .arg(dir.join("etc"))
        .args(["-i", "-f", sender])
        .args(recipients)
        .env("MAIL_CONFIG", dir.join("etc"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "sendmail: {status}");
}

/// Postfix's own program that shows a queue file.
fn postcat(dir: &Path) -> Command {
    let mut command = Command::new("postcat");
    command.arg("-c").arg(dir.join("etc"));
    command
}

/// Makes the directories that `postfix start` would make, with the owners that the daemons ask for.
fn make_directories(dir: &Path) {
    for name in ["etc", "queue", "queue/pid"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let queues =
        "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace";
    let own: Vec<_> =
        queues.split(' ').map(|name| dir.join("queue").join(name)).chain([dir.join("data")]).collect();
    for path in &own {
        fs::create_dir(path).unwrap();
    }
    run(Command::new("chown").arg("postfix").args(&own));
}
