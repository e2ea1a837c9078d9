//! Puts the kernels of one launch of the plan on the stream.

use super::batch::StepShape;
use super::beside::Beside;
use super::driver::{Gpu, Stream};
use super::entry::{self, Entry, GEMM_BLOCK_M};
use super::kernels::{Grid, Kernels};
use super::params::{
    CONV_CHUNK, Conv1dParams, DTYPE_F32, ExpandParams, FORMAT_W8, GATED_CLUSTER, GatedLinearParams, GatedNormParams,
    GatedStepParams, LONG_SCAN_WARPS, LinearParams, MANY_TILE_ROWS, MANY_TOKENS, NormLinearParams, SCAN_WARPS,
    STREAM_MAX_GROUPS, STREAM_SCALE_STAGES, STREAM_WARPS, ScanStepParams, SsmScanParams,
};
use super::program::{MixerOp, Op, RowCount};
use super::weights::{self, Before, FEW_ROWS, FewRows, LinearOp, WideOp, with_tiles};
use crate::device::DeviceError;
use crate::plan::Rows;
use bytemuck::Zeroable;

/// Where launches go, and the step they are for.
pub(super) struct Queue<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) kernels: &'a Kernels,
    pub(super) stream: &'a Stream,
    /// The second stream, where all launches of a step come in order.
    pub(super) beside: Option<&'a Beside>,
    pub(super) shape: StepShape,
}

/// Tokens of a chunk from which its scan takes longer than expanding weights.
const AHEAD_TOKENS: usize = 128;

/// Sequences up to which a launch costs more than convolving B and C in every block that needs them.
const STEP_SEQUENCES: usize = 1;
/// Chunks of more tokens than this use the scan that stages them.
const LONG_SCAN: usize = 4;

impl Queue<'_> {
    /// A whole step: what one kernel can do of two launches of the plan, it does.
    pub(super) fn enqueue_all(&self, program: &[Op]) -> Result<(), DeviceError> {
        // A step before this one may have failed halfway.
        self.join()?;
        let mut rest = program;
        while let [op, behind @ ..] = rest {
            rest = behind;
            if let Some(Op::Linear(linear)) = behind.first()
                && let Some(before) = linear.before.filter(|before| self.joins(before, linear))
            {
                if let Op::Mixer(mixer) = op {
                    self.scan_step(mixer)?;
                }
                self.row_linear(&before, with_rows(&linear.skinny[0], 1))?;
                rest = &behind[1..];
            } else {
                self.enqueue(op)?;
            }
        }
        Ok(())
    }

    pub(super) fn enqueue(&self, op: &Op) -> Result<(), DeviceError> {
        match op {
            Op::Embed(params) => self.launch(entry::EMBED, Grid::new(self.shape.rows, 1, 1), params),
            Op::Select(params) => self.launch(entry::SELECT_OUTPUTS, Grid::new(self.shape.outputs, 1, 1), params),
            Op::Add(params, count) => {
                let elements = self.elements(*count);
                let params = super::params::AddParams { count: elements as u32, ..*params };
                self.launch(entry::ADD, per_element(entry::ADD, elements), &params)
            }
            Op::RmsNorm(params, count, taken) => self.rms_norm(params, *count, *taken),
            Op::Map(params, count) => self.map(params, count.rows),
            Op::Dequantize(params, count) => {
                let elements = self.elements(*count);
                let params = super::params::DequantizeParams { count: elements as u32, ..*params };
                self.launch(entry::DEQUANTIZE, per_element(entry::DEQUANTIZE, elements), &params)
            }
            Op::Linear(linear) => self.linear(linear),
            Op::Conv1d(params) => self.conv1d(params),
            Op::SsmScan(params) => self.scan(params),
            Op::GatedRmsNorm(params) => self.gated_norm(params),
            Op::Mixer(mixer) if self.shape.is_decode() && self.shape.sequences <= STEP_SEQUENCES => {
                self.mixer_step(mixer)
            }
            Op::Mixer(mixer) if self.mixer_of_many(mixer)? => Ok(()),
            Op::Mixer(mixer) => {
                self.conv1d(&mixer.conv)?;
                self.expand_ahead(mixer)?;
                self.scan(&mixer.scan)?;
                self.join()?;
                self.gated_norm(&mixer.norm)
            }
            Op::Attention(attention) => self.attention(attention),
        }
    }

    pub(super) fn launch<P: bytemuck::Pod>(&self, entry: Entry, grid: Grid, params: &P) -> Result<(), DeviceError> {
        self.kernels.launch(self.stream, entry, grid, params)
    }

    pub(super) fn row_count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Token => self.shape.rows,
            Rows::Output => self.shape.outputs,
        }
    }

    fn elements(&self, count: RowCount) -> usize {
        self.row_count(count.rows) * count.cols
    }

    /// One token a sequence: the convolution is the scan's prologue, and its windows move on behind the norm.
    fn mixer_step(&self, mixer: &MixerOp) -> Result<(), DeviceError> {
        self.scan_step(mixer)?;
        let before = Before::Gated(mixer.end());
        if mixer.taken && self.shape.rows == 1 && self.fits(&before, &LinearParams::zeroed()) {
            return self.row_linear(&before, LinearParams::zeroed());
        }
        let grid = self.per_row(Rows::Token, &mixer.norm.emit, mixer.norm.group_size);
        self.launch(entry::GATED_RMS_NORM_STEP, grid, &mixer.end())
    }

    fn scan_step(&self, mixer: &MixerOp) -> Result<(), DeviceError> {
        let (conv, scan) = (mixer.conv, mixer.scan);
        let entries = match scan.state_size {
            0..=32 => [entry::SCAN_STEP_32, entry::SCAN_STEP_32_NARROW],
            33..=64 => [entry::SCAN_STEP_64, entry::SCAN_STEP_64_NARROW],
            65..=128 => [entry::SCAN_STEP_128, entry::SCAN_STEP_128_NARROW],
            _ => [entry::SCAN_STEP_256, entry::SCAN_STEP_256_NARROW],
        };
        let entry = entries[is_narrow(&scan)];
        let blocks = scan.heads * scan.head_dim.div_ceil(SCAN_WARPS * 4);
        let grid = Grid::new(blocks as usize, self.shape.sequences, 1);
        self.launch(entry, grid, &ScanStepParams { conv, scan: SsmScanParams { xbc: 0, ..scan } })
    }

    pub(super) fn conv1d(&self, params: &Conv1dParams) -> Result<(), DeviceError> {
        let columns = params.channels.div_ceil(entry::CONV1D.threads) as usize;
        let chunks = self.shape.longest.div_ceil(CONV_CHUNK as usize);
        self.launch(entry::CONV1D, Grid::new(columns, chunks, self.shape.sequences), params)
    }

    fn scan(&self, params: &SsmScanParams) -> Result<(), DeviceError> {
        if self.scan_of_many(params)? {
            return Ok(());
        }
        if let Some(kernel) = self.scan_in_chunks(params) {
            return self.chunked(kernel, params);
        }
        let smem = entry::scan_smem_bytes(params.head_dim, params.state_size);
        let staged = params.head_dim.is_multiple_of(4) && smem <= self.gpu.smem_per_block - 1024;
        let long = staged && self.shape.longest > LONG_SCAN;
        let (few, many) = match params.state_size {
            0..=32 => ([entry::SCAN_32, entry::SCAN_32_NARROW], [entry::SCAN_LONG_64, entry::SCAN_LONG_64_NARROW]),
            33..=64 => ([entry::SCAN_64, entry::SCAN_64_NARROW], [entry::SCAN_LONG_64, entry::SCAN_LONG_64_NARROW]),
            65..=128 => {
                ([entry::SCAN_128, entry::SCAN_128_NARROW], [entry::SCAN_LONG_128, entry::SCAN_LONG_128_NARROW])
            }
            _ => ([entry::SCAN_256, entry::SCAN_256_NARROW], [entry::SCAN_LONG_256, entry::SCAN_LONG_256_NARROW]),
        };
        let (entries, rows, smem) = if long { (many, LONG_SCAN_WARPS * 8, smem) } else { (few, SCAN_WARPS * 4, 0) };
        let entry = entries[is_narrow(params)];
        let blocks = params.heads * params.head_dim.div_ceil(rows);
        // Where every block can have an SM, none shares one: the end of the kernel before would crowd them together.
        let alone = long && blocks as usize * self.shape.sequences <= self.gpu.sm_count as usize;
        let smem = if alone { smem.max(self.gpu.smem_per_block.min(self.gpu.smem_per_sm / 2 + 1024)) } else { smem };
        self.launch(entry, Grid::new(blocks as usize, self.shape.sequences, 1).smem(smem as usize), params)
    }

    /// Whether one kernel does a linear and what is before it.
    fn joins(&self, before: &Before, linear: &LinearOp) -> bool {
        self.row_count(linear.rows) == 1 && linear.skinny.first().is_some_and(|params| self.fits(before, params))
    }

    fn fits(&self, before: &Before, linear: &LinearParams) -> bool {
        self.kernels.hopper && row_linear_smem(before, linear) + 1024 <= self.gpu.smem_per_block
    }

    /// A linear of one row that its own blocks make; or the row alone, by a linear of no tiles.
    fn row_linear(&self, before: &Before, linear: LinearParams) -> Result<(), DeviceError> {
        let smem = row_linear_smem(before, &linear);
        match *before {
            Before::Norm(norm) => {
                let grid = self.stream_grid(entry::DOT_NORM_1, smem, &linear);
                self.launch(entry::DOT_NORM_1, grid, &NormLinearParams { norm, linear })
            }
            Before::Gated(gated) => {
                let entry = gated_entry(gated.norm.emit.n);
                let grid = self.cluster_grid(entry, smem, &linear)?;
                self.launch(entry, grid, &GatedLinearParams { gated, linear })
            }
        }
    }

    /// Whole clusters, at least one, and no more than are resident at once: one that came later would make the others wait.
    fn cluster_grid(&self, entry: Entry, smem: u32, linear: &LinearParams) -> Result<Grid, DeviceError> {
        let cluster = GATED_CLUSTER as usize;
        let blocks = self.stream_grid(entry, smem, linear).blocks.0 as usize;
        let grid = |clusters: usize| Grid::new(clusters * cluster, 1, 1).smem(smem as usize).clusters(cluster);
        let wanted = (blocks / cluster).max(1);
        let resident = self.kernels.resident_clusters(entry, grid(wanted))?;
        Ok(grid(wanted.min(resident.max(1))))
    }

    fn linear(&self, linear: &LinearOp) -> Result<(), DeviceError> {
        let rows = self.row_count(linear.rows);
        for params in &linear.scalar {
            self.scalar(&with_rows(params, rows))?;
        }
        if let Some(launches) = self.paired(linear, rows)? {
            return launches.iter().try_for_each(|(entry, grid, params)| self.launch(*entry, *grid, params));
        }
        if let Some(wide) = self.widened(linear, rows) {
            return self.wide(wide, rows);
        }
        match self.few_rows(rows) {
            Some(few) => linear.skinny.iter().try_for_each(|params| self.skinny(few, &with_rows(params, rows))),
            None => linear.gemm.iter().try_for_each(|params| self.gemm(&with_rows(params, rows))),
        }
    }

    /// The linear as W8, if it is multiplied by warpgroup instructions.
    pub(super) fn widened<'l>(&self, linear: &'l LinearOp, rows: usize) -> Option<&'l WideOp> {
        linear.wide.as_ref().filter(|wide| self.kernels.warpgroups && rows > wide_from(wide))
    }

    /// The kernels for so few rows that reading the weights is what they do; `None` for more.
    fn few_rows(&self, rows: usize) -> Option<&'static FewRows> {
        let fits = |few: &&FewRows| {
            rows <= few.rows as usize && entry::skinny_smem_bytes(few.rows.max(8)) + 1024 <= self.gpu.smem_per_block
        };
        FEW_ROWS.iter().find(fits)
    }

    fn skinny(&self, few: &FewRows, params: &LinearParams) -> Result<(), DeviceError> {
        if few.rows == MANY_TOKENS && self.streams_many(params) {
            let params = with_tiles(*params, MANY_TILE_ROWS);
            let entry = [entry::MANY_32_I8, entry::MANY_32_U8][params.x_unsigned as usize];
            return self.launch(entry, self.stream_grid(entry, entry::MANY_SMEM_BYTES, &params), &params);
        }
        let groups = params.segments.iter().map(|segment| segment.groups).max();
        let smem = stream_smem(params, few.rows);
        let fits = smem + 1024 <= self.gpu.smem_per_block;
        let (entries, smem) = match self.kernels.hopper && groups <= Some(STREAM_MAX_GROUPS) && fits {
            true => (few.stream, smem),
            false => (few.skinny, entry::skinny_smem_bytes(few.rows.max(8))),
        };
        let entry = entries[params.x_unsigned as usize];
        self.launch(entry, self.stream_grid(entry, smem, params), params)
    }

    /// Whether W4 is most of a linear, and in rows that the kernel for many rows takes.
    fn streams_many(&self, params: &LinearParams) -> bool {
        let whole = params.segments().iter().all(|segment| segment.row_bytes.is_multiple_of(64));
        let narrow = params.segments().first().is_some_and(|segment| segment.format != FORMAT_W8);
        self.kernels.hopper && whole && narrow && entry::MANY_SMEM_BYTES + 1024 <= self.gpu.smem_per_block
    }

    /// As many blocks as are resident at once; they deal the tiles out among themselves.
    fn stream_grid(&self, entry: Entry, smem: u32, params: &LinearParams) -> Grid {
        let resident = (self.gpu.smem_per_sm / (smem + 1024)).clamp(1, entry.blocks_per_sm);
        let blocks = params.tiles.min(resident * self.gpu.sm_count);
        Grid::new(blocks as usize, 1, 1).smem(smem as usize)
    }

    fn gemm(&self, params: &LinearParams) -> Result<(), DeviceError> {
        let gemm = weights::gemm(params, self.gpu.smem_per_block - 1024);
        let tokens = params.rows.div_ceil(GEMM_BLOCK_M) as usize;
        let rows = params.segments[0].out_features.div_ceil(gemm.block_n) as usize;
        self.launch(gemm.entry, Grid::new(tokens, rows, 1).smem(gemm.smem_bytes as usize), params)
    }

    /// The second stream, if weights are expanded beside the scans of this step.
    fn ahead(&self) -> Option<&Beside> {
        self.beside.filter(|_| self.kernels.warpgroups && self.shape.longest >= AHEAD_TOKENS)
    }

    /// In front of the scan: what is behind it is not needed before it ends.
    fn expand_ahead(&self, mixer: &MixerOp) -> Result<(), DeviceError> {
        match self.ahead() {
            Some(beside) if !mixer.ahead.is_empty() => {
                beside.fork(self.stream, |stream| self.expand(stream, &mixer.ahead))
            }
            _ => Ok(()),
        }
    }

    /// In front of what follows the scan: its blocks start early and wait, and would leave no room for others.
    fn join(&self) -> Result<(), DeviceError> {
        self.beside.map_or(Ok(()), |beside| beside.join(self.stream))
    }

    pub(super) fn expand(&self, stream: &Stream, weights: &[ExpandParams]) -> Result<(), DeviceError> {
        weights.iter().try_for_each(|params| {
            let threads = params.rows as usize * params.row_bytes as usize / 16;
            self.kernels.launch(stream, entry::EXPAND, per_element(entry::EXPAND, threads), params)
        })
    }

    /// A linear of many rows: its expanded weights are in place when it starts.
    fn wide(&self, wide: &WideOp, rows: usize) -> Result<(), DeviceError> {
        if !(wide.ahead && self.ahead().is_some()) {
            self.expand(self.stream, &wide.expand)?;
        }
        self.multiply(wide, rows)
    }
}

/// Index of the kernel: of an f32 state, or of one in fewer bits.
pub(super) fn is_narrow(scan: &SsmScanParams) -> usize {
    usize::from(scan.state_dtype != DTYPE_F32)
}

/// Rows up to which reading the weights as they are stored is faster.
fn wide_from(wide: &WideOp) -> usize {
    if wide.expand.is_empty() { 16 } else { 32 }
}

fn stream_smem(params: &LinearParams, tokens: u32) -> u32 {
    entry::stream_smem_bytes(tokens) + STREAM_SCALE_STAGES * params.scale_bytes
}

/// Less code where a warp has one piece of a row of `n` columns: it comes from L2 in every layer.
fn gated_entry(n: u32) -> Entry {
    let pieces = n / GATED_CLUSTER / 256;
    if pieces <= STREAM_WARPS { entry::DOT_GATED_1 } else { entry::DOT_GATED_1_WIDE }
}

fn row_linear_smem(before: &Before, params: &LinearParams) -> u32 {
    let row = match before {
        Before::Norm(_) => entry::NORM_SMEM_BYTES,
        Before::Gated(GatedStepParams { norm: GatedNormParams { emit, .. }, .. }) => {
            entry::gated_smem_bytes(emit.n, emit.hadamard_block)
        }
    };
    stream_smem(params, 1) + row
}

pub(super) fn with_rows(params: &LinearParams, rows: usize) -> LinearParams {
    // More rows are made in launches of their own: by then the linear reads weights itself.
    let next_bytes = if rows == 1 { params.next_bytes } else { 0 };
    LinearParams { rows: rows as u32, next_bytes, ..*params }
}

fn per_element(entry: Entry, elements: usize) -> Grid {
    Grid::new(elements.div_ceil(entry.threads as usize), 1, 1)
}
