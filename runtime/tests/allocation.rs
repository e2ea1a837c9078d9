//! A step allocates nothing that grows with the model, the step or the context, once one of that size has been taken.
//!
//! Blocks of up to [`SMALL`] bytes are not counted: the thread pool takes one of its queue every few dozen jobs, when
//! and how many depends on how the threads were scheduled. Whatever grows with a row of the model is larger.

use runtime::cpu;
use runtime::device::{Device, Limits, Outputs, SequenceChunk};
use runtime::plan::{DType, WeightFormat};
use runtime::synthetic::{self, Layout, Shape};
use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

/// Rayon's queue grows in blocks of about 1.5 KiB; one row of any layer of the model below is larger.
const SMALL: usize = 2048;

static LARGE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        if memory.size() > SMALL {
            LARGE.fetch_add(memory.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, memory: Memory) {
        // SAFETY: `pointer` came from `System`.
        unsafe { System.dealloc(pointer, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_step_allocates_no_large_block() {
    let shape = Shape { hidden_size: 768, vocab_size: 1001, intermediate_size: 1280, ..Shape::tiny() };
    let formats =
        [WeightFormat::Float { dtype: DType::Bf16 }, WeightFormat::W8, WeightFormat::W4Group { group_size: 32 }];
    for format in formats {
        let layout = Layout { fused_mixer: true, kv_dtype: DType::F16, ..Layout::of(format) };
        let (plan, store) = synthetic::model(&shape, &layout, 1);
        let limits = Limits { context: Some(1024), ..Limits::default() };
        // One thread: of several, any could be the first to meet the longest row after the warm-up.
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options { threads: Some(1), limits }).unwrap();
        let slot = device.create_slot().unwrap();
        let tokens = vec![3; 256];
        let step = |device: &mut cpu::Device, rows: usize| {
            device.step(&[SequenceChunk { slot, tokens: &tokens[..rows], outputs: Outputs::All }]).unwrap();
        };
        (0..4).for_each(|_| step(&mut device, 256));
        device.reset_slot(slot).unwrap();
        let before = LARGE.load(Ordering::Relaxed);
        (0..20).for_each(|rows| step(&mut device, 1 + rows));
        let allocated = LARGE.load(Ordering::Relaxed) - before;
        assert_eq!(allocated, 0, "{format:?}: bytes in 20 steps");
    }
}
