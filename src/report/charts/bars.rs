use super::escape;
use crate::table::bytes;
use runtime::memory::{Footprint, Use};
use std::fmt::Write;

const WIDTH: f64 = 520.0;
const LABEL: f64 = 62.0;
const VALUE: f64 = 84.0;
const ROW: f64 = 26.0;

/// Contexts that the memory plot shows.
const CONTEXTS: [(u64, &str); 6] =
    [(1 << 10, "1k"), (8 << 10, "8k"), (32 << 10, "32k"), (128 << 10, "128k"), (512 << 10, "512k"), (1 << 20, "1M")];

/// How memory divides into weights, keys and values, states and buffers as the context grows, for one sequence.
pub fn memory_split(footprint: &Footprint) -> String {
    let height = ROW * CONTEXTS.len() as f64;
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img">"#);
    for (row, (context, label)) in CONTEXTS.iter().enumerate() {
        let needs = footprint.needs(Use { context: *context, batch: 1, step_rows: 512 });
        let y = row as f64 * ROW;
        let _ = write!(
            svg,
            r#"<text class="tick" x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
            LABEL - 8.0,
            y + 17.0
        );
        let parts = [
            ("weights", needs.weights),
            ("keys and values", needs.kv),
            ("states", needs.states),
            ("buffers", needs.buffers),
        ];
        let mut x = LABEL;
        for (color, (name, part)) in parts.iter().enumerate() {
            let share = *part as f64 / needs.total().max(1) as f64;
            let width = share * (WIDTH - LABEL - VALUE);
            let _ = write!(
                svg,
                r#"<rect class="c{color} fill" x="{x:.1}" y="{:.1}" width="{width:.1}" height="{}"><title>{name}: {} ({:.0} %)</title></rect>"#,
                y + 4.0,
                ROW - 7.0,
                bytes(*part),
                100.0 * share
            );
            x += width;
        }
        let _ = write!(
            svg,
            r#"<text class="tick" x="{}" y="{:.1}">{}</text>"#,
            WIDTH - VALUE + 8.0,
            y + 17.0,
            bytes(needs.total())
        );
    }
    svg + "</svg>"
}

/// One bar a row, on a common scale: name, color, value, text.
pub fn speeds(rows: &[(String, usize, f64, String)]) -> String {
    const NAME: f64 = 190.0;
    let height = ROW * rows.len() as f64;
    let most = rows.iter().map(|row| row.2).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img">"#);
    for (row, (name, color, value, text)) in rows.iter().enumerate() {
        let y = row as f64 * ROW;
        let width = (value / most * (WIDTH - NAME - VALUE)).max(1.0);
        let _ = write!(
            svg,
            r#"<text class="tick" x="{}" y="{:.1}" text-anchor="end">{}</text><rect class="c{} fill" x="{NAME}" y="{:.1}" width="{width:.1}" height="{}"/><text class="tick" x="{:.1}" y="{:.1}">{}</text>"#,
            NAME - 8.0,
            y + 17.0,
            escape(name),
            color % 8,
            y + 4.0,
            ROW - 7.0,
            NAME + width + 6.0,
            y + 17.0,
            escape(text)
        );
    }
    svg + "</svg>"
}
