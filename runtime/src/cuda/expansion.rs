//! Where W4 weights are made W8, and when.

use super::weights::expanded_bytes;
use crate::plan::{Activation, Kernel, Plan, Rows};

/// Where the weights of one linear go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    /// In the memory of all of them.
    pub(super) offset: usize,
    /// Made beside the scan in front of it, not right before the linear.
    pub(super) ahead: bool,
}

/// Most bytes that are made beside one scan: enough for two layers, of which each has an MLP, of the 8B model in 4 bits.
const AHEAD_BYTES: usize = 384 << 20;

/// Where weights of each launch are expanded, and the bytes that takes together.
pub(super) struct Expansion {
    pub(super) places: Vec<Option<Expanded>>,
    pub(super) bytes: usize,
}

impl Expansion {
    /// On a GPU of this compute capability, with the best kernels for it.
    pub(super) fn on(plan: &Plan, capability: (u32, u32)) -> Expansion {
        Expansion::new(plan, capability == (9, 0))
    }

    /// Nothing on GPUs without warpgroup instructions.
    pub(super) fn new(plan: &Plan, warpgroups: bool) -> Expansion {
        let nothing = || (vec![None; plan.launches.len()], 0);
        let (places, bytes) = if warpgroups { places(plan) } else { nothing() };
        Expansion { places, bytes }
    }
}

/// Bytes that a GPU of this compute capability keeps free to make W4 weights W8.
pub fn expansion_bytes(plan: &Plan, capability: (u32, u32)) -> u64 {
    Expansion::on(plan, capability).bytes as u64
}

/// Linears between a mixer and the next one have places of their own. Others have one place together, which is used from one
/// launch to the next.
fn places(plan: &Plan) -> (Vec<Option<Expanded>>, usize) {
    let (mut ahead_bytes, mut alone_bytes, mut next) = (0, 0, None);
    let mut places: Vec<Option<Expanded>> = Vec::with_capacity(plan.launches.len());
    for launch in &plan.launches {
        places.push(match &launch.kernel {
            Kernel::Mixer { .. } => {
                next = Some(0);
                None
            }
            Kernel::Linear { x, in_features, segments } => {
                let bytes = expanded_bytes(*in_features, segments);
                let (Activation::Float { data } | Activation::Quantized { data, .. }) = x;
                let of_tokens = plan.buffer(*data).rows == Rows::Token;
                match next {
                    _ if bytes == 0 => None,
                    Some(offset) if of_tokens && offset + bytes <= AHEAD_BYTES => {
                        next = Some(offset + bytes);
                        ahead_bytes = ahead_bytes.max(offset + bytes);
                        Some(Expanded { offset, ahead: true })
                    }
                    _ => {
                        alone_bytes = alone_bytes.max(bytes);
                        Some(Expanded { offset: 0, ahead: false })
                    }
                }
            }
            _ => None,
        });
    }
    for place in places.iter_mut().flatten().filter(|place| !place.ahead) {
        place.offset = ahead_bytes;
    }
    (places, ahead_bytes + alone_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::WeightFormat;
    use crate::synthetic::{Layout, Shape, model};

    fn plan(pattern: &str, format: WeightFormat) -> Plan {
        let shape = Shape { layer_pattern: pattern.to_owned(), ..Shape::mini() };
        model(&shape, &Layout { fused_mixer: true, ..Layout::of(format) }, 1).0
    }

    const W4: WeightFormat = WeightFormat::W4TwoLevel { group_size: 128 };

    #[test]
    fn linears_between_two_mixers_never_share_memory() {
        let plan = plan("M-M*-M-", W4);
        let (places, bytes) = places(&plan);
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut windows = 0;
        for (launch, place) in plan.launches.iter().zip(&places) {
            match &launch.kernel {
                Kernel::Mixer { .. } => {
                    taken.clear();
                    windows += 1;
                }
                Kernel::Linear { in_features, segments, .. } => {
                    let Some(place) = place else { continue };
                    let end = place.offset + expanded_bytes(*in_features, segments);
                    assert!(end <= bytes && taken.iter().all(|(start, till)| end <= *start || place.offset >= *till));
                    taken.push((place.offset, end));
                }
                _ => {}
            }
        }
        assert_eq!(windows, 3);
    }

    #[test]
    fn everything_behind_a_mixer_is_made_beside_it_but_what_is_of_output_rows() {
        let plan = plan("M-", W4);
        let (places, _) = places(&plan);
        let ahead: Vec<bool> = places.iter().flatten().map(|place| place.ahead).collect();
        // in_proj, out_proj, up_proj, down_proj.
        assert_eq!(ahead[..4], [false, true, true, true]);
        assert!(ahead[4..].iter().all(|ahead| !ahead));
    }

    #[test]
    fn w8_needs_no_place() {
        let (places, bytes) = places(&plan("M-", WeightFormat::W8));
        assert!(places.iter().all(Option::is_none) && bytes == 0);
    }
}
