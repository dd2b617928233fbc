//! Message files as milter-send reads them: nothing is lost, and the body goes over the wire in lines that end with
//! CR LF.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milter::mta::Message;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = (usize::from(input.0) + 1, input.1);
    let message = Message::parse(bytes);
    assert!(bytes.ends_with(&message.body));
    let mut pieces = message.body_pieces(size);
    let mut sent = Vec::new();
    let mut is_last = false;
    while let Some(piece) = pieces.next_piece() {
        assert!(!is_last && piece.len() <= size);
        is_last = piece.len() < size;
        sent.extend_from_slice(piece);
    }
    assert_eq!(sent.len(), message.body_size_for_filter());
    assert!(sent.is_empty() || sent.ends_with(b"\r\n"));
    assert!(sent.iter().enumerate().all(|(at, &b)| b != b'\n' || (at > 0 && sent[at - 1] == b'\r')));
    for header in &message.headers {
        assert!(header.is_named(header.name()));
        let (with, without) = (header.value_for_filter(true), header.value_for_filter(false));
        assert!(with.ends_with(&without) && with.len() - without.len() <= 1);
    }
    // A message that was written is read as the same one; but line ends become alike, and the line of a mailbox is left out.
    if !message.headers.is_empty() && !bytes.contains(&b'\r') && !bytes.starts_with(b"From ") {
        let again = Message::parse(&message.to_bytes());
        assert_eq!(again.headers, message.headers);
        assert_eq!(again.body, &*message.body);
    }
});
