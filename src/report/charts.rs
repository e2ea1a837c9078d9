//! Plots as SVG text. Colors are classes, so that the page decides what they are in light and in dark.

mod axes;
mod bars;
mod frontier;
mod map;

pub use bars::{memory_split, speeds};
pub use frontier::frontier;
pub use map::precision_map;

pub use axes::escape;

use axes::{Frame, Scale};
use std::fmt::Write;

/// A model in a scatter plot.
pub struct Point {
    pub label: String,
    pub x: f64,
    pub y: f64,
    pub error: Option<f64>,
}

impl Point {
    fn low(&self) -> f64 {
        self.y - self.error.unwrap_or(0.0)
    }

    fn high(&self) -> f64 {
        self.y + self.error.unwrap_or(0.0)
    }
}

/// What a plot's axes mean and how their numbers are written.
pub struct Axes<'a> {
    pub x: &'a str,
    pub y: &'a str,
    pub show_x: fn(f64) -> String,
    pub show_y: fn(f64) -> String,
}

/// Points with error bars; a line joins those that no other beats in both directions (small x, large y).
pub fn pareto(points: &[Point], axes: &Axes<'_>) -> String {
    let frame = Frame::new(
        Scale::padded(points.iter().map(|point| point.x), true),
        Scale::padded(points.iter().flat_map(|point| [point.low(), point.high()]), false),
    );
    let mut svg = frame.open(axes);
    let _ = write!(svg, r#"<polyline class="front" points="{}"/>"#, frame.line(&front(points)));
    for (index, point) in points.iter().enumerate() {
        mark(&mut svg, &frame, axes, index, point);
    }
    svg + "</svg>"
}

/// Draws a point, its label and its error.
fn mark(svg: &mut String, frame: &Frame, axes: &Axes<'_>, index: usize, point: &Point) {
    let (x, y) = frame.at(point.x, point.y);
    let color = index % 8;
    let label = escape(&point.label);
    let hint = format!("{label}: {} at {}", (axes.show_y)(point.y), (axes.show_x)(point.x));
    let _ = write!(svg, r#"<g class="c{color}"><title>{hint}</title>"#);
    if point.error.is_some() {
        let (_, top) = frame.at(point.x, point.high());
        let (_, bottom) = frame.at(point.x, point.low());
        let _ = write!(svg, r#"<line class="error" x1="{x:.1}" y1="{top:.1}" x2="{x:.1}" y2="{bottom:.1}"/>"#);
    }
    let right = x > frame.middle();
    let (anchor, shift) = if right { ("end", -9.0) } else { ("start", 9.0) };
    let _ = write!(
        svg,
        r#"<circle cx="{x:.1}" cy="{y:.1}" r="5"/><text x="{:.1}" y="{:.1}" text-anchor="{anchor}">{label}</text></g>"#,
        x + shift,
        y - 8.0,
    );
}

/// The points that no other beats.
fn front(points: &[Point]) -> Vec<(f64, f64)> {
    let beaten = |point: &Point| {
        points.iter().any(|other| other.x <= point.x && other.y >= point.y && (other.x < point.x || other.y > point.y))
    };
    let mut front: Vec<(f64, f64)> =
        points.iter().filter(|point| !beaten(point)).map(|point| (point.x, point.y)).collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    front
}

/// A line for each series over 0, 1, 2, ...
pub fn lines(series: &[(usize, String, &[f64])], axes: &Axes<'_>) -> String {
    let longest = series.iter().map(|(_, _, values)| values.len()).max().unwrap_or(0);
    let values = series.iter().flat_map(|(_, _, values)| values.iter().copied());
    let frame = Frame::new(
        Scale { min: 0.0, max: longest.saturating_sub(1).max(1) as f64 },
        Scale::padded(values.chain([0.0]), true),
    );
    let mut svg = frame.open(axes);
    for (color, label, values) in series {
        let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
        let _ = write!(
            svg,
            r#"<g class="c{}"><title>{}</title><polyline class="series" points="{}"/></g>"#,
            color % 8,
            escape(label),
            frame.line(&points)
        );
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: f64, y: f64) -> Point {
        Point { label: "a<b".to_owned(), x, y, error: Some(0.1) }
    }

    #[test]
    fn the_front_holds_what_no_other_point_beats() {
        let points = [point(1.0, 1.0), point(2.0, 3.0), point(3.0, 2.0), point(2.0, 2.0)];
        assert_eq!(front(&points), [(1.0, 1.0), (2.0, 3.0)]);
    }

    #[test]
    fn names_of_models_are_escaped() {
        let axes = Axes { x: "x", y: "y", show_x: |x| x.to_string(), show_y: |y| y.to_string() };
        let svg = pareto(&[point(1.0, 1.0)], &axes);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }
}
