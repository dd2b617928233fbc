//! Turns what happened in a run into text that can be compared with another run's: whatever differs from run to run
//! by nature (ports, paths, queue ids, dates) is replaced by a name. Nothing else is masked.

use regex::Regex;

/// Replaces what belongs to this run alone. `known` are values with their names; queue ids and dates are found.
pub fn normalise(text: &str, known: &[(String, String)]) -> String {
    let mut known = known.to_vec();
    let id = Regex::new(r"queued as (\w+)|250 2\.0\.0 (\w+) Message accepted|macro i = (\w+)").unwrap();
    for found in id.captures_iter(text) {
        let id = found.iter().skip(1).flatten().next().unwrap().as_str().to_owned();
        if !known.iter().any(|(value, _)| *value == id) {
            let number = known.iter().filter(|(_, name)| name.starts_with("<queue-id")).count() + 1;
            known.push((id, format!("<queue-id-{number}>")));
        }
    }
    let mut text = text.to_owned();
    for (value, name) in &known {
        let whole = Regex::new(&format!(r"(^|\W){}\b", regex::escape(value))).unwrap();
        text = whole.replace_all(&text, format!("${{1}}{name}")).into_owned();
    }
    let date = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [ 0-3]?\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d ([+-]\d{4}( \(\w+\))?|[A-Z]+)";
    // Our messages' own dates are of the year 2001: they must come through as they are.
    let date = Regex::new(date).unwrap();
    date.replace_all(&text, |found: &regex::Captures| {
        if found[0].contains(" 2001 ") { found[0].to_owned() } else { "<date>".to_owned() }
    })
    .into_owned()
}

/// Fails the test, showing where, unless the two runs' transcripts are equal.
#[track_caller]
pub fn assert_equal((left_name, left): (&str, &str), (right_name, right): (&str, &str)) {
    if left == right {
        return;
    }
    let same = left.lines().zip(right.lines()).take_while(|(left, right)| left == right).count();
    let part = |text: &str| {
        let lines: Vec<_> = text.lines().skip(same.saturating_sub(5)).take(15).collect();
        lines.join("\n    ")
    };
    panic!(
        "the runs differ from line {} on\n{left_name}:\n    {}\n{right_name}:\n    {}",
        same + 1,
        part(left),
        part(right)
    );
}
