//! The tensors of one launch, made when it runs.

use super::CalibrateError;
use crate::plan::Compiled;
use crate::weights::{Evaluator, PackedWeight, PackedWeights, shape, stored_tensors};
use ir::weights::{StoredParameter, StoredWeight};
use runtime::artifact::TensorSpec;
use runtime::plan::{ConvWeights, DType, Kernel, SsmWeights};
use runtime::tensors::{TensorStore, TensorView};
use std::collections::HashMap;

/// What a model stores, by name.
pub(super) struct Stored<'a> {
    weights: HashMap<&'a str, &'a StoredWeight>,
    parameters: HashMap<&'a str, &'a StoredParameter>,
}

impl<'a> Stored<'a> {
    pub(super) fn new(compiled: &'a Compiled) -> Stored<'a> {
        Stored {
            weights: compiled.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect(),
            parameters: compiled.parameters.iter().map(|parameter| (parameter.name.as_str(), parameter)).collect(),
        }
    }

    /// The weight of this name.
    pub(super) fn weight(&self, name: &str) -> Result<&'a StoredWeight, CalibrateError> {
        self.weights.get(name).copied().ok_or_else(|| CalibrateError::UnknownTensor { name: name.to_owned() })
    }

    /// Everything that a kernel reads: weights as calibration has rounded them, or to nearest.
    pub(super) fn tensors(
        &self,
        kernel: &Kernel,
        packed: &PackedWeights,
        evaluator: &Evaluator<'_>,
    ) -> Result<Tensors, CalibrateError> {
        let mut tensors = Tensors::default();
        for name in names(kernel) {
            let base = name.strip_suffix(".scale").unwrap_or(name);
            if let Some(weight) = self.weights.get(name).or_else(|| self.weights.get(base)) {
                match packed.get(&weight.name) {
                    Some(packed) => tensors.add_weight(weight, packed.clone())?,
                    None => tensors.add_weight(weight, evaluator.rounded_to_nearest(weight)?)?,
                }
            } else if let Some(parameter) = self.parameters.get(name) {
                let values = evaluator.parameter(parameter)?;
                let spec =
                    TensorSpec { name: name.to_owned(), dtype: DType::F32, shape: shape(name, &parameter.expr)? };
                tensors.add(spec, bytemuck::cast_slice(&values).to_vec());
            } else {
                return Err(CalibrateError::UnknownTensor { name: name.to_owned() });
            }
        }
        Ok(tensors)
    }
}

/// Names of tensors: base names of weights, whole names of parameters.
fn names(kernel: &Kernel) -> Vec<&str> {
    fn conv(weights: &ConvWeights) -> Vec<&str> {
        std::iter::once(&weights.weight).chain(&weights.bias).map(String::as_str).collect()
    }
    fn ssm(weights: &SsmWeights) -> Vec<&str> {
        vec![&weights.a_log, &weights.d, &weights.dt_bias]
    }
    match kernel {
        Kernel::Embed { table, .. } => vec![&table.weight],
        Kernel::RmsNorm { weight, .. } | Kernel::GatedRmsNorm { weight, .. } => {
            weight.iter().map(String::as_str).collect()
        }
        Kernel::Linear { segments, .. } => segments.iter().map(|segment| segment.weight.as_str()).collect(),
        Kernel::Dequantize { weight_scale, .. } => vec![weight_scale],
        Kernel::Conv1d { weights, .. } => conv(weights),
        Kernel::SsmScan { weights, .. } => ssm(weights),
        Kernel::Mixer { conv: filter, ssm: heads, norm_weight, .. } => {
            let norm = norm_weight.iter().map(String::as_str);
            conv(filter).into_iter().chain(ssm(heads)).chain(norm).collect()
        }
        Kernel::SelectOutputs { .. } | Kernel::Add { .. } | Kernel::Map { .. } | Kernel::Attention { .. } => Vec::new(),
    }
}

/// Named tensors in memory.
#[derive(Default)]
pub(super) struct Tensors {
    tensors: HashMap<String, (DType, Vec<usize>, Vec<u8>)>,
}

impl Tensors {
    fn add(&mut self, spec: TensorSpec, bytes: Vec<u8>) {
        self.tensors.insert(spec.name, (spec.dtype, spec.shape, bytes));
    }

    fn add_weight(&mut self, weight: &StoredWeight, packed: PackedWeight) -> Result<(), CalibrateError> {
        let [rows, cols] = <[usize; 2]>::try_from(shape(&weight.name, &weight.expr)?)
            .map_err(|_| CalibrateError::UnknownTensor { name: weight.name.clone() })?;
        let PackedWeight { weight: elements, group_scale, scale, .. } = packed;
        let parts = [elements, group_scale, scale].into_iter().filter(|bytes| !bytes.is_empty());
        for (spec, bytes) in stored_tensors(&weight.name, weight.format, rows, cols)?.into_iter().zip(parts) {
            self.add(spec, bytes);
        }
        Ok(())
    }
}

impl TensorStore for Tensors {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (dtype, shape, bytes) = self.tensors.get(name)?;
        Some(TensorView { dtype: *dtype, shape, bytes })
    }
}
