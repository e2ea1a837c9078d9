use super::Axes;
use std::fmt::Write;

/// The range of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub min: f64,
    pub max: f64,
}

impl Scale {
    /// Holds all values with some room; from zero on, if asked.
    pub fn padded(values: impl Iterator<Item = f64>, from_zero: bool) -> Scale {
        let (min, max) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(value), max.max(value)));
        if min > max {
            return Scale { min: 0.0, max: 1.0 };
        }
        let room = if max > min { (max - min) * 0.12 } else { max.abs().max(1e-9) * 0.1 };
        Scale { min: if from_zero { min.min(0.0) } else { min - room }, max: max + room }
    }
}

/// Round numbers within a range, about `count` of them.
pub fn ticks_of(scale: Scale, count: usize) -> Vec<f64> {
    let rough = (scale.max - scale.min) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (scale.min / step).ceil() as i64;
    (first..).map(|index| index as f64 * step).take_while(|tick| *tick <= scale.max).take(50).collect()
}

/// Escapes text for XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A plot area in an SVG of fixed proportions.
pub struct Frame {
    x: Scale,
    y: Scale,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 44.0;

impl Frame {
    pub fn new(x: Scale, y: Scale) -> Frame {
        Frame { x, y }
    }

    /// Pixels of a point.
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let x = (x - self.x.min) / (self.x.max - self.x.min);
        let y = (y - self.y.min) / (self.y.max - self.y.min);
        (LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM))
    }

    /// Where labels change sides.
    pub fn middle(&self) -> f64 {
        WIDTH * 0.6
    }

    /// The `points` of a polyline.
    pub fn line(&self, points: &[(f64, f64)]) -> String {
        let mut text = String::new();
        for (x, y) in points {
            let (x, y) = self.at(*x, *y);
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        text.trim_end().to_owned()
    }

    /// The start of the SVG: grid, numbers and names of the axes.
    pub fn open(&self, axes: &Axes<'_>) -> String {
        let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#);
        for tick in ticks_of(self.y, 5) {
            let (_, y) = self.at(self.x.min, tick);
            let (x1, x2, text_x) = (LEFT, WIDTH - RIGHT, LEFT - 7.0);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{x1}" y1="{y:.1}" x2="{x2}" y2="{y:.1}"/><text class="tick" x="{text_x}" y="{:.1}" text-anchor="end">{}</text>"#,
                y + 4.0,
                (axes.show_y)(tick)
            );
        }
        for tick in ticks_of(self.x, 6) {
            let (x, y) = self.at(tick, self.y.min);
            let _ = write!(
                svg,
                r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                y + 17.0,
                (axes.show_x)(tick)
            );
        }
        let base = HEIGHT - BOTTOM;
        let _ = write!(
            svg,
            r#"<line class="axis" x1="{LEFT}" y1="{base}" x2="{}" y2="{base}"/><text class="name" x="{}" y="{}" text-anchor="end">{}</text><text class="name" x="4" y="14">{}</text>"#,
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            HEIGHT - 8.0,
            escape(axes.x),
            escape(axes.y)
        );
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = ticks_of(Scale { min: 0.31, max: 0.62 }, 5);
        let expected = [0.4, 0.5, 0.6];
        assert_eq!(ticks.len(), expected.len());
        assert!(ticks.iter().zip(expected).all(|(tick, expected)| (tick - expected).abs() < 1e-12), "{ticks:?}");
    }

    #[test]
    fn a_scale_of_equal_or_of_no_values_has_a_width() {
        for scale in [Scale::padded([3.0].into_iter(), false), Scale::padded([0.0].into_iter(), true)] {
            assert!(scale.max > scale.min, "{scale:?}");
        }
        assert_eq!(Scale::padded([].into_iter(), true), Scale { min: 0.0, max: 1.0 });
    }
}
