//! The vendor's INT8 matrix product (cuBLASLt), where it is installed: nothing runs with it, it is what kernels are measured
//! against.

use super::driver::{Event, Memory, Stream};
use super::measure::Product;
use crate::device::DeviceError;
use crate::median::median;
use libloading::{Library, Symbol};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

type Handle = *mut c_void;
type Status = c_int;

const COMPUTE_32I: u32 = 72;
const TYPE_8I: u32 = 3;
const TYPE_32I: u32 = 10;
const DESC_TRANSA: u32 = 3;
const PREF_MAX_WORKSPACE_BYTES: u32 = 1;
const OP_T: i32 = 1;

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Heuristic {
    algorithm: Algorithm,
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

type Matmul = unsafe extern "C" fn(
    Handle,
    Handle,
    *const c_void,
    *const c_void,
    Handle,
    *const c_void,
    Handle,
    *const c_void,
    *const c_void,
    Handle,
    *mut c_void,
    Handle,
    *const Algorithm,
    *mut c_void,
    usize,
    *mut c_void,
) -> Status;

type GetHeuristic = unsafe extern "C" fn(
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    c_int,
    *mut Heuristic,
    *mut c_int,
) -> Status;

type SetAttribute = unsafe extern "C" fn(Handle, u32, *const c_void, usize) -> Status;
type Destroy = unsafe extern "C" fn(Handle) -> Status;

/// The library and a handle of it.
pub(super) struct Vendor {
    library: Library,
    handle: Handle,
}

/// Algorithms to try: the library's first guess is not always its fastest.
const ALGORITHMS: usize = 8;
/// Runs of each without a pause, of which the first ones warm up.
const TRIES: usize = 10;
const WARM_UP: usize = 2;
const WORKSPACE: usize = 32 << 20;
/// Bytes of an operand that differ.
const RANDOM_BYTES: usize = 24 << 20;

/// Names that its versions are installed under.
const NAMES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];

impl Vendor {
    /// `None` where it is not installed or does not start.
    pub(super) fn open() -> Option<Vendor> {
        // SAFETY: the library is NVIDIA's own; its initializers have no preconditions.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
        let mut handle = null_mut();
        // SAFETY: the signature is that of the vendor's header; `handle` may be written.
        let status = unsafe {
            let create: Symbol<'_, unsafe extern "C" fn(*mut Handle) -> Status> =
                library.get(b"cublasLtCreate").ok()?;
            create(&mut handle)
        };
        (status == 0).then_some(Vendor { library, handle })
    }

    /// The product with the fastest of the library's algorithms, each on random bytes of its own in each of so many copies.
    /// `None` where it has none for this shape, or no room is left.
    pub(super) fn product(
        &self,
        stream: &Stream,
        shape: Product,
        copies: usize,
    ) -> Result<Option<VendorProduct<'_>>, DeviceError> {
        let Product { rows, n, k } = shape;
        let Ok(matmul) = self.matmul() else { return Ok(None) };
        let Some(problem) = Problem::new(&self.library, rows, n, k) else { return Ok(None) };
        let algorithms = self.algorithms(&problem);
        let Some(&first) = algorithms.first() else { return Ok(None) };
        let room = |bytes| Memory::allocate(bytes, "the vendor's matrix product");
        let (Ok(x), Ok(weight), Ok(out), Ok(workspace)) = (
            random(copies * rows * k, 1, stream),
            random(copies * n * k, 2, stream),
            room(rows * n * 4),
            room(WORKSPACE),
        ) else {
            return Ok(None);
        };
        let handle = self.handle;
        let product = VendorProduct {
            shape,
            copies,
            x,
            weight,
            handle,
            matmul,
            problem,
            out,
            workspace,
            first,
            fastest: first,
            best_us: f32::INFINITY,
        };
        product.chosen(&algorithms, stream)
    }

    /// The algorithms that the library proposes, its first choice first; none where it takes no such product.
    fn algorithms(&self, problem: &Problem<'_>) -> Vec<Algorithm> {
        let Ok(get_heuristic) = self.heuristics() else { return Vec::new() };
        let empty = Heuristic { algorithm: [0; 8], workspace_bytes: 0, state: 0, waves: 0.0, reserved: [0; 4] };
        let (mut found, mut count) = ([empty; ALGORITHMS], 0);
        // SAFETY: all objects live; `found` has room for as many results as are asked for.
        let status = unsafe {
            get_heuristic(
                self.handle,
                problem.operation.object,
                problem.weight.object,
                problem.x.object,
                problem.out.object,
                problem.out.object,
                problem.preference.object,
                ALGORITHMS as c_int,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        let count = if status == 0 { count.max(0) as usize } else { 0 };
        let usable = found.iter().take(count).filter(|found| found.state == 0);
        usable.map(|found| found.algorithm).collect()
    }

    fn heuristics(&self) -> Result<Symbol<'_, GetHeuristic>, libloading::Error> {
        // SAFETY: the signature is that of the vendor's header.
        unsafe { self.library.get(b"cublasLtMatmulAlgoGetHeuristic") }
    }

    fn matmul(&self) -> Result<Symbol<'_, Matmul>, libloading::Error> {
        // SAFETY: the signature is that of the vendor's header.
        unsafe { self.library.get(b"cublasLtMatmul") }
    }
}

/// A product that can be run again and again.
pub(super) struct VendorProduct<'l> {
    shape: Product,
    copies: usize,
    x: Memory,
    weight: Memory,
    handle: Handle,
    matmul: Symbol<'l, Matmul>,
    problem: Problem<'l>,
    out: Memory,
    workspace: Memory,
    first: Algorithm,
    fastest: Algorithm,
    /// The best run of the fastest algorithm.
    pub(super) best_us: f32,
}

/// `cublasLtMatmulAlgo_t`.
type Algorithm = [u64; 8];

/// Which of the library's algorithms.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// What was found to be the fastest under load.
    Fastest,
    /// What the library proposes first, and who asks for no more gets.
    First,
}

impl<'l> VendorProduct<'l> {
    /// With the algorithm whose median is the least, each under its own load; `None` where the library takes none.
    fn chosen(mut self, algorithms: &[Algorithm], stream: &Stream) -> Result<Option<VendorProduct<'l>>, DeviceError> {
        let mut least = f32::INFINITY;
        for algorithm in algorithms {
            let Some(times) = self.times(algorithm, stream)? else { continue };
            let best = times.iter().copied().fold(f32::INFINITY, f32::min);
            let typical = median(times) as f32;
            if typical < least {
                (least, self.fastest, self.best_us) = (typical, *algorithm, best);
            }
        }
        Ok(least.is_finite().then_some(self))
    }

    /// `None` where the library does not take it.
    fn times(&self, algorithm: &Algorithm, stream: &Stream) -> Result<Option<Vec<f32>>, DeviceError> {
        let events: Vec<Event> = (0..=TRIES).map(|_| Event::new()).collect::<Result<_, _>>()?;
        events[0].record(stream)?;
        for (run, event) in events[1..].iter().enumerate() {
            if !self.multiply(stream, run, algorithm) {
                stream.synchronize()?;
                return Ok(None);
            }
            event.record(stream)?;
        }
        stream.synchronize()?;
        let times = events.windows(2).skip(WARM_UP).map(|pair| pair[1].elapsed_us(&pair[0]));
        times.collect::<Result<_, _>>().map(Some)
    }

    /// Addresses of x and the weights of copy number `copy`, which count on from the last to the first.
    pub(super) fn operands(&self, copy: usize) -> (u64, u64) {
        let (Product { rows, n, k }, copy) = (self.shape, copy % self.copies);
        (self.x.address() + (copy * rows * k) as u64, self.weight.address() + (copy * n * k) as u64)
    }

    /// Multiplies a copy. What the library does not take it did not take when it was chosen.
    pub(super) fn run(&self, stream: &Stream, copy: usize, choice: Choice) {
        let algorithm = match choice {
            Choice::Fastest => &self.fastest,
            Choice::First => &self.first,
        };
        self.multiply(stream, copy, algorithm);
    }

    /// Whether the library took it.
    fn multiply(&self, stream: &Stream, copy: usize, algorithm: &Algorithm) -> bool {
        let (alpha, beta) = (1i32, 0i32);
        let (x, weight) = self.operands(copy);
        // SAFETY: the layouts describe matrices that fit the allocations; the workspace is as large as was promised.
        let status = unsafe {
            (self.matmul)(
                self.handle,
                self.problem.operation.object,
                (&raw const alpha).cast(),
                weight as *const c_void,
                self.problem.weight.object,
                x as *const c_void,
                self.problem.x.object,
                (&raw const beta).cast(),
                self.out.address() as *const c_void,
                self.problem.out.object,
                self.out.address() as *mut c_void,
                self.problem.out.object,
                algorithm,
                self.workspace.address() as *mut c_void,
                WORKSPACE,
                stream.handle.cast(),
            )
        };
        status == 0
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        destroy(&self.library, b"cublasLtDestroy", self.handle);
    }
}

/// Random bytes that repeat after the first [`RANDOM_BYTES`], spread as quantized weights and activations are, like a bell.
/// Multiplying zeros takes less power, so the clock would be higher than it is for those.
fn random(bytes: usize, seed: u64, stream: &Stream) -> Result<Memory, DeviceError> {
    let memory = Memory::allocate(bytes, "the vendor's matrix product")?;
    let mut random = Pcg64::seed_from_u64(seed);
    let next = |_| {
        // Four numbers up to 63: a standard deviation of 28.
        let sum: i32 = (0..4).map(|_| random.random_range(0..64)).sum();
        ((sum - 126) * 3 / 4) as i8 as u8
    };
    let block: Vec<u8> = (0..bytes.min(RANDOM_BYTES)).map(next).collect();
    stream.upload(memory.address(), &block)?;
    for at in (block.len()..bytes).step_by(block.len().max(1)) {
        stream.copy(memory.address() + at as u64, memory.address(), block.len().min(bytes - at))?;
    }
    Ok(memory)
}

fn destroy(library: &Library, symbol: &[u8], object: Handle) {
    // SAFETY: the signature is that of the vendor's header; the object was made by its counterpart and is freed once.
    if let Ok(destroy) = unsafe { library.get::<Destroy>(symbol) } {
        // SAFETY: as above.
        let _ = unsafe { destroy(object) };
    }
}

/// An object of the library, freed by the function of this name.
struct Object<'l> {
    library: &'l Library,
    object: Handle,
    free: &'static [u8],
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        destroy(self.library, self.free, self.object);
    }
}

/// Row-major `out = x * weight^T`, which is the column-major `out^T = (weight^T)^T * x^T`.
struct Problem<'l> {
    operation: Object<'l>,
    weight: Object<'l>,
    x: Object<'l>,
    out: Object<'l>,
    preference: Object<'l>,
}

impl<'l> Problem<'l> {
    fn new(library: &'l Library, rows: usize, n: usize, k: usize) -> Option<Problem<'l>> {
        let layout = |kind, height: usize, width: usize| layout(library, kind, height as u64, width as u64);
        let mut operation = null_mut();
        // SAFETY: the signature is that of the vendor's header; the object may be written.
        let status = unsafe {
            let create: Symbol<'_, unsafe extern "C" fn(*mut Handle, u32, u32) -> Status> =
                library.get(b"cublasLtMatmulDescCreate").ok()?;
            create(&mut operation, COMPUTE_32I, TYPE_32I)
        };
        if status != 0 {
            return None;
        }
        let operation = Object { library, object: operation, free: b"cublasLtMatmulDescDestroy" };
        set(&operation, b"cublasLtMatmulDescSetAttribute", DESC_TRANSA, &OP_T)?;
        let mut preference = null_mut();
        // SAFETY: as above.
        let status = unsafe {
            let create: Symbol<'_, unsafe extern "C" fn(*mut Handle) -> Status> =
                library.get(b"cublasLtMatmulPreferenceCreate").ok()?;
            create(&mut preference)
        };
        if status != 0 {
            return None;
        }
        let preference = Object { library, object: preference, free: b"cublasLtMatmulPreferenceDestroy" };
        set(&preference, b"cublasLtMatmulPreferenceSetAttribute", PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        Some(Problem {
            weight: layout(TYPE_8I, k, n)?,
            x: layout(TYPE_8I, k, rows)?,
            out: layout(TYPE_32I, n, rows)?,
            operation,
            preference,
        })
    }
}

fn layout(library: &Library, kind: u32, height: u64, width: u64) -> Option<Object<'_>> {
    let mut object = null_mut();
    // SAFETY: the signature is that of the vendor's header; the object may be written.
    let status = unsafe {
        let create: Symbol<'_, unsafe extern "C" fn(*mut Handle, u32, u64, u64, i64) -> Status> =
            library.get(b"cublasLtMatrixLayoutCreate").ok()?;
        create(&mut object, kind, height, width, height as i64)
    };
    (status == 0).then_some(Object { library, object, free: b"cublasLtMatrixLayoutDestroy" })
}

fn set<T>(object: &Object<'_>, symbol: &[u8], attribute: u32, value: &T) -> Option<()> {
    // SAFETY: the signature is that of the vendor's header, the value is of the type that the attribute takes.
    let status = unsafe {
        let set: Symbol<'_, SetAttribute> = object.library.get(symbol).ok()?;
        set(object.object, attribute, std::ptr::from_ref(value).cast(), size_of::<T>())
    };
    (status == 0).then_some(())
}
