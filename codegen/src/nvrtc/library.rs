//! Where NVRTC may be installed, and what goes wrong with it.

use crate::target::Target;
use cudarc::nvrtc::sys;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Why kernels could not be compiled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NvrtcError {
    /// No library.
    #[error(
        "NVRTC was not found: no {LIBRARY_PREFIX}.* among the system's libraries, under CUDA_HOME or CUDA_PATH, /usr/local/cuda, or in Python's nvidia-cuda-nvrtc\nhelp: `pip install nvidia-cuda-nvrtc` is enough, or set NVRTC_LIBRARY to the file"
    )]
    NotFound,

    /// The file named by the user does not load.
    #[error("{} does not load: {reason}\nhelp: NVRTC_LIBRARY must name a libnvrtc.so of this processor", path.display())]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },

    /// NVRTC is too old for a target.
    #[error(
        "NVRTC {}.{} cannot compile for {target}\nhelp: install a newer one (`pip install -U nvidia-cuda-nvrtc`) or leave the target out", version.0, version.1
    )]
    UnknownTarget {
        /// Its version.
        version: (i32, i32),
        /// What it was asked for.
        target: Target,
    },

    /// The kernels did not compile.
    #[error("NVRTC failed for {target}: {reason}\n{log}\nhelp: this is a bug of nemoc; report it with this text")]
    Compilation {
        /// What for.
        target: Target,
        /// NVRTC's result.
        reason: String,
        /// NVRTC's messages.
        log: String,
    },
}

const LIBRARY_PREFIX: &str = "libnvrtc.so";
const BUILTINS_PREFIX: &str = "libnvrtc-builtins.so";

/// Loads the library once and returns its version.
pub fn load() -> Result<(i32, i32), NvrtcError> {
    static LOADED: OnceLock<Result<(i32, i32), NvrtcError>> = OnceLock::new();
    LOADED.get_or_init(load_first).clone()
}

fn load_first() -> Result<(i32, i32), NvrtcError> {
    if let Some(path) = std::env::var_os("NVRTC_LIBRARY").map(PathBuf::from) {
        keep_loaded(&path).map_err(|reason| NvrtcError::Unloadable { path, reason })?;
    } else {
        // A library that is loaded already satisfies cudarc's search by name.
        let _ = candidates().iter().any(|path| keep_loaded(path).is_ok());
    }
    // SAFETY: only looks for the library by its usual names.
    if !unsafe { sys::is_culib_present() } {
        return Err(NvrtcError::NotFound);
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is present and both pointers are valid for writes.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    Ok((major, minor))
}

/// Loads a library for good, and the one it opens later by a name that the loader may not find.
fn keep_loaded(path: &Path) -> Result<(), String> {
    for builtins in path.parent().map_or_else(Vec::new, |folder| matching(folder, BUILTINS_PREFIX)) {
        // SAFETY: as below.
        if let Ok(library) = unsafe { libloading::Library::new(builtins) } {
            std::mem::forget(library);
        }
    }
    // SAFETY: NVRTC's initializers have no preconditions.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| error.to_string())?;
    std::mem::forget(library);
    Ok(())
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = std::env::var_os(variable).map(PathBuf::from) {
            folders.extend([home.join("lib64"), home.join("lib")]);
        }
    }
    folders.push(PathBuf::from("/usr/local/cuda/lib64"));
    for python in python_prefixes() {
        for version in matching(&python, "python3") {
            for packages in ["site-packages", "dist-packages"] {
                for package in matching(&version.join(packages).join("nvidia"), "cu") {
                    folders.push(package.join("lib"));
                }
            }
        }
    }
    folders.iter().flat_map(|folder| matching(folder, LIBRARY_PREFIX)).collect()
}

fn python_prefixes() -> Vec<PathBuf> {
    let environment = std::env::var_os("VIRTUAL_ENV").map(|p| PathBuf::from(p).join("lib"));
    let user = std::env::var_os("HOME").map(|p| PathBuf::from(p).join(".local/lib"));
    let system = ["/usr/local/lib", "/usr/lib"].map(PathBuf::from);
    environment.into_iter().chain(user).chain(system).collect()
}

/// Entries of a folder whose names begin with `prefix`, the last (newest) first.
fn matching(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found.reverse();
    found
}
