use super::lanes;
use super::{ErrorStats, NotFinite, PackedRows, QuantizeRows};
use crate::weights::convert;
use ir::weights::FloatType;

/// Stores floats, rounded to another float type at most.
pub(super) struct Convert {
    pub dtype: FloatType,
}

impl QuantizeRows for Convert {
    fn quantize(&self, values: &mut [f32], k: usize, out: PackedRows<'_>) -> Result<ErrorStats, NotFinite> {
        convert::from_f32(self.dtype, values, out.weight);
        let mut stats = ErrorStats::default();
        let mut back = vec![0.0; k];
        let rows = values.chunks_exact(k).zip(out.weight.chunks_exact(k * self.dtype.bytes()));
        for (row, (values, bytes)) in rows.enumerate() {
            convert::to_f32(self.dtype, bytes, &mut back);
            // A large finite value becomes infinite in f16.
            if !back.iter().all(|v| v.is_finite()) {
                return Err(NotFinite { row });
            }
            back.iter_mut().zip(values).for_each(|(back, value)| *back -= value);
            stats.add(ErrorStats {
                squared_error: f64::from(lanes::sum(&back, |e| e * e)),
                squared_weight: f64::from(lanes::sum(values, |v| v * v)),
                max_error: lanes::max(&back, f32::abs),
            });
        }
        Ok(stats)
    }
}
