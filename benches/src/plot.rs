//! Curves as an SVG: one panel for each curve, both axes logarithmic.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::contestants::Who;
use crate::table::Series;

/// One curve with all its contestants.
#[derive(Debug)]
pub struct Panel {
    /// Above the panel.
    pub title: String,
    /// Below it.
    pub x_title: &'static str,
    /// By contestant, points from left to right.
    pub lines: BTreeMap<(Who, String), Vec<(f64, f64)>>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 40.0;
const INNER_WIDTH: f64 = 290.0;
const INNER_HEIGHT: f64 = 205.0;

/// A panel of the medians of `metric`.
pub fn panel(title: String, x_title: &'static str, metric: &str, all: &[Series]) -> Panel {
    let mut lines: BTreeMap<(Who, String), Vec<(f64, f64)>> = BTreeMap::new();
    for series in all {
        let Some(y) = series.median(metric).filter(|y| *y > 0.0) else { continue };
        lines.entry((series.who, series.name.clone())).or_default().push((series.x, y));
    }
    Panel { title, x_title, lines }
}

/// The whole picture, two panels beside each other.
pub fn svg(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2) as f64;
    let (width, height) = (WIDTH * 2.0, HEIGHT * rows);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, panel) in panels.iter().enumerate() {
        let (x, y) = ((i % 2) as f64 * WIDTH, (i / 2) as f64 * HEIGHT);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        draw(&mut out, panel);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Whole powers of ten around all values.
    fn around(values: impl Iterator<Item = f64>) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| *v > 0.0) {
            low = low.min(value.log10());
            high = high.max(value.log10());
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let (low, high) = ((low + 1e-9).floor(), (high - 1e-9).ceil());
        Axis { low, high: high.max(low + 1.0) }
    }

    /// 0 at the low end, 1 at the high one.
    fn place(&self, value: f64) -> f64 {
        (value.log10() - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|e| 10f64.powi(e))
    }
}

fn draw(out: &mut String, panel: &Panel) {
    let points = || panel.lines.values().flatten();
    let (x, y) = (Axis::around(points().map(|p| p.0)), Axis::around(points().map(|p| p.1)));
    let across = |v: f64| LEFT + x.place(v) * INNER_WIDTH;
    let down = |v: f64| TOP + (1.0 - y.place(v)) * INNER_HEIGHT;
    let (right, bottom) = (LEFT + INNER_WIDTH, TOP + INNER_HEIGHT);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"22\" font-size=\"12\">{}</text>", panel.title);
    for tick in x.ticks() {
        let (at, label) = (across(tick), label(tick));
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 14.0
        );
    }
    for tick in y.ticks() {
        let (at, label) = (down(tick), label(tick));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 5.0,
            at + 3.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        LEFT + INNER_WIDTH / 2.0,
        bottom + 30.0,
        panel.x_title
    );
    for (i, ((who, name), line)) in panel.lines.iter().enumerate() {
        // Dashed where a contestant takes part a second time.
        let dash = if who.name() == name { "none" } else { "4 3" };
        draw_line(out, color(*who), dash, line, across, down);
        let at = TOP + 10.0 + i as f64 * 16.0;
        let _ = writeln!(
            out,
            "<path d=\"M{0:.1} {at:.1}h14\" stroke=\"{2}\" stroke-width=\"2\" \
             stroke-dasharray=\"{4}\"/>\
             <text x=\"{1:.1}\" y=\"{3:.1}\">{name}</text>",
            right + 10.0,
            right + 28.0,
            color(*who),
            at + 3.0,
            dash
        );
    }
}

fn draw_line(
    out: &mut String,
    color: &str,
    dash: &str,
    line: &[(f64, f64)],
    across: impl Fn(f64) -> f64,
    down: impl Fn(f64) -> f64,
) {
    let corners: Vec<String> =
        line.iter().map(|&(x, y)| format!("{:.1},{:.1}", across(x), down(y))).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" \
         stroke-dasharray=\"{dash}\"/>",
        corners.join(" ")
    );
    for &(x, y) in line {
        let (x, y) = (across(x), down(y));
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{color}\"/>");
    }
}

fn label(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e3 => format!("{} k", v / 1e3),
        v => format!("{v}"),
    }
}

fn color(who: Who) -> &'static str {
    match who {
        Who::Raw => "#000000",
        Who::AsyncStd => "#999999",
        Who::NodeLua => "#d62728",
        Who::Before => "#e7969c",
        Who::Luv => "#1f77b4",
        Who::NodeJs => "#2ca02c",
        Who::Go => "#17becf",
        Who::Erlang => "#9467bd",
        Who::LuaJit | Who::LuaJitDebian => "#ff7f0e",
    }
}
