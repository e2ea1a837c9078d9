//! What a model needs of a device's memory, and what fits.

use crate::artifact::Artifact;
use crate::cuda;
use crate::plan::{DType, Plan, Rows, StateKind};
use crate::tensors::TensorView;
use serde::{Deserialize, Serialize};

/// Bytes that an artifact needs at run time, by what they grow with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Weights and scales: once.
    pub weights: u64,
    /// Where weights of 4 bits are made 8-bit for steps of many rows: once, on GPUs that do that.
    #[serde(default)]
    pub expanded: u64,
    /// Convolution windows and scan states: for each sequence.
    pub state_per_sequence: u64,
    /// Keys and values: for each token of each sequence.
    pub kv_per_token: u64,
    /// Buffers of a step: for each token row.
    pub buffers_per_row: u64,
    /// Buffers of a step: for each row of logits.
    pub buffers_per_output: u64,
}

/// How a model is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Tokens of each sequence.
    pub context: u64,
    /// Sequences.
    pub batch: u64,
    /// Token rows of a step; at least one for each sequence.
    pub step_rows: u64,
}

/// A footprint added up for one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Weights and scales.
    pub weights: u64,
    /// Where weights of 4 bits are made 8-bit.
    #[serde(default)]
    pub expanded: u64,
    /// Keys and values.
    pub kv: u64,
    /// Convolution windows and scan states.
    pub states: u64,
    /// Buffers.
    pub buffers: u64,
}

impl Needs {
    /// All together; a sum beyond 2^64 counts as 2^64 - 1.
    pub fn total(&self) -> u64 {
        let others = [self.expanded, self.kv, self.states, self.buffers];
        others.iter().fold(self.weights, |sum, bytes| sum.saturating_add(*bytes))
    }
}

impl Footprint {
    /// Of an artifact.
    pub fn of(artifact: &Artifact) -> Footprint {
        // Files that travel along are u8 vectors, no weight is one.
        let is_file = |view: &TensorView<'_>| view.dtype == DType::U8 && view.shape.len() == 1;
        let weights = artifact.tensors().filter(|(_, view)| !is_file(view)).map(|(_, view)| view.bytes.len() as u64);
        Footprint::of_plan(artifact.plan(), weights.sum())
    }

    /// Of a plan whose weights are known by their size.
    pub fn of_plan(plan: &Plan, weights: u64) -> Footprint {
        let states = |growing: bool| {
            let kind = move |kind| matches!(kind, StateKind::Kv) == growing;
            let states = plan.states.iter().filter(move |state| kind(state.kind));
            states.map(|state| state.bytes() as u64).sum::<u64>()
        };
        let buffers = |rows: Rows| {
            let buffers = plan.buffers.iter().filter(move |buffer| buffer.rows == rows);
            buffers.map(|buffer| (buffer.cols * buffer.dtype.bytes()) as u64).sum()
        };
        Footprint {
            weights,
            expanded: 0,
            state_per_sequence: states(false),
            kv_per_token: 2 * states(true),
            buffers_per_row: buffers(Rows::Token),
            buffers_per_output: buffers(Rows::Output),
        }
    }

    /// On a GPU of this compute capability.
    pub fn on(self, plan: &Plan, capability: (u32, u32)) -> Footprint {
        Footprint { expanded: cuda::expansion_bytes(plan, capability), ..self }
    }

    /// Added up. Every sequence has one row of logits.
    pub fn needs(&self, of: Use) -> Needs {
        let rows = of.step_rows.max(of.batch);
        Needs {
            weights: self.weights,
            expanded: self.expanded,
            kv: self.kv_per_token.saturating_mul(of.context).saturating_mul(of.batch),
            states: self.state_per_sequence.saturating_mul(of.batch),
            buffers: (self.buffers_per_row.saturating_mul(rows))
                .saturating_add(self.buffers_per_output.saturating_mul(of.batch)),
        }
    }

    /// The longest context that fits `bytes`, the rest of the use as given; `None` if not even one token does, and
    /// `u64::MAX` if the model keeps nothing of its context.
    pub fn longest_context(&self, of: Use, bytes: u64) -> Option<u64> {
        let used = self.needs(Use { context: 0, ..of }).total();
        let free = bytes.checked_sub(used)?;
        let tokens = free.checked_div(self.kv_per_token * of.batch.max(1)).unwrap_or(u64::MAX);
        (tokens > 0).then_some(tokens)
    }

    /// Most sequences that fit `bytes`, the rest of the use as given; `None` if not even one does.
    pub fn largest_batch(&self, of: Use, bytes: u64) -> Option<u64> {
        let fits = |batch: u64| self.needs(Use { batch, ..of }).total() <= bytes;
        let mut low = fits(1).then_some(1u64)?;
        let mut high = 2;
        while fits(high) {
            low = high;
            high = high.checked_mul(2)?;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        Some(low)
    }
}

/// A use that does not fit: what it needs, what there is, and what would fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What it needs.
    pub needs: Needs,
    /// Bytes there are.
    pub available: u64,
    /// The most token rows of a step that fit, the rest of the use as it is.
    pub step_rows: Option<u64>,
    /// The longest context that fits, in steps of no more rows than a decode has.
    pub context: Option<u64>,
}

impl Shortage {
    /// What is wrong.
    pub fn message(&self) -> String {
        let Needs { weights, expanded, kv, states, buffers } = self.needs;
        let expanded = if expanded > 0 { format!("{} to expand them, ", mib(expanded)) } else { String::new() };
        format!(
            "the model needs {} ({} of weights, {expanded}{} of buffers, {} of states, {} of keys and values), {} are free",
            mib(self.needs.total()),
            mib(weights),
            mib(buffers),
            mib(states),
            mib(kv),
            mib(self.available)
        )
    }

    /// What to do.
    pub fn help(&self) -> String {
        match (self.step_rows, self.context) {
            (Some(rows), _) => format!("--chunk {rows} fits"),
            (None, Some(tokens)) => format!("--context {tokens} with --chunk 1 fits"),
            (None, None) => {
                "not even one token fits: end other programs that use the GPU, compile the model with fewer \
                             bits (--phase 3 or 2), or run on the CPU (`--device cpu`)"
                    .to_owned()
            }
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Footprint {
    /// Why a use does not fit `available` bytes, if it does not.
    pub fn shortage(&self, of: Use, available: u64) -> Option<Shortage> {
        let needs = self.needs(of);
        if needs.total() <= available {
            return None;
        }
        let without_rows = self.needs(Use { step_rows: 0, ..of });
        let least = of.batch.max(1);
        let free = (available + self.buffers_per_row * least).checked_sub(without_rows.total());
        let step_rows = free.and_then(|free| free.checked_div(self.buffers_per_row)).filter(|rows| *rows >= least);
        let context = self.longest_context(Use { step_rows: least, ..of }, available);
        Some(Shortage { needs, available, step_rows, context })
    }
}

/// A GPU, as a memory planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// On the command line.
    pub name: &'static str,
    /// Its memory by the data sheet.
    pub bytes: u64,
    /// Its compute capability.
    pub capability: (u32, u32),
}

const GIB: u64 = 1 << 30;

/// Known GPUs.
pub const GPUS: &[Gpu] = &[
    Gpu { name: "rtx3090", bytes: 24 * GIB, capability: (8, 6) },
    Gpu { name: "rtx4090", bytes: 24 * GIB, capability: (8, 9) },
    Gpu { name: "rtx5090", bytes: 32 * GIB, capability: (12, 0) },
    Gpu { name: "l40s", bytes: 48 * GIB, capability: (8, 9) },
    Gpu { name: "a100", bytes: 80 * GIB, capability: (8, 0) },
    Gpu { name: "h100", bytes: 80 * GIB, capability: (9, 0) },
    Gpu { name: "h200", bytes: 141_000_000_000, capability: (9, 0) },
];

/// What a driver and its context keep of a GPU's memory, roughly.
pub const RESERVED_BYTES: u64 = 600 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::WeightFormat;
    use crate::synthetic::{self, Layout, Shape};
    use proptest::prelude::*;

    const SMALL: Footprint = Footprint {
        weights: 1000,
        expanded: 0,
        state_per_sequence: 50,
        kv_per_token: 2,
        buffers_per_row: 10,
        buffers_per_output: 5,
    };

    #[test]
    fn adds_up_by_hand() {
        let needs = SMALL.needs(Use { context: 100, batch: 3, step_rows: 8 });
        assert_eq!(needs, Needs { weights: 1000, expanded: 0, kv: 600, states: 150, buffers: 95 });
        assert_eq!(needs.total(), 1845);
    }

    #[test]
    fn a_plan_is_counted_from_its_states_and_buffers() {
        let shape = Shape::tiny();
        let (plan, _) = synthetic::model(&shape, &Layout::of(WeightFormat::W8), 1);
        let footprint = Footprint::of_plan(&plan, 7);
        let scan = shape.inner() * shape.state_size;
        let window = shape.conv_channels() * (shape.conv_kernel - 1);
        assert_eq!(footprint.state_per_sequence, 2 * 4 * (scan + window) as u64);
        assert_eq!(footprint.kv_per_token, (2 * 4 * shape.kv_heads * shape.head_dim) as u64);
        assert!(footprint.buffers_per_output >= 4 * shape.vocab_size as u64);
    }

    #[test]
    fn only_gpus_with_warpgroup_instructions_expand_weights_of_4_bits() {
        let of = |format, name: &str| {
            let layout = Layout { fused_mixer: true, ..Layout::of(format) };
            let plan = synthetic::model(&Shape::mini(), &layout, 1).0;
            let gpu = GPUS.iter().find(|gpu| gpu.name == name).unwrap();
            Footprint::of_plan(&plan, 0).on(&plan, gpu.capability).needs(Use { context: 1, batch: 1, step_rows: 1 })
        };
        let w4 = WeightFormat::W4TwoLevel { group_size: 128 };
        let (without, with) = (of(w4, "rtx4090"), of(w4, "h100"));
        // The longest way to the next mixer: the linears of an M, a -, a * and the in_proj of the M that ends it; the head alone.
        let ahead = 1024 * 512 + 2 * 512 * 2688 + (512 + 2 * 128) * 512 + 512 * 512 + (2 * 1024 + 2 * 512 + 16) * 512;
        assert_eq!((without.expanded, with.expanded), (0, ahead + 8192 * 512));
        assert_eq!(with.total(), without.total() + with.expanded);
        assert_eq!(of(WeightFormat::W8, "h100").expanded, 0);
    }

    #[test]
    fn says_when_nothing_fits() {
        let of = Use { context: 10, batch: 1, step_rows: 1 };
        assert_eq!(SMALL.longest_context(of, 1000), None);
        assert_eq!(SMALL.largest_batch(of, 1000), None);
    }

    #[test]
    fn names_what_is_needed_and_what_would_fit() {
        let of = Use { context: 100, batch: 1, step_rows: 500 };
        assert_eq!(SMALL.shortage(of, SMALL.needs(of).total()), None);
        let large_steps = SMALL.shortage(of, 2000).unwrap();
        assert_eq!((large_steps.step_rows, large_steps.help()), (Some(74), "--chunk 74 fits".to_owned()));
        let long = SMALL.shortage(Use { context: 10_000, ..of }, 2000).unwrap();
        assert_eq!((long.step_rows, long.context), (None, Some(467)));
        assert!(long.help().starts_with("--context 467"), "{}", long.help());
        let nothing = SMALL.shortage(of, 900).unwrap();
        assert!(nothing.help().contains("--device cpu") && nothing.message().contains("0.0 MiB are free"));
    }

    proptest! {
        #[test]
        fn a_step_that_is_said_to_fit_fits_and_one_more_row_does_not(
            bytes in 1000u64..10_000, context in 1u64..2000, batch in 1u64..10, step_rows in 1u64..2000,
        ) {
            let of = Use { context, batch, step_rows };
            if let Some(rows) = SMALL.shortage(of, bytes).and_then(|shortage| shortage.step_rows) {
                let total = |step_rows| SMALL.needs(Use { step_rows, ..of }).total();
                prop_assert!(total(rows) <= bytes);
                prop_assert!(total(rows + 1) > bytes);
            }
        }

        #[test]
        fn what_fits_fits_and_one_more_does_not(
            bytes in 1100u64..1 << 40, context in 1u64..10_000, batch in 1u64..100, step_rows in 1u64..600,
        ) {
            let of = Use { context, batch, step_rows };
            let total = |context, batch| SMALL.needs(Use { context, batch, step_rows }).total();
            if let Some(longest) = SMALL.longest_context(of, bytes) {
                prop_assert!(total(longest, batch) <= bytes);
                prop_assert!(total(longest + 1, batch) > bytes);
            }
            if let Some(largest) = SMALL.largest_batch(of, bytes) {
                prop_assert!(total(context, largest) <= bytes);
                prop_assert!(total(context, largest + 1) > bytes);
            }
        }
    }
}
