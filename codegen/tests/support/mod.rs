//! Small graphs and zero tensors for tests of plans.

use codegen::plan::Compiled;
use frontend::{Checkpoint, Config, import::import};
use ir::manager::{Manager, Options};
use ir::melior::{Context, ir::Module};
use ir::weights::{FloatType, StorageFormat, WeightExpr};
use passes::{PipelineOptions, pipeline};
use runtime::plan::{DType, K_ALIGN};
use runtime::tensors::{TensorStore, TensorView};
use std::collections::HashMap;

/// A model with a layer of each kind; some widths are no multiple of 32.
pub const SMALL: &str = r#"{"model_type": "nemotron_h", "hidden_size": 48, "hybrid_override_pattern": "M-*-",
 "num_hidden_layers": 4, "vocab_size": 96, "attention_head_dim": 16, "conv_kernel": 4, "intermediate_size": 80,
 "layer_norm_epsilon": 1e-05, "mamba_head_dim": 8, "mamba_num_heads": 8, "n_groups": 2, "ssm_state_size": 16,
 "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": false,
 "time_step_limit": [0.0, Infinity], "torch_dtype": "bfloat16", "use_conv_bias": true}"#;

/// The imported graph of a configuration.
pub fn imported<'c>(context: &'c Context, config: &str) -> Module<'c> {
    let checkpoint = Checkpoint::from_config(Config::parse(config, "config.json").unwrap());
    import(context, &checkpoint).unwrap()
}

/// The planned graph of a configuration; every pass runs twice and must change nothing the second time.
pub fn piped<'c>(context: &'c Context, config: &str, options: &PipelineOptions) -> Module<'c> {
    let manager = Manager::new(pipeline(options), Options { check_idempotence: true, ..Options::default() });
    manager.run(context, imported(context, config), &mut ()).unwrap_or_else(|error| panic!("{error}")).0
}

/// Every tensor that a plan needs, all zeros.
pub struct Zeros(HashMap<String, (DType, Vec<usize>, Vec<u8>)>);

impl Zeros {
    /// The tensors of `compiled`, shaped as the artifact stores them.
    pub fn of(compiled: &Compiled) -> Self {
        let mut zeros = Zeros(HashMap::new());
        for weight in &compiled.weights {
            let shape = shape(&weight.expr);
            let (n, k) = (shape[0], shape[1]);
            let kp = k.next_multiple_of(K_ALIGN);
            let name = |suffix: &str| format!("{}.{suffix}", weight.name);
            match weight.format {
                StorageFormat::Float { dtype } => zeros.add(name("weight"), float(dtype), vec![n, k]),
                StorageFormat::W8 => {
                    zeros.add(name("weight"), DType::I8, vec![n, kp]);
                    zeros.add(name("scale"), DType::F32, vec![n]);
                }
                StorageFormat::W4TwoLevel { group_size } => {
                    zeros.add(name("weight"), DType::U8, vec![n, kp / 2]);
                    zeros.add(name("group_scale"), DType::U8, vec![n, k.div_ceil(group_size)]);
                    zeros.add(name("scale"), DType::F32, vec![n]);
                }
                StorageFormat::W4Group { group_size } => {
                    zeros.add(name("weight"), DType::U8, vec![n, kp / 2]);
                    zeros.add(name("group_scale"), DType::F16, vec![n, k.div_ceil(group_size)]);
                }
            }
        }
        for parameter in &compiled.parameters {
            zeros.add(parameter.name.clone(), DType::F32, shape(&parameter.expr));
        }
        zeros
    }

    fn add(&mut self, name: String, dtype: DType, shape: Vec<usize>) {
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.bytes()];
        self.0.insert(name, (dtype, shape, bytes));
    }
}

impl TensorStore for Zeros {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (dtype, shape, bytes) = self.0.get(name)?;
        Some(TensorView { dtype: *dtype, shape, bytes })
    }
}

fn float(dtype: FloatType) -> DType {
    match dtype {
        FloatType::F32 => DType::F32,
        FloatType::F16 => DType::F16,
        FloatType::Bf16 => DType::Bf16,
    }
}

fn shape(expr: &WeightExpr) -> Vec<usize> {
    match expr {
        WeightExpr::Tensor { shape, .. } => shape.clone(),
        WeightExpr::SliceRows { base, count, .. } => vec![*count, shape(base)[1]],
        WeightExpr::ScaleColumns { base, .. }
        | WeightExpr::ScaleRows { base, .. }
        | WeightExpr::Rotate { base, .. } => shape(base),
        WeightExpr::ColumnAbsmax { base, .. } => vec![shape(base)[1]],
        WeightExpr::SmoothFactors { absmax, .. } => shape(absmax),
    }
}
