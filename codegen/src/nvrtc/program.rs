//! One NVRTC program: source and headers in, a cubin or PTX out.

use super::library::{self, NvrtcError};
use crate::target::Target;
use cudarc::nvrtc::sys;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// Compiles `source`, which includes `headers` by name.
pub fn compile(
    source: &str,
    headers: &[(&str, &str)],
    options: &[String],
    target: Target,
) -> Result<Vec<u8>, NvrtcError> {
    let program = Program::create(source, headers, target)?;
    program.compile(options)?;
    program.image()
}

struct Program {
    handle: sys::nvrtcProgram,
    target: Target,
}

impl Program {
    fn create(source: &str, headers: &[(&str, &str)], target: Target) -> Result<Self, NvrtcError> {
        let source = text(source);
        let names: Vec<CString> = headers.iter().map(|(name, _)| text(name)).collect();
        let texts: Vec<CString> = headers.iter().map(|(_, body)| text(body)).collect();
        let name_pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let text_pointers: Vec<*const c_char> = texts.iter().map(|body| body.as_ptr()).collect();
        let mut program = Program { handle: ptr::null_mut(), target };
        // SAFETY: all strings live until the call returns, NVRTC copies them; the arrays have `headers.len()` elements.
        let result = unsafe {
            sys::nvrtcCreateProgram(
                &mut program.handle,
                source.as_ptr(),
                c"nemoc_kernels.cu".as_ptr(),
                headers.len() as i32,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        program.check(result)?;
        Ok(program)
    }

    fn compile(&self, options: &[String]) -> Result<(), NvrtcError> {
        let options: Vec<CString> = options.iter().map(|option| text(option)).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the handle is valid, and the strings live until the call returns.
        let result = unsafe { sys::nvrtcCompileProgram(self.handle, pointers.len() as i32, pointers.as_ptr()) };
        if result == sys::nvrtcResult::NVRTC_ERROR_INVALID_OPTION {
            return Err(NvrtcError::UnknownTarget { version: library::load()?, target: self.target });
        }
        self.check(result)
    }

    fn image(&self) -> Result<Vec<u8>, NvrtcError> {
        if self.target.is_ptx() {
            return self.output(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX);
        }
        self.output(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)
    }

    fn output(
        &self,
        size: unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult,
        get: unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the handle is valid and `bytes` may be written.
        self.check(unsafe { size(self.handle, &mut bytes) })?;
        let mut out = vec![0u8; bytes];
        // SAFETY: `out` has the size that NVRTC asked for.
        self.check(unsafe { get(self.handle, out.as_mut_ptr().cast()) })?;
        Ok(out)
    }

    fn log(&self) -> String {
        let mut bytes = 0;
        // SAFETY: the handle is valid and `bytes` may be written.
        let result = unsafe { sys::nvrtcGetProgramLogSize(self.handle, &mut bytes) };
        if result != sys::nvrtcResult::NVRTC_SUCCESS {
            return String::new();
        }
        let mut log = vec![0u8; bytes];
        // SAFETY: `log` has the size that NVRTC asked for.
        unsafe { sys::nvrtcGetProgramLog(self.handle, log.as_mut_ptr().cast()) };
        String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()
    }

    fn check(&self, result: sys::nvrtcResult) -> Result<(), NvrtcError> {
        if result == sys::nvrtcResult::NVRTC_SUCCESS {
            return Ok(());
        }
        // SAFETY: NVRTC returns a static string for every result.
        let reason = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(result)) };
        Err(NvrtcError::Compilation {
            target: self.target,
            reason: reason.to_string_lossy().into_owned(),
            log: self.log(),
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: created by NVRTC and destroyed once.
            unsafe { sys::nvrtcDestroyProgram(&mut self.handle) };
        }
    }
}

fn text(value: &str) -> CString {
    CString::new(value).expect("kernel sources, names and options have no NUL")
}
