//! The arguments and the cost of each kernel.

use super::draft::{Draft, Place, Rows, VirtualId};
use super::kernels::Lowering;
use super::linear::{act, activation_format};
use super::refuse;
use crate::cost::{self, ConvSize, Cost, Emitted, ScanSize};
use crate::names;
use ir::melior::ir::Value;
use ir::module::type_of;
use ir::ops::{Op, views};
use ir::pass::PassFailure;
use ir::types::{NemoType, Storage};
use ir::weights::RotationKind;
use serde_json::{Value as Json, json};

/// A Hadamard block as the plan says it.
pub fn block(attribute: Option<i64>) -> Option<usize> {
    attribute.and_then(|block| usize::try_from(block).ok())
}

fn emit(y: &Place, hadamard_block: Option<usize>) -> Json {
    json!({"hadamard_block": hadamard_block, "to": {"format": activation_format(y)}})
}

impl<'c, 'm> Lowering<'_, 'c, 'm> {
    /// Memory for a result of a kernel that ends in an emit.
    fn emitted(&mut self, y: Value<'c, 'm>, name: &str, rows: Rows) -> Result<Place, PassFailure> {
        let act = act(y);
        let place = self.buffers.activation(name, &act, rows).ok_or_else(|| {
            refuse(
                format!("{name} gives {}, which no kernel emits", NemoType::Act(act)),
                "an activation is f32, or 8 bits with a scale per token",
            )
        })?;
        self.set_place(y, place.clone());
        Ok(place)
    }

    fn float_result(&mut self, y: Value<'c, 'm>, name: &str, rows: Rows) -> VirtualId {
        let out = self.buffers.add(name, act(y).cols, Storage::F32, rows);
        self.set_place(y, Place::Float(out));
        out
    }

    pub(super) fn select_outputs(
        &mut self,
        op: Op<'c, 'm>,
        select: views::SelectOutputs<'c, 'm>,
    ) -> Result<(), PassFailure> {
        let origin = "select_outputs".to_owned();
        let x = self.float(select.x(), &names::canonical(&op))?;
        let out = self.float_result(select.y(), &origin, Rows::Output);
        let cost = cost::copy(&act(select.x()));
        self.drafts.push(Draft::new("select_outputs", json!({}), origin, cost).buffer("x", x).buffer("out", out));
        Ok(())
    }

    pub(super) fn add(&mut self, op: Op<'c, 'm>, add: views::Add<'c, 'm>) -> Result<(), PassFailure> {
        let origin = names::canonical(&op);
        let (mut a, mut b) = (add.a(), add.b());
        // The sum replaces an operand that nothing reads later; addition commutes exactly.
        if !self.schedule.dies_at(a, self.step) {
            std::mem::swap(&mut a, &mut b);
        }
        let (first, second) = (self.float(a, &origin)?, self.float(b, &origin)?);
        let out = if first != second && self.schedule.dies_at(a, self.step) {
            first
        } else {
            let rows = self.rows(first);
            self.buffers.add(&origin, act(add.y()).cols, Storage::F32, rows)
        };
        self.set_place(add.y(), Place::Float(out));
        let cost = cost::add(&act(add.y()));
        let draft = Draft::new("add", json!({}), origin, cost);
        self.drafts.push(draft.buffer("a", first).buffer("b", second).buffer("out", out));
        Ok(())
    }

    pub(super) fn rms_norm(&mut self, op: Op<'c, 'm>, norm: views::RmsNorm<'c, 'm>) -> Result<(), PassFailure> {
        let origin = names::canonical(&op);
        let x = match norm.delta() {
            Some(_) => self.updated_in_place(norm.x(), &origin)?,
            None => self.float(norm.x(), &origin)?,
        };
        let delta = norm.delta().map(|delta| self.float(delta, &origin)).transpose()?;
        let rows = self.rows(x);
        let y = self.emitted(norm.y(), &origin, rows)?;
        if let Some(sum) = norm.sum() {
            self.set_place(sum, Place::Float(x));
        }
        let hadamard = block(norm.hadamard_block());
        let mut parameters = json!({"eps": norm.eps(), "emit": emit(&y, hadamard)});
        name_parameter(&mut parameters, "weight", norm.weight(), format!("{origin}.weight"));
        let (x_act, y_act) = (act(norm.x()), act(norm.y()));
        let emitted = Emitted { y: &y_act, hadamard_block: hadamard };
        let cost = cost::norm(&x_act, delta.is_some(), len(norm.weight()), emitted);
        let mut draft = Draft::new("rms_norm", parameters, origin, cost).buffer("x", x);
        if let Some(delta) = delta {
            draft = draft.buffer("delta", delta);
        }
        self.drafts.push(draft.optional("weight", norm.weight()).activation("emit/to", &y));
        Ok(())
    }

    pub(super) fn gated_rms_norm(
        &mut self,
        op: Op<'c, 'm>,
        norm: views::GatedRmsNorm<'c, 'm>,
    ) -> Result<(), PassFailure> {
        let origin = names::canonical(&op);
        let (x, z) = (self.float(norm.x(), &origin)?, self.float(norm.z(), &origin)?);
        let rows = self.rows(x);
        let y = self.emitted(norm.y(), &origin, rows)?;
        let hadamard = block(norm.hadamard_block());
        let mut parameters = json!({"group_size": norm.group_size(), "eps": norm.eps(), "emit": emit(&y, hadamard)});
        name_parameter(&mut parameters, "weight", norm.weight(), format!("{origin}.weight"));
        let y_act = act(norm.y());
        let emitted = Emitted { y: &y_act, hadamard_block: hadamard };
        let cost = cost::gate(&act(norm.x()), &act(norm.z()), len(norm.weight()), emitted);
        let draft = Draft::new("gated_rms_norm", parameters, origin, cost).buffer("x", x).buffer("z", z);
        self.drafts.push(draft.optional("weight", norm.weight()).activation("emit/to", &y));
        Ok(())
    }

    pub(super) fn conv1d(&mut self, op: Op<'c, 'm>, conv: views::Conv1d<'c, 'm>) -> Result<(), PassFailure> {
        let mixer = conv.name();
        let x = self.float(conv.x(), &names::canonical(&op))?;
        let origin = format!("{mixer}.conv1d");
        let out = self.float_result(conv.y(), &origin, Rows::Token);
        let (weights, size) = conv_weights(&mixer, conv.weight(), conv.bias());
        let cost = cost::conv1d(&act(conv.x()), size);
        let draft = Draft::new("conv1d", json!({"weights": weights}), origin, cost)
            .buffer("x", x)
            .value("weights/weight", conv.weight())
            .optional("weights/bias", conv.bias())
            .value("state", conv.state())
            .buffer("out", out);
        self.drafts.push(draft);
        Ok(())
    }

    pub(super) fn ssm_scan(&mut self, op: Op<'c, 'm>, scan: views::SsmScan<'c, 'm>) -> Result<(), PassFailure> {
        let reader = names::canonical(&op);
        let origin = format!("{}.ssm_scan", scan.name());
        let (xbc, dt) = (self.float(scan.xbc(), &reader)?, self.float(scan.dt(), &reader)?);
        let out = self.float_result(scan.y(), &origin, Rows::Token);
        let parameters = json!({"weights": ssm_weights(&scan.name()), "shape": {
            "heads": scan.heads(), "head_dim": scan.head_dim(), "groups": scan.groups(),
            "state_size": scan.state_size(), "dt_min": scan.dt_min(), "dt_max": scan.dt_max(),
        }});
        let size = scan_size([scan.heads(), scan.head_dim(), scan.state_size()], scan.state());
        let cost = cost::ssm_scan(&act(scan.xbc()), &act(scan.dt()), &act(scan.y()), size);
        let draft = Draft::new("ssm_scan", parameters, origin, cost)
            .buffer("xbc", xbc)
            .buffer("dt", dt)
            .value("weights/a_log", scan.a_log())
            .value("weights/d", scan.d())
            .value("weights/dt_bias", scan.dt_bias())
            .value("state", scan.state())
            .buffer("out", out);
        self.drafts.push(draft);
        Ok(())
    }

    pub(super) fn mixer(&mut self, op: Op<'c, 'm>, mixer: views::Mixer<'c, 'm>) -> Result<(), PassFailure> {
        let (origin, reader) = (mixer.name(), names::canonical(&op));
        let z = self.float(mixer.z(), &reader)?;
        let xbc = self.float(mixer.xbc(), &reader)?;
        let dt = self.float(mixer.dt(), &reader)?;
        let y = self.emitted(mixer.y(), &origin, Rows::Token)?;
        let hadamard = block(mixer.hadamard_block());
        let (conv, conv_size) = conv_weights(&origin, mixer.conv_weight(), mixer.conv_bias());
        let mut parameters = json!({
            "conv": conv,
            "ssm": ssm_weights(&origin),
            "shape": {
                "heads": mixer.heads(), "head_dim": mixer.head_dim(), "groups": mixer.groups(),
                "state_size": mixer.state_size(), "dt_min": mixer.dt_min(), "dt_max": mixer.dt_max(),
            },
            "group_size": mixer.group_size(),
            "eps": mixer.eps(),
            "emit": emit(&y, hadamard),
        });
        name_parameter(&mut parameters, "norm_weight", mixer.norm_weight(), format!("{origin}.norm.weight"));
        let y_act = act(mixer.y());
        let emitted = Emitted { y: &y_act, hadamard_block: hadamard };
        let scan = scan_size([mixer.heads(), mixer.head_dim(), mixer.state_size()], mixer.ssm_state());
        let inputs = (&act(mixer.z()), &act(mixer.xbc()), &act(mixer.dt()));
        let cost = cost::mixer(inputs, conv_size, scan, len(mixer.norm_weight()), emitted);
        let draft = Draft::new("mixer", parameters, origin, cost)
            .buffer("z", z)
            .buffer("xbc", xbc)
            .buffer("dt", dt)
            .value("conv/weight", mixer.conv_weight())
            .optional("conv/bias", mixer.conv_bias())
            .value("ssm/a_log", mixer.a_log())
            .value("ssm/d", mixer.d())
            .value("ssm/dt_bias", mixer.dt_bias())
            .optional("norm_weight", mixer.norm_weight())
            .value("conv_state", mixer.conv_state())
            .value("ssm_state", mixer.ssm_state())
            .activation("emit/to", &y);
        self.drafts.push(draft);
        Ok(())
    }

    pub(super) fn attention(&mut self, op: Op<'c, 'm>, attention: views::Attention<'c, 'm>) -> Result<(), PassFailure> {
        let (origin, reader) = (format!("{}.attention", attention.name()), names::canonical(&op));
        let q = self.float(attention.q(), &reader)?;
        let k = self.float(attention.k(), &reader)?;
        let v = self.float(attention.v(), &reader)?;
        let y = self.emitted(attention.y(), &origin, Rows::Token)?;
        let hadamard = block(attention.hadamard_block());
        let parameters = json!({
            "heads": attention.heads(), "kv_heads": attention.kv_heads(), "head_dim": attention.head_dim(),
            "scale": attention.scale(), "emit": emit(&y, hadamard),
        });
        let appended_bytes = match type_of(attention.state()) {
            NemoType::State(cache) => cost::appended_bytes(&cache, attention.head_dim()),
            _ => 0,
        };
        let y_act = act(attention.y());
        let emitted = Emitted { y: &y_act, hadamard_block: hadamard };
        let (q_act, k_act, v_act) = (act(attention.q()), act(attention.k()), act(attention.v()));
        let cost = cost::attention(&q_act, &k_act, &v_act, appended_bytes, emitted);
        let draft = Draft::new("attention", parameters, origin, cost)
            .buffer("q", q)
            .buffer("k", k)
            .buffer("v", v)
            .value("state", attention.state())
            .activation("emit/to", &y);
        self.drafts.push(draft);
        Ok(())
    }

    pub(super) fn map(
        &mut self,
        op: Op<'c, 'm>,
        x: Value<'c, 'm>,
        y: Value<'c, 'm>,
        relu2: bool,
        hadamard: Option<usize>,
    ) -> Result<(), PassFailure> {
        let origin = names::canonical(&op);
        let source = self.float(x, &origin)?;
        let rows = self.rows(source);
        let place = self.emitted(y, &origin, rows)?;
        let y_act = act(y);
        let cost = cost::map(&act(x), relu2, Emitted { y: &y_act, hadamard_block: hadamard });
        self.push_map(source, relu2, hadamard, &place, origin, cost);
        Ok(())
    }

    pub(super) fn push_map(
        &mut self,
        x: VirtualId,
        relu2: bool,
        hadamard: Option<usize>,
        y: &Place,
        origin: String,
        cost: Cost,
    ) {
        let parameters = json!({"relu2": relu2, "emit": emit(y, hadamard)});
        self.drafts.push(Draft::new("map", parameters, origin, cost).buffer("x", x).activation("emit/to", y));
    }

    pub(super) fn rotate(&mut self, op: Op<'c, 'm>, rotate: views::Rotate<'c, 'm>) -> Result<(), PassFailure> {
        // A Sylvester-Hadamard matrix is its own transpose, so the direction does not matter.
        let runs = |size: &usize| size.is_power_of_two() && rotate.kind() == RotationKind::Hadamard.as_str();
        let size = block(Some(rotate.size())).filter(runs).ok_or_else(|| {
            refuse(
                format!(
                    "the rotation {} ({}, size {}) would have to run online",
                    rotate.basis(),
                    rotate.kind(),
                    rotate.size()
                ),
                "run fold-rotations first; only Hadamard matrices of a power of two run online",
            )
        })?;
        self.map(op, rotate.x(), rotate.y(), false, Some(size))
    }

    pub(super) fn dequantize(
        &mut self,
        op: Op<'c, 'm>,
        dequantize: views::Dequantize<'c, 'm>,
    ) -> Result<(), PassFailure> {
        let origin = names::canonical(&op);
        let Place::Accumulator { sums, x_scale, weight_scale } = self.place(dequantize.x()) else {
            return Err(refuse(
                format!("{origin}: no kernel dequantizes {}", NemoType::Act(act(dequantize.x()))),
                "read the f32 value that was quantized, or run fuse-conversions",
            ));
        };
        let rows = self.rows(sums);
        let out = self.float_result(dequantize.y(), &origin, rows);
        let cost = cost::dequantize(&act(dequantize.x()), &act(dequantize.y()));
        let parameters = json!({"weight_scale": weight_scale, "relu2": false});
        let draft = Draft::new("dequantize", parameters, origin, cost);
        self.drafts.push(draft.buffer("acc", sums).buffer("x_scale", x_scale).buffer("out", out));
        Ok(())
    }
}

fn len(vector: Option<Value<'_, '_>>) -> Option<usize> {
    match vector.map(type_of) {
        Some(NemoType::Vector(vector)) => Some(vector.len),
        _ => None,
    }
}

/// Puts the name of a parameter into a kernel's arguments, if the op has it.
fn name_parameter(parameters: &mut Json, field: &str, value: Option<Value<'_, '_>>, name: String) {
    if value.is_some() {
        parameters[field] = name.into();
    }
}

fn conv_weights(mixer: &str, weight: Value<'_, '_>, bias: Option<Value<'_, '_>>) -> (Json, ConvSize) {
    let (channels, kernel) = match type_of(weight) {
        NemoType::Weight(weight) => (weight.rows, weight.cols),
        other => panic!("bug: {other} is no convolution"),
    };
    let mut json = json!({"weight": format!("{mixer}.conv1d.weight"), "channels": channels, "kernel": kernel});
    name_parameter(&mut json, "bias", bias, format!("{mixer}.conv1d.bias"));
    (json, ConvSize { channels, kernel })
}

fn ssm_weights(mixer: &str) -> Json {
    json!({"a_log": format!("{mixer}.A_log"), "d": format!("{mixer}.D"), "dt_bias": format!("{mixer}.dt_bias")})
}

fn scan_size(sizes: [i64; 3], state: Value<'_, '_>) -> ScanSize {
    let [heads, head_dim, state_size] = sizes.map(|size| size as usize);
    ScanSize { heads, head_dim, state_size, storage: cost::state_storage(&type_of(state)) }
}
