//! The outcome of expectations for programs that run tests: the Test Anything Protocol, and the XML of JUnit.

use std::fmt::Write as _;
use std::time::Duration;

/// One expectation of one message.
#[derive(Debug)]
pub struct Case {
    /// The message.
    pub message: String,
    /// The expectation.
    pub expectation: String,
    /// What is the case instead, if it does not hold.
    pub failure: Option<String>,
    /// How long the message took.
    pub time: Option<Duration>,
}

/// All that were checked, and how many should have been.
#[derive(Debug, Default)]
pub struct TestReport {
    cases: Vec<Case>,
    /// How many there would be without an error.
    planned: usize,
    /// Why not all were checked.
    error: Option<String>,
}

impl TestReport {
    /// Says how many cases there will be.
    pub fn plan(&mut self, cases: usize) {
        self.planned = cases;
    }

    /// Adds one.
    pub fn add(&mut self, case: Case) {
        self.cases.push(case);
    }

    /// Whether one did not hold.
    pub fn has_failures(&self) -> bool {
        self.cases.iter().any(|case| case.failure.is_some())
    }

    /// Why there will be no more.
    pub fn error(&mut self, error: String) {
        self.error = Some(error);
    }

    /// In the Test Anything Protocol, version 14.
    pub fn to_tap(&self) -> String {
        let mut out = format!("TAP version 14\n1..{}\n", self.planned);
        for (number, case) in (1..).zip(&self.cases) {
            let result = if case.failure.is_some() { "not ok" } else { "ok" };
            let title =
                format!("{}: {}", case.message, case.expectation).replace('\\', "\\\\").replace('#', "\\#");
            line(&mut out, format_args!("{result} {number} - {}", on_one_line(&title)));
            let milliseconds =
                case.time.map(|time| format!("  duration_ms: {:.3}\n", 1e3 * time.as_secs_f64()));
            if case.failure.is_some() || milliseconds.is_some() {
                out.push_str("  ---\n");
                if let Some(failure) = &case.failure {
                    // A JSON string is a YAML string.
                    line(&mut out, format_args!("  message: {}", serde_json::json!(failure)));
                }
                out.push_str(&milliseconds.unwrap_or_default());
                out.push_str("  ...\n");
            }
        }
        if let Some(error) = &self.error {
            line(&mut out, format_args!("Bail out! {}", on_one_line(error)));
        }
        out
    }

    /// As the XML that JUnit's reports have.
    pub fn to_junit(&self) -> String {
        let failures = self.cases.iter().filter(|case| case.failure.is_some()).count();
        let errors = usize::from(self.error.is_some());
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let counts =
            format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"", self.cases.len() + errors);
        line(&mut out, format_args!("<testsuites {counts}>\n<testsuite name=\"milter-send\" {counts}>"));
        for case in &self.cases {
            let time =
                case.time.map(|time| format!(" time=\"{:.6}\"", time.as_secs_f64())).unwrap_or_default();
            let (message, expectation) = (escaped(&case.message), escaped(&case.expectation));
            let head = format!("<testcase classname=\"{message}\" name=\"{expectation}\"{time}");
            match &case.failure {
                Some(failure) => line(
                    &mut out,
                    format_args!("{head}><failure message=\"{}\"/></testcase>", escaped(failure)),
                ),
                None => line(&mut out, format_args!("{head}/>")),
            }
        }
        if let Some(error) = &self.error {
            let error = escaped(error);
            line(
                &mut out,
                format_args!(
                    "<testcase classname=\"milter-send\" name=\"session\"><error message=\"{error}\"/></testcase>"
                ),
            );
        }
        out.push_str("</testsuite>\n</testsuites>\n");
        out
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn on_one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Text for an attribute. XML 1.0 has no place for most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                write!(out, "&#{};", u32::from(character)).expect("a String takes everything")
            }
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            character if character < ' ' => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(error: Option<&str>) -> TestReport {
        let case = |expectation: &str, failure: Option<&str>| Case {
            message: "a#1.eml".to_owned(),
            expectation: expectation.to_owned(),
            failure: failure.map(str::to_owned),
            time: None,
        };
        let cases = vec![case("accept", None), case("header X: <1>", Some("there is X: \"\u{1}&\"\r\n <2>"))];
        TestReport { cases, planned: 2, error: error.map(str::to_owned) }
    }

    #[test]
    fn in_the_test_anything_protocol() {
        let expected = "TAP version 14\n1..2\nok 1 - a\\#1.eml: accept\nnot ok 2 - a\\#1.eml: header X: <1>\n  ---\n  \
                        message: \"there is X: \\\"\\u0001&\\\"\\r\\n <2>\"\n  ...\n";
        assert_eq!(report(None).to_tap(), expected);
        assert_eq!(report(Some("two\nlines")).to_tap(), expected.to_owned() + "Bail out! two lines\n");
    }

    #[test]
    fn in_the_xml_of_junit() {
        let xml = report(None).to_junit();
        assert!(
            xml.contains("<testsuite name=\"milter-send\" tests=\"2\" failures=\"1\" errors=\"0\">\n"),
            "{xml}"
        );
        assert!(xml.contains("<testcase classname=\"a#1.eml\" name=\"accept\"/>\n"), "{xml}");
        let failure = "name=\"header X: &lt;1&gt;\"><failure message=\"there is X: &quot;\u{fffd}&amp;&quot;&#13;&#10; \
                       &lt;2&gt;\"/></testcase>\n";
        assert!(xml.contains(failure), "{xml}");
        let xml = report(Some("no")).to_junit();
        assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"1\""), "{xml}");
        assert!(xml.contains("name=\"session\"><error message=\"no\"/></testcase>\n</testsuite>"), "{xml}");
    }
}
