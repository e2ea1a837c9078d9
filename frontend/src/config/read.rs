//! From the fields of a configuration file to checked values.

use super::{AttentionShape, LayerKind, MAX_CONV_KERNEL, MAX_LAYERS, MAX_SIZE, MambaShape};
use crate::error::ConfigError;
use crate::fields::Fields;
use ir::weights::FloatType;
use serde_json::Value;

/// Everything that would change the arithmetic and that the compiler does not know.
pub(super) fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ConfigError> {
    const OTHER_MODEL: &str = "nemoc compiles dense Nemotron-H models only";
    if let Some((field, model)) = fields.text(&["model_type"])?
        && model != "nemotron_h"
    {
        return Err(fields.unsupported(field, format!("models of type {model:?} are"), OTHER_MODEL));
    }
    for field in ["attention_bias", "mlp_bias", "use_bias", "mamba_proj_bias"] {
        if fields.flag(&[field], false)? {
            return Err(fields.unsupported(
                field,
                format!("linears with a bias ({field} = true) are"),
                "the published Nemotron-H models have none; only the convolution may have a bias",
            ));
        }
    }
    for (field, known) in [("mamba_hidden_act", ["silu", "swish"].as_slice()), ("mlp_hidden_act", &["relu2"])] {
        if let Some((_, found)) = fields.text(&[field])?
            && !known.contains(&found)
        {
            return Err(fields.unsupported(
                field,
                format!("the activation {found:?} is"),
                "supported: silu in Mamba-2 layers, relu2 in MLP layers",
            ));
        }
    }
    for (field, what) in [
        ("quantization_config", "checkpoints that are quantized already are"),
        ("sliding_window", "sliding-window attention is"),
    ] {
        if fields.find(&[field])?.is_some() {
            return Err(fields.unsupported(field, what.into(), "use the bf16 release of a model with full attention"));
        }
    }
    Ok(())
}

/// The layer kinds, from the pattern string, the list, or both if they agree.
pub(super) fn layers(fields: &Fields<'_>) -> Result<Vec<LayerKind>, ConfigError> {
    const PATTERN: &str = "hybrid_override_pattern";
    const LIST: [&str; 2] = ["layers_block_type", "layer_types"];
    let pattern = fields
        .text(&[PATTERN])?
        .map(|(field, text)| {
            let words = text.chars().map(|c| Some(c.to_string()));
            layer_list(fields, field, words)
        })
        .transpose()?;
    let list = match fields.find(&LIST)? {
        None => None,
        Some((field, Value::Array(items))) => {
            let words = items.iter().map(|v| v.as_str().map(str::to_owned));
            Some(layer_list(fields, field, words)?)
        }
        Some((field, other)) => {
            return Err(fields.wrong_type(field, other, "a list of layer kinds"));
        }
    };
    let layers = match (pattern, list) {
        (Some(a), Some(b)) if a != b => {
            let found = format!("{} layers against {}, or other kinds", a.len(), b.len());
            return Err(fields.disagree(PATTERN, LIST[0], found, "remove the wrong one".into()));
        }
        (Some(layers), _) | (None, Some(layers)) => layers,
        (None, None) => {
            return Err(ConfigError::Missing {
                file: fields.file.to_owned(),
                field: PATTERN,
                spellings: format!("{PATTERN}, {}", LIST.join(", ")),
            });
        }
    };
    if let Some(count) = fields.optional_size(&["num_hidden_layers"], 1..=MAX_LAYERS)?
        && count != layers.len()
    {
        return Err(fields.disagree(
            "num_hidden_layers",
            "the list of layers",
            format!("{count} and {} layers", layers.len()),
            format!("{PATTERN} (or {}) has one entry a layer", LIST[0]),
        ));
    }
    Ok(layers)
}

/// The layer kinds of a sequence of words; `None` is an item that is no word.
fn layer_list(
    fields: &Fields<'_>,
    field: &'static str,
    words: impl Iterator<Item = Option<String>>,
) -> Result<Vec<LayerKind>, ConfigError> {
    let layers = words
        .take(MAX_LAYERS + 1)
        .enumerate()
        .map(|(layer, word)| {
            let word = word.unwrap_or_else(|| "not a string".into());
            match word.as_str() {
                "M" | "mamba" | "mamba2" | "linear_attention" => Ok(LayerKind::Mamba),
                "-" | "mlp" => Ok(LayerKind::Mlp),
                "*" | "attention" | "full_attention" => Ok(LayerKind::Attention),
                "E" | "moe" => Err(fields.unsupported(
                    field,
                    format!("layer {layer} is a mixture of experts ({word:?}); such layers are"),
                    "nemoc compiles dense models: Nemotron-H and Nemotron-Nano-v2, not the MoE models of Nemotron 3",
                )),
                _ => Err(ConfigError::UnknownLayer { file: fields.file.to_owned(), field, layer, found: word }),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    if !(1..=MAX_LAYERS).contains(&layers.len()) {
        let found = format!("a list of {} layers", layers.len());
        return Err(fields.out_of_range(field, found, format!("1 to {MAX_LAYERS} layers")));
    }
    Ok(layers)
}

pub(super) fn mamba(fields: &Fields<'_>) -> Result<MambaShape, ConfigError> {
    let (dt_min, dt_max) = time_step_limit(fields)?;
    let shape = MambaShape {
        heads: fields.size(&["mamba_num_heads"], 1..=MAX_SIZE)?,
        head_dim: fields.size(&["mamba_head_dim"], 1..=MAX_SIZE)?,
        groups: fields.size(&["n_groups", "mamba_n_groups"], 1..=MAX_SIZE)?,
        state_size: fields.size(&["ssm_state_size", "mamba_state_dim"], 1..=MAX_SIZE)?,
        conv_kernel: fields.optional_size(&["conv_kernel", "mamba_d_conv"], 2..=MAX_CONV_KERNEL)?.unwrap_or(4),
        conv_bias: fields.flag(&["use_conv_bias", "mamba_conv_bias"], true)?,
        dt_min,
        dt_max,
    };
    limit_product(fields, ["mamba_num_heads", "mamba_head_dim"], shape.heads, shape.head_dim)?;
    limit_product(fields, ["n_groups", "ssm_state_size"], shape.groups, shape.state_size)?;
    if !shape.heads.is_multiple_of(shape.groups) {
        return Err(fields.disagree(
            "mamba_num_heads",
            "n_groups",
            format!("{} heads do not divide into {} groups", shape.heads, shape.groups),
            "every group has the same number of heads".into(),
        ));
    }
    Ok(shape)
}

pub(super) fn attention(fields: &Fields<'_>) -> Result<AttentionShape, ConfigError> {
    let heads = fields.size(&["num_attention_heads"], 1..=MAX_SIZE)?;
    let shape = AttentionShape {
        heads,
        kv_heads: fields.optional_size(&["num_key_value_heads"], 1..=MAX_SIZE)?.unwrap_or(heads),
        head_dim: fields.size(&["head_dim", "attention_head_dim"], 1..=MAX_SIZE)?,
    };
    limit_product(fields, ["num_attention_heads", "head_dim"], heads, shape.head_dim)?;
    if !heads.is_multiple_of(shape.kv_heads) {
        return Err(fields.disagree(
            "num_attention_heads",
            "num_key_value_heads",
            format!("{heads} heads do not divide into {} groups", shape.kv_heads),
            "every key-value head serves the same number of heads".into(),
        ));
    }
    Ok(shape)
}

/// Two sizes whose product is a width too.
fn limit_product(fields: &Fields<'_>, names: [&str; 2], a: usize, b: usize) -> Result<(), ConfigError> {
    if a * b > MAX_SIZE {
        let field = names.join(" * ");
        return Err(fields.out_of_range(&field, format!("{a} * {b}"), format!("at most {MAX_SIZE}")));
    }
    Ok(())
}

/// The clamp of dt, `[0, infinity)` by default. dt is positive, so a negative lower limit is none.
fn time_step_limit(fields: &Fields<'_>) -> Result<(f32, Option<f32>), ConfigError> {
    let Some((field, value)) = fields.find(&["time_step_limit", "mamba_dt_limit"])? else {
        return Ok((0.0, None));
    };
    let limits = match value {
        Value::Array(items) if items.len() == 2 => [fields.float(field, &items[0])?, fields.float(field, &items[1])?],
        other => return Err(fields.wrong_type(field, other, "a list of two numbers")),
    };
    let [min, max] = limits.map(|limit| limit as f32);
    if min.is_nan() || max.is_nan() || min == f32::INFINITY || max <= min.max(0.0) {
        let found = format!("[{}, {}]", limits[0], limits[1]);
        return Err(fields.out_of_range(field, found, "a lower limit below the upper one".into()));
    }
    Ok((min.max(0.0), max.is_finite().then_some(max)))
}

pub(super) fn norm_eps(fields: &Fields<'_>) -> Result<f32, ConfigError> {
    let spellings = ["layer_norm_epsilon", "rms_norm_eps", "norm_eps"];
    let Some((field, value)) = fields.find(&spellings)? else {
        return Ok(1e-5);
    };
    let eps = fields.float(field, value)?;
    if !(eps as f32 > 0.0 && eps < 1.0) {
        return Err(fields.out_of_range(field, eps.to_string(), "above 0 and below 1".into()));
    }
    Ok(eps as f32)
}

pub(super) fn dtype(fields: &Fields<'_>) -> Result<FloatType, ConfigError> {
    match fields.text(&["torch_dtype", "dtype"])? {
        None | Some((_, "bfloat16")) => Ok(FloatType::Bf16),
        Some((_, "float16")) => Ok(FloatType::F16),
        Some((_, "float32")) => Ok(FloatType::F32),
        Some((field, other)) => Err(fields.unsupported(
            field,
            format!("weights of type {other:?} are"),
            "supported: bfloat16, float16, float32",
        )),
    }
}

/// One id, a list of them, or none (absent, null or -1).
pub(super) fn token_ids(
    fields: &Fields<'_>,
    field: &'static str,
    vocab_size: usize,
) -> Result<Option<Vec<u32>>, ConfigError> {
    let id = |value: &Value| {
        // Fits: vocab_size is at most MAX_SIZE.
        fields.whole_number(field, value, 0..=vocab_size - 1).map(|id| id as u32)
    };
    match fields.find(&[field])? {
        None => Ok(None),
        Some((_, value)) if value.as_i64() == Some(-1) => Ok(None),
        Some((_, Value::Array(items))) => items.iter().map(id).collect::<Result<_, _>>().map(Some),
        Some((_, value)) => Ok(Some(vec![id(value)?])),
    }
}
