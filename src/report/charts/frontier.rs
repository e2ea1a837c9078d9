use super::axes::{Frame, Scale};
use super::{Axes, Point, mark};
use std::fmt::Write;

/// A curve of what can be reached, and points beside it; both axes are better when small.
pub fn frontier(curve: &[(f64, f64)], points: &[Point], axes: &Axes<'_>) -> String {
    let x = curve.iter().map(|point| point.0).chain(points.iter().map(|point| point.x));
    let y = curve.iter().map(|point| point.1).chain(points.iter().map(|point| point.y));
    let frame = Frame::new(Scale::padded(x, false), Scale::padded(y, true));
    let mut svg = frame.open(axes);
    let _ = write!(svg, r#"<polyline class="front" points="{}"/>"#, frame.line(curve));
    for (index, point) in points.iter().enumerate() {
        mark(&mut svg, &frame, axes, index, point);
    }
    svg + "</svg>"
}
