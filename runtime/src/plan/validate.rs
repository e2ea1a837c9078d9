//! Checks a plan before anything runs, so that an executor never meets a wrong id, width or tensor.
//!
//! A valid plan satisfies, for every launch in order:
//! 1. every buffer and state id is in its table; all buffers of a launch have rows of the same kind, but for
//!    [`Kernel::SelectOutputs`], which goes from token to output rows; stateful kernels and the embedding have token rows;
//! 2. buffers have the element type and width that the kernel takes; 8-bit activations are padded to [`K_ALIGN`];
//! 3. a buffer is read only after a launch has written it, and a launch writes no buffer twice nor one that it reads,
//!    except where its doc comment allows it;
//! 4. every tensor exists with the type and shape that the kernel takes;
//! 5. every state has the kind, type and shape that the kernel takes and is used by one launch only;
//! 6. sizes are positive, divide where they must, and cannot overflow an i32 accumulator;
//! 7. the logits are f32 `[output rows, vocab_size]` and are written.

use super::{Activation, Buffer, BufferId, DType, Kernel, PLAN_VERSION, Plan, PlanError, Rows, StateKind};
use crate::tensors::TensorStore;

/// Wider rows than this are refused: no model has them, and sums of sizes stay far from overflow.
pub(super) const MAX_COLS: usize = 1 << 24;

impl Plan {
    /// Checks everything the module documentation of `validate` lists, against the tensors of an artifact.
    pub fn validate(&self, store: &dyn TensorStore) -> Result<(), PlanError> {
        if self.version > PLAN_VERSION {
            return Err(PlanError::Version { found: self.version, newest: PLAN_VERSION });
        }
        check_buffers(self)?;
        check_states(self)?;
        let mut written = vec![false; self.buffers.len()];
        let mut states_used = vec![false; self.states.len()];
        for (index, launch) in self.launches.iter().enumerate() {
            let mut check = Checker {
                plan: self,
                store,
                at: format!("launch {index} ({})", launch.origin),
                rows: None,
                reads: Vec::new(),
                writes: Vec::new(),
                states: Vec::new(),
            };
            check.kernel(&launch.kernel)?;
            check.dataflow(&launch.kernel, &mut written)?;
            check.states_once(&mut states_used)?;
        }
        check_logits(self, &written)
    }
}

fn check_buffers(plan: &Plan) -> Result<(), PlanError> {
    for (index, buffer) in plan.buffers.iter().enumerate() {
        if buffer.cols == 0 || buffer.cols > MAX_COLS {
            return Err(PlanError::Invalid {
                at: format!("buffer {index} ({})", buffer.name),
                problem: format!("{} columns, expected 1 to {MAX_COLS}", buffer.cols),
            });
        }
    }
    Ok(())
}

fn check_states(plan: &Plan) -> Result<(), PlanError> {
    for (index, state) in plan.states.iter().enumerate() {
        let elements = state.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        if elements.is_none_or(|n| n > 1 << 32) {
            return Err(PlanError::Invalid {
                at: format!("state {index} ({})", state.name),
                problem: format!("shape {:?} is absurd", state.shape),
            });
        }
    }
    Ok(())
}

fn check_logits(plan: &Plan, written: &[bool]) -> Result<(), PlanError> {
    let at = "logits".to_owned();
    let Some(buffer) = plan.buffers.get(plan.logits.0 as usize) else {
        return Err(PlanError::UnknownId { at, what: "buffer", id: plan.logits.0, count: plan.buffers.len() });
    };
    let expected = (DType::F32, plan.model.vocab_size, Rows::Output);
    if (buffer.dtype, buffer.cols, buffer.rows) != expected {
        return Err(PlanError::Mismatch {
            at,
            what: format!("buffer {}", buffer.name),
            expected: describe(expected.0, expected.1, expected.2),
            found: describe_buffer(buffer),
        });
    }
    if !written[plan.logits.0 as usize] {
        return Err(PlanError::Uninitialized { at, buffer: buffer.name.clone() });
    }
    Ok(())
}

/// Checks one launch and collects what it reads and writes.
pub(super) struct Checker<'a> {
    pub(super) plan: &'a Plan,
    store: &'a dyn TensorStore,
    pub(super) at: String,
    /// Rows of the buffers seen so far.
    rows: Option<Rows>,
    reads: Vec<BufferId>,
    writes: Vec<BufferId>,
    states: Vec<usize>,
}

impl<'a> Checker<'a> {
    pub(super) fn invalid(&self, problem: impl Into<String>) -> PlanError {
        PlanError::Invalid { at: self.at.clone(), problem: problem.into() }
    }

    pub(super) fn require(&self, holds: bool, problem: impl Fn() -> String) -> Result<(), PlanError> {
        if holds { Ok(()) } else { Err(self.invalid(problem())) }
    }

    /// The buffer of this id, whose rows must be those of the launch.
    pub(super) fn buffer(&mut self, id: BufferId) -> Result<&'a Buffer, PlanError> {
        let buffer = self.any_buffer(id)?;
        let rows = *self.rows.get_or_insert(buffer.rows);
        if buffer.rows != rows {
            return Err(self.mismatch(buffer, buffer.dtype, buffer.cols, rows));
        }
        Ok(buffer)
    }

    fn any_buffer(&self, id: BufferId) -> Result<&'a Buffer, PlanError> {
        self.plan.buffers.get(id.0 as usize).ok_or_else(|| PlanError::UnknownId {
            at: self.at.clone(),
            what: "buffer",
            id: id.0,
            count: self.plan.buffers.len(),
        })
    }

    fn mismatch(&self, buffer: &Buffer, dtype: DType, cols: usize, rows: Rows) -> PlanError {
        PlanError::Mismatch {
            at: self.at.clone(),
            what: format!("buffer {}", buffer.name),
            expected: describe(dtype, cols, rows),
            found: describe_buffer(buffer),
        }
    }

    /// All buffers of the launch have these rows.
    pub(super) fn set_rows(&mut self, rows: Rows) {
        self.rows = Some(rows);
    }

    pub(super) fn read(&mut self, id: BufferId, dtype: DType, cols: usize) -> Result<(), PlanError> {
        let buffer = self.buffer(id)?;
        if (buffer.dtype, buffer.cols) != (dtype, cols) {
            return Err(self.mismatch(buffer, dtype, cols, buffer.rows));
        }
        self.reads.push(id);
        Ok(())
    }

    pub(super) fn write(&mut self, id: BufferId, dtype: DType, cols: usize) -> Result<(), PlanError> {
        let buffer = self.buffer(id)?;
        if (buffer.dtype, buffer.cols) != (dtype, cols) {
            return Err(self.mismatch(buffer, dtype, cols, buffer.rows));
        }
        self.writes.push(id);
        Ok(())
    }

    /// Copies output rows out of token rows.
    pub(super) fn select(&mut self, x: BufferId, out: BufferId) -> Result<(), PlanError> {
        let (source, target) = (self.any_buffer(x)?, self.any_buffer(out)?);
        let cols = source.cols;
        if (source.dtype, source.rows) != (DType::F32, Rows::Token) {
            return Err(self.mismatch(source, DType::F32, cols, Rows::Token));
        }
        if (target.dtype, target.cols, target.rows) != (DType::F32, cols, Rows::Output) {
            return Err(self.mismatch(target, DType::F32, cols, Rows::Output));
        }
        self.reads.push(x);
        self.writes.push(out);
        Ok(())
    }

    /// An activation of `n` logical columns that the launch reads.
    pub(super) fn read_activation(&mut self, x: Activation, n: usize) -> Result<(), PlanError> {
        match x {
            Activation::Float { data } => self.read(data, DType::F32, n),
            Activation::Quantized { data, scale } => {
                let dtype = self.quantized_type(data)?;
                self.read(data, dtype, padded(n))?;
                self.read(scale, DType::F32, 1)
            }
        }
    }

    /// An activation of `n` logical columns that the launch writes.
    pub(super) fn write_activation(&mut self, x: Activation, n: usize) -> Result<(), PlanError> {
        match x {
            Activation::Float { data } => self.write(data, DType::F32, n),
            Activation::Quantized { data, scale } => {
                let dtype = self.quantized_type(data)?;
                self.write(data, dtype, padded(n))?;
                self.write(scale, DType::F32, 1)
            }
        }
    }

    fn quantized_type(&mut self, data: BufferId) -> Result<DType, PlanError> {
        let buffer = self.buffer(data)?;
        match buffer.dtype {
            DType::I8 | DType::U8 => Ok(buffer.dtype),
            _ => Err(self.mismatch(buffer, DType::I8, buffer.cols, buffer.rows)),
        }
    }

    pub(super) fn tensor(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<(), PlanError> {
        let Some(tensor) = self.store.tensor(name) else {
            return Err(PlanError::MissingTensor { at: self.at.clone(), tensor: name.to_owned() });
        };
        let bytes = shape.iter().try_fold(dtype.bytes(), |product, &n| product.checked_mul(n));
        if tensor.dtype == dtype && tensor.shape == shape && Some(tensor.bytes.len()) == bytes {
            return Ok(());
        }
        Err(PlanError::Mismatch {
            at: self.at.clone(),
            what: format!("tensor {name}"),
            expected: format!("{dtype} {shape:?}"),
            found: format!("{} {:?} of {} bytes", tensor.dtype, tensor.shape, tensor.bytes.len()),
        })
    }

    pub(super) fn state(
        &mut self,
        id: super::StateId,
        kind: StateKind,
        dtypes: &[DType],
        shape: &[usize],
    ) -> Result<(), PlanError> {
        let Some(state) = self.plan.states.get(id.0 as usize) else {
            return Err(PlanError::UnknownId {
                at: self.at.clone(),
                what: "state",
                id: id.0,
                count: self.plan.states.len(),
            });
        };
        self.states.push(id.0 as usize);
        if state.kind == kind && dtypes.contains(&state.dtype) && state.shape == shape {
            return Ok(());
        }
        Err(PlanError::Mismatch {
            at: self.at.clone(),
            what: format!("state {}", state.name),
            expected: format!("{kind:?} of {dtypes:?} {shape:?}"),
            found: format!("{:?} of {} {:?}", state.kind, state.dtype, state.shape),
        })
    }

    fn dataflow(&self, kernel: &Kernel, written: &mut [bool]) -> Result<(), PlanError> {
        for id in &self.reads {
            if !written[id.0 as usize] {
                return Err(PlanError::Uninitialized {
                    at: self.at.clone(),
                    buffer: self.plan.buffer(*id).name.clone(),
                });
            }
        }
        for (index, id) in self.writes.iter().enumerate() {
            let repeated = self.writes[..index].contains(id);
            if repeated || (self.reads.contains(id) && !in_place(kernel, *id)) {
                return Err(PlanError::Aliased {
                    at: self.at.clone(),
                    what: format!("buffer {}", self.plan.buffer(*id).name),
                });
            }
        }
        for id in &self.writes {
            written[id.0 as usize] = true;
        }
        Ok(())
    }

    fn states_once(&self, used: &mut [bool]) -> Result<(), PlanError> {
        for &state in &self.states {
            if std::mem::replace(&mut used[state], true) {
                return Err(PlanError::Aliased {
                    at: self.at.clone(),
                    what: format!("state {}", self.plan.states[state].name),
                });
            }
        }
        Ok(())
    }
}

/// Whether the kernel may write a buffer that it also reads.
fn in_place(kernel: &Kernel, id: BufferId) -> bool {
    match kernel {
        Kernel::Add { out, .. } => *out == id,
        Kernel::RmsNorm { x, delta, .. } => *x == id && delta.is_some_and(|delta| delta != id),
        Kernel::Linear { x, segments, .. } => {
            let input = match *x {
                Activation::Float { data } => [Some(data), None],
                Activation::Quantized { data, scale } => [Some(data), Some(scale)],
            };
            !input.contains(&Some(id)) && segments.iter().any(|segment| segment.out == id)
        }
        _ => false,
    }
}

fn padded(n: usize) -> usize {
    n.next_multiple_of(super::K_ALIGN)
}

fn describe(dtype: DType, cols: usize, rows: Rows) -> String {
    format!("{dtype} [{rows:?} rows, {cols}]").to_lowercase()
}

fn describe_buffer(buffer: &Buffer) -> String {
    describe(buffer.dtype, buffer.cols, buffer.rows)
}
