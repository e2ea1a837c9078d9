//! Rule 20: how the result of a fused launch leaves it.

use super::checker::Checker;
use crate::types::{Act, NemoType, PLAIN, Storage};
use melior::ir::Value;

/// Checks the result `y` of a launch that computed the f32 activation `computed`.
pub(super) fn check(checker: &mut Checker<'_, '_>, computed: &Act, y: Value<'_, '_>, block: Option<i64>) {
    let y = checker.act(y);
    checker.same("the columns of the result", y.cols, computed.cols);
    checker.require(y.storage == Storage::F32 || y.is_quantized(), || {
        format!("the result is {}, expected f32 or 8 bits", NemoType::Act(y.clone()))
    });
    let Some(block) = block else {
        checker.same("the basis of the result without hadamard_block", &y.basis, &computed.basis);
        return;
    };
    let fits = usize::try_from(block).is_ok_and(|block| block.is_power_of_two() && y.cols.is_multiple_of(block));
    checker.require(fits, || format!("hadamard_block is {block}, expected a power of two that divides {}", y.cols));
    checker.same("the basis before hadamard_block", computed.basis.as_str(), PLAIN);
    checker.require(y.basis != PLAIN, || "hadamard_block leads to the plain basis, expected one with a name".into());
}
