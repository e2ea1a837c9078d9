//! Weights that are brought into L2 before their launch.
//!
//! The linear behind a mixer has all of its weights requested long before its row is made: meanwhile memory can bring the first of
//! those that the next linear will ask for. At other launches memory has no such time to spare.

use super::params::{LinearParams, STREAM_ROW_BYTES};
use super::program::Op;

/// Most bytes of a linear that are brought. L2 holds twice as much on an H200.
const PREFETCHED_BYTES: u64 = 24 << 20;

/// Tells the linear behind every mixer what the next one begins with.
pub(super) fn prepare(program: &mut [Op]) {
    for index in 1..program.len() {
        let (made, behind) = program.split_at_mut(index + 1);
        let [.., Op::Mixer(_), Op::Linear(linear)] = made else { continue };
        if let (Some(params), Some(next)) = (linear.skinny.first_mut(), following(behind)) {
            let first = &next.segments[0];
            let bytes = u64::from(first.row_bytes) * u64::from(first.out_features);
            let whole = bytes.min(PREFETCHED_BYTES) as u32 / STREAM_ROW_BYTES * STREAM_ROW_BYTES;
            (params.next, params.next_bytes) = (first.weight, whole);
        }
    }
}

/// The next linear, behind a norm or at once.
fn following(program: &[Op]) -> Option<&LinearParams> {
    program.iter().take(2).find_map(|op| if let Op::Linear(linear) = op { linear.skinny.first() } else { None })
}

#[cfg(test)]
mod tests {
    use super::super::params::{
        AddParams, Conv1dParams, GatedNormParams, LinearSegment, RmsNormParams, SKINNY_TILE_ROWS, SsmScanParams,
    };
    use super::super::program::{MixerOp, RowCount};
    use super::super::weights::{LinearOp, with_tiles};
    use super::*;
    use crate::plan::Rows;
    use bytemuck::Zeroable;

    const COUNT: RowCount = RowCount { rows: Rows::Token, cols: 512 };

    fn linear(weight: u64, out_features: u32) -> Op {
        let mut params = LinearParams { segment_count: 1, ..LinearParams::zeroed() };
        params.segments[0] = LinearSegment { weight, out_features, row_bytes: 4224, ..LinearSegment::zeroed() };
        let skinny = vec![with_tiles(params, SKINNY_TILE_ROWS)];
        let (gemm, scalar) = (Vec::new(), Vec::new());
        Op::Linear(Box::new(LinearOp { rows: Rows::Token, skinny, gemm, wide: None, scalar, before: None }))
    }

    fn mixer() -> Op {
        let (conv, scan, norm) = (Conv1dParams::zeroed(), SsmScanParams::zeroed(), GatedNormParams::zeroed());
        Op::Mixer(Box::new(MixerOp { conv, scan, norm, taken: true, ahead: Vec::new() }))
    }

    fn norm() -> Op {
        Op::RmsNorm(RmsNormParams::zeroed(), COUNT, true)
    }

    fn prefetched(program: &[Op]) -> Vec<(u64, u32)> {
        let of = |op: &_| if let Op::Linear(linear) = op { linear.skinny.first().copied() } else { None };
        program.iter().filter_map(of).map(|params| (params.next, params.next_bytes)).collect()
    }

    #[test]
    fn a_linear_behind_a_mixer_brings_the_start_of_the_next() {
        let mut program =
            vec![linear(1 << 20, 8), mixer(), linear(2 << 20, 8), norm(), linear(3 << 20, 8), linear(0, 8)];
        prepare(&mut program);
        assert_eq!(prefetched(&program), [(0, 0), (3 << 20, 16 * 2048), (0, 0), (0, 0)]);
    }

    #[test]
    fn brings_no_more_than_l2_has_room_for() {
        let mut program = vec![mixer(), linear(1 << 20, 8), norm(), linear(2 << 20, 21_504)];
        prepare(&mut program);
        assert_eq!(prefetched(&program)[0], (2 << 20, 24 << 20));
    }

    #[test]
    fn brings_nothing_where_the_next_linear_is_further_away_or_none() {
        let add = || Op::Add(AddParams::zeroed(), COUNT);
        for mut program in
            [vec![mixer(), linear(1 << 20, 8)], vec![mixer(), linear(1 << 20, 8), norm(), add(), linear(2 << 20, 8)]]
        {
            prepare(&mut program);
            assert_eq!(prefetched(&program)[0], (0, 0));
        }
    }
}
