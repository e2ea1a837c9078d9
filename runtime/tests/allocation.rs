//! A step allocates nothing that grows with the model or the step, once a step of that size has been taken.

use runtime::cpu;
use runtime::device::{Device, Limits, Outputs, SequenceChunk};
use runtime::plan::{DType, WeightFormat};
use runtime::synthetic::{self, Layout, Shape};
use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        ALLOCATED.fetch_add(memory.size(), Ordering::Relaxed);
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
fn a_warm_step_allocates_next_to_nothing() {
    let formats =
        [WeightFormat::Float { dtype: DType::Bf16 }, WeightFormat::W8, WeightFormat::W4Group { group_size: 32 }];
    for format in formats {
        let layout = Layout { fused_mixer: true, kv_dtype: DType::F16, ..Layout::of(format) };
        let (plan, store) = synthetic::model(&Shape::tiny(), &layout, 1);
        let limits = Limits { context: Some(1024), ..Limits::default() };
        let mut device = cpu::Device::new(&plan, &store, &cpu::Options { threads: Some(2), limits }).unwrap();
        let slot = device.create_slot().unwrap();
        let tokens = vec![3; 256];
        let mut step = |rows: usize| {
            device.step(&[SequenceChunk { slot, tokens: &tokens[..rows], outputs: Outputs::All }]).unwrap();
        };
        // Either thread may be the first to run a kernel's largest row: warm up more than once.
        (0..3).for_each(|_| step(256));
        let before = ALLOCATED.load(Ordering::Relaxed);
        (0..20).for_each(|rows| step(1 + rows));
        let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
        // The thread pool allocates a block of its queue every few dozen jobs.
        assert!(allocated < 20 * 2048, "{format:?}: {allocated} bytes in 20 steps");
    }
}
