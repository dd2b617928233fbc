//! docs/milter-send.schema.json, which every report of every test must fit.

use std::fs;
use std::sync::OnceLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};

use crate::support::repository;

/// Checks a report.
pub fn check(report: &Value) -> Result<(), String> {
    static COMPILED: OnceLock<(Schemas, SchemaIndex)> = OnceLock::new();
    let (schemas, index) = COMPILED.get_or_init(|| {
        let file = repository().join("docs/milter-send.schema.json");
        let schema: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("report.json", schema).unwrap();
        let index = compiler.compile("report.json", &mut schemas).unwrap();
        (schemas, index)
    });
    schemas.validate(report, *index).map_err(|error| error.to_string())
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let exchange =
        json!({ "command": "HELO", "argument": "a", "answer": { "reply": { "latin1": "\u{ff}" } } });
    let good = json!({
        "schema": 1, "filter": "unix:/f", "exchanges": [exchange], "messages": [], "warnings": [],
        "error": null, "hint": null,
    });
    assert_eq!(check(&good), Ok(()));
    for (place, value) in [
        ("/schema", json!(2)),
        ("/filter", json!(null)),
        ("/exchanges/0/command", json!("EHLO")),
        ("/exchanges/0/answer", json!("yes")),
        ("/exchanges/0/answer/reply/latin1", json!("\u{100}")),
        ("/messages", json!([{}])),
        ("/error", json!(1)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        assert!(check(&bad).is_err(), "{place}");
    }
    let mut more = good.clone();
    more["more"] = json!(1);
    assert!(check(&more).is_err());
}
