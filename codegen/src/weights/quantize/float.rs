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
            for (value, back) in values.iter().zip(&back) {
                let error = (value - back).abs();
                stats.squared_error += f64::from(error) * f64::from(error);
                stats.squared_weight += f64::from(*value) * f64::from(*value);
                stats.max_error = stats.max_error.max(error);
            }
        }
        Ok(stats)
    }
}
