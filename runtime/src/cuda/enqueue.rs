//! Puts the kernels of one launch of the plan on the stream.

use super::batch::StepShape;
use super::driver::{Gpu, Stream};
use super::entry::{self, Entry, GEMM_BLOCK_M};
use super::kernels::{Grid, Kernels};
use super::params::{
    AttentionParams, CONV_CHUNK, Conv1dParams, Emit, GatedNormParams, LinearParams, SCAN_WARPS, STREAM_MAX_GROUPS,
    SsmScanParams,
};
use super::program::{AttentionOp, Op, RowCount, attention_parts};
use super::weights::{self, FEW_ROWS, FewRows, LinearOp};
use crate::device::DeviceError;
use crate::plan::{DType, Rows};

/// Where launches go, and the step they are for.
pub(super) struct Queue<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) kernels: &'a Kernels,
    pub(super) stream: &'a Stream,
    pub(super) shape: StepShape,
}

/// Most rows that are shared by clusters; more rows fill the GPU by themselves.
const CLUSTER_ROWS: usize = 32;
/// Chunks of more tokens than this use the scan that stages them.
const LONG_SCAN: usize = 4;

impl Queue<'_> {
    pub(super) fn enqueue(&self, op: &Op) -> Result<(), DeviceError> {
        match op {
            Op::Embed(params) => self.launch(entry::EMBED, Grid::new(self.shape.rows, 1, 1), params),
            Op::Select(params) => self.launch(entry::SELECT_OUTPUTS, Grid::new(self.shape.outputs, 1, 1), params),
            Op::Add(params, count) => {
                let elements = self.elements(*count);
                let params = super::params::AddParams { count: elements as u32, ..*params };
                self.launch(entry::ADD, per_element(entry::ADD, elements), &params)
            }
            Op::RmsNorm(params, count) => {
                self.launch(entry::RMS_NORM, self.per_row(count.rows, &params.emit, 1), params)
            }
            Op::Map(params, count) => self.launch(entry::MAP, self.per_row(count.rows, &params.emit, 1), params),
            Op::Dequantize(params, count) => {
                let elements = self.elements(*count);
                let params = super::params::DequantizeParams { count: elements as u32, ..*params };
                self.launch(entry::DEQUANTIZE, per_element(entry::DEQUANTIZE, elements), &params)
            }
            Op::Linear(linear) => self.linear(linear),
            Op::Conv1d(params) => self.conv1d(params),
            Op::SsmScan(params) => self.scan(params),
            Op::GatedRmsNorm(params) => self.gated_norm(params),
            Op::Mixer(mixer) => {
                self.conv1d(&mixer.conv)?;
                self.scan(&mixer.scan)?;
                self.gated_norm(&mixer.norm)
            }
            Op::Attention(attention) => self.attention(attention),
        }
    }

    fn launch<P: bytemuck::Pod>(&self, entry: Entry, grid: Grid, params: &P) -> Result<(), DeviceError> {
        self.kernels.launch(self.stream, entry, grid, params)
    }

    fn row_count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Token => self.shape.rows,
            Rows::Output => self.shape.outputs,
        }
    }

    fn elements(&self, count: RowCount) -> usize {
        self.row_count(count.rows) * count.cols
    }

    /// A row is one block's, or that of a cluster of blocks where a row is long and there are few: each keeps its part in
    /// shared memory. Parts hold whole groups of columns.
    fn per_row(&self, rows: Rows, emit: &Emit, group: u32) -> Grid {
        let count = self.row_count(rows);
        let cluster = if count > CLUSTER_ROWS { 1 } else { self.cluster(emit, group) };
        Grid::new(count * cluster, 1, 1).smem(emit.n as usize * 4 / cluster).clusters(cluster)
    }

    fn cluster(&self, emit: &Emit, group: u32) -> usize {
        let fits = |blocks: &u32| {
            let part = emit.n / blocks;
            let whole = |size: u32| part.is_multiple_of(size.max(1)) && emit.n.is_multiple_of(*blocks);
            part >= 512 && emit.n == emit.n_padded && whole(4) && whole(emit.hadamard_block) && whole(group)
        };
        let found = [8, 4, 2].into_iter().find(fits);
        if self.kernels.hopper { found.unwrap_or(1) as usize } else { 1 }
    }

    fn gated_norm(&self, params: &GatedNormParams) -> Result<(), DeviceError> {
        self.launch(entry::GATED_RMS_NORM, self.per_row(Rows::Token, &params.emit, params.group_size), params)
    }

    fn conv1d(&self, params: &Conv1dParams) -> Result<(), DeviceError> {
        let columns = params.channels.div_ceil(entry::CONV1D.threads) as usize;
        let chunks = self.shape.longest.div_ceil(CONV_CHUNK as usize);
        self.launch(entry::CONV1D, Grid::new(columns, chunks, self.shape.sequences), params)
    }

    fn scan(&self, params: &SsmScanParams) -> Result<(), DeviceError> {
        let smem = entry::scan_smem_bytes(params.head_dim, params.state_size);
        let staged = params.head_dim.is_multiple_of(4) && smem <= self.gpu.smem_per_block - 1024;
        let long = staged && self.shape.longest > LONG_SCAN;
        let (few, many) = match params.state_size {
            0..=32 => (entry::SCAN_32, entry::SCAN_LONG_32),
            33..=64 => (entry::SCAN_64, entry::SCAN_LONG_64),
            65..=128 => (entry::SCAN_128, entry::SCAN_LONG_128),
            _ => (entry::SCAN_256, entry::SCAN_LONG_256),
        };
        let (entry, rows, smem) = if long { (many, 4, smem) } else { (few, 1, 0) };
        let blocks = params.heads * params.head_dim.div_ceil(SCAN_WARPS * 4 * rows);
        self.launch(entry, Grid::new(blocks as usize, self.shape.sequences, 1).smem(smem as usize), params)
    }

    fn linear(&self, linear: &LinearOp) -> Result<(), DeviceError> {
        let rows = self.row_count(linear.rows);
        for params in &linear.scalar {
            self.scalar(&with_rows(params, rows))?;
        }
        match self.few_rows(rows) {
            Some(few) => linear.skinny.iter().try_for_each(|params| self.skinny(few, &with_rows(params, rows))),
            None => linear.gemm.iter().try_for_each(|params| self.gemm(&with_rows(params, rows))),
        }
    }

    /// The kernels for so few rows that reading the weights is what they do; `None` for more.
    fn few_rows(&self, rows: usize) -> Option<&'static FewRows> {
        let fits = |few: &&FewRows| {
            rows <= few.rows as usize && entry::skinny_smem_bytes(few.rows.max(8)) + 1024 <= self.gpu.smem_per_block
        };
        FEW_ROWS.iter().find(fits)
    }

    fn scalar(&self, params: &LinearParams) -> Result<(), DeviceError> {
        let (entry, tokens) = if params.rows == 1 { (entry::SCALAR_1, 1) } else { (entry::SCALAR_8, 8) };
        let blocks = params.segments[0].out_features.div_ceil(entry.threads / 32) as usize;
        self.launch(entry, Grid::new(blocks, params.rows.div_ceil(tokens) as usize, 1), params)
    }

    /// As many blocks as are resident at once; they deal the tiles out among themselves.
    fn skinny(&self, few: &FewRows, params: &LinearParams) -> Result<(), DeviceError> {
        let groups = params.segments.iter().map(|segment| segment.groups).max();
        let stream = self.kernels.hopper && groups <= Some(STREAM_MAX_GROUPS);
        let (entries, smem) = match stream {
            true => (few.stream, entry::stream_smem_bytes(few.rows)),
            false => (few.skinny, entry::skinny_smem_bytes(few.rows.max(8))),
        };
        let entry = entries[params.x_unsigned as usize];
        let resident = (self.gpu.smem_per_sm / (smem + 1024)).clamp(1, entry.blocks_per_sm);
        let blocks = params.tiles.min(resident * self.gpu.sm_count);
        self.launch(entry, Grid::new(blocks as usize, 1, 1).smem(smem as usize), params)
    }

    fn gemm(&self, params: &LinearParams) -> Result<(), DeviceError> {
        let gemm = weights::gemm(params, self.gpu.smem_per_block - 1024);
        let tokens = params.rows.div_ceil(GEMM_BLOCK_M) as usize;
        let rows = params.segments[0].out_features.div_ceil(gemm.block_n) as usize;
        self.launch(gemm.entry, Grid::new(tokens, rows, 1).smem(gemm.smem_bytes as usize), params)
    }

    fn attention(&self, attention: &AttentionOp) -> Result<(), DeviceError> {
        let (rows, kv_heads) = (self.shape.rows, attention.params.kv_heads as usize);
        let parts = attention_parts(self.gpu, rows, kv_heads);
        let decode = self.shape.is_decode();
        let params = AttentionParams { parts: parts as u32, append: u32::from(decode), ..attention.params };
        let (append, one, four) = match attention.dtype {
            DType::F16 => (entry::ATTENTION_APPEND_F16, entry::ATTENTION_F16_1, entry::ATTENTION_F16_4),
            DType::Bf16 => (entry::ATTENTION_APPEND_BF16, entry::ATTENTION_BF16_1, entry::ATTENTION_BF16_4),
            _ => (entry::ATTENTION_APPEND_F32, entry::ATTENTION_F32_1, entry::ATTENTION_F32_4),
        };
        if !decode {
            self.launch(append, Grid::new(rows, 1, 1), &params)?;
        }
        let per_kv = (params.heads / params.kv_heads) as usize;
        let (part, heads) = if per_kv == 1 { (one, 1) } else { (four, 4) };
        self.launch(part, Grid::new(rows, kv_heads * per_kv.div_ceil(heads), parts), &params)?;
        let combine = self.per_row(Rows::Token, &params.emit, 1);
        self.launch(entry::ATTENTION_COMBINE, combine, &params)
    }
}

fn with_rows(params: &LinearParams, rows: usize) -> LinearParams {
    LinearParams { rows: rows as u32, ..*params }
}

fn per_element(entry: Entry, elements: usize) -> Grid {
    Grid::new(elements.div_ceil(entry.threads as usize), 1, 1)
}
