//! Descriptors that the library opens: children that a callback starts must not hold them (contract 2.5, contract 3
//! entry 18).

use super::{Filter, Mta};
use crate::support::Library;

#[test]
fn children_of_callbacks_inherit_nothing() {
    let filter = Filter::serve(Library::Ours);
    let mut parked = Mta::order(&filter, "parked");
    parked.begin_message();
    let _busy = Mta::connect(&filter);
    let _child = Mta::order(&filter, "list-descriptors");
    filter.wait_for("child 0");
    let inherited: Vec<String> =
        filter.output().into_iter().filter(|line| line.starts_with("inherited ")).collect();
    assert!(inherited.len() >= 3, "standard input, output and error at least: {inherited:?}");
    assert!(
        inherited.iter().all(|line| !line.contains("socket:") && !line.contains("anon_inode:")),
        "{inherited:?}"
    );
}
