//! The dashboard for Grafana, docs/metrics/dashboard.json: that Grafana can take it, and its picture in the documents. The
//! picture is drawn here, from what Debian's Prometheus answers to the queries of its panels while two filters are under
//! load: OpenDKIM, and the example `block-list`. In `make check` that lasts seconds; `make dashboard` takes three minutes for
//! docs/metrics/dashboard.svg.

#[allow(dead_code, reason = "the benchmarks draw bars, too")]
#[path = "../../benches/milter/chart.rs"]
mod chart;

use crate::mail_servers::filter::Endpoint;
use crate::metrics::{get, start_prometheus};
use crate::opendkim::configure;
use crate::support::{
    Daemon, Library, compile_c, free_port, milter_send, release_dir, repository, temp_dir, wait_until,
};
use chart::{Axis, COLOURS, Series};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// A place in the grid, in pixels of the picture.
const CELL: (f64, f64) = (48.0, 27.0);

/// Room above the panels and below them.
const HEAD: f64 = 40.0;
const FOOT: f64 = 44.0;

/// What the picture says of itself.
const CAPTION: &str = "Not drawn by Grafana, but by tests/integration/dashboard.rs, from what Prometheus answers to the dashboard's \
    queries.";
const REST_OF_CAPTION: &str = "The filters are OpenDKIM, which signs, and the example block-list. “(3 at 0)”: three more lines are 0 \
    throughout.";

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(repository().join("docs/metrics/dashboard.json")).unwrap())
        .unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Left, top, width and height of a panel.
fn place(panel: &Value) -> [u64; 4] {
    ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or_else(|| panic!("{panel}")))
}

/// What Grafana asks of a dashboard that is imported, as far as a file can be judged without it.
#[test]
fn grafana_can_import_the_dashboard() {
    let dashboard = dashboard();
    // The import gives it a number of its own; with another's it would replace that one, or fail.
    assert_eq!(dashboard["id"], Value::Null);
    assert!(!text(&dashboard["title"]).is_empty());
    let uid = text(&dashboard["uid"]);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!((1..=40).contains(&uid.len()) && uid.chars().all(is_plain), "{uid}");
    // Below 36 data sources are names; above 41 is what no released Grafana writes in this form.
    assert!((36..=41).contains(&dashboard["schemaVersion"].as_u64().unwrap()));
    let time = [&dashboard["time"]["from"], &dashboard["time"]["to"]].map(text);
    assert!(time[0].starts_with("now-") && time[1] == "now", "{time:?}");

    let variables = list(&dashboard["templating"]["list"]);
    let source = variables.iter().find(|variable| variable["type"] == "datasource").unwrap();
    assert_eq!(source["query"], "prometheus");
    let is_source = |value: &Value| {
        value["type"] == "prometheus" && text(&value["uid"]) == format!("${{{}}}", text(&source["name"]))
    };
    let mut known: HashSet<&str> = variables.iter().map(|variable| text(&variable["name"])).collect();
    assert_eq!(known.len(), variables.len(), "names are unique");
    known.insert("__rate_interval");
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        assert!(is_source(&variable["datasource"]), "{variable}");
    }

    let panels = list(&dashboard["panels"]);
    let mut ids = HashSet::new();
    let mut taken = HashSet::new();
    let used = regex::Regex::new(r"\$\{?(\w+)").unwrap();
    for panel in panels {
        let title = text(&panel["title"]);
        assert!(
            ids.insert(panel["id"].as_u64().filter(|id| *id > 0).unwrap()),
            "{title}: its id is another's"
        );
        assert!(
            ["timeseries", "stat"].contains(&text(&panel["type"])),
            "{title}: there may be no such panel"
        );
        assert!(is_source(&panel["datasource"]), "{title}");
        assert!(
            ["short", "mps", "ops", "s", "Bps"].contains(&text(&panel["fieldConfig"]["defaults"]["unit"])),
            "{title}"
        );
        list(&panel["fieldConfig"]["overrides"]);
        let [x, y, width, height] = place(panel);
        assert!(width > 0 && height > 0 && x + width <= COLUMNS, "{title}");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies on another panel at {cell:?}");
        }
        let mut targets = HashSet::new();
        for target in list(&panel["targets"]) {
            assert!(targets.insert(text(&target["refId"])), "{title}: its queries need names of their own");
            let query = text(&target["expr"]);
            for name in used.captures_iter(query).map(|found| found.get(1).unwrap().as_str()) {
                assert!(known.contains(name), "{title}: there is no variable {name}");
            }
        }
        assert!(!targets.is_empty(), "{title}");
    }
    // Panels that hang in the air would move.
    let floor = panels.iter().map(place).map(|[_, y, _, height]| y + height).max().unwrap();
    assert_eq!(taken.len() as u64, COLUMNS * floor, "there are gaps");
}

/// A filter under load, and where its metrics are.
struct Subject {
    name: &'static str,
    _daemon: Daemon,
    socket: PathBuf,
    metrics: u16,
}

impl Subject {
    fn start(name: &'static str, command: &mut Command, socket: PathBuf) -> Self {
        let metrics = free_port("127.0.0.1");
        command.env("LIBMILTER_METRICS", format!("127.0.0.1:{metrics}"));
        let daemon = Daemon::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        Endpoint::Unix(socket.clone()).await_listener();
        wait_until("the metrics", || TcpStream::connect(("127.0.0.1", metrics)).is_ok());
        Self { name, _daemon: daemon, socket, metrics }
    }

    fn opendkim(dir: &Path) -> Self {
        let socket = dir.join("opendkim.s");
        Self::start("opendkim", configure(dir).arg(format!("local:{}", socket.display())), socket)
    }

    fn block_list(dir: &Path) -> Self {
        let (program, socket) = (dir.join("block-list"), dir.join("block-list.s"));
        compile_c("examples-c/block-list.c", &program);
        let mut command = Library::Ours.command(program);
        Self::start("block-list", command.arg(format!("unix:{}", socket.display())), socket)
    }

    /// Messages in time.
    fn send(&self, options: &[&str], rate: u64, seconds: f64) {
        let mut command = Command::new(milter_send());
        command.args(options).args(["--connections", "4", "--rate", &rate.to_string()]);
        command.args(["--duration", &format!("{seconds:.1}")]).arg(&self.socket);
        command.arg(repository().join("examples-c/demo.eml"));
        // What is refused is no accepted message.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    }
}

/// All sorts of mail servers: the load grows and falls, some messages are given up, some senders and recipients are refused,
/// some are silent, and now and then somebody speaks HTTP.
fn load(opendkim: &Subject, block_list: &Subject, time: Duration) {
    const WAVE: [u64; 8] = [10, 25, 60, 100, 80, 40, 20, 10];
    let part = time.as_secs_f64() / WAVE.len() as f64;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        for (subject, pause) in [(opendkim, 700), (block_list, 1500)] {
            scope.spawn(move || {
                let mut silent = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    silent.push(UnixStream::connect(&subject.socket).unwrap());
                    silent.truncate(silent.len() % 9);
                    subject.send(&["--abort-after", "header"], 3, 0.4);
                    let mut lost = UnixStream::connect(&subject.socket).unwrap();
                    lost.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                    let _ = lost.read(&mut [0; 100]);
                    std::thread::sleep(Duration::from_millis(pause));
                }
            });
        }
        scope.spawn(move || {
            let options: [&[&str]; 4] = [
                &["--from", "someone@blocked.example"],
                &["--from", "someone@slow.example"],
                &["-t", "nobody@example.org", "-t", "ann@example.org"],
                &["--from", "ann@example.com"],
            ];
            for (number, rate) in WAVE.into_iter().rev().enumerate() {
                block_list.send(options[number % options.len()], rate, part);
            }
        });
        for rate in WAVE {
            opendkim.send(&["--from", "ann@example.com"], rate, part);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Debian's Prometheus, which asks the filters each second.
struct Prometheus {
    _daemon: Daemon,
    port: u16,
}

impl Prometheus {
    fn start(dir: &Path, subjects: &[&Subject]) -> Self {
        let mut config = String::from(
            "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: milter\n  static_configs:\n",
        );
        for subject in subjects {
            let (port, name) = (subject.metrics, subject.name);
            writeln!(config, "  - {{targets: ['127.0.0.1:{port}'], labels: {{instance: {name}}}}}").unwrap();
        }
        let (daemon, port) = start_prometheus(dir, &config);
        Self { _daemon: daemon, port }
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut target = format!("{path}?");
        for (name, value) in parameters {
            write!(target, "{name}=").unwrap();
            value.bytes().for_each(|byte| write!(target, "%{byte:02X}").unwrap());
            target.push('&');
        }
        let value: Value = serde_json::from_str(&get(self.port, &target).1).unwrap();
        assert_eq!(value["status"], "success", "{target}: {value}");
        value["data"]["result"].clone()
    }
}

/// A span of time, in seconds since 1970.
struct Span {
    from: f64,
    to: f64,
}

impl Span {
    /// The lines of a query: what each is called, and its points, in seconds from the beginning.
    fn lines(
        &self,
        prometheus: &Prometheus,
        target: &Value,
        rate_interval: &str,
    ) -> Vec<(String, Vec<(f64, f64)>)> {
        let query = text(&target["expr"]).replace("$job", ".*").replace("$__rate_interval", rate_interval);
        let step = format!("{:.1}", ((self.to - self.from) / 180.0).max(1.0));
        let (from, to) = (self.from.to_string(), self.to.to_string());
        let result = prometheus.ask(
            "/api/v1/query_range",
            &[("query", &query), ("start", &from), ("end", &to), ("step", &step)],
        );
        let name = |labels: &Value| {
            let mut name = text(&target["legendFormat"]).to_owned();
            for (label, value) in labels.as_object().unwrap() {
                name = name.replace(&format!("{{{{{label}}}}}"), text(value));
            }
            name
        };
        let point = |pair: &Value| {
            let value: f64 = text(&pair[1]).parse().unwrap();
            // No callback, no quantile: Grafana leaves a gap, and so do we.
            value.is_finite().then(|| (pair[0].as_f64().unwrap() - self.from, value))
        };
        let points = |series: &Value| list(&series["values"]).iter().filter_map(point).collect();
        list(&result).iter().map(|series| (name(&series["metric"]), points(series))).collect()
    }
}

fn unit(panel: &Value) -> &'static str {
    match text(&panel["fieldConfig"]["defaults"]["unit"]) {
        "mps" => "messages per second",
        "ops" => "per second",
        "s" => "seconds",
        "Bps" => "bytes per second",
        _ => "",
    }
}

/// The last values, large.
fn draw_values(title: &str, lines: &[(String, Vec<(f64, f64)>)]) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 760 430\" font-family=\"sans-serif\"><rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\
         <text x=\"70\" y=\"24\" font-size=\"16\">{title}</text>\n"
    );
    for (number, (name, points)) in lines.iter().enumerate() {
        let x = 760.0 * (number as f64 + 0.5) / lines.len() as f64;
        let value = points.last().map_or("no data".to_owned(), |point| point.1.to_string());
        writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"250\" text-anchor=\"middle\" font-size=\"90\" fill=\"#009e73\">{value}</text>\
             <text x=\"{x:.0}\" y=\"310\" text-anchor=\"middle\" font-size=\"24\">{name}</text>"
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

/// A panel, in the size of a chart. Lines that are 0 throughout are not drawn, but counted.
fn draw(panel: &Value, lines: Vec<(String, Vec<(f64, f64)>)>) -> String {
    let title = text(&panel["title"]);
    if panel["type"] == "stat" {
        return draw_values(title, &lines);
    }
    let all = lines.len();
    let mut shown: Vec<_> =
        lines.into_iter().filter(|(_, points)| points.iter().any(|point| point.1 != 0.0)).collect();
    shown.sort_by(|one, other| one.0.cmp(&other.0));
    let title = match all - shown.len() {
        0 => title.to_owned(),
        zero => format!("{title} ({zero} at 0)"),
    };
    let series: Vec<Series> = shown
        .into_iter()
        .zip(COLOURS.iter().cycle())
        .map(|((name, points), colour)| Series { name, colour, points, dots: false })
        .collect();
    let axis = |label| Axis { label, logarithmic: false };
    chart::lines(&title, &axis("seconds"), &axis(unit(panel)), &series)
}

/// All panels in the grid; and how many lines each one has.
fn picture(prometheus: &Prometheus, span: &Span, rate_interval: &str) -> (String, BTreeMap<String, usize>) {
    let dashboard = dashboard();
    let panels = list(&dashboard["panels"]);
    let rows = panels.iter().map(place).map(|[_, y, _, height]| y + height).max().unwrap();
    let (width, height) = (COLUMNS as f64 * CELL.0, HEAD + rows as f64 * CELL.1 + FOOT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#e8e8e8\"/>\n<text x=\"12\" y=\"27\" font-size=\"18\">{}</text>\n",
        text(&dashboard["title"])
    );
    let mut counts = BTreeMap::new();
    for panel in panels {
        let targets = list(&panel["targets"]).iter();
        let lines: Vec<_> =
            targets.flat_map(|target| span.lines(prometheus, target, rate_interval)).collect();
        counts.insert(text(&panel["title"]).to_owned(), lines.len());
        let [x, y, width, height] = place(panel).map(|side| side as f64);
        let frame = format!(
            "<svg x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" ",
            x * CELL.0 + 3.0,
            HEAD + y * CELL.1 + 3.0,
            width * CELL.0 - 6.0,
            height * CELL.1 - 6.0
        );
        svg += &draw(panel, lines).replacen("<svg ", &frame, 1);
    }
    for (line, words) in [CAPTION, REST_OF_CAPTION].into_iter().enumerate() {
        let y = height - FOOT + 17.0 + 18.0 * line as f64;
        writeln!(svg, "<text x=\"12\" y=\"{y}\" font-size=\"13\">{words}</text>").unwrap();
    }
    (svg + "</svg>\n", counts)
}

/// Every panel has something to show while filters work. `DASHBOARD_SECONDS` is how long they do; with it the picture goes
/// into the documents.
#[test]
fn each_panel_shows_something() {
    let seconds = std::env::var("DASHBOARD_SECONDS").ok().map(|seconds| seconds.parse::<u64>().unwrap());
    let time = Duration::from_secs(seconds.unwrap_or(8));
    let dir = temp_dir();
    let (opendkim, block_list) = (Subject::opendkim(dir.path()), Subject::block_list(dir.path()));
    let prometheus = Prometheus::start(dir.path(), &[&opendkim, &block_list]);
    wait_until("both are seen", || {
        list(&prometheus.ask("/api/v1/query", &[("query", "up == 1")])).len() == 2
    });
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let (start, from) = (Instant::now(), now());
    load(&opendkim, &block_list, time);
    assert!(start.elapsed() >= time);
    let span = Span { from, to: now() };
    let rate_interval = if seconds.is_some() { "8s" } else { "4s" };
    let (svg, counts) = picture(&prometheus, &span, rate_interval);
    assert!(counts.len() == 12 && counts.values().all(|lines| *lines > 0), "{counts:?}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // What the load was made for.
    for line in ["reject", "tempfail", "accept", "insheader", "protocol_error", "opendkim", "block-list"] {
        assert!(svg.contains(&format!(">{line}</text>")), "{line}: {svg}");
    }
    let path = match seconds {
        Some(_) => repository().join("docs/metrics/dashboard.svg"),
        None => release_dir().parent().unwrap().join("dashboard.svg"),
    };
    fs::write(path, svg).unwrap();
}
