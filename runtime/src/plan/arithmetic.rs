//! The arithmetic of a plan, for people.

use super::{Activation, Kernel, Plan, WeightFormat};
use std::collections::BTreeMap;

impl Plan {
    /// How many weights are multiplied in which arithmetic, for example `10 i4 x i8, 28 i8 x i8`.
    pub fn arithmetic(&self) -> String {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for launch in &self.launches {
            let Kernel::Linear { x, segments, .. } = &launch.kernel else { continue };
            let (Activation::Float { data } | Activation::Quantized { data, .. }) = x;
            for segment in segments {
                let key = (weight_name(segment.format), self.buffer(*data).dtype.to_string());
                *counts.entry(key).or_default() += 1;
            }
        }
        let texts = counts.iter().map(|((weight, x), count)| format!("{count} {weight} x {x}"));
        texts.collect::<Vec<_>>().join(", ")
    }
}

fn weight_name(format: WeightFormat) -> String {
    match format {
        WeightFormat::Float { dtype } => dtype.to_string(),
        WeightFormat::W8 => "i8".to_owned(),
        WeightFormat::W4TwoLevel { .. } | WeightFormat::W4Group { .. } => "i4".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::WeightFormat;
    use crate::synthetic::{Layout, Shape, model};

    #[test]
    fn counts_weights_by_their_arithmetic() {
        let (plan, _) = model(&Shape::tiny(), &Layout::of(WeightFormat::W8), 1);
        // Five layers: in_proj (3) and out_proj twice, up_proj and down_proj twice, qkv (3) and o_proj; and the head.
        assert_eq!(plan.arithmetic(), "15 i8 x i8, 2 i8 x u8");
    }
}
