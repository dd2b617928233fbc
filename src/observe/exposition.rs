//! The two text formats of metrics: that of Prometheus (0.0.4) and OpenMetrics 1.0, which differ in the names of counters in
//! comments and in the end.
//!
//! They are written here because the crates write one of them only, and `promtool check metrics` wants the older one.

use std::fmt::{Display, Write as _};

/// What a family of samples is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A number that only grows. Its samples end with `_total`.
    Counter,
    /// A number.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// The text under way.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    is_open_metrics: bool,
    family: String,
}

impl Exposition {
    /// An empty one.
    pub fn new(is_open_metrics: bool) -> Self {
        Self { text: String::with_capacity(1 << 15), is_open_metrics, family: String::new() }
    }

    /// Begins a family; a counter's name is without `_total`.
    pub fn family(&mut self, name: &str, kind: Type, help: &str) {
        name.clone_into(&mut self.family);
        let suffix = if kind == Type::Counter && !self.is_open_metrics { "_total" } else { "" };
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = write!(self.text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
    }

    /// A sample of the family begun last.
    pub fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        for (place, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if place == 0 { '{' } else { ',' });
            for character in text.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.is_open_metrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// What HTTP calls the format.
    pub fn content_type(is_open_metrics: bool) -> &'static str {
        if is_open_metrics {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_differ_in_counters_and_the_end() {
        let text = |is_open_metrics| {
            let mut out = Exposition::new(is_open_metrics);
            out.family("a", Type::Counter, "Help.");
            out.sample("_total", &[("x", "1"), ("y", "\"\\\n")], 5);
            out.family("b", Type::Gauge, "More.");
            out.sample("", &[], 0.5);
            out.finish()
        };
        let samples = ["a_total{x=\"1\",y=\"\\\"\\\\\\n\"} 5", "# HELP b More.\n# TYPE b gauge\nb 0.5\n"];
        let [a, b] = samples;
        assert_eq!(text(false), format!("# HELP a_total Help.\n# TYPE a_total counter\n{a}\n{b}"));
        assert_eq!(text(true), format!("# HELP a Help.\n# TYPE a counter\n{a}\n{b}# EOF\n"));
    }
}
