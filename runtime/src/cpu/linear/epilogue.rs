//! From the sums of a panel to the rows of a buffer.

use super::super::buffers::Buffers;
use super::super::emit::for_rows;
use super::super::map::relu2;
use super::super::simd::simd;
use super::{ResolvedSegment, Sums, Weight};
use crate::plan::{BufferId, Epilogue};

/// Writes the rows of one segment.
pub(super) fn run(segment: &ResolvedSegment<'_>, sums: &Sums<'_>, x_scale: Option<BufferId>, buffers: &mut Buffers) {
    let rows = segment.rows;
    let range = sums.tokens.start * rows..sums.tokens.end * rows;
    if segment.epilogue == Epilogue::Accumulator {
        return buffers.write(segment.out, |_, out: &mut [i32]| {
            for_rows(&mut out[range], rows, |t, out| {
                for (first, sums) in sums.pieces(segment, t) {
                    out[first..][..sums.len()].copy_from_slice(bytemuck::cast_slice(sums));
                }
            });
        });
    }
    buffers.write(segment.out, |buffers, out: &mut [f32]| {
        let x_scale = x_scale.map(|scale| &buffers.floats(scale)[sums.tokens.clone()]);
        for_rows(&mut out[range], rows, |t, out| {
            let x_scale = x_scale.map_or(1.0, |scale| scale[t]);
            for (first, sums) in sums.pieces(segment, t) {
                let out = &mut out[first..][..sums.len()];
                match &segment.weight {
                    Weight::W8 { scale, .. } | Weight::W4TwoLevel { scale, .. } => {
                        let scale = &scale[first..][..sums.len()];
                        store_integers(bytemuck::cast_slice(sums), x_scale, scale, segment.epilogue, out);
                    }
                    _ => store_floats(bytemuck::cast_slice(sums), x_scale, segment.epilogue, out),
                }
            }
        });
    });
}

simd! {
fn store_integers(sums: &[i32], x_scale: f32, scale: &[f32], epilogue: Epilogue, out: &mut [f32]) {
    let values = sums.iter().zip(scale).map(|(sum, scale)| *sum as f32 * (x_scale * scale));
    store(values, epilogue, out);
}
}

simd! {
/// Float weights come with an `x_scale` of 1, which changes no bit.
fn store_floats(sums: &[f32], x_scale: f32, epilogue: Epilogue, out: &mut [f32]) {
    store(sums.iter().map(|sum| sum * x_scale), epilogue, out);
}
}

#[inline(always)]
fn store(values: impl Iterator<Item = f32>, epilogue: Epilogue, out: &mut [f32]) {
    match epilogue {
        Epilogue::Accumulate => out.iter_mut().zip(values).for_each(|(out, y)| *out += y),
        Epilogue::Relu2 => out.iter_mut().zip(values).for_each(|(out, y)| *out = relu2(y)),
        Epilogue::Store | Epilogue::Accumulator => out.iter_mut().zip(values).for_each(|(out, y)| *out = y),
    }
}
