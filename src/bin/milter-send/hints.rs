//! What a person may have overlooked when a filter cannot be reached, or what answers is none.

use std::fs::{self, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use milter::mta::{Error, Fault, FilterAddress};
use milter::protocol::Kind;

/// Debian's Postfix is confined to this directory: in its configuration sockets have names without it.
const CHROOT: &str = "/var/spool/postfix";

/// The address that somebody meant who wrote one that is none: `localhost:8891`.
pub fn meant(text: &str) -> Option<FilterAddress> {
    let bare = ["tcp:", "tcp4:", "tcp6:", "http:"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let bare = bare.unwrap_or(text).trim_start_matches('/').trim_end_matches('/');
    let (host, port) =
        bare.rsplit_once(':').or_else(|| bare.split_once('@').map(|(port, host)| (host, port)))?;
    let family = if host.contains(':') { "inet6" } else { "inet" };
    let port: u16 = port.parse().ok()?;
    format!("{family}:{port}@{host}").parse().ok().filter(|_| !host.is_empty() && !host.contains('/'))
}

/// What to look at, if there is anything to say.
pub fn about(error: &Error, address: &FilterAddress) -> Option<String> {
    match (error, address) {
        (Error::Connect { source, .. }, _) if source.raw_os_error() == Some(libc::EMFILE) => {
            Some("the limit of open files is too low for so many connections: see ulimit -n".to_owned())
        }
        (Error::Connect { source, .. }, FilterAddress::Unix(path)) => {
            about_path(path, source, Path::new(CHROOT))
        }
        (
            Error::Connect { source, .. },
            FilterAddress::Inet(host, port) | FilterAddress::Inet6(host, port),
        ) => about_host(source, host, *port, address),
        (Error::Timeout { during: Kind::Negotiate, .. }, _) => Some(
            "it takes connections but does not answer the offer: is it a filter, and is it well?".to_owned(),
        ),
        (Error::Protocol { during: Kind::Negotiate, fault: Fault::Closed }, _) => {
            Some("is it a filter, and does it let this host in? Its log may say".to_owned())
        }
        (Error::Protocol { fault: Fault::OtherProtocol("TLS"), .. }, _) => {
            Some("the milter protocol has no encryption of its own".to_owned())
        }
        (Error::Protocol { fault: Fault::OtherProtocol(_), .. }, _) => Some(
            "this is the socket of another server; where the filter listens is in its own configuration"
                .to_owned(),
        ),
        _ => None,
    }
}

fn about_path(path: &Path, source: &io::Error, chroot: &Path) -> Option<String> {
    let shown = path.display();
    match (source.kind(), fs::metadata(path).map(|metadata| metadata.file_type())) {
        (ErrorKind::PermissionDenied, _) => {
            Some("the mode of the socket, or of a directory above it, does not let you in: try as the mail server's user".to_owned())
        }
        (ErrorKind::ConnectionRefused, Ok(kind)) if kind.is_socket() => {
            Some(format!("nothing listens on {shown} any more: it is left over from a filter that has ended"))
        }
        (_, Ok(kind)) if !kind.is_socket() => Some(format!("{shown} is {}, not a socket", kind_name(kind))),
        (ErrorKind::NotFound, Err(_)) => {
            let confined: PathBuf = chroot.join(path.strip_prefix("/").unwrap_or(path));
            if path.is_absolute() && confined.exists() {
                return Some(format!("Postfix, confined to {}, means {}", chroot.display(), confined.display()));
            }
            match path.to_str().and_then(meant) {
                Some(address) => Some(format!("perhaps you mean {address}")),
                None => Some("there is no such file: does the filter run?".to_owned()),
            }
        }
        _ => None,
    }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_file() => "a plain file",
        kind if kind.is_fifo() => "a pipe",
        _ => "a device",
    }
}

fn about_host(source: &io::Error, host: &str, port: u16, address: &FilterAddress) -> Option<String> {
    match (source.kind(), address) {
        (ErrorKind::ConnectionRefused, _) => {
            Some(format!("nothing listens on port {port} there: does the filter run?"))
        }
        (ErrorKind::NotFound, FilterAddress::Inet(..)) => Some(format!("try inet6:{port}@{host}")),
        (ErrorKind::NotFound, FilterAddress::Inet6(..)) => Some(format!("try inet:{port}@{host}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let meant = |text| meant(text).map(|address| address.to_string());
        for (text, expected) in [
            ("localhost:8891", "inet:8891@localhost"),
            ("127.0.0.1:8891", "inet:8891@127.0.0.1"),
            ("[::1]:8891", "inet6:8891@::1"),
            ("tcp://filter.example:8891/", "inet:8891@filter.example"),
            ("8891@localhost", "inet:8891@localhost"),
        ] {
            assert_eq!(meant(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "smtp:25@localhost", ":8891", "/run/filter", "/a:1/b:2", "localhost:70000", "8891"] {
            assert_eq!(meant(text), None, "{text}");
        }
    }

    #[test]
    fn a_socket_as_the_confined_postfix_names_it() {
        let chroot = tempfile::tempdir().unwrap();
        std::os::unix::net::UnixListener::bind(chroot.path().join("f.sock")).unwrap();
        let missing = io::Error::from(ErrorKind::NotFound);
        let hint = about_path(Path::new("/f.sock"), &missing, chroot.path()).unwrap();
        assert!(hint.ends_with(&format!("means {}/f.sock", chroot.path().display())), "{hint}");
    }
}
