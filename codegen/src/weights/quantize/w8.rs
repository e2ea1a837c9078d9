use super::lanes::{self, ROUND};
use super::{ErrorStats, NotFinite, PackedRows, QuantizeRows};
use multiversion::multiversion;
use runtime::plan::K_ALIGN;

/// `scale = absmax / 127`, `q = round_half_even(w * (127 / absmax))`.
pub(super) struct RoundToNearest;

impl QuantizeRows for RoundToNearest {
    fn quantize(&self, values: &mut [f32], k: usize, out: PackedRows<'_>) -> Result<ErrorStats, NotFinite> {
        let mut stats = ErrorStats::default();
        let weights = out.weight.chunks_exact_mut(k.next_multiple_of(K_ALIGN));
        let rows = values.chunks_exact(k).zip(weights).zip(out.scale.chunks_exact_mut(4));
        for (row, ((values, weight), scale)) in rows.enumerate() {
            let (step, error) = quantize_row(values, weight);
            if !error.squared_weight.is_finite() {
                return Err(NotFinite { row });
            }
            scale.copy_from_slice(&step.to_le_bytes());
            stats.add(error);
        }
        Ok(stats)
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn quantize_row(values: &[f32], out: &mut [u8]) -> (f32, ErrorStats) {
    let absmax = lanes::max(values, f32::abs);
    let squared_weight = f64::from(lanes::sum(values, |v| v * v));
    let inverse = 127.0 / absmax;
    // A row of zeros, or so close to it that its inverse is infinite.
    if !inverse.is_finite() {
        out.fill(0);
        return (0.0, ErrorStats { squared_error: squared_weight, squared_weight, max_error: absmax });
    }
    let step = absmax / 127.0;
    let (quantized, padding) = out.split_at_mut(values.len());
    for (q, v) in quantized.iter_mut().zip(values) {
        *q = (v * inverse + ROUND).to_bits() as u8;
    }
    padding.fill(0);
    let error = |v: f32| v * inverse - lanes::round(v * inverse);
    let squared_error = lanes::sum(values, |v| error(v) * error(v));
    let max_error = lanes::max(values, |v| error(v).abs()) * step;
    let squared_error = f64::from(squared_error) * f64::from(step) * f64::from(step);
    (step, ErrorStats { squared_error, squared_weight, max_error })
}
