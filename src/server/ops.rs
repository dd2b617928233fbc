//! What an administrator sets by environment variables, below the filter. Each has a line in docs/man/libmilter.7. A value
//! that is none is logged, with what is allowed, and counts as unset, as an empty one does.

use super::activation::Passed;
use super::endpoint::Endpoint;
use super::listener::Access;
use super::manager;
use super::settings::{Hangup, Settings, Threads};
use super::watch::Terms;
use crate::log::{self, Destination};
use crate::observe;
use crate::sys::{access, environment};
use std::ffi::{CStr, OsString};
use std::num::NonZero;
use std::time::Duration;

/// The longest time that can be set, in seconds: a day.
const LONGEST: u64 = 86_400;

/// What stacks can be set to, in bytes. The library itself needs a few pages, and thread-local variables of the filter's
/// libraries are there, too.
const LEAST_STACK: usize = 128 << 10;
const LARGEST_STACK: usize = 1 << 30;

/// The largest numbers of sessions and threads that can be set.
const MOST_COUNTED: usize = 1_000_000;

/// Two threads wait for connections and for sessions that go on, and one is to serve while they do.
const LEAST_THREADS: usize = 3;

/// What sizes a trace can have, and has without a wish, in bytes.
const LEAST_TRACE: u64 = 64 << 10;
const USUAL_TRACE: u64 = 10 << 20;
const LARGEST_TRACE: u64 = 1 << 40;

impl Settings {
    /// These settings with what the environment changes; complaints are in the name of the filter.
    pub fn with_environment(self, name: &CStr) -> Self {
        self.with(&Variables { name, lookup: &environment::variable })
    }

    fn with(mut self, variables: &Variables<'_>) -> Self {
        if let Some(seconds) =
            variables.read("LIBMILTER_DRAIN", "a number of seconds from 0 to 86400", |text| {
                number(text).filter(|&seconds| seconds <= LONGEST)
            })
        {
            self.drain = Duration::from_secs(seconds);
        }
        if let Some(threads) = variables.read("LIBMILTER_THREADS", "park or session", |text| match text {
            "park" => Some(Threads::Shared),
            "session" => Some(Threads::PerSession),
            _ => None,
        }) {
            self.threads = threads;
        }
        if let Some(hangup) = variables.read("LIBMILTER_SIGHUP", "stop or ignore", |text| match text {
            "stop" => Some(Hangup::Stop),
            "ignore" => Some(Hangup::Ignore),
            _ => None,
        }) {
            self.hangup = hangup;
        }
        self.manager = variables.manager();
        let count = |variable, least: usize, allowed| {
            let in_range = |&count: &usize| (least..=MOST_COUNTED).contains(&count);
            let read = |text: &str| number(text)?.try_into().ok().filter(in_range).and_then(NonZero::new);
            variables.read(variable, allowed, read)
        };
        self.max_sessions = count("LIBMILTER_MAX_SESSIONS", 1, "a number from 1 to 1000000");
        self.max_threads = count("LIBMILTER_MAX_THREADS", LEAST_THREADS, "a number from 3 to 1000000");
        let slow = variables.read("LIBMILTER_SLOW_CALLBACK", "a number of seconds from 1 to 86400", |text| {
            number(text).filter(|seconds| (1..=LONGEST).contains(seconds)).map(Duration::from_secs)
        });
        let keeps_alive = variables.read("LIBMILTER_KEEPALIVE", "yes or no", yes_or_no).unwrap_or(false);
        self.watch = (slow.is_some() || keeps_alive).then_some(Terms { slow, keeps_alive });
        self.observe = variables.observe(slow);
        self.stack =
            variables.read("LIBMILTER_STACK", "a size from 128K to 1G, in bytes, K, M or G", |text| {
                usize::try_from(size(text)?)
                    .ok()
                    .filter(|size| (LEAST_STACK..=LARGEST_STACK).contains(size))
                    .and_then(NonZero::new)
            });
        self
    }
}

/// Sets up the log as the environment says; complaints are in the name of the filter.
pub fn set_up_log(name: &CStr) {
    let (destination, level) = log_settings(&Variables { name, lookup: &environment::variable });
    log::set_up(destination, level);
}

fn log_settings(variables: &Variables<'_>) -> (Destination, libc::c_int) {
    let destination = variables.read("LIBMILTER_LOG", "syslog, stderr or json", |text| match text {
        "syslog" => Some(Destination::Syslog),
        "stderr" => Some(Destination::Stderr),
        "json" => Some(Destination::Json),
        _ => None,
    });
    let level = variables.read("LIBMILTER_LOG_LEVEL", "error, warning or info", |text| match text {
        "error" => Some(libc::LOG_ERR),
        "warning" => Some(libc::LOG_WARNING),
        "info" => Some(libc::LOG_INFO),
        _ => None,
    });
    let default = if level == Some(libc::LOG_INFO) { Destination::Syslog } else { Destination::Default };
    (destination.unwrap_or(default), level.unwrap_or(libc::LOG_WARNING))
}

/// Sockets that an administrator wants the filter to listen on.
#[derive(Debug, PartialEq, Eq)]
pub struct Listen {
    /// Beside that of the filter, not instead of it.
    pub is_added: bool,
    /// Each as it was written, and what it means.
    pub sockets: Vec<(String, Endpoint)>,
}

impl Listen {
    /// What the environment says; complaints are in the name of the filter.
    pub fn from_environment(name: &CStr, passed: &Passed) -> Option<Self> {
        Self::from(&Variables { name, lookup: &environment::variable }, passed)
    }

    fn from(variables: &Variables<'_>, passed: &Passed) -> Option<Self> {
        let allowed = "a list of sockets, such as inet:8891@127.0.0.1, perhaps with a + before it";
        variables.read("LIBMILTER_LISTEN", allowed, |text| {
            let (is_added, list) = match text.strip_prefix('+') {
                Some(list) => (true, list),
                None => (false, text),
            };
            let resolve = |spec: &str| Some((spec.to_owned(), passed.resolve(spec.as_bytes()).ok()?));
            let sockets = list.split_ascii_whitespace().map(resolve).collect::<Option<Vec<_>>>()?;
            (!sockets.is_empty()).then_some(Self { is_added, sockets })
        })
    }

    /// Whether there are sockets for IPv4 and for IPv6 with the same port, here or among `others`.
    pub fn has_both_families(&self, others: &[(String, Endpoint)]) -> bool {
        let addresses = || {
            self.sockets.iter().chain(others).filter_map(|(_, endpoint)| match endpoint {
                Endpoint::Inet(address) => Some(address),
                _ => None,
            })
        };
        addresses().any(|one| {
            addresses().any(|other| one.is_ipv4() && other.is_ipv6() && one.port() == other.port())
        })
    }
}

impl Access {
    /// What the environment says of unix sockets; complaints are in the name of the filter.
    pub fn from_environment(name: &CStr) -> Self {
        Self::from(&Variables { name, lookup: &environment::variable })
    }

    fn from(variables: &Variables<'_>) -> Self {
        Self {
            mode: variables.read(
                "LIBMILTER_SOCKET_MODE",
                "an octal mode from 0 to 0777, such as 0660",
                |text| {
                    let is_octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
                    u32::from_str_radix(text, 8).ok().filter(|&mode| is_octal && mode <= 0o777)
                },
            ),
            owner: variables.read("LIBMILTER_SOCKET_OWNER", "a user of this system", access::user),
            group: variables.read("LIBMILTER_SOCKET_GROUP", "a group of this system", access::group),
            steals: variables.read("LIBMILTER_SOCKET_STEAL", "yes or no", yes_or_no).unwrap_or(true),
            v6_only: false,
        }
    }
}

/// The variables that are set.
struct Variables<'a> {
    /// Whose log lines complaints are.
    name: &'a CStr,
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Variables<'_> {
    /// The service manager, if it has said how to reach it, and nothing is set against it.
    fn manager(&self) -> Option<manager::Address> {
        let notifies = self.read("LIBMILTER_NOTIFY", "yes or no", yes_or_no).unwrap_or(true);
        let socket = (self.lookup)("NOTIFY_SOCKET").filter(|_| notifies)?.into_encoded_bytes();
        // Others are not for programs of this machine.
        matches!(socket.first(), Some(b'/' | b'@'))
            .then(|| manager::Address { socket, watchdog: sd_notify::watchdog_enabled() })
    }

    /// What is to be seen of the sessions, where callbacks are slow after so long.
    fn observe(&self, slow: Option<Duration>) -> observe::Settings {
        observe::Settings {
            metrics: self.metrics(),
            stuck_after: slow,
            trace: self.trace(),
            check: self.read("LIBMILTER_CHECK", "log", |text| (text == "log").then_some(())).is_some(),
        }
    }

    fn trace(&self) -> Option<observe::trace::Settings> {
        let path = self.read("LIBMILTER_TRACE", "the path of a file, beginning with /", |text| {
            text.starts_with('/').then(|| text.into())
        })?;
        let has_content = self.read("LIBMILTER_TRACE_CONTENT", "yes or no", yes_or_no).unwrap_or(false);
        let size = self
            .read("LIBMILTER_TRACE_SIZE", "a size from 64K to 1024G, in bytes, K, M or G", |text| {
                size(text).filter(|size| (LEAST_TRACE..=LARGEST_TRACE).contains(size))
            })
            .unwrap_or(USUAL_TRACE);
        Some(observe::trace::Settings { path, has_content, size })
    }

    #[cfg(feature = "metrics")]
    fn metrics(&self) -> Option<observe::Address> {
        self.read(
            "LIBMILTER_METRICS",
            "an IP address and a port, such as 127.0.0.1:9735 or [::1]:9735, or unix:/path",
            observe::Address::parse,
        )
    }

    #[cfg(not(feature = "metrics"))]
    fn metrics(&self) -> Option<observe::Address> {
        self.read("LIBMILTER_METRICS", "possible, because the library was built without metrics", |_| None)
    }

    /// The value of a variable, if it is set to one that `parse` takes.
    fn read<T>(&self, variable: &str, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = (self.lookup)(variable).filter(|value| !value.is_empty())?;
        let parsed = value.to_str().and_then(parse);
        if parsed.is_none() {
            let shown = value.to_string_lossy();
            log::error(
                self.name,
                format_args!("{variable}: \"{shown}\" is not {allowed}, the default holds"),
            );
        }
        parsed
    }
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A number of bytes, or with a unit: K, M or G, as in `8M`.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    /// The settings with one variable, and what was logged.
    fn with(variable: &str, value: &[u8]) -> (Settings, Vec<String>) {
        let lookup = |name: &str| (name == variable).then(|| OsStr::from_bytes(value).to_owned());
        let settings = Settings::default().with(&Variables { name: c"name", lookup: &lookup });
        (settings, log::take_lines())
    }

    #[test]
    fn what_is_not_set_changes_nothing() {
        for (variable, value) in
            [("LIBMILTER_DRAIN", ""), ("LIBMILTER_THREADS", ""), ("LIBMILTER_OTHER", "x")]
        {
            let (settings, lines) = with(variable, value.as_bytes());
            assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()), "{variable}");
            assert_eq!(lines, [""; 0]);
        }
    }

    #[test]
    fn the_time_to_drain_is_a_number_of_seconds() {
        for (value, seconds) in [("0", 0), ("30", 30), ("86400", 86_400)] {
            assert_eq!(with("LIBMILTER_DRAIN", value.as_bytes()).0.drain, Duration::from_secs(seconds));
        }
        for bad in [&b"-1"[..], b"+1", b"5s", b" 5", b"86401", b"99999999999999999999", b"0x5", b"5\xff"] {
            let (settings, lines) = with("LIBMILTER_DRAIN", bad);
            assert_eq!(settings.drain, Duration::from_secs(5));
            let shown = String::from_utf8_lossy(bad);
            let line = format!(
                "3 name: LIBMILTER_DRAIN: \"{shown}\" is not a number of seconds from 0 to 86400, the default holds"
            );
            assert_eq!(lines, [line]);
        }
    }

    #[test]
    fn sockets_have_a_mode_an_owner_and_a_group() {
        let with = |variable: &str, value: &str| {
            let lookup = |name: &str| (name == variable).then(|| value.into());
            (Access::from(&Variables { name: c"name", lookup: &lookup }), log::take_lines())
        };
        let default = Access::default();
        for (variable, value, access) in [
            ("LIBMILTER_SOCKET_MODE", "0660", Access { mode: Some(0o660), ..default.clone() }),
            ("LIBMILTER_SOCKET_MODE", "777", Access { mode: Some(0o777), ..default.clone() }),
            ("LIBMILTER_SOCKET_OWNER", "nobody", Access { owner: Some(65_534), ..default.clone() }),
            ("LIBMILTER_SOCKET_GROUP", "4711", Access { group: Some(4711), ..default.clone() }),
            ("LIBMILTER_SOCKET_STEAL", "no", Access { steals: false, ..default.clone() }),
            ("LIBMILTER_SOCKET_STEAL", "yes", default.clone()),
            ("LIBMILTER_SOCKET_MODE", "", default.clone()),
        ] {
            assert_eq!(with(variable, value), (access, Vec::new()), "{variable}={value}");
        }
        for (variable, bad, allowed) in [
            ("MODE", "01777", "an octal mode from 0 to 0777, such as 0660"),
            ("MODE", "+660", "an octal mode from 0 to 0777, such as 0660"),
            ("MODE", "0888", "an octal mode from 0 to 0777, such as 0660"),
            ("MODE", "rw", "an octal mode from 0 to 0777, such as 0660"),
            ("OWNER", "no-such-user", "a user of this system"),
            ("GROUP", "-1", "a group of this system"),
            ("STEAL", "1", "yes or no"),
        ] {
            let variable = format!("LIBMILTER_SOCKET_{variable}");
            let line = format!("3 name: {variable}: \"{bad}\" is not {allowed}, the default holds");
            assert_eq!(with(&variable, bad), (default.clone(), vec![line]));
        }
    }

    #[test]
    fn a_hangup_stops_or_does_not() {
        assert_eq!(with("LIBMILTER_SIGHUP", b"ignore").0.hangup, Hangup::Ignore);
        assert_eq!(with("LIBMILTER_SIGHUP", b"stop").0.hangup, Hangup::Stop);
        let (settings, lines) = with("LIBMILTER_SIGHUP", b"reload");
        assert_eq!(settings.hangup, Hangup::Stop);
        assert_eq!(lines, ["3 name: LIBMILTER_SIGHUP: \"reload\" is not stop or ignore, the default holds"]);
    }

    #[test]
    fn callbacks_are_watched_if_that_is_set() {
        let (slow, second) = (|slow| Terms { slow, keeps_alive: false }, Duration::from_secs(1));
        let settings = with("LIBMILTER_SLOW_CALLBACK", b"1").0;
        assert_eq!((settings.watch, settings.observe.stuck_after), (Some(slow(Some(second))), Some(second)));
        assert_eq!(
            with("LIBMILTER_KEEPALIVE", b"yes").0.watch,
            Some(Terms { keeps_alive: true, ..slow(None) })
        );
        assert_eq!(with("LIBMILTER_KEEPALIVE", b"no").0.watch, None);
        let (settings, lines) = with("LIBMILTER_SLOW_CALLBACK", b"0");
        assert_eq!(settings.watch, None);
        let allowed = "a number of seconds from 1 to 86400";
        let line = format!("3 name: LIBMILTER_SLOW_CALLBACK: \"0\" is not {allowed}, the default holds");
        assert_eq!(lines, [line]);
    }

    #[test]
    fn sessions_and_threads_are_limited_if_that_is_set() {
        let limits = |variable, value: &str| {
            let (settings, lines) = with(variable, value.as_bytes());
            (settings.max_sessions.map(NonZero::get), settings.max_threads.map(NonZero::get), lines.len())
        };
        assert_eq!(limits("LIBMILTER_MAX_SESSIONS", "1"), (Some(1), None, 0));
        assert_eq!(limits("LIBMILTER_MAX_THREADS", "1000000"), (None, Some(1_000_000), 0));
        for (variable, bad) in [
            ("LIBMILTER_MAX_SESSIONS", "0"),
            ("LIBMILTER_MAX_THREADS", "2"),
            ("LIBMILTER_MAX_THREADS", "1000001"),
        ] {
            assert_eq!(limits(variable, bad), (None, None, 1), "{variable}={bad}");
        }
    }

    #[test]
    fn the_log_has_a_place_and_a_level() {
        let settings = |place: &str, level: &str| {
            let lookup = |name: &str| match name {
                "LIBMILTER_LOG" => Some(place.into()),
                "LIBMILTER_LOG_LEVEL" => Some(level.into()),
                _ => None,
            };
            let settings = log_settings(&Variables { name: c"name", lookup: &lookup });
            (settings.0, settings.1, log::take_lines().len())
        };
        assert_eq!(settings("", ""), (Destination::Default, libc::LOG_WARNING, 0));
        assert_eq!(settings("json", "error"), (Destination::Json, libc::LOG_ERR, 0));
        assert_eq!(settings("stderr", "warning"), (Destination::Stderr, libc::LOG_WARNING, 0));
        assert_eq!(settings("", "info"), (Destination::Syslog, libc::LOG_INFO, 0));
        assert_eq!(settings("journal", "7"), (Destination::Default, libc::LOG_WARNING, 2));
    }

    #[test]
    fn sockets_are_added_or_replace_that_of_the_filter() {
        let listen = |value: &str| {
            let lookup = |name: &str| (name == "LIBMILTER_LISTEN").then(|| value.into());
            let variables = Variables { name: c"name", lookup: &lookup };
            (Listen::from(&variables, &Passed::default()), log::take_lines().len())
        };
        let socket = |spec: &str| (spec.to_owned(), Endpoint::parse(spec.as_bytes()).unwrap());
        let both = vec![socket("inet:1@127.0.0.1"), socket("inet6:1@[::1]")];
        for (value, is_added) in
            [("inet:1@127.0.0.1 inet6:1@[::1]", false), ("+ inet:1@127.0.0.1\tinet6:1@[::1] ", true)]
        {
            assert_eq!(listen(value), (Some(Listen { is_added, sockets: both.clone() }), 0));
        }
        for bad in ["+", " ", "inet:1 tcp:2", "inet:x", "fd:name"] {
            assert_eq!(listen(bad), (None, 1), "{bad}");
        }
        let one = Listen { is_added: true, sockets: vec![socket("inet6:1@[::1]")] };
        assert!(!one.has_both_families(&[socket("inet:2")]) && !one.has_both_families(&[socket("unix:x")]));
        assert!(one.has_both_families(&[socket("inet:1")]));
    }

    #[test]
    fn stacks_have_a_size() {
        for (value, bytes) in [
            ("131072", 128 << 10),
            ("128K", 128 << 10),
            ("8M", 8 << 20),
            ("1G", 1 << 30),
            ("300000", 300_000),
        ] {
            assert_eq!(with("LIBMILTER_STACK", value.as_bytes()).0.stack.unwrap().get(), bytes);
        }
        for bad in ["0", "127K", "131071", "2G", "K", "8m", "8 M", "-8M", "18446744073709551615G"] {
            let (settings, lines) = with("LIBMILTER_STACK", bad.as_bytes());
            assert_eq!(settings.stack, None);
            let allowed = "a size from 128K to 1G, in bytes, K, M or G";
            let line = format!("3 name: LIBMILTER_STACK: \"{bad}\" is not {allowed}, the default holds");
            assert_eq!(lines, [line]);
        }
    }

    #[test]
    fn a_trace_has_a_path_and_a_size() {
        let trace = |variables: &[(&str, &str)]| {
            let lookup = |name: &str| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
            };
            let settings = Settings::default().with(&Variables { name: c"name", lookup: &lookup });
            (settings.observe.trace, log::take_lines().len())
        };
        let set = |has_content, size| Some(observe::trace::Settings { path: "/t".into(), has_content, size });
        let path = ("LIBMILTER_TRACE", "/t");
        assert_eq!(trace(&[path]), (set(false, 10 << 20), 0));
        assert_eq!(trace(&[path, ("LIBMILTER_TRACE_SIZE", "64K")]), (set(false, 64 << 10), 0));
        assert_eq!(trace(&[path, ("LIBMILTER_TRACE_CONTENT", "yes")]), (set(true, 10 << 20), 0));
        assert_eq!(trace(&[path, ("LIBMILTER_TRACE_SIZE", "63K")]), (set(false, 10 << 20), 1));
        assert_eq!(trace(&[("LIBMILTER_TRACE", "t")]), (None, 1));
        assert_eq!(trace(&[("LIBMILTER_TRACE_CONTENT", "yes")]), (None, 0));
    }

    #[test]
    fn threads_are_shared_or_not() {
        assert_eq!(with("LIBMILTER_THREADS", b"session").0.threads, Threads::PerSession);
        assert_eq!(with("LIBMILTER_THREADS", b"park").0.threads, Threads::Shared);
        let (settings, lines) = with("LIBMILTER_THREADS", b"Session");
        assert_eq!(settings.threads, Threads::Shared);
        assert_eq!(
            lines,
            ["3 name: LIBMILTER_THREADS: \"Session\" is not park or session, the default holds"]
        );
    }
}
