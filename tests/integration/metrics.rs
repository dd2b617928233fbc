//! `LIBMILTER_METRICS` under Debian's OpenDKIM, asked by Debian's Prometheus.

use crate::opendkim::{configure, sign_by_milter_send};
use crate::support::{Daemon, free_port, repository, run, stdout, temp_dir, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The answer of an HTTP server to a request for the metrics, once it listens: head and body.
pub fn scrape(mut stream: impl Read + Write, accept: &str) -> (String, String) {
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a sample.
pub fn value(metrics: &str, sample: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {metrics}")).parse().unwrap()
}

/// What `promtool check metrics` says.
pub fn promtool(metrics: &str) -> Output {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    promtool.wait_with_output().unwrap()
}

fn query(server: &str, query: &str) -> String {
    stdout(Command::new("promtool").args(["query", "instant", server, query]))
}

/// The queries of the dashboard, with its variables filled in.
fn queries_of_the_dashboard() -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/metrics/dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|query| query.replace("$job", ".*").replace("$__rate_interval", "1m"))
        .collect()
}

/// Debian's Prometheus with this configuration, once it is ready, and its port.
pub fn start_prometheus(dir: &Path, config: &str) -> (Daemon, u16) {
    fs::write(dir.join("prometheus.yml"), config).unwrap();
    let port = free_port("127.0.0.1");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let daemon = Daemon::start(&mut command);
    wait_until("Prometheus", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok() && get(port, "/-/ready").0.contains(" 200 ")
    });
    (daemon, port)
}

/// Head and body of what a server on this machine answers.
pub fn get(port: u16, target: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// OpenDKIM signs; Prometheus sees it, and every query of the dashboard has a result.
#[test]
fn prometheus_sees_what_opendkim_does() {
    let dir = temp_dir();
    let socket = dir.path().join("s");
    let port = free_port("127.0.0.1");
    let mut command = configure(dir.path());
    command.arg(format!("local:{}", socket.display()));
    command.env("LIBMILTER_METRICS", format!("127.0.0.1:{port}"));
    let mut opendkim = Daemon::start(&mut command);
    let connect = || TcpStream::connect(("127.0.0.1", port));
    wait_until("the endpoint", || connect().is_ok() && socket.exists());

    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n- job_name: milter\n  \
         static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n",
        repository().join("docs/metrics/alerts.yml").display()
    );
    let (prometheus, server_port) = start_prometheus(dir.path(), &config);
    let server = format!("http://127.0.0.1:{server_port}");
    wait_until("a scrape", || {
        let mut command = Command::new("promtool");
        let output = command.args(["query", "instant", &server, "up == 1"]).output().unwrap();
        output.stdout.starts_with(b"up{")
    });
    for _ in 0..3 {
        sign_by_milter_send(&socket);
    }

    let (head, metrics) = scrape(connect().unwrap(), "text/plain");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    let checked = promtool(&metrics);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}\n{metrics}");
    for (sample, expected) in [
        ("milter_messages_total", 3.0),
        ("milter_messages_completed_total", 3.0),
        ("milter_sessions_started_total", 3.0),
        ("milter_sessions", 0.0),
        ("milter_session_ends_total{reason=\"quit\"}", 3.0),
        ("milter_modifications_total{kind=\"insheader\"}", 3.0),
        ("milter_callback_duration_seconds_count{callback=\"eom\"}", 3.0),
        ("milter_callback_verdicts_total{callback=\"envfrom\",verdict=\"continue\"}", 3.0),
        ("milter_protocol_errors_total{kind=\"out_of_order\"}", 0.0),
        ("milter_callbacks_stuck", 0.0),
    ] {
        assert_eq!(value(&metrics, sample), expected, "{sample}: {metrics}");
    }
    // A signature takes a while.
    assert!(value(&metrics, "milter_callback_duration_seconds_sum{callback=\"eom\"}") > 0.0);
    assert!(value(&metrics, "milter_received_bytes_total") > value(&metrics, "milter_sent_bytes_total"));

    wait_until("Prometheus sees the messages", || query(&server, "milter_messages_total").contains("=> 3 @"));
    let queries = queries_of_the_dashboard();
    assert!(queries.len() > 10);
    for one in queries {
        wait_until(&one, || !query(&server, &one).is_empty());
    }
    drop(prometheus);
    opendkim.signal(libc::SIGTERM);
    assert!(opendkim.wait().success());
}

/// promtool reads the rules, and each series that they or the dashboard name is there.
#[test]
fn the_alerts_and_the_dashboard_ask_for_what_there_is() {
    let rules = repository().join("docs/metrics/alerts.yml");
    let checked = run(Command::new("promtool").args(["check", "rules"]).arg(&rules));
    assert!(checked.stderr.is_empty(), "{checked:?}");
    let dir = temp_dir();
    let path = dir.path().join("metrics");
    let socket = dir.path().join("s");
    let mut command = configure(dir.path());
    command.arg(format!("local:{}", socket.display()));
    command.env("LIBMILTER_METRICS", format!("unix:{}", path.display()));
    let _opendkim = Daemon::start(&mut command);
    let connect = || std::os::unix::net::UnixStream::connect(&path);
    wait_until("the endpoint", || connect().is_ok());
    let (head, metrics) = scrape(connect().unwrap(), "application/openmetrics-text; version=1.0.0");
    assert!(head.contains("application/openmetrics-text") && metrics.ends_with("\n# EOF\n"), "{head}");
    let texts = fs::read_to_string(rules).unwrap() + &queries_of_the_dashboard().join("\n");
    let series = regex::Regex::new(r"\bmilter_[a-z_]+").unwrap();
    let mut count = 0;
    for found in series.find_iter(&texts).filter(|found| found.as_str() != "milter_default_action") {
        let name = found.as_str();
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is no series");
        count += 1;
    }
    assert!(count > 15);
}
