//! The endpoint that Prometheus asks: HTTP with one request for each connection, one after the other, in a thread of its own.
//! Nobody may take more than [`PATIENCE`], and nothing but `GET /metrics` is answered.

use super::exposition::Exposition;
use super::{Address, Observer};
use crate::log;
use crate::sys::event::EventFd;
use crate::sys::signal::{Blocked, SignalSet};
use crate::sys::socket::{self, Listening, Socket};
use crate::sys::thread::{self, ThreadGroup};
use crate::sys::{self, Interest, Woken};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one request and its answer may take together.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the thread waits at a time when nobody asks.
const LONG_WAIT: Duration = Duration::from_secs(3600);

/// The largest request, in bytes.
const LARGEST: usize = 8192;

/// The most header fields of a request.
const FIELDS: usize = 64;

/// How many may wait.
const BACKLOG: i32 = 16;

/// How long to wait when the system has no descriptor to give.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A socket that listens, and its file, if it has one.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    file: Option<PathBuf>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Somebody has removed it already.
            let _ = fs::remove_file(file);
        }
    }
}

/// Opens the socket; if that fails, it is logged.
pub fn listen(name: &CStr, address: &Address) -> Option<Listener> {
    let result = match address {
        Address::Inet(address) => {
            open(socket::Address::Inet(*address)).map(|socket| Listener { socket, file: None })
        }
        Address::Unix(path) => listen_on_file(path),
    };
    result
        .inspect_err(|error| {
            log::error(name, format_args!("LIBMILTER_METRICS: cannot listen, there are no metrics: {error}"));
        })
        .ok()
}

fn open(address: socket::Address<'_>) -> io::Result<Listening> {
    let socket = Listening::bind(address, false)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A unix socket that nobody serves any more is in the way, and goes.
fn listen_on_file(path: &PathBuf) -> io::Result<Listener> {
    let bytes = path.as_os_str().as_bytes();
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && !socket::is_served(bytes)? {
        fs::remove_file(path)?;
    }
    let socket = open(socket::Address::Unix(bytes))?;
    Ok(Listener { socket, file: Some(path.clone()) })
}

/// The thread that answers; it ends on drop.
#[derive(Debug)]
pub struct Endpoint {
    end: Arc<EventFd>,
    thread: Arc<ThreadGroup>,
}

impl Endpoint {
    /// Begins to answer; if that fails, it is logged.
    pub fn start(name: &CStr, listener: Listener, observer: Arc<Observer>) -> Option<Self> {
        let start = || {
            let endpoint = Self { end: Arc::new(EventFd::new()?), thread: Arc::default() };
            let end = Arc::clone(&endpoint.end);
            thread::allow_another();
            // The thread must not take signals that belong to the filter.
            let _all = Blocked::new(&SignalSet::all())?;
            endpoint.thread.spawn(Box::new(move || serve(&listener, &observer, &end)))?;
            Ok(endpoint)
        };
        start()
            .inspect_err(|error: &io::Error| {
                log::error(name, format_args!("LIBMILTER_METRICS: nobody can be answered: {error}"));
            })
            .ok()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.end.raise();
        self.thread.wait(Instant::now() + PATIENCE);
    }
}

fn serve(listener: &Listener, observer: &Observer, end: &EventFd) {
    loop {
        match sys::wait(listener.socket.as_fd(), Interest::Read, end.as_fd(), Instant::now() + LONG_WAIT) {
            Ok(Woken::TimedOut) => continue,
            Ok(Woken::Ready) => {}
            // Without a wait it would be busy for nothing.
            Ok(Woken::Alarm) | Err(_) => return,
        }
        match listener.socket.accept() {
            // Who does not listen to the answer does not get it.
            Ok(socket) => drop(answer(&socket, observer, end)),
            Err(_) => {
                let deadline = Instant::now() + RETRY_DELAY;
                if !matches!(
                    sys::wait(end.as_fd(), Interest::Read, end.as_fd(), deadline),
                    Ok(Woken::TimedOut)
                ) {
                    return;
                }
            }
        }
    }
}

/// Takes one request and answers it.
fn answer(socket: &Socket, observer: &Observer, end: &EventFd) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let wait = |interest| match sys::wait(socket.as_fd(), interest, end.as_fd(), deadline)? {
        Woken::Ready => Ok(()),
        Woken::Alarm | Woken::TimedOut => Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    let mut request = vec![0; LARGEST];
    let mut length = 0;
    let response = loop {
        if let Some(response) = respond(&request[..length], observer) {
            break response;
        }
        if length == LARGEST {
            break response_of("431 Request Header Fields Too Large", "text/plain", "too large\n");
        }
        match socket.try_receive(&mut request[length..]) {
            Ok(0) => return Ok(()),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(Interest::Read)?,
            Err(error) => return Err(error),
        }
    };
    let mut rest = response.as_bytes();
    while !rest.is_empty() {
        match socket.try_send(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(Interest::Write)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The response to a request, once it is there as a whole.
fn respond(request: &[u8], observer: &Observer) -> Option<String> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let text = |status, text| Some(response_of(status, "text/plain", text));
    match parsed.parse(request) {
        Ok(status) if status.is_partial() => return None,
        Ok(_) => {}
        Err(_) => return text("400 Bad Request", "not HTTP\n"),
    }
    if parsed.method != Some("GET") {
        return text("405 Method Not Allowed", "GET only\n");
    }
    let path = parsed.path.unwrap_or_default();
    if path.split('?').next() != Some("/metrics") {
        return text("404 Not Found", "the metrics are at /metrics\n");
    }
    let is_open_metrics = parsed.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("Accept")
            && String::from_utf8_lossy(field.value).contains("application/openmetrics-text")
    });
    let mut out = Exposition::new(is_open_metrics);
    if let Some(metrics) = &observer.metrics {
        metrics.show(&mut out);
    }
    Some(response_of("200 OK", Exposition::content_type(is_open_metrics), &out.finish()))
}

fn response_of(status: &str, content_type: &str, body: &str) -> String {
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn only_the_metrics_are_answered() {
        let observer = Observer {
            metrics: Some(Metrics::new(c"name", Duration::from_secs(10))),
            trace: None,
            check: None,
            sessions: AtomicU64::new(0),
        };
        let status = |request: &str| {
            respond(request.as_bytes(), &observer).map(|response| response.lines().next().unwrap().to_owned())
        };
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: x\r\n"), None, "it goes on");
        assert_eq!(status(""), None);
        for (request, expected) in [
            ("GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK"),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
            ("EHLO mail.example.org\r\n", "HTTP/1.1 400 Bad Request"),
            ("\x16\x03\x01", "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(status(request).unwrap(), expected, "{request:?}");
        }
        let accept =
            "GET /metrics HTTP/1.1\r\naccept: text/html, application/openmetrics-text; version=1.0.0\r\n\r\n";
        assert!(respond(accept.as_bytes(), &observer).unwrap().ends_with("# EOF\n"));
    }
}
