//! Launches and buffers before memory is assigned.

use crate::cost::{Cost, padded};
use ir::melior::ir::Value;
use ir::types::{Act, Granularity, Storage};
use serde_json::Value as Json;

/// Index of a [`VirtualBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualId(pub usize);

/// Which rows a buffer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One a token.
    Token,
    /// One a token whose logits were asked for.
    Output,
}

impl Rows {
    /// The word for it in buffer types.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rows::Token => "token",
            Rows::Output => "output",
        }
    }
}

/// What a buffer must have in common with another to share its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Elements a row.
    pub cols: usize,
    /// Element type.
    pub storage: Storage,
    /// What a row is.
    pub rows: Rows,
}

/// Memory of one value, or of several that are updated in place.
#[derive(Clone, Debug)]
pub struct VirtualBuffer {
    /// The value that is first stored here.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
}

/// Where a value is.
#[derive(Clone, Debug)]
pub enum Place {
    /// f32 rows.
    Float(VirtualId),
    /// 8-bit rows with a scale each.
    Quantized { data: VirtualId, scale: VirtualId },
    /// i32 sums, and the scales that make floats of them.
    Accumulator { sums: VirtualId, x_scale: VirtualId, weight_scale: String },
}

/// An operand of a launch.
#[derive(Clone, Copy)]
pub enum Argument<'c, 'm> {
    /// Memory of the step.
    Buffer(VirtualId),
    /// A weight, parameter or state of the old graph.
    Value(Value<'c, 'm>),
}

/// A launch of the plan to be.
pub struct Draft<'c, 'm> {
    /// Tag of the kernel.
    pub kernel: &'static str,
    /// Its arguments but for buffers and states.
    pub parameters: Json,
    /// Its operands, each with its path in the arguments.
    pub arguments: Vec<(String, Argument<'c, 'm>)>,
    /// The layer or linears it comes from.
    pub origin: String,
    /// What it costs.
    pub cost: Cost,
}

impl<'c, 'm> Draft<'c, 'm> {
    /// A launch without operands.
    pub fn new(kernel: &'static str, parameters: Json, origin: String, cost: Cost) -> Self {
        Draft { kernel, parameters, arguments: Vec::new(), origin, cost }
    }

    /// Adds a buffer operand.
    pub fn buffer(mut self, role: impl Into<String>, id: VirtualId) -> Self {
        self.arguments.push((role.into(), Argument::Buffer(id)));
        self
    }

    /// Adds a weight, parameter or state operand.
    pub fn value(mut self, role: impl Into<String>, value: Value<'c, 'm>) -> Self {
        self.arguments.push((role.into(), Argument::Value(value)));
        self
    }

    /// Adds a parameter if there is one.
    pub fn optional(self, role: &str, value: Option<Value<'c, 'm>>) -> Self {
        match value {
            Some(value) => self.value(role, value),
            None => self,
        }
    }

    /// Adds the buffers of an activation under `role`.
    pub fn activation(self, role: &str, place: &Place) -> Self {
        match *place {
            Place::Float(data) => self.buffer(format!("{role}/data"), data),
            Place::Quantized { data, scale } => {
                self.buffer(format!("{role}/data"), data).buffer(format!("{role}/scale"), scale)
            }
            Place::Accumulator { .. } => unreachable!("bug: accumulators are no activation of a kernel"),
        }
    }
}

/// All buffers of a step, unlimited.
#[derive(Default)]
pub struct Buffers(pub Vec<VirtualBuffer>);

impl Buffers {
    /// A new buffer.
    pub fn add(&mut self, name: &str, cols: usize, storage: Storage, rows: Rows) -> VirtualId {
        self.0.push(VirtualBuffer { name: name.to_owned(), shape: Shape { cols, storage, rows } });
        VirtualId(self.0.len() - 1)
    }

    /// Memory for an activation, `None` for accumulators, which only a linear writes.
    pub fn activation(&mut self, name: &str, act: &Act, rows: Rows) -> Option<Place> {
        match (act.storage, act.granularity) {
            (Storage::F32, Granularity::None) => Some(Place::Float(self.add(name, act.cols, Storage::F32, rows))),
            (Storage::I8 | Storage::U8, Granularity::Token) => Some(Place::Quantized {
                data: self.add(name, padded(act.cols), act.storage, rows),
                scale: self.add(&format!("{name}.scale"), 1, Storage::F32, rows),
            }),
            _ => None,
        }
    }

    /// The rows of a place.
    pub fn rows(&self, place: &Place) -> Rows {
        let (Place::Float(id) | Place::Quantized { data: id, .. } | Place::Accumulator { sums: id, .. }) = place;
        self.0[id.0].shape.rows
    }
}
