//! Texts that people write: socket specifications of the filter and of milter-send, macro settings, mailboxes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milter::fuzzing::Endpoint;
use milter::mta::{FilterAddress, MacroSetting, Mailbox};

/// Names of hosts would be looked up in the network.
fn names_a_host(spec: &[u8]) -> bool {
    let host = spec.iter().position(|&b| b == b'@').map(|at| &spec[at + 1..]);
    host.is_some_and(|host| !(host.starts_with(b"[") && host.ends_with(b"]")))
}

fuzz_target!(|bytes: &[u8]| {
    if !names_a_host(bytes) {
        match Endpoint::parse(bytes) {
            Ok(Endpoint::Unix(path)) => assert!((1..=107).contains(&path.len())),
            Ok(Endpoint::Inherited(fd)) => assert!(fd >= 0),
            Ok(Endpoint::Inet(_)) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let mailbox = Mailbox::parse(bytes);
    assert!(mailbox.address.ends_with(mailbox.domain()));
    assert!(mailbox.arguments.iter().all(|argument| !argument.is_empty()));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<FilterAddress>() {
        Ok(address) => assert!(address.to_string().contains(':')),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(setting) = text.parse::<MacroSetting>() {
        assert!(!setting.name.is_empty());
    }
});
