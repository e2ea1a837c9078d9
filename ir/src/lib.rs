//! The nemo dialect on MLIR: ops, types, verifier, text form, the pass trait and the pass manager.
//!
//! A *module* holds one function, `@forward`, from the token ids of a step to the logits asked for. It is generic in
//! the number of tokens and sequences; states are explicit values. Weights are symbolic: an op names a tensor, further
//! ops say what is done to it, and nothing is read before code generation. A module goes through four
//! [stages](stage::Stage): imported, annotated, quantized, planned.
//!
//! # A tour
//!
//! - [`ops`] is THE op table: a row gives the IRDL definition, a typed view in [`ops::views`], a builder in
//!   [`ops::build`] and a section of `docs/ops.md` ([`mod@reference`]).
//! - [`types`] says what a value is: storage, granularity of the scale, basis.
//! - [`irdl`] turns both into a dialect that MLIR itself checks, here and in `mlir-opt`.
//! - [`verify`](mod@verify) is the numbered definition of legal IR and adds the rules that IRDL cannot say.
//! - [`module`] makes, walks, prints and parses modules; [`mod@rewrite`] is how passes change them.
//! - [`pass`] is the trait of a pass; [`manager`] runs passes, and verifies, dumps, times and bisects.
//! - [`weights`] is what a chain of weight ops means, as a value that code generation evaluates.
//! - [`statistics`] is what calibration measured.
//!
//! # A tiny graph
//!
//! ```
//! use ir::melior::ir::BlockLike;
//! use ir::module::{finish, forward, ops, parse, print, start};
//! use ir::ops::{Builder, Op, build};
//! use ir::types::{Act, Granularity, NemoType, PLAIN, Storage, Weight};
//!
//! let context = ir::irdl::context();
//! let module = start(&context, &NemoType::Act(Act::f32(32)));
//! let block = forward(&module)?;
//! let b = Builder::new(&context, block);
//!
//! // A symbolic weight: the name of a checkpoint tensor and its type. The location names it, too.
//! let at = b.location("embeddings.weight");
//! let table = NemoType::Weight(Weight {
//!     rows: 96,
//!     cols: 32,
//!     storage: Storage::Bf16,
//!     granularity: Granularity::None,
//!     basis_in: PLAIN.into(),
//!     basis_out: PLAIN.into(),
//! });
//! let table = b.push(build::Weight { tensor: "embeddings.weight".into(), value: table }, at)?.value();
//! let tokens = block.argument(0)?.into();
//! let y = NemoType::Act(Act::f32(32));
//! let x = b.push(build::Embed { tokens, table, name: "embeddings".into(), precision: None, y: y.clone() }, at)?.y();
//! let x = b.push(build::Relu2 { x, y }, at)?.y();
//! finish(&b, x);
//!
//! ir::verify::verify(&context, &module)?;
//! let text = print(&module);
//! assert!(text.contains(r#""nemo.embed"(%arg0, %0) {name = "embeddings"}"#));
//! let again = parse(&context, &text)?;
//! assert!(matches!(ops(&again)?[..], [Op::Weight(_), Op::Embed(_), Op::Relu2(_)]));
//!
//! // What is wrong is said op by op.
//! let wrong = text.replace("(%1) : (!act_32_f32)", "(%1) {hadamard = 32 : i64} : (!act_32_f32)");
//! let error = ir::verify::verify(&context, &parse(&context, &wrong)?).unwrap_err();
//! assert_eq!(error.violations()[0].message, "the op has no attribute hadamard");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alias;
mod border;
pub mod error;
pub mod irdl;
pub mod manager;
pub mod module;
pub mod ops;
pub mod pass;
pub mod reference;
pub mod rewrite;
pub mod stage;
pub mod statistics;
pub mod types;
pub mod verify;
mod weight_ops;
pub mod weights;

pub use error::{IrError, Violation};
pub use melior;
