use super::escape;
use crate::report::data::LinearFact;
use crate::table::bytes;
use std::fmt::Write;

const CELL: f64 = 15.0;
const ROWS_LABEL: f64 = 76.0;

/// Layers from left to right, their linears from top to bottom, colored by the bits of their weights.
pub fn precision_map(pattern: &str, linears: &[LinearFact]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for linear in linears.iter().filter(|linear| linear.layer.is_some()) {
        let name = short(&linear.name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let layers = pattern.chars().count();
    let width = ROWS_LABEL + CELL * layers as f64 + 4.0;
    let height = CELL * (names.len() as f64 + 2.0) + 4.0;
    let mut svg = format!(r#"<svg class="map" width="{width}" height="{height}" role="img">"#);
    for (row, name) in names.iter().enumerate() {
        let y = CELL * row as f64 + 11.5;
        let _ = write!(
            svg,
            r#"<text class="tick" x="{}" y="{y}" text-anchor="end">{}</text>"#,
            ROWS_LABEL - 6.0,
            escape(name)
        );
    }
    for linear in linears {
        let (Some(layer), name) = (linear.layer, short(&linear.name)) else { continue };
        let Some(row) = names.iter().position(|other| *other == name) else { continue };
        let _ = write!(
            svg,
            r#"<rect class="bits{}" x="{}" y="{}" width="{}" height="{}" rx="2"><title>{}: {}-bit weights, {}-bit activations, {}</title></rect>"#,
            linear.bits,
            ROWS_LABEL + CELL * layer as f64,
            CELL * row as f64,
            CELL - 2.0,
            CELL - 2.0,
            escape(&linear.name),
            linear.bits,
            linear.activation_bits,
            bytes(linear.bytes)
        );
    }
    for (layer, letter) in pattern.chars().enumerate() {
        let x = ROWS_LABEL + CELL * layer as f64 + CELL / 2.0 - 1.0;
        let y = CELL * (names.len() as f64 + 1.0);
        let _ = write!(
            svg,
            r#"<text class="tick" x="{x}" y="{y}" text-anchor="middle">{}</text>"#,
            escape(&letter.to_string())
        );
        if layer % 10 == 0 {
            let _ = write!(svg, r#"<text class="tick" x="{x}" y="{}" text-anchor="middle">{layer}</text>"#, y + CELL);
        }
    }
    svg + "</svg>"
}

/// `layers.3.mixer.in_proj.z` is `in_proj.z`.
fn short(name: &str) -> &str {
    let rest = name.split_once("layers.").and_then(|(_, rest)| rest.split_once('.')).map_or(name, |(_, rest)| rest);
    rest.strip_prefix("mixer.").unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_linear_of_a_layer_has_a_cell_in_the_color_of_its_bits() {
        let linear =
            |layer, name: &str, bits| LinearFact { layer, name: name.to_owned(), bits, activation_bits: 8, bytes: 10 };
        let linears = [
            linear(Some(0), "layers.0.mixer.in_proj", 4),
            linear(Some(1), "layers.1.mixer.up_proj", 8),
            linear(None, "lm_head", 8),
        ];
        let svg = precision_map("M-", &linears);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("bits4") && svg.contains("bits8") && svg.contains(">in_proj<"), "{svg}");
    }
}
