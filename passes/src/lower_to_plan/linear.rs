//! Linears and embeddings: segments, storage formats and epilogues.

use super::draft::{Draft, Place, Rows};
use super::kernels::Lowering;
use super::refuse;
use crate::cost::{self, Cost};
use crate::names;
use ir::melior::ir::Value;
use ir::module::type_of;
use ir::ops::views;
use ir::pass::PassFailure;
use ir::types::{Act, Granularity, NemoType, Storage, Weight};
use serde_json::{Value as Json, json};

/// The activation type of a value.
pub fn act(value: Value<'_, '_>) -> Act {
    match type_of(value) {
        NemoType::Act(act) => act,
        other => panic!("bug: {other} is no activation"),
    }
}

fn weight(value: Value<'_, '_>) -> Weight {
    match type_of(value) {
        NemoType::Weight(weight) => weight,
        other => panic!("bug: {other} is no weight"),
    }
}

/// How a weight is stored, as the plan says it.
fn format(name: &str, weight: &Weight) -> Result<Json, PassFailure> {
    match (weight.storage, weight.granularity) {
        (Storage::F32 | Storage::F16 | Storage::Bf16, Granularity::None) => {
            Ok(json!({"kind": "float", "dtype": weight.storage.to_string()}))
        }
        (Storage::I8, Granularity::Channel) => Ok(json!({"kind": "w8"})),
        (Storage::I4, Granularity::TwoLevel(group)) => Ok(json!({"kind": "w4_two_level", "group_size": group})),
        (Storage::I4, Granularity::Group(group)) => Ok(json!({"kind": "w4_group", "group_size": group})),
        (storage, granularity) => Err(refuse(
            format!("the weight of {name} is {storage} with a scale per {granularity}, which no kernel reads"),
            "use i8 \"channel\", i4 \"two_level_N\", i4 \"group_N\" or a float type",
        )),
    }
}

/// One weight of a launch.
struct Segment<'c, 'm> {
    name: String,
    weight: Value<'c, 'm>,
    out: super::draft::VirtualId,
    parameters: Json,
    cost: Cost,
}

impl<'c, 'm> Lowering<'_, 'c, 'm> {
    /// Linears of one input, none with a residual.
    pub(super) fn linears(&mut self, linears: &[views::Linear<'c, 'm>]) -> Result<(), PassFailure> {
        let x = self.place(linears[0].x());
        let rows = self.buffers.rows(&x);
        let mut segments = Vec::new();
        for linear in linears {
            segments.push(self.segment(linear, &x, rows)?);
        }
        self.push_linear(linears[0], &x, segments);
        Ok(())
    }

    /// A linear that is added to a residual.
    pub(super) fn accumulating(
        &mut self,
        linear: views::Linear<'c, 'm>,
        residual: Value<'c, 'm>,
    ) -> Result<(), PassFailure> {
        let name = linear.name();
        if linear.epilogue().is_some() {
            return Err(refuse(
                format!("{name} has both an epilogue and a residual, which no kernel computes"),
                "apply the epilogue or the residual with an op of its own",
            ));
        }
        let x = self.place(linear.x());
        let out = self.updated_in_place(residual, &name)?;
        let (y, weight) = (act(linear.y()), weight(linear.weight()));
        let segment = Segment {
            parameters: segment_json(&name, &weight, "accumulate")?,
            name,
            weight: linear.weight(),
            out,
            cost: cost::linear_segment(&weight, &y, true),
        };
        self.set_place(linear.y(), Place::Float(out));
        self.push_linear(linear, &x, vec![segment]);
        Ok(())
    }

    fn segment(
        &mut self,
        linear: &views::Linear<'c, 'm>,
        x: &Place,
        rows: Rows,
    ) -> Result<Segment<'c, 'm>, PassFailure> {
        let name = linear.name();
        let (y, weight) = (act(linear.y()), weight(linear.weight()));
        let out = self.buffers.add(&name, y.cols, y.storage, rows);
        let epilogue = match (y.storage, linear.epilogue().as_deref(), x) {
            (Storage::F32, None, _) => "store",
            (Storage::F32, Some("relu2"), _) => "relu2",
            (Storage::I32, None, Place::Quantized { .. }) => "accumulator",
            (storage, epilogue, _) => {
                return Err(refuse(
                    format!("{name} gives {storage} with epilogue {epilogue:?}, which no kernel computes"),
                    "a linear gives f32, with epilogue \"relu2\" or none, or i32 sums of 8-bit inputs",
                ));
            }
        };
        let place = match (epilogue, x) {
            ("accumulator", Place::Quantized { scale, .. }) => {
                Place::Accumulator { sums: out, x_scale: *scale, weight_scale: format!("{name}.scale") }
            }
            _ => Place::Float(out),
        };
        self.set_place(linear.y(), place);
        let parameters = segment_json(&name, &weight, epilogue)?;
        let cost = cost::linear_segment(&weight, &y, false);
        Ok(Segment { name, weight: linear.weight(), out, parameters, cost })
    }

    fn push_linear(&mut self, first: views::Linear<'c, 'm>, x: &Place, segments: Vec<Segment<'c, 'm>>) {
        let input = act(first.x());
        let cost = cost::linear_input(&input) + segments.iter().map(|segment| segment.cost).sum();
        let origin: Vec<_> = segments.iter().map(|segment| segment.name.clone()).collect();
        let parameters = json!({
            "x": {"format": activation_format(x)},
            "in_features": input.cols,
            "segments": segments.iter().map(|segment| &segment.parameters).collect::<Vec<_>>(),
        });
        let mut draft = Draft::new("linear", parameters, names::group(&origin), cost).activation("x", x);
        for (index, segment) in segments.iter().enumerate() {
            draft = draft
                .value(format!("segments/{index}/weight"), segment.weight)
                .buffer(format!("segments/{index}/out"), segment.out);
        }
        self.drafts.push(draft);
    }

    /// The embedding.
    pub(super) fn embed(&mut self, op: views::Embed<'c, 'm>) -> Result<(), PassFailure> {
        let (name, y, table) = (op.name(), act(op.y()), weight(op.table()));
        let parameters = json!({"table": {
            "weight": name,
            "format": format(&name, &table)?,
            "vocab_size": table.rows,
            "hidden_size": table.cols,
        }});
        let out = self.buffers.add(&name, y.cols, Storage::F32, Rows::Token);
        let cost = cost::embed(&table, &y);
        self.drafts
            .push(Draft::new("embed", parameters, name, cost).value("table/weight", op.table()).buffer("out", out));
        self.set_place(op.y(), Place::Float(out));
        Ok(())
    }
}

/// The word for the format of an activation in memory.
pub fn activation_format(place: &Place) -> &'static str {
    match place {
        Place::Quantized { .. } => "quantized",
        _ => "float",
    }
}

fn segment_json(name: &str, weight: &Weight, epilogue: &str) -> Result<Json, PassFailure> {
    Ok(json!({
        "weight": name,
        "format": format(name, weight)?,
        "out_features": weight.rows,
        "epilogue": {"kind": epilogue},
    }))
}
