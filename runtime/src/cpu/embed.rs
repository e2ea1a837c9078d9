//! [`crate::plan::Kernel::Embed`].

use super::emit::for_rows;
use super::linear::Weight;
use super::program::{Op, Step};
use super::tensors::Tensors;
use crate::plan::{BufferId, Embedding, PlanError};

pub(super) struct Embed<'a> {
    table: Weight<'a>,
    cols: usize,
    out: BufferId,
}

impl<'a> Embed<'a> {
    pub(super) fn new(table: &Embedding, out: BufferId, tensors: Tensors<'a>) -> Result<Self, PlanError> {
        Ok(Embed {
            table: Weight::new(&table.weight, table.format, table.hidden_size, tensors)?,
            cols: table.hidden_size,
            out,
        })
    }
}

impl Op for Embed<'_> {
    fn run(&self, step: &mut Step<'_>) {
        let tokens = &step.batch.tokens;
        step.buffers.write(self.out, |_, out| {
            for_rows(out, self.cols, |t, out| self.table.dequantize_row(tokens[t] as usize, out));
        });
    }
}
