//! Copies of ops, in parts: a pass changes a field or two before it appends the copy.

use ir::module::type_of;
use ir::ops::{build, views};
use ir::rewrite::Rewriter;

pub(crate) fn linear<'c, 'n>(rewriter: &Rewriter<'c, 'n>, op: views::Linear<'c, '_>) -> build::Linear<'c, 'n> {
    build::Linear {
        x: rewriter.value(op.x()),
        weight: rewriter.value(op.weight()),
        residual: op.residual().map(|residual| rewriter.value(residual)),
        name: op.name(),
        precision: op.precision(),
        epilogue: op.epilogue(),
        y: type_of(op.y()),
    }
}

pub(crate) fn embed<'c, 'n>(rewriter: &Rewriter<'c, 'n>, op: views::Embed<'c, '_>) -> build::Embed<'c, 'n> {
    build::Embed {
        tokens: rewriter.value(op.tokens()),
        table: rewriter.value(op.table()),
        name: op.name(),
        precision: op.precision(),
        y: type_of(op.y()),
    }
}

pub(crate) fn rms_norm<'c, 'n>(rewriter: &Rewriter<'c, 'n>, op: views::RmsNorm<'c, '_>) -> build::RmsNorm<'c, 'n> {
    build::RmsNorm {
        x: rewriter.value(op.x()),
        delta: op.delta().map(|delta| rewriter.value(delta)),
        weight: op.weight().map(|weight| rewriter.value(weight)),
        eps: op.eps(),
        hadamard_block: op.hadamard_block(),
        y: type_of(op.y()),
        sum: op.sum().map(type_of),
    }
}

pub(crate) fn gated_rms_norm<'c, 'n>(
    rewriter: &Rewriter<'c, 'n>,
    op: views::GatedRmsNorm<'c, '_>,
) -> build::GatedRmsNorm<'c, 'n> {
    build::GatedRmsNorm {
        x: rewriter.value(op.x()),
        z: rewriter.value(op.z()),
        weight: op.weight().map(|weight| rewriter.value(weight)),
        eps: op.eps(),
        group_size: op.group_size(),
        hadamard_block: op.hadamard_block(),
        y: type_of(op.y()),
    }
}

pub(crate) fn ssm_scan<'c, 'n>(rewriter: &Rewriter<'c, 'n>, op: views::SsmScan<'c, '_>) -> build::SsmScan<'c, 'n> {
    build::SsmScan {
        xbc: rewriter.value(op.xbc()),
        dt: rewriter.value(op.dt()),
        a_log: rewriter.value(op.a_log()),
        d: rewriter.value(op.d()),
        dt_bias: rewriter.value(op.dt_bias()),
        state: rewriter.value(op.state()),
        name: op.name(),
        heads: op.heads(),
        head_dim: op.head_dim(),
        groups: op.groups(),
        state_size: op.state_size(),
        dt_min: op.dt_min(),
        dt_max: op.dt_max(),
        y: type_of(op.y()),
        new_state: type_of(op.new_state()),
    }
}

pub(crate) fn attention<'c, 'n>(rewriter: &Rewriter<'c, 'n>, op: views::Attention<'c, '_>) -> build::Attention<'c, 'n> {
    build::Attention {
        q: rewriter.value(op.q()),
        k: rewriter.value(op.k()),
        v: rewriter.value(op.v()),
        state: rewriter.value(op.state()),
        name: op.name(),
        heads: op.heads(),
        kv_heads: op.kv_heads(),
        head_dim: op.head_dim(),
        scale: op.scale(),
        hadamard_block: op.hadamard_block(),
        y: type_of(op.y()),
        new_state: type_of(op.new_state()),
    }
}
