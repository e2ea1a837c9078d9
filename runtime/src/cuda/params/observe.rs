//! The arguments of what calibration measures.

use super::Address;

device_structs! {
    /// A sum of products over tokens: `out[i, j] += sum of a[t, i] b[t, j]`.
    struct GramParams {
        /// `[tokens, a_pitch]`.
        a: Address = "const float *a",
        /// `[tokens, b_pitch]`.
        b: Address = "const float *b",
        /// `[m, n]`.
        out: Address = "float *out",
        /// Rows of a and b, a multiple of 16.
        tokens: u32 = "unsigned int tokens",
        /// Columns of a.
        m: u32 = "unsigned int m",
        /// Columns of b.
        n: u32 = "unsigned int n",
        /// Columns of a in memory, whole tiles.
        a_pitch: u32 = "unsigned int a_pitch",
        /// Columns of b in memory, whole tiles.
        b_pitch: u32 = "unsigned int b_pitch",
        /// 1 where a is b.
        symmetric: u32 = "unsigned int symmetric",
    }

    /// The input of a linear in both models.
    struct ObserveParams {
        /// Of the quantized model: f32, or 8-bit.
        x: Address = "const void *x",
        /// Scale of every 8-bit row.
        x_scale: Address = "const float *x_scale",
        /// Of the float model, `[rows, n]`; or 0.
        exact: Address = "const float *exact",
        /// `x` as floats, `pitch` columns.
        values: Address = "float *values",
        /// `exact - x`, `pitch` columns; or 0.
        missing: Address = "float *missing",
        /// For every row the squares of `missing` and of `exact`, summed.
        squares: Address = "double *squares",
        /// Rows; those behind them are zeros.
        rows: u32 = "unsigned int rows",
        /// Columns.
        n: u32 = "unsigned int n",
        /// Columns of x in memory.
        x_pitch: u32 = "unsigned int x_pitch",
        /// Columns of the results in memory.
        pitch: u32 = "unsigned int pitch",
        /// `EMIT_*` of x.
        format: u32 = "unsigned int format",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// `out = outputs + exact - found`.
    struct LackParams {
        /// What the outputs of a linear lack, `[rows, n]`.
        outputs: Address = "const float *outputs",
        /// The residual stream of the float model.
        exact: Address = "const float *exact",
        /// That of the quantized model.
        found: Address = "const float *found",
        /// `pitch` columns.
        out: Address = "float *out",
        /// Rows; those behind them are zeros.
        rows: u32 = "unsigned int rows",
        /// Columns.
        n: u32 = "unsigned int n",
        /// Columns of the result in memory.
        pitch: u32 = "unsigned int pitch",
        /// Unused.
        padding: u32 = "unsigned int padding",
    }

    /// How large channels are, over parts of the rows.
    struct ChannelParams {
        /// `[rows, n]`.
        x: Address = "const float *x",
        /// Largest magnitude of every channel in every part.
        absmax: Address = "float *absmax",
        /// Sum of squares.
        squares: Address = "double *squares",
        /// Rows.
        rows: u32 = "unsigned int rows",
        /// Columns.
        n: u32 = "unsigned int n",
    }
}
