//! Rotations come in pairs that undo each other, so the graph stays equal; fold-rotations merges them into weights.
//!
//! ```text
//! residual     %x = embed(%t, %w)             =>    %x' = rotate(embed(%t, %w), R)
//!              %x = add(%r, %o)               =>    %x' = add(%r', rotate(%o, R))
//!              %n = rms_norm(%x)              =>    %n  = rotate(rms_norm(%x'), R^T)
//! value_output %y = attention(%q, %k, %v)     =>    %y  = rotate(attention(%q, %k, rotate(%v, V)), V^T)
//! query_key    %y = attention(%q, %k, %v)     =>    %y  = attention(rotate(%q, Q), rotate(%k, Q), %v)
//! out_proj     linear(%g, %w)                 =>    linear(rotate(rotate(%g, H), H^T), %w)
//! down_proj    the same
//! ```
//!
//! `R` is as wide as the residual stream; `V` and `Q` as a head; `H` is the largest power of two that divides the width,
//! at most 1024 before out_proj and 256 before down_proj, and stays online, for the op before it is not linear.
//!
//! Of the kind klt `R` and `V` follow the data: their matrices are made from covariances when weights are written. `Q`
//! is a Hadamard matrix then, for nothing is measured of queries and keys, and so is every `H`.
//!
//! Does not fire on a module that has rotations, before a linear that stays float (online), or without a kind. Refuses a
//! norm of the residual stream that has a weight: run fold-norms. Legal because an orthogonal matrix keeps root mean
//! squares (a norm without weight commutes with it) and dot products (`q R R^T k = q k`), and attention is linear in v.
//!
//! Buys: activations and weights without outliers, so that 4 and 8 bits lose less (QuaRot, SpinQuant).

use crate::copy;
use crate::recipe::Rotations;
use crate::uses::key;
use ir::IrError;
use ir::melior::{
    Context,
    ir::{Location, Module, Value, operation::OperationLike},
};
use ir::module::{defining, ops, type_of};
use ir::ops::{Op, build, views};
use ir::pass::{Pass, PassError, PassFailure};
use ir::rewrite::{Action, Rewriter, rewrite};
use ir::stage::Stage;
use ir::types::{Act, NemoType, PLAIN};
use ir::weights::{Rotation, RotationKind};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// The basis of the residual stream.
const RESIDUAL: &str = "residual";
/// The widest online block before out_proj, which a CTA that holds a whole row can rotate.
const OUT_PROJ_BLOCK: usize = 1024;
/// The widest online block before down_proj, which fits the tile of the producing matmul.
const DOWN_PROJ_BLOCK: usize = 256;

/// See the module's documentation.
pub struct InsertRotations {
    /// Which.
    pub rotations: Rotations,
}

impl Pass for InsertRotations {
    fn name(&self) -> &'static str {
        "insert-rotations"
    }

    fn requires(&self) -> RangeInclusive<Stage> {
        Stage::Imported..=Stage::Annotated
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        let Some(kind) = self.rotations.kind else { return Ok(None) };
        let ops = ops(module)?;
        if ops.iter().any(|op| is_rotated(*op)) {
            return Ok(None);
        }
        let stream = if self.rotations.residual { residual_stream(&ops) } else { HashSet::new() };
        refuse_weighted_norms(&ops, &stream)?;
        let mut changed = false;
        let new = rewrite::<IrError>(context, module, |rewriter, op| {
            let mut insert = Insert { rewriter, rotations: &self.rotations, kind, stream: &stream };
            let action = insert.op(op)?;
            changed |= matches!(action, Action::Done);
            Ok(action)
        })?;
        Ok(changed.then_some(new))
    }
}

/// Whether an op gives a value in a rotated basis, or takes one back.
fn is_rotated(op: Op<'_, '_>) -> bool {
    matches!(op, Op::Rotate(_) | Op::RotateWeight(_))
        || op.operation().results().any(|result| basis(result.into()).is_some_and(|basis| basis != PLAIN))
}

fn basis(value: Value<'_, '_>) -> Option<String> {
    match type_of(value) {
        NemoType::Act(act) => Some(act.basis),
        _ => None,
    }
}

/// The embedding and every sum that it is part of.
fn residual_stream(ops: &[Op<'_, '_>]) -> HashSet<usize> {
    let mut stream = HashSet::new();
    for op in ops {
        match op {
            Op::Embed(embed) => {
                stream.insert(key(embed.y()));
            }
            Op::Add(add) if stream.contains(&key(add.a())) || stream.contains(&key(add.b())) => {
                stream.insert(key(add.y()));
            }
            _ => {}
        }
    }
    stream
}

fn refuse_weighted_norms(ops: &[Op<'_, '_>], stream: &HashSet<usize>) -> Result<(), PassError> {
    let mut norms = ops.iter().filter_map(|op| match op {
        Op::RmsNorm(norm) if stream.contains(&key(norm.x())) => norm.weight(),
        _ => None,
    });
    let Some(weight) = norms.next() else { return Ok(()) };
    let name = match defining(weight) {
        Some(Op::Weight(weight)) => weight.tensor(),
        _ => "the weight of a norm".to_owned(),
    };
    Err(PassError {
        pass: "insert-rotations",
        message: format!("{name} scales the residual stream, which a rotation cannot pass"),
        help: Some("run fold-norms first".to_owned()),
    })
}

/// One op's rewrite.
struct Insert<'r, 'c, 'n> {
    rewriter: &'r mut Rewriter<'c, 'n>,
    rotations: &'r Rotations,
    kind: RotationKind,
    /// Values of the residual stream in the old graph. The rewriter maps each to its plain form, the rotation back of
    /// its rotated form; whichever is not used is dropped.
    stream: &'r HashSet<usize>,
}

impl<'c: 'n, 'n> Insert<'_, 'c, 'n> {
    fn op(&mut self, op: Op<'c, '_>) -> Result<Action, IrError> {
        match op {
            Op::Embed(embed) if self.stream.contains(&key(embed.y())) => self.embed(embed)?,
            Op::Add(add) if self.stream.contains(&key(add.y())) => self.add(add)?,
            Op::RmsNorm(norm) if self.stream.contains(&key(norm.x())) && norm.delta().is_none() => self.norm(norm)?,
            Op::Attention(attention) if self.rotations.value_output || self.rotations.query_key => {
                self.attention(attention)?;
            }
            Op::Linear(linear) => return self.linear(linear),
            _ => return Ok(Action::Keep),
        }
        Ok(Action::Done)
    }

    fn embed(&mut self, embed: views::Embed<'c, '_>) -> Result<(), IrError> {
        let at = embed.0.location();
        let y = self.rewriter.builder().push(copy::embed(self.rewriter, embed), at)?.y();
        let y = self.enter_residual(y, at)?;
        self.leave_residual(embed.y(), y, at)
    }

    fn add(&mut self, add: views::Add<'c, '_>) -> Result<(), IrError> {
        let at = add.0.location();
        let (a, b) = (self.in_residual(add.a(), at)?, self.in_residual(add.b(), at)?);
        let y = self.rewriter.builder().push(build::Add { a, b, y: type_of(a) }, at)?.y();
        self.leave_residual(add.y(), y, at)
    }

    fn norm(&mut self, norm: views::RmsNorm<'c, '_>) -> Result<(), IrError> {
        let at = norm.0.location();
        let x = self.in_residual(norm.x(), at)?;
        let copy = build::RmsNorm { x, ..copy::rms_norm(self.rewriter, norm) };
        let rotation = self.residual(&copy.y);
        let y = in_basis(&copy.y, RESIDUAL);
        let y = self.rewriter.builder().push(build::RmsNorm { y, ..copy }, at)?.y();
        let plain = self.rotate(y, &rotation, true, at)?;
        self.rewriter.map(norm.y(), plain);
        Ok(())
    }

    fn residual(&self, r#type: &NemoType) -> Rotation {
        self.offline(RESIDUAL.to_owned(), act(r#type).cols)
    }

    fn enter_residual(&self, plain: Value<'c, 'n>, at: Location<'c>) -> Result<Value<'c, 'n>, IrError> {
        self.rotate(plain, &self.residual(&type_of(plain)), false, at)
    }

    /// The rotated form of an old value, whether of the stream or written to it.
    fn in_residual(&self, old: Value<'c, '_>, at: Location<'c>) -> Result<Value<'c, 'n>, IrError> {
        let plain = self.rewriter.value(old);
        match defining(plain) {
            Some(Op::Rotate(back)) if back.transpose() && back.basis() == RESIDUAL => Ok(back.x()),
            _ => self.enter_residual(plain, at),
        }
    }

    /// Maps an old value of the stream to the plain form of the new one.
    fn leave_residual(&mut self, old: Value<'c, '_>, rotated: Value<'c, 'n>, at: Location<'c>) -> Result<(), IrError> {
        let plain = self.rotate(rotated, &self.residual(&type_of(rotated)), true, at)?;
        self.rewriter.map(old, plain);
        Ok(())
    }

    fn attention(&mut self, attention: views::Attention<'c, '_>) -> Result<(), IrError> {
        let at = attention.0.location();
        let mut copy = copy::attention(self.rewriter, attention);
        let (layer, head_dim) = (layer(&copy.name), copy.head_dim as usize);
        if self.rotations.query_key {
            let rotation = self.offline(format!("{layer}.qk"), head_dim);
            let kind = if self.kind == RotationKind::Klt { RotationKind::Hadamard } else { self.kind };
            let rotation = Rotation { kind, ..rotation };
            copy.q = self.rotate(copy.q, &rotation, false, at)?;
            copy.k = self.rotate(copy.k, &rotation, false, at)?;
        }
        let heads = self.rotations.value_output.then(|| self.offline(format!("{layer}.v"), head_dim));
        if let Some(rotation) = &heads {
            copy.v = self.rotate(copy.v, rotation, false, at)?;
            copy.y = in_basis(&copy.y, &rotation.name);
        }
        let new = self.rewriter.builder().push(copy, at)?;
        let y = match &heads {
            Some(rotation) => self.rotate(new.y(), rotation, true, at)?,
            None => new.y(),
        };
        self.rewriter.map(attention.y(), y);
        self.rewriter.map(attention.new_state(), new.new_state());
        Ok(())
    }

    /// Online, before the projections whose input no linear writes.
    fn linear(&mut self, linear: views::Linear<'c, '_>) -> Result<Action, IrError> {
        let Some(rotation) = self.online(linear) else { return Ok(Action::Keep) };
        let at = linear.0.location();
        let copy = copy::linear(self.rewriter, linear);
        let rotated = self.rotate(copy.x, &rotation, false, at)?;
        let x = self.rotate(rotated, &rotation, true, at)?;
        let y = self.rewriter.builder().push(build::Linear { x, ..copy }, at)?.y();
        self.rewriter.map(linear.y(), y);
        Ok(Action::Done)
    }

    fn online(&self, linear: views::Linear<'c, '_>) -> Option<Rotation> {
        let name = linear.name();
        let widest = match name.rsplit('.').next()? {
            "out_proj" if self.rotations.out_proj => OUT_PROJ_BLOCK,
            "down_proj" if self.rotations.down_proj => DOWN_PROJ_BLOCK,
            _ => return None,
        };
        if linear.precision().as_deref() == Some("float") {
            return None;
        }
        let size = block(act(&type_of(linear.x())).cols, widest);
        let name = name.replace(".mixer", "");
        (size > 1).then_some(Rotation { name, kind: RotationKind::Hadamard, size, seed: 0 })
    }

    fn offline(&self, name: String, size: usize) -> Rotation {
        Rotation { name, kind: self.kind, size, seed: self.rotations.seed }
    }

    fn rotate(
        &self,
        x: Value<'c, 'n>,
        rotation: &Rotation,
        transpose: bool,
        at: Location<'c>,
    ) -> Result<Value<'c, 'n>, IrError> {
        let rotate = build::Rotate {
            x,
            basis: rotation.name.clone(),
            kind: rotation.kind.as_str().to_owned(),
            size: rotation.size as i64,
            seed: rotation.seed as i64,
            transpose,
            y: in_basis(&type_of(x), if transpose { PLAIN } else { &rotation.name }),
        };
        Ok(self.rewriter.builder().push(rotate, at)?.y())
    }
}

/// The largest power of two that divides `width`, at most `widest`.
fn block(width: usize, widest: usize) -> usize {
    if width == 0 { 1 } else { (1 << width.trailing_zeros()).min(widest) }
}

/// `layers.7` of `layers.7.mixer`.
fn layer(mixer: &str) -> &str {
    mixer.strip_suffix(".mixer").unwrap_or(mixer)
}

fn act(r#type: &NemoType) -> &Act {
    let NemoType::Act(act) = r#type else { unreachable!("bug: the op table says it is an activation") };
    act
}

fn in_basis(r#type: &NemoType, basis: &str) -> NemoType {
    NemoType::Act(act(r#type).in_basis(basis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_online_blocks_that_divide_the_width() {
        assert_eq!(block(8192, OUT_PROJ_BLOCK), 1024);
        assert_eq!(block(21504, DOWN_PROJ_BLOCK), 256);
        assert_eq!(block(96, OUT_PROJ_BLOCK), 32);
        assert_eq!(block(7, OUT_PROJ_BLOCK), 1);
    }
}
