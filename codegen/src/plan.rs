//! From a planned module to the runtime's [`Plan`], and the list of tensors it needs.
//!
//! A `nemo.launch` carries its kernel's arguments as JSON. `roles[i]` is a path in them: for a buffer or a state the
//! place where its number belongs, for a weight or parameter the place of the name under which the artifact stores the
//! operand's expression. What the JSON must look like is said once, by the runtime's [`Kernel`].

use ir::melior::ir::{Module, Value, ValueLike};
use ir::module::{self, defining, location_name, type_of};
use ir::ops::{Op, views};
use ir::stage::Stage;
use ir::types::{BufferType, Granularity, NemoType, StateType, Storage};
use ir::weights::{Rounding, StorageFormat, StoredParameter, StoredWeight, WeightExpr};
use runtime::plan::{Buffer, BufferId, Cost, DType, Kernel, Launch, ModelInfo, PLAN_VERSION, Plan, Rows, State};
use runtime::plan::{StateId, StateKind};
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// The module attribute that carries [`ModelInfo`] as JSON.
const MODEL_ATTRIBUTE: &str = "nemo.model";

/// A plan and what has to be stored for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What the runtime executes.
    pub plan: Plan,
    /// Weights of linears and embeddings, in the order of their first use.
    pub weights: Vec<StoredWeight>,
    /// Parameters that are stored as f32, in the order of their first use.
    pub parameters: Vec<StoredParameter>,
}

/// Why a module has no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The module is at an earlier stage.
    #[error("the module is {found}, expected planned\nhelp: run the pass lower-to-plan first")]
    Stage {
        /// Its stage.
        found: String,
    },
    /// The attribute that describes the model is missing or wrong.
    #[error("the module attribute nemo.model is no model description: {source}\nhelp: import the checkpoint again")]
    Model {
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A launch that does not describe a kernel.
    #[error("launch {launch}: {problem}\nhelp: the planned module was edited or damaged; run lower-to-plan again")]
    Launch {
        /// Where it comes from.
        launch: String,
        /// What is wrong.
        problem: String,
    },
    /// Two different tensors of one name.
    #[error(
        "launch {launch}: two different tensors are to be stored as {name}\nhelp: give every linear a name of its own"
    )]
    Clash {
        /// The launch that names it the second time.
        launch: String,
        /// The name.
        name: String,
    },
    /// A module without a graph.
    #[error(transparent)]
    Ir(#[from] ir::IrError),
}

/// The plan of a planned module, with the weights and parameters it names.
///
/// # Errors
/// When the module is not planned or a launch is malformed.
pub fn plan_of(module: &Module<'_>) -> Result<Compiled, Error> {
    match Stage::of(module) {
        Some(Stage::Planned) => {}
        other => return Err(Error::Stage { found: other.map_or("of no known stage".into(), |s| s.to_string()) }),
    }
    let mut reader = Reader::default();
    for op in module::ops(module)? {
        match op {
            Op::Allocate(allocate) => reader.buffer(allocate),
            Op::ReadState(read) => reader.state(read),
            Op::Launch(launch) => reader.launch(launch)?,
            _ => {}
        }
    }
    let logits = logits(module, &reader)?;
    let states = reader.states.into_iter().map(|(state, _)| state).collect();
    let plan = Plan {
        version: PLAN_VERSION,
        model: model(module)?,
        buffers: reader.buffers,
        states,
        launches: reader.launches,
        logits,
    };
    Ok(Compiled { plan, weights: reader.weights, parameters: reader.parameters })
}

fn model(module: &Module<'_>) -> Result<ModelInfo, Error> {
    let text = module::get_string(module, MODEL_ATTRIBUTE).unwrap_or_default();
    serde_json::from_str(&text).map_err(|source| Error::Model { source })
}

fn logits(module: &Module<'_>, reader: &Reader) -> Result<BufferId, Error> {
    use ir::melior::ir::operation::OperationLike;
    let last = module::operations(module::forward(module)?).pop();
    let value = last.and_then(|op| op.operand(0).ok());
    value
        .and_then(|value| reader.ids.get(&key(value)).copied())
        .map(BufferId)
        .ok_or_else(|| Error::Launch { launch: "return".into(), problem: "the graph returns no buffer".into() })
}

fn key(value: Value<'_, '_>) -> usize {
    value.to_raw().ptr as usize
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    buffers: Vec<Buffer>,
    /// States; their shape is known once the launch that uses them is.
    states: Vec<(State, StateType)>,
    /// Numbers of buffers and states.
    ids: HashMap<usize, u32>,
    launches: Vec<Launch>,
    weights: Vec<StoredWeight>,
    parameters: Vec<StoredParameter>,
    /// Index of each weight by name.
    weight_names: HashMap<String, usize>,
    /// Index of each parameter by name.
    parameter_names: HashMap<String, usize>,
}

impl Reader {
    fn buffer(&mut self, allocate: views::Allocate<'_, '_>) {
        let NemoType::Buffer(BufferType { cols, storage, rows }) = type_of(allocate.value()) else { return };
        self.ids.insert(key(allocate.value()), self.buffers.len() as u32);
        let rows = if rows == "output" { Rows::Output } else { Rows::Token };
        self.buffers.push(Buffer { name: allocate.name(), dtype: dtype(storage), cols, rows });
    }

    fn state(&mut self, read: views::ReadState<'_, '_>) {
        let NemoType::State(r#type) = type_of(read.value()) else { return };
        let kind = match r#type.kind.as_str() {
            "conv" => StateKind::Conv,
            "ssm" => StateKind::Ssm,
            _ => StateKind::Kv,
        };
        self.ids.insert(key(read.value()), self.states.len() as u32);
        let state = State { name: read.name(), kind, dtype: dtype(r#type.storage), shape: Vec::new() };
        self.states.push((state, r#type));
    }

    fn launch(&mut self, launch: views::Launch<'_, '_>) -> Result<(), Error> {
        let at = At { launch: location_name(&launch.0) };
        let mut arguments: Json =
            serde_json::from_str(&launch.parameters()).map_err(|error| at.problem(error.to_string()))?;
        let roles = launch.roles();
        let operands = launch.arguments();
        if roles.len() != operands.len() {
            return Err(at.problem(format!("{} roles for {} operands", roles.len(), operands.len())));
        }
        for (role, operand) in roles.iter().zip(operands) {
            match type_of(operand) {
                NemoType::Buffer(_) | NemoType::State(_) => {
                    let id = self.ids.get(&key(operand)).ok_or_else(|| at.problem(format!("{role} is undefined")))?;
                    insert(&mut arguments, role, json!(id)).ok_or_else(|| at.no_place(role))?;
                }
                _ => {
                    let name = named(&arguments, role).ok_or_else(|| at.no_place(role))?;
                    self.store(&at, role, name, operand)?;
                }
            }
        }
        insert(&mut arguments, "name", json!(launch.kernel())).ok_or_else(|| at.no_place("name"))?;
        let kernel = serde_json::from_value(arguments).map_err(|error| at.problem(error.to_string()))?;
        self.shape_states(&kernel, &at)?;
        let cost = Cost {
            fixed_bytes: launch.fixed_bytes() as u64,
            row_bytes: launch.row_bytes() as u64,
            sequence_bytes: launch.sequence_bytes() as u64,
            row_ops: launch.row_ops() as u64,
        };
        self.launches.push(Launch { kernel, origin: at.launch, cost });
        Ok(())
    }

    /// Notes a tensor of the artifact.
    fn store(&mut self, at: &At, role: &str, name: String, operand: Value<'_, '_>) -> Result<(), Error> {
        let expr = WeightExpr::of(operand).ok_or_else(|| at.problem(format!("{role} is no weight")))?;
        let clash = || Error::Clash { launch: at.launch.clone(), name: name.clone() };
        if role == "table/weight" || role.starts_with("segments/") {
            let weight = StoredWeight {
                format: storage_format(operand).ok_or_else(|| at.problem(format!("{role} has no storage format")))?,
                rounding: rounding(operand).ok_or_else(|| at.problem(format!("{role} has no known rounding")))?,
                name: name.clone(),
                expr,
            };
            store_once(&mut self.weights, &mut self.weight_names, &name, weight).ok_or_else(clash)
        } else {
            let parameter = StoredParameter { name: name.clone(), expr };
            store_once(&mut self.parameters, &mut self.parameter_names, &name, parameter).ok_or_else(clash)
        }
    }

    fn shape_states(&mut self, kernel: &Kernel, at: &At) -> Result<(), Error> {
        let conv = |weights: &runtime::plan::ConvWeights| vec![weights.channels, weights.kernel.saturating_sub(1)];
        let ssm = |shape: &runtime::plan::SsmShape| vec![shape.heads, shape.head_dim, shape.state_size];
        let shapes = match kernel {
            Kernel::Conv1d { weights, state, .. } => vec![(*state, conv(weights))],
            Kernel::SsmScan { shape, state, .. } => vec![(*state, ssm(shape))],
            Kernel::Mixer { conv: weights, shape, conv_state, ssm_state, .. } => {
                vec![(*conv_state, conv(weights)), (*ssm_state, ssm(shape))]
            }
            Kernel::Attention { state, kv_heads, head_dim, .. } => vec![(*state, vec![*kv_heads, *head_dim])],
            _ => Vec::new(),
        };
        for (StateId(id), shape) in shapes {
            let (state, r#type) =
                self.states.get_mut(id as usize).ok_or_else(|| at.problem(format!("{id} is no state")))?;
            if shape.iter().product::<usize>() != r#type.elements {
                return Err(at.problem(format!(
                    "state {} has {} elements, the kernel uses {shape:?}",
                    state.name, r#type.elements
                )));
            }
            state.shape = shape;
        }
        Ok(())
    }
}

/// The launch that messages are about.
struct At {
    launch: String,
}

impl At {
    fn problem(&self, problem: String) -> Error {
        Error::Launch { launch: self.launch.clone(), problem }
    }

    fn no_place(&self, role: &str) -> Error {
        self.problem(format!("its arguments have no place for {role}"))
    }
}

/// Adds an item unless an equal one has the name; `None` when a different one has.
fn store_once<T: PartialEq>(items: &mut Vec<T>, names: &mut HashMap<String, usize>, name: &str, item: T) -> Option<()> {
    match names.get(name) {
        Some(index) => (items.get(*index) == Some(&item)).then_some(()),
        None => {
            names.insert(name.to_owned(), items.len());
            items.push(item);
            Some(())
        }
    }
}

fn child<'j>(json: &'j mut Json, step: &str) -> Option<&'j mut Json> {
    match json {
        Json::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        other => other.get_mut(step),
    }
}

/// Puts a value at a path whose parent exists.
fn insert(json: &mut Json, path: &str, value: Json) -> Option<()> {
    let (parents, last) = path.rsplit_once('/').map_or((None, path), |(parents, last)| (Some(parents), last));
    let mut at = json;
    for step in parents.into_iter().flat_map(|parents| parents.split('/')) {
        at = child(at, step)?;
    }
    at.as_object_mut()?.insert(last.to_owned(), value);
    Some(())
}

/// The name at a path.
fn named(json: &Json, path: &str) -> Option<String> {
    json.pointer(&format!("/{path}"))?.as_str().map(str::to_owned)
}

fn dtype(storage: Storage) -> DType {
    match storage {
        Storage::I4 | Storage::U8 => DType::U8,
        Storage::I8 => DType::I8,
        Storage::I32 => DType::I32,
        Storage::F16 => DType::F16,
        Storage::Bf16 => DType::Bf16,
        Storage::F32 => DType::F32,
    }
}

fn storage_format(weight: Value<'_, '_>) -> Option<StorageFormat> {
    let NemoType::Weight(weight) = type_of(weight) else { return None };
    Some(match (weight.storage, weight.granularity) {
        (storage, Granularity::None) => StorageFormat::Float { dtype: storage.float_type()? },
        (Storage::I8, Granularity::Channel) => StorageFormat::W8,
        (Storage::I4, Granularity::TwoLevel(group_size)) => StorageFormat::W4TwoLevel { group_size },
        (Storage::I4, Granularity::Group(group_size)) => StorageFormat::W4Group { group_size },
        _ => return None,
    })
}

fn rounding(weight: Value<'_, '_>) -> Option<Rounding> {
    match defining(weight)? {
        Op::QuantizeWeight(quantize) => Rounding::parse(&quantize.rounding()),
        _ => Some(Rounding::Rtn),
    }
}
