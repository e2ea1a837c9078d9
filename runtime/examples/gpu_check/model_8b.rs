//! The true 8B shape with random weights: three layers are made and stand for all others under other names, so that every
//! layer has its own memory on the GPU.

use runtime::plan::{DType, Kernel, Launch, Plan, State, StateId, WeightFormat};
use runtime::synthetic::{Layout, MemoryStore, Shape, model};
use runtime::tensors::{TensorStore, TensorView};
use std::collections::{HashMap, HashSet};

const PATTERN: &str = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-";
const VOCAB: usize = 131_072;
/// Rows of the vocabulary that are made; the others repeat them.
const MADE: usize = 256;

const BF16: WeightFormat = WeightFormat::Float { dtype: DType::Bf16 };

/// Weights of M layers, of all others, and of embedding and head.
pub struct Scheme {
    pub name: &'static str,
    pub mamba: WeightFormat,
    pub rest: WeightFormat,
    pub head: WeightFormat,
}

/// The type in which scan states are kept: that of `states=f16` and the like; phases decide if there is no such task.
pub fn state_dtype(tasks: &[String]) -> Result<Option<DType>, String> {
    let dtype = match tasks.iter().find_map(|task| task.strip_prefix("states=")) {
        None => return Ok(None),
        Some("f32") => DType::F32,
        Some("f16") => DType::F16,
        Some("bf16") => DType::Bf16,
        Some("i8") => DType::I8,
        Some(other) => return Err(format!("no states of type {other}; there are f32, f16, bf16 and i8")),
    };
    Ok(Some(dtype))
}

/// Those whose names, without the space, are among the tasks; `others` if there are none.
pub fn chosen(tasks: &[String], others: &[&str]) -> Vec<Scheme> {
    let named = |name: &str| tasks.iter().any(|task| *task == name.replace(' ', ""));
    let any = tasks.iter().any(|task| task.starts_with("phase"));
    let wanted = |scheme: &Scheme| if any { named(scheme.name) } else { others.contains(&scheme.name) };
    schemes().into_iter().filter(wanted).collect()
}

fn schemes() -> Vec<Scheme> {
    let w4 = WeightFormat::W4TwoLevel { group_size: 128 };
    let w8 = WeightFormat::W8;
    vec![
        Scheme { name: "phase 0", mamba: BF16, rest: BF16, head: BF16 },
        Scheme { name: "phase 1", mamba: w8, rest: w8, head: w8 },
        Scheme { name: "phase 2", mamba: w4, rest: w4, head: w8 },
        Scheme { name: "phase 3", mamba: w4, rest: w8, head: w8 },
    ]
}

fn shape() -> Shape {
    Shape {
        layer_pattern: "M-*".to_owned(),
        hidden_size: 4096,
        vocab_size: MADE,
        mamba_heads: 128,
        mamba_head_dim: 64,
        groups: 8,
        state_size: 128,
        conv_kernel: 4,
        intermediate_size: 21_504,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
    }
}

/// Tensors by the names of the made layers, whatever comes before the `#`.
pub struct Store {
    mamba: MemoryStore,
    rest: MemoryStore,
    head: MemoryStore,
    tall: HashMap<String, (Vec<usize>, Vec<u8>)>,
}

impl TensorStore for Store {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (prefix, made) = name.split_once('#').unwrap_or(("", name));
        let from = match prefix {
            "" => &self.head,
            _ if prefix.starts_with("mamba") => &self.mamba,
            _ => &self.rest,
        };
        let view = from.tensor(made)?;
        Some(match self.tall.get(made) {
            Some((shape, bytes)) => TensorView { dtype: view.dtype, shape, bytes },
            None => view,
        })
    }
}

pub struct Models {
    made: HashMap<Made, (Plan, MemoryStore)>,
}

/// What a model is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Made {
    format: WeightFormat,
    /// Of the matrices of a linear that has several.
    segments: Option<[WeightFormat; 3]>,
}

impl Made {
    fn of(format: WeightFormat) -> Made {
        Made { format, segments: None }
    }

    /// `nemoc compile` keeps in_proj.dt in 8 bits where the rest of in_proj has 4.
    fn mamba(format: WeightFormat) -> Made {
        let narrow = matches!(format, WeightFormat::W4TwoLevel { .. });
        Made { format, segments: narrow.then_some([format, format, WeightFormat::W8]) }
    }
}

impl Scheme {
    fn made(&self) -> [Made; 3] {
        [Made::mamba(self.mamba), Made::of(self.rest), Made::of(self.head)]
    }
}

impl Models {
    /// Of the formats of these schemes. `fused`: the mixer is one launch of the plan. Without `ssm_dtype`, scan states are kept as
    /// `nemoc compile` keeps them.
    pub fn make(schemes: &[Scheme], fused: bool, ssm_dtype: Option<DType>) -> Models {
        let of = |made: Made| {
            let Made { format, segments } = made;
            let by_phase = if matches!(format, WeightFormat::W4TwoLevel { .. }) { DType::F16 } else { DType::F32 };
            let layout = Layout {
                fused_mixer: fused,
                hadamard_block: (format != BF16).then_some(256),
                kv_dtype: if format == BF16 { DType::F32 } else { DType::Bf16 },
                ssm_dtype: ssm_dtype.unwrap_or(by_phase),
                segments,
                ..Layout::of(format)
            };
            model(&shape(), &layout, 3)
        };
        let wanted: HashSet<Made> = schemes.iter().flat_map(Scheme::made).collect();
        Models { made: wanted.into_iter().map(|made| (made, of(made))).collect() }
    }

    pub fn build(&self, scheme: &Scheme) -> (Plan, Store) {
        let [(mamba_plan, mamba), (rest_plan, rest), (head_plan, head)] = scheme.made().map(|made| &self.made[&made]);
        let mut plan = rest_plan.clone();
        plan.model.vocab_size = VOCAB;
        plan.buffers[plan.logits.0 as usize].cols = VOCAB;
        plan.launches.clear();
        plan.states.clear();
        let layer = |index: usize, from: &Plan| -> Vec<Launch> {
            let prefix = format!("layers.{index}.");
            from.launches.iter().filter(|launch| launch.origin.starts_with(&prefix)).cloned().collect()
        };
        plan.launches.extend(head_plan.launches.iter().filter(|l| l.origin == "embedding").cloned());
        for (number, kind) in PATTERN.chars().enumerate() {
            let (made, index, name) = match kind {
                'M' => (mamba_plan, 0, "mamba"),
                '-' => (rest_plan, 1, "mlp"),
                _ => (rest_plan, 2, "attention"),
            };
            for mut launch in layer(index, made) {
                rename(&mut launch.kernel, &format!("{name}{number}#"), &made.states, &mut plan.states);
                plan.launches.push(launch);
            }
        }
        let last = |l: &&Launch| l.origin == "lm_head" || l.origin == "final.norm";
        plan.launches.extend(head_plan.launches.iter().filter(last).cloned());
        for launch in &mut plan.launches {
            grow_vocabulary(&mut launch.kernel);
            rotate_mixer(&mut launch.kernel);
        }
        (plan, Store { mamba: mamba.clone(), rest: rest.clone(), head: head.clone(), tall: tall(head) })
    }
}

fn grow_vocabulary(kernel: &mut Kernel) {
    match kernel {
        Kernel::Embed { table, .. } => table.vocab_size = VOCAB,
        Kernel::Linear { segments, .. } => {
            segments.iter_mut().filter(|s| s.out_features == MADE).for_each(|s| s.out_features = VOCAB);
        }
        _ => {}
    }
}

/// As `nemoc compile --rotations hadamard` does it at this shape.
fn rotate_mixer(kernel: &mut Kernel) {
    if let Kernel::Mixer { emit, .. } | Kernel::GatedRmsNorm { emit, .. } = kernel {
        emit.hadamard_block = Some(1024);
    }
}

fn rename(kernel: &mut Kernel, prefix: &str, made: &[State], states: &mut Vec<State>) {
    let add = |name: &mut String| *name = format!("{prefix}{name}");
    let mut own = |id: &mut StateId| {
        states.push(made[id.0 as usize].clone());
        *id = StateId(states.len() as u32 - 1);
    };
    match kernel {
        Kernel::Linear { segments, .. } => segments.iter_mut().for_each(|s| add(&mut s.weight)),
        Kernel::RmsNorm { weight, .. } => weight.iter_mut().for_each(add),
        Kernel::Mixer { conv, ssm, conv_state, ssm_state, norm_weight, .. } => {
            add(&mut conv.weight);
            conv.bias.iter_mut().for_each(add);
            [&mut ssm.a_log, &mut ssm.d, &mut ssm.dt_bias].into_iter().for_each(add);
            norm_weight.iter_mut().for_each(add);
            own(conv_state);
            own(ssm_state);
        }
        Kernel::Attention { state, .. } => own(state),
        Kernel::Conv1d { weights, state, .. } => {
            add(&mut weights.weight);
            weights.bias.iter_mut().for_each(add);
            own(state);
        }
        Kernel::SsmScan { weights, state, .. } => {
            [&mut weights.a_log, &mut weights.d, &mut weights.dt_bias].into_iter().for_each(add);
            own(state);
        }
        Kernel::GatedRmsNorm { weight, .. } => weight.iter_mut().for_each(add),
        _ => {}
    }
}

/// The tensors of embedding and head, as tall as the vocabulary.
fn tall(store: &MemoryStore) -> HashMap<String, (Vec<usize>, Vec<u8>)> {
    let mut tall = HashMap::new();
    for weight in ["embedding", "lm_head.out"] {
        for part in ["weight", "scale", "group_scale"] {
            let name = format!("{weight}.{part}");
            let Some(view) = store.tensor(&name) else { continue };
            let mut shape = view.shape.to_vec();
            shape[0] = VOCAB;
            tall.insert(name, (shape, view.bytes.repeat(VOCAB / MADE)));
        }
    }
    tall
}
