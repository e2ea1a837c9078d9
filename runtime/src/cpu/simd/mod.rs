//! Inner loops, compiled for several instruction sets and chosen at run time.
//!
//! Float sums are always taken the same way: sixteen running sums, element `i` into sum `i % 16`, which are then added
//! in halves. So a dot product has the same bits in a matrix times a vector and in a matrix times a matrix, with any
//! number of threads, and prefill agrees with decode.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dot;
mod exp;
mod portable;

pub(crate) use dot::{Out, Rows, accumulate_floats, dot, dot_bytes, dot_floats};
pub(crate) use exp::exp;
pub(crate) use portable::{add_halves, madd};

/// Number of running sums of a float reduction.
pub(crate) const LANES: usize = 16;

/// Compiles a function for AVX-512, for AVX2 and for the baseline, and calls the best that the machine has.
macro_rules! simd {
    ($item:item) => {
        #[multiversion::multiversion(targets(
            "x86_64+avx512f+avx512bw+avx512vl+avx512dq+avx512vnni+avx2+fma+f16c",
            "x86_64+avx2+fma+f16c"
        ))]
        $item
    };
}
pub(crate) use simd;

/// Whether the instruction set that a [`simd`] function is compiled for has fused multiply-add.
macro_rules! has_fma {
    () => {
        multiversion::target::target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"))
    };
}
pub(crate) use has_fma;

simd! {
/// The instruction set in use, for people.
pub(crate) fn instruction_set() -> &'static str {
    multiversion::target::match_target! {
        "x86_64+avx512f+avx512bw+avx512vl+avx512vnni" => "AVX-512 VNNI",
        "x86_64+avx2+fma" => "AVX2",
        _ => "portable code",
    }
}
}
