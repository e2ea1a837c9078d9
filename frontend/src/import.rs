//! From a checkpoint to the phase-0 graph: every op of the model, weights as symbolic names, nothing read.

use crate::checkpoint::Checkpoint;
use crate::config::{Config, LayerKind};
use ir::IrError;
use ir::melior::{
    Context,
    ir::{BlockLike, Location, Module, Value},
};
use ir::module::{finish, forward, set_string, start};
use ir::ops::{Builder, build};
use ir::stage::Stage;
use ir::types::{Act, Granularity, NemoType, PLAIN, StateType, Storage, Vector, Weight};
use serde_json::json;

/// The module attribute that carries what a user of the model needs to know, as JSON.
pub const MODEL_ATTRIBUTE: &str = "nemo.model";

/// Builds the graph of a checkpoint, or of a configuration alone.
///
/// Names of linears and states are canonical (`layers.0.mixer.in_proj.z`), the same for every naming scheme; locations and
/// `nemo.weight` ops carry the names in the file.
///
/// # Errors
/// When MLIR refuses an op, which is a bug.
pub fn import<'c>(context: &'c Context, checkpoint: &Checkpoint) -> Result<Module<'c>, IrError> {
    let config = checkpoint.config();
    let logits = act(config.vocab_size);
    let mut module = start(context, &logits);
    {
        let block = forward(&module)?;
        let graph = Graph { checkpoint, config, b: Builder::new(context, block) };
        let tokens = block.argument(0).map_err(|_| IrError::NoForward)?.into();
        let mut x = graph.embed(tokens)?;
        for (layer, kind) in config.layers.iter().enumerate() {
            x = graph.layer(layer, *kind, x)?;
        }
        finish(&graph.b, graph.head(x)?);
    }
    set_string(context, &mut module, MODEL_ATTRIBUTE, &model_info(checkpoint).to_string());
    Stage::Imported.set(context, &mut module);
    Ok(module)
}

fn model_info(checkpoint: &Checkpoint) -> serde_json::Value {
    let config = checkpoint.config();
    json!({
        "name": config.name,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "layer_pattern": config.pattern(),
        "max_position_embeddings": config.max_position_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_ids": config.eos_token_ids,
        "parameters": checkpoint.parameters(),
        "phase": "0",
    })
}

fn act(cols: usize) -> NemoType {
    NemoType::Act(Act::f32(cols))
}

/// The double with the shortest decimal form of `x`: 1e-5 stays 1e-5 in printed IR.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// The graph under construction.
struct Graph<'a, 'c, 'b> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    b: Builder<'c, 'b>,
}

impl<'c: 'b, 'b> Graph<'_, 'c, 'b> {
    fn embed(&self, tokens: Value<'c, 'b>) -> Result<Value<'c, 'b>, IrError> {
        let (table, at) = self.parameter("embeddings.weight")?;
        let y = act(self.config.hidden_size);
        Ok(self.b.push(build::Embed { tokens, table, name: "embeddings".into(), precision: None, y }, at)?.y())
    }

    /// The final norm and the logits. A tied model uses the embedding table as its head.
    fn head(&self, x: Value<'c, 'b>) -> Result<Value<'c, 'b>, IrError> {
        let x = self.norm("norm_f.weight", x)?;
        let tensor = if self.checkpoint.has_head() { "lm_head.weight" } else { "embeddings.weight" };
        let (weight, at) = self.parameter(tensor)?;
        let x = self.b.push(build::SelectOutputs { x, y: act(self.config.hidden_size) }, at)?.y();
        self.linear(x, weight, self.config.vocab_size, "lm_head".into(), at)
    }

    /// Norm, mixer and residual add.
    fn layer(&self, layer: usize, kind: LayerKind, x: Value<'c, 'b>) -> Result<Value<'c, 'b>, IrError> {
        let normed = self.norm(&format!("layers.{layer}.norm.weight"), x)?;
        let mixed = match kind {
            LayerKind::Mamba => self.mamba(layer, normed)?,
            LayerKind::Mlp => self.mlp(layer, normed)?,
            LayerKind::Attention => self.attention(layer, normed)?,
        };
        let at = self.b.location(&format!("layers.{layer}"));
        Ok(self.b.push(build::Add { a: x, b: mixed, y: act(self.config.hidden_size) }, at)?.y())
    }

    fn mamba(&self, layer: usize, x: Value<'c, 'b>) -> Result<Value<'c, 'b>, IrError> {
        let shape = &self.config.mamba;
        let (d_inner, channels) = (shape.d_inner(), shape.conv_channels());
        let name = format!("layers.{layer}.mixer");
        let (in_proj, at) = self.parameter(&format!("{name}.in_proj.weight"))?;
        let part = |part: &str, start, count| self.rows(x, in_proj, start, count, format!("{name}.in_proj.{part}"), at);
        let z = part("z", 0, d_inner)?;
        let xbc = part("xbc", d_inner, channels)?;
        let dt = part("dt", d_inner + channels, shape.heads)?;

        let (weight, at) = self.parameter(&format!("{name}.conv1d.weight"))?;
        let bias = if shape.conv_bias { Some(self.parameter(&format!("{name}.conv1d.bias"))?.0) } else { None };
        let conv_state = self.state(layer, "conv", channels * (shape.conv_kernel - 1), at)?;
        let conv = build::Conv1d {
            x: xbc,
            weight,
            bias,
            state: conv_state.1,
            name: name.clone(),
            y: act(channels),
            new_state: conv_state.2.clone(),
        };
        let conv = self.b.push(conv, at)?;
        self.update(conv_state.0, conv.new_state(), at)?;

        let (a_log, at) = self.parameter(&format!("{name}.A_log"))?;
        let state = self.state(layer, "ssm", d_inner * shape.state_size, at)?;
        let scan = build::SsmScan {
            xbc: conv.y(),
            dt,
            a_log,
            d: self.parameter(&format!("{name}.D"))?.0,
            dt_bias: self.parameter(&format!("{name}.dt_bias"))?.0,
            state: state.1,
            name: name.clone(),
            heads: shape.heads as i64,
            head_dim: shape.head_dim as i64,
            groups: shape.groups as i64,
            state_size: shape.state_size as i64,
            dt_min: decimal(shape.dt_min),
            dt_max: shape.dt_max.map(decimal),
            y: act(d_inner),
            new_state: state.2.clone(),
        };
        let scan = self.b.push(scan, at)?;
        self.update(state.0, scan.new_state(), at)?;

        let (weight, at) = self.parameter(&format!("{name}.norm.weight"))?;
        let gated = build::GatedRmsNorm {
            x: scan.y(),
            z,
            weight: Some(weight),
            eps: decimal(self.config.norm_eps),
            group_size: (d_inner / shape.groups) as i64,
            hadamard_block: None,
            y: act(d_inner),
        };
        let gated = self.b.push(gated, at)?.y();
        self.project(gated, &format!("{name}.out_proj"), self.config.hidden_size)
    }

    fn mlp(&self, layer: usize, x: Value<'c, 'b>) -> Result<Value<'c, 'b>, IrError> {
        let name = format!("layers.{layer}.mixer");
        let up = self.project(x, &format!("{name}.up_proj"), self.config.intermediate_size)?;
        let y = act(self.config.intermediate_size);
        let activated = self.b.push(build::Relu2 { x: up, y }, self.b.location(&name))?.y();
        self.project(activated, &format!("{name}.down_proj"), self.config.hidden_size)
    }

    fn attention(&self, layer: usize, x: Value<'c, 'b>) -> Result<Value<'c, 'b>, IrError> {
        let shape = &self.config.attention;
        let name = format!("layers.{layer}.mixer");
        let q = self.project(x, &format!("{name}.q_proj"), shape.q_features())?;
        let k = self.project(x, &format!("{name}.k_proj"), shape.kv_features())?;
        let v = self.project(x, &format!("{name}.v_proj"), shape.kv_features())?;
        let at = self.b.location(&name);
        let cache = self.state(layer, "kv", shape.kv_features(), at)?;
        let attention = build::Attention {
            q,
            k,
            v,
            state: cache.1,
            name: name.clone(),
            heads: shape.heads as i64,
            kv_heads: shape.kv_heads as i64,
            head_dim: shape.head_dim as i64,
            scale: 1.0 / (shape.head_dim as f64).sqrt(),
            hadamard_block: None,
            y: act(shape.q_features()),
            new_state: cache.2.clone(),
        };
        let attention = self.b.push(attention, at)?;
        self.update(cache.0, attention.new_state(), at)?;
        self.project(attention.y(), &format!("{name}.o_proj"), self.config.hidden_size)
    }

    fn norm(&self, tensor: &str, x: Value<'c, 'b>) -> Result<Value<'c, 'b>, IrError> {
        let (weight, at) = self.parameter(tensor)?;
        let norm = build::RmsNorm {
            x,
            delta: None,
            weight: Some(weight),
            eps: decimal(self.config.norm_eps),
            hadamard_block: None,
            y: act(self.config.hidden_size),
            sum: None,
        };
        Ok(self.b.push(norm, at)?.y())
    }

    /// A linear over a whole tensor: `name` is its canonical name without `.weight`.
    fn project(&self, x: Value<'c, 'b>, name: &str, features: usize) -> Result<Value<'c, 'b>, IrError> {
        let (weight, at) = self.parameter(&format!("{name}.weight"))?;
        self.linear(x, weight, features, name.to_owned(), at)
    }

    /// A linear over some rows of a tensor.
    fn rows(
        &self,
        x: Value<'c, 'b>,
        base: Value<'c, 'b>,
        start: usize,
        count: usize,
        name: String,
        at: Location<'c>,
    ) -> Result<Value<'c, 'b>, IrError> {
        let NemoType::Weight(whole) = ir::module::type_of(base) else { unreachable!("in_proj is a matrix") };
        let value = NemoType::Weight(Weight { rows: count, ..whole });
        let slice = build::SliceRows { base, start: start as i64, count: count as i64, value };
        let weight = self.b.push(slice, at)?.value();
        self.linear(x, weight, count, name, at)
    }

    fn linear(
        &self,
        x: Value<'c, 'b>,
        weight: Value<'c, 'b>,
        features: usize,
        name: String,
        at: Location<'c>,
    ) -> Result<Value<'c, 'b>, IrError> {
        let linear =
            build::Linear { x, weight, residual: None, name, precision: None, epilogue: None, y: act(features) };
        Ok(self.b.push(linear, at)?.y())
    }

    /// The symbolic value of a tensor by its canonical name, and the location that names it as the file does.
    fn parameter(&self, canonical: &str) -> Result<(Value<'c, 'b>, Location<'c>), IrError> {
        let spec =
            self.checkpoint.tensor(canonical).unwrap_or_else(|| panic!("bug: no tensor {canonical} in the table"));
        let storage = Storage::from(self.checkpoint.dtype(spec));
        let value = match spec.shape.as_slice() {
            [len] => NemoType::Vector(Vector { len: *len, storage }),
            // A convolution is stored as [channels, 1, kernel].
            [rows, cols] | [rows, 1, cols] => NemoType::Weight(Weight {
                rows: *rows,
                cols: *cols,
                storage,
                granularity: Granularity::None,
                basis_in: PLAIN.into(),
                basis_out: PLAIN.into(),
            }),
            other => unreachable!("no tensor of the table has the shape {other:?}"),
        };
        let at = self.b.location(&spec.name);
        Ok((self.b.push(build::Weight { tensor: spec.name.clone(), value }, at)?.value(), at))
    }

    /// A state's name, its value at the start of the step, and its type.
    fn state(
        &self,
        layer: usize,
        kind: &str,
        elements: usize,
        at: Location<'c>,
    ) -> Result<(String, Value<'c, 'b>, NemoType), IrError> {
        let suffix = if kind == "kv" { "kv_cache" } else { &format!("{kind}_state") };
        let name = format!("layers.{layer}.{suffix}");
        let value = NemoType::State(StateType { kind: kind.to_owned(), elements, storage: Storage::F32 });
        let read = self.b.push(build::ReadState { name: name.clone(), value: value.clone() }, at)?;
        Ok((name, read.value(), value))
    }

    fn update(&self, name: String, value: Value<'c, 'b>, at: Location<'c>) -> Result<(), IrError> {
        self.b.push(build::UpdateState { value, name }, at).map(|_| ())
    }
}
