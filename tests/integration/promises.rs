//! `SECURITY.md`: every promise names tests, and those tests and fuzz targets exist.

use crate::protocol::tests;
use crate::support::repository;
use regex::Regex;
use std::fs;

#[test]
fn every_promise_names_its_tests() {
    let text = fs::read_to_string(repository().join("SECURITY.md")).unwrap();
    let (_, promises) = text.split_once("## What the library promises").unwrap();
    let (promises, _) = promises.split_once("\n## ").unwrap();
    let name = Regex::new("`([^`]+)`").unwrap();
    let (known, mut count) = (tests(), 0);
    for row in promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise |")) {
        let evidence = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        let named: Vec<_> = name.captures_iter(evidence).map(|found| found[1].to_owned()).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for test in named {
            let target = repository().join("fuzz/fuzz_targets").join(format!("{test}.rs"));
            assert!(known.contains(&test) || target.exists(), "there is no {test}");
        }
        count += 1;
    }
    assert!(count >= 15, "{count} promises");
}
