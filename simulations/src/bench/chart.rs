//! Charts as SVG: lines and dots over two logarithmic axes, and nothing else.
//!
//! The same figures make the same bytes, so that a chart in the repository changes only when what
//! it shows does.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Room for what stands beside the axes: left, top, right, bottom.
const EDGE: [f64; 4] = [80.0, 40.0, 200.0, 50.0];
const COLOURS: [&str; 6] = ["#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#555555"];

/// Points of one kind, as a line or as dots.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) dots: bool,
    /// Which colour; a line and its dots share one.
    pub(crate) colour: usize,
}

/// Draws a chart. All values are above 0.
pub(crate) fn draw(title: &str, x_name: &str, y_name: &str, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|series| &series.points);
    let xs = decades(all().map(|(x, _)| *x));
    let ys = decades(all().map(|(_, y)| *y));
    let (right, bottom) = (WIDTH - EDGE[2], HEIGHT - EDGE[3]);
    let x = |value: f64| EDGE[0] + (value.log10() - xs.0) / (xs.1 - xs.0) * (right - EDGE[0]);
    let y = |value: f64| bottom - (value.log10() - ys.0) / (ys.1 - ys.0) * (bottom - EDGE[1]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut put = |line: String| writeln!(svg, "{line}").expect("a string takes all");
    put(text(EDGE[0], 22.0, "start", "15", title));
    for power in steps(xs) {
        let at = x(10_f64.powf(power));
        put(rule(at, EDGE[1], at, bottom));
        put(text(at, bottom + 18.0, "middle", "12", &label(power)));
    }
    for power in steps(ys) {
        let at = y(10_f64.powf(power));
        put(rule(EDGE[0], at, right, at));
        put(text(EDGE[0] - 8.0, at + 4.0, "end", "12", &label(power)));
    }
    put(text((EDGE[0] + right) / 2.0, HEIGHT - 12.0, "middle", "12", x_name));
    put(format!(
        "<text x=\"18\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {:.1})\">\
         {y_name}</text>",
        (EDGE[1] + bottom) / 2.0,
        (EDGE[1] + bottom) / 2.0
    ));
    for (n, series) in series.iter().enumerate() {
        let colour = COLOURS[series.colour % COLOURS.len()];
        let at = EDGE[1] + 12.0 + 20.0 * n as f64;
        let points = series.points.iter().map(|(a, b)| (x(*a), y(*b)));
        if series.dots {
            let all = points.chain([(right + 22.0, at)]);
            for (a, b) in all {
                put(format!("<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"4\" fill=\"{colour}\"/>"));
            }
        } else {
            let path: Vec<_> = points.map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
            let (from, to) = (right + 12.0, right + 32.0);
            for path in [path.join(" "), format!("{from:.1},{at:.1} {to:.1},{at:.1}")] {
                put(format!(
                    "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" \
                     stroke-width=\"2\"/>"
                ));
            }
        }
        put(text(right + 40.0, at + 4.0, "start", "12", &series.name));
    }
    svg + "</svg>\n"
}

/// The whole decades around all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let ends = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(value.log10()), most.max(value.log10()))
    });
    let (least, most) = (ends.0.floor(), ends.1.ceil());
    (least, if most > least { most } else { least + 1.0 })
}

fn steps((least, most): (f64, f64)) -> impl Iterator<Item = f64> {
    (least as i32..=most as i32).map(f64::from)
}

/// A power of ten in words.
fn label(power: f64) -> String {
    match power as i32 {
        power @ 9.. => format!("{}G", 10_u64.pow(power as u32 - 9)),
        power @ 6.. => format!("{}M", 10_u64.pow(power as u32 - 6)),
        power @ 3.. => format!("{}k", 10_u64.pow(power as u32 - 3)),
        power @ 0.. => 10_u64.pow(power as u32).to_string(),
        power => format!("{:.*}", -power as usize, 10_f64.powi(power)),
    }
}

fn text(x: f64, y: f64, anchor: &str, size: &str, words: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">\
         {words}</text>"
    )
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>"
    )
}
