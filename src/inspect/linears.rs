//! The linears of an artifact, and the embedding: shape, storage, arithmetic.

use crate::table::{bytes, ranges, table};
use runtime::artifact::Artifact;
use runtime::plan::{Activation, Kernel, Plan, WeightFormat};
use serde::Serialize;

/// One stored matrix.
#[derive(Serialize)]
pub struct Linear {
    /// Base name of its tensors.
    name: String,
    out_features: usize,
    in_features: usize,
    storage: String,
    arithmetic: String,
    /// Of all its tensors.
    pub bytes: u64,
}

/// Every matrix that a launch multiplies with or looks rows up in, in order.
pub fn of(artifact: &Artifact) -> Vec<Linear> {
    let plan = artifact.plan();
    let mut all = Vec::new();
    for launch in &plan.launches {
        match &launch.kernel {
            Kernel::Embed { table, .. } => all.push(Linear {
                name: table.weight.clone(),
                out_features: table.vocab_size,
                in_features: table.hidden_size,
                storage: storage(table.format),
                arithmetic: "row lookup, f32".to_owned(),
                bytes: stored_bytes(artifact, &table.weight),
            }),
            Kernel::Linear { x, in_features, segments } => all.extend(segments.iter().map(|segment| Linear {
                name: segment.weight.clone(),
                out_features: segment.out_features,
                in_features: *in_features,
                storage: storage(segment.format),
                arithmetic: arithmetic(plan, *x, segment.format),
                bytes: stored_bytes(artifact, &segment.weight),
            })),
            _ => {}
        }
    }
    all
}

fn stored_bytes(artifact: &Artifact, base: &str) -> u64 {
    use runtime::tensors::TensorStore;
    [".weight", ".scale", ".group_scale"]
        .iter()
        .filter_map(|suffix| artifact.tensor(&format!("{base}{suffix}")))
        .map(|view| view.bytes.len() as u64)
        .sum()
}

fn storage(format: WeightFormat) -> String {
    match format {
        WeightFormat::Float { dtype } => dtype.to_string(),
        WeightFormat::W8 => "8 bit, scale per row".to_owned(),
        WeightFormat::W4TwoLevel { group_size } => format!("4 bit, two-level, groups of {group_size}"),
        WeightFormat::W4Group { group_size } => format!("4 bit, f16 groups of {group_size}"),
    }
}

fn arithmetic(plan: &Plan, x: Activation, format: WeightFormat) -> String {
    match x {
        Activation::Float { .. } => "f32 x f32 -> f32".to_owned(),
        Activation::Quantized { data, .. } => {
            let weights = if format == WeightFormat::W8 { "i8" } else { "i4" };
            format!("{} x {weights} -> i32", plan.buffer(data).dtype)
        }
    }
}

/// Linears of several layers that differ in nothing but the layer share a row.
struct Row<'a> {
    pattern: String,
    first: &'a Linear,
    layers: Vec<usize>,
    bytes: u64,
}

/// A table with one row per kind of linear.
pub fn draw(linears: &[Linear]) -> String {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for linear in linears {
        let (pattern, layer) = split_layer(&linear.name);
        let same = rows.iter_mut().find(|row| {
            row.pattern == pattern
                && row.first.out_features == linear.out_features
                && row.first.storage == linear.storage
                && row.first.arithmetic == linear.arithmetic
        });
        match same {
            Some(row) => {
                row.layers.extend(layer);
                row.bytes += linear.bytes;
            }
            None => rows.push(Row { pattern, first: linear, layers: layer.into_iter().collect(), bytes: linear.bytes }),
        }
    }
    let mut drawn = table(&["linear", "layers", "shape>", "weights", "arithmetic", "bytes>"]);
    for row in rows {
        let shape = format!("{} x {}", row.first.out_features, row.first.in_features);
        drawn.add_row([
            row.pattern,
            ranges(&row.layers),
            shape,
            row.first.storage.clone(),
            row.first.arithmetic.clone(),
            bytes(row.bytes),
        ]);
    }
    drawn.to_string()
}

/// `layers.5.mixer.up_proj` is `mixer.up_proj` of layer 5.
fn split_layer(name: &str) -> (String, Option<usize>) {
    let split = name.strip_prefix("layers.").and_then(|rest| {
        let (layer, rest) = rest.split_once('.')?;
        Some((rest.to_owned(), layer.parse().ok()?))
    });
    match split {
        Some((rest, layer)) => (rest, Some(layer)),
        None => (name.to_owned(), None),
    }
}
