//! What `nemoc verify` does, for the true 8B shape without a file.

use crate::Folder;
use crate::model_8b::{self, Models};
use runtime::device::Limits;
use runtime::verify::{Options, verify};
use runtime::{cpu, cuda};
use std::error::Error;
use std::time::Instant;

/// Returns how many phases failed.
pub fn run(images: &Folder, tasks: &[String]) -> Result<usize, Box<dyn Error>> {
    let schemes = model_8b::chosen(tasks, &["phase 0", "phase 1", "phase 2", "phase 3"]);
    let limits = Limits { step_rows: 256, ..Limits::default() };
    let options =
        Options { batches: vec![1, 8], prefill: vec![17], decode_steps: 1, greedy_tokens: 16, exact: false, seed: 1 };
    let mut failed = 0;
    for scheme in schemes {
        let started = Instant::now();
        let (plan, store) =
            Models::make(std::slice::from_ref(&scheme), true, model_8b::state_dtype(tasks)?).build(&scheme);
        println!("\n== {}, made in {:.1} s", scheme.name, started.elapsed().as_secs_f64());
        let started = Instant::now();
        let mut reference = cpu::Device::new(&plan, &store, &cpu::Options { threads: None, limits })?;
        let mut device = cuda::Device::new(&plan, &store, images, &cuda::Options { ordinal: 0, limits })?;
        let report = verify(&mut reference, &mut device, &options)?;
        println!("{report}\nverified in {:.1} s", started.elapsed().as_secs_f64());
        failed += usize::from(!report.passes);
    }
    Ok(failed)
}
