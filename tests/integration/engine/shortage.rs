//! Too many open files, no more threads (contract 3, entry 7): the listener rests and goes on, those who are served
//! already do not notice. For ours alone: the reference burns a core, or lets connections hang for ever.

use super::{Filter, Mta, SERVE};
use crate::support::Library;
use milter::protocol::Kind;
use std::time::Duration;

#[test]
fn at_the_limit_of_descriptors_the_listener_rests() {
    let filter = Filter::start(Library::Ours, &["register", SERVE[1], "descriptors=32", "main"]);
    let mut served = Mta::order(&filter, "served");
    let crowd: Vec<Mta> = (0..60).map(|_| Mta::connect(&filter)).collect();
    let complaint = "syslog 3 steered: cannot accept a connection: Too many open files (os error 24)";
    filter.wait_for(complaint);

    let before = filter.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = filter.cpu_ticks() - before;
    assert!(used < 25, "{used} of about 100 ticks used");
    served.begin_message();
    assert_eq!(served.end_message(b"text\r\n"), 'c');
    assert_eq!(filter.log().len(), 1, "it does not complain all the time: {:?}", filter.log());

    drop(crowd);
    Mta::order(&filter, "late").quit();
    served.quit();
    filter.wait_for("close 1");
}

/// accept(2) wants a descriptor even if nobody waits.
#[test]
fn a_full_table_of_descriptors_alone_is_no_reason_to_complain() {
    const LIMIT: usize = 24;
    let limit = format!("descriptors={LIMIT}");
    let filter = Filter::start(Library::Ours, &["register", SERVE[1], &limit, "main"]);
    let mut mtas = vec![Mta::order(&filter, "served")];
    while filter.open_files() < LIMIT {
        mtas.push(Mta::order(&filter, "served"));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(filter.log(), [""; 0]);
    // One more has to wait, and that is said.
    let mut waiting = Mta::connect(&filter);
    filter.wait_for("syslog 3 steered: cannot accept a connection: Too many open files (os error 24)");
    mtas.pop().unwrap().quit();
    waiting.negotiate();
}

#[test]
fn without_another_thread_a_connection_is_refused() {
    let filter = Filter::serve(Library::Ours);
    let mut served = Mta::order(&filter, "threads-short");
    // Sessions take up the threads that there are, until one is refused.
    let mut holders = Vec::new();
    loop {
        let mut mta = Mta::connect(&filter);
        // It may be refused before it has said a word.
        let offered = std::io::Write::write_all(&mut mta.0, &super::optneg()).is_ok();
        if !offered || mta.hear().is_none() {
            break;
        }
        assert_eq!(mta.connect_from("holder"), 'c');
        mta.command(Kind::Helo, b"hold\0");
        holders.push(mta);
        assert!(holders.len() < 50, "nobody is refused");
    }
    filter.wait_for("syslog 3 steered: no thread for another connection, refused");
    assert!(Mta::connect(&filter).has_ended(), "the next one too");
    assert_eq!(filter.log().len(), 1, "it does not complain all the time: {:?}", filter.log());
    served.begin_message();
    assert_eq!(served.end_message(b"text\r\n"), 'c', "who is served already does not notice");

    let order = |mta: &mut Mta, order: &[u8]| {
        mta.command(Kind::Helo, order);
        assert_eq!(mta.answer(), 'c');
    };
    order(&mut served, b"threads-back\0");
    Mta::order(&filter, "late").quit();
    for _ in &holders {
        order(&mut served, b"release\0");
    }
    for holder in &mut holders {
        assert_eq!(holder.answer(), 'c');
    }
}
