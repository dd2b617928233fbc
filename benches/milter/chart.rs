//! Charts as SVG text: lines over two axes, either of them logarithmic, and groups of horizontal bars. It knows
//! nothing of what the numbers mean.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 74.0;

/// Colours that the colour-blind can tell apart (Okabe and Ito), in the order of use.
pub const COLOURS: [&str; 10] = [
    "#999999", "#d55e00", "#000000", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e6a700", "#7f5f3f",
    "#661100",
];

/// Where the scales have lines, in each power of ten.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// The next smaller value that deserves a line.
fn round_down(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    STEPS.map(|step| step * power).into_iter().rfind(|&step| step <= value).unwrap_or(power)
}

/// One axis.
pub struct Axis {
    /// What it measures.
    pub label: &'static str,
    /// Powers of ten at equal distances.
    pub logarithmic: bool,
}

/// One line.
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// An SVG colour.
    pub colour: &'static str,
    /// In order of x.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is a measured one that deserves a dot.
    pub dots: bool,
}

/// Maps values to a stretch of the picture.
struct Scale {
    logarithmic: bool,
    from: f64,
    to: f64,
    start: f64,
    length: f64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64> + Clone, start: f64, length: f64) -> Self {
        let most = values.clone().fold(f64::MIN, f64::max);
        let least = values.fold(f64::MAX, f64::min);
        let (from, to) = match axis.logarithmic {
            true => (round_down(least).log10(), most.log10()),
            // Nothing but zeros, or nothing at all, needs a scale, too.
            false => (0.0, if most > 0.0 { most * 1.05 } else { 1.0 }),
        };
        Self { logarithmic: axis.logarithmic, from, to, start, length }
    }

    fn at(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        self.start + (value - self.from) / (self.to - self.from) * self.length
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = self.from.floor() as i32..=self.to.floor() as i32;
            let all = decades.flat_map(|power| STEPS.map(|step| step * 10f64.powi(power)));
            return all.filter(|tick| (self.from..=self.to).contains(&tick.log10())).collect();
        }
        let rough = self.to / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let steps = STEPS.map(|step| step * power);
        let step = steps.into_iter().find(|&step| step >= rough).unwrap_or(10.0 * power);
        (0..).map(|n| f64::from(n) * step).take_while(|&tick| tick <= self.to).collect()
    }
}

fn open(title: &str, height: f64, legend: &[(String, &'static str)]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"{LEFT}\" y=\"24\" \
         font-size=\"16\">{title}</text>\n"
    );
    let mut x = 24.0;
    for (name, colour) in legend {
        let _ = writeln!(svg, "<rect x=\"{x:.0}\" y=\"42\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"52\">{name}</text>", x + 16.0);
        x += 26.0 + 6.0 * name.len() as f64;
    }
    svg
}

fn tick_text(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e3 => format!("{}k", v / 1e3),
        // Steps of 0.1 add up to 0.30000000000000004.
        v => format!("{v:.6}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// Draws lines.
pub fn lines(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    const HEIGHT: f64 = 430.0;
    const BOTTOM: f64 = 52.0;
    let legend: Vec<_> = series.iter().map(|line| (line.name.clone(), line.colour)).collect();
    let mut svg = open(title, HEIGHT, &legend);
    let points = || series.iter().flat_map(|line| &line.points);
    let across = Scale::new(x, points().map(|point| point.0), LEFT, WIDTH - LEFT - RIGHT);
    let up = Scale::new(y, points().map(|point| point.1), HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT);
    let (floor, ceiling) = (HEIGHT - BOTTOM, TOP);
    for tick in up.ticks() {
        let height = up.at(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {height:.1}H{}\" stroke=\"#dddddd\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            height + 4.0,
            tick_text(tick)
        );
    }
    for tick in across.ticks() {
        let place = across.at(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{place:.1} {ceiling}V{floor}\" stroke=\"#eeeeee\"/><text x=\"{place:.1}\" y=\"{}\" \
             text-anchor=\"middle\">{}</text>",
            floor + 18.0,
            tick_text(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {ceiling}V{floor}H{}\" stroke=\"#333333\" fill=\"none\"/>",
        WIDTH - RIGHT
    );
    let middle = (WIDTH + LEFT - RIGHT) / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 12.0,
        x.label
    );
    let half = (floor + ceiling) / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"18\" y=\"{half}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {half})\">{}</text>",
        y.label
    );
    for line in series {
        let path: Vec<String> =
            line.points.iter().map(|&(x, y)| format!("{:.1},{:.1}", across.at(x), up.at(y))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            path.join(" "),
            line.colour
        );
        for point in path.iter().filter(|_| line.dots) {
            let (x, y) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{}\"/>", line.colour);
        }
    }
    svg + "</svg>\n"
}

/// One bar of a group.
pub struct Bar {
    /// Its length, 1 being the usual full width; `None` for a bar that is not there.
    pub share: Option<f64>,
    /// What stands beside it.
    pub text: String,
}

/// Draws a group of bars for each label, the bars in the order of the legend.
pub fn bars(title: &str, legend: &[(String, &'static str)], groups: &[(String, Vec<Bar>)]) -> String {
    const THICK: f64 = 13.0;
    const GAP: f64 = 12.0;
    /// Room for the labels.
    const LEFT: f64 = 130.0;
    let group_height = legend.len() as f64 * THICK + GAP;
    let height = TOP + groups.len() as f64 * group_height + 8.0;
    let mut svg = open(title, height, legend);
    let most = groups.iter().flat_map(|(_, bars)| bars).filter_map(|bar| bar.share).fold(1.0, f64::max);
    let room = (WIDTH - LEFT - RIGHT - 60.0) / most;
    for (number, (label, bars)) in groups.iter().enumerate() {
        let top = TOP + number as f64 * group_height;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            top + (group_height - GAP) / 2.0 + 4.0
        );
        for (place, (bar, (_, colour))) in bars.iter().zip(legend).enumerate() {
            let y = top + place as f64 * THICK;
            let length = bar.share.unwrap_or_default() * room;
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/><text \
                 x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{}</text>",
                THICK - 2.0,
                LEFT + length + 5.0,
                y + THICK - 4.0,
                bar.text
            );
        }
    }
    svg + "</svg>\n"
}
