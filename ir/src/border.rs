//! The border to MLIR where melior assumes friendly input: strings that are empty or not UTF-8, and diagnostics that
//! quote such strings, reach Rust here without a panic (which, in a callback from C, would abort the process).

use crate::error::Violation;
use melior::{
    Context,
    ir::{
        Attribute, AttributeLike, Identifier, Location, Type, TypeLike,
        operation::{OperationLike, OperationPrintingFlags, OperationRef},
    },
};
use mlir_sys::{MlirDiagnostic, MlirLogicalResult, MlirStringCallback, MlirStringRef};
use std::{cell::RefCell, ffi::c_void};

/// The text that an MLIR print function writes; bytes that are not UTF-8 become U+FFFD.
fn collect(print: impl FnOnce(MlirStringCallback, *mut c_void)) -> String {
    unsafe extern "C" fn append(chunk: MlirStringRef, data: *mut c_void) {
        // SAFETY: `data` is the vector below, which nothing else uses while MLIR prints.
        let text = unsafe { &mut *data.cast::<Vec<u8>>() };
        text.extend_from_slice(bytes(&chunk));
    }
    let mut text: Vec<u8> = Vec::new();
    print(Some(append), (&raw mut text).cast());
    String::from_utf8_lossy(&text).into_owned()
}

fn bytes(chunk: &MlirStringRef) -> &[u8] {
    if chunk.length == 0 || chunk.data.is_null() {
        return &[];
    }
    // SAFETY: MLIR hands out `length` readable bytes at `data`.
    unsafe { std::slice::from_raw_parts(chunk.data.cast(), chunk.length) }
}

/// The value of a string attribute; `None` for other attributes and for strings that are not UTF-8.
pub(crate) fn string_value(attribute: Attribute<'_>) -> Option<String> {
    if !attribute.is_string() {
        return None;
    }
    // SAFETY: the attribute is a string.
    let value = unsafe { mlir_sys::mlirStringAttrGetValue(attribute.to_raw()) };
    std::str::from_utf8(bytes(&value)).ok().map(str::to_owned)
}

/// The text of an identifier.
pub(crate) fn identifier_text(identifier: Identifier<'_>) -> String {
    // SAFETY: the identifier belongs to a live context.
    let text = unsafe { mlir_sys::mlirIdentifierStr(identifier.to_raw()) };
    String::from_utf8_lossy(bytes(&text)).into_owned()
}

/// The text of a type.
pub(crate) fn type_text(r#type: Type<'_>) -> String {
    // SAFETY: the type belongs to a live context; the callback outlives the call.
    collect(|callback, data| unsafe { mlir_sys::mlirTypePrint(r#type.to_raw(), callback, data) })
}

/// Runs `action` and collects what MLIR reports meanwhile, in place of printing it.
pub(crate) fn with_diagnostics<T>(context: &Context, action: impl FnOnce() -> T) -> (T, Vec<Violation>) {
    let seen: RefCell<Vec<Violation>> = RefCell::default();
    let handler = Handler {
        context,
        // SAFETY: `seen` outlives the handler, which is detached when it is dropped.
        id: unsafe {
            let sink = (&raw const seen).cast_mut().cast();
            mlir_sys::mlirContextAttachDiagnosticHandler(context.to_raw(), Some(report), sink, None)
        },
    };
    let value = action();
    drop(handler);
    (value, seen.into_inner())
}

/// Detaches a diagnostic handler, also when the action panics.
struct Handler<'c> {
    context: &'c Context,
    id: mlir_sys::MlirDiagnosticHandlerID,
}

impl Drop for Handler<'_> {
    fn drop(&mut self) {
        // SAFETY: the handler was attached to this context and is detached once.
        unsafe { mlir_sys::mlirContextDetachDiagnosticHandler(self.context.to_raw(), self.id) };
    }
}

unsafe extern "C" fn report(diagnostic: MlirDiagnostic, sink: *mut c_void) -> MlirLogicalResult {
    // SAFETY: `sink` is the cell of `with_diagnostics`, which outlives the handler.
    let seen = unsafe { &*sink.cast::<RefCell<Vec<Violation>>>() };
    // SAFETY: the diagnostic is valid while its handler runs.
    let location = unsafe { Location::from_raw(mlir_sys::mlirDiagnosticGetLocation(diagnostic)) };
    // SAFETY: as above; the callback outlives the call.
    let message = collect(|callback, data| unsafe { mlir_sys::mlirDiagnosticPrint(diagnostic, callback, data) });
    seen.borrow_mut().push(Violation { at: name_of(location), line: line_of(location), message });
    MlirLogicalResult { value: 1 }
}

/// The text of an operation with everything in it.
pub(crate) fn operation_text(operation: &OperationRef<'_, '_>, flags: &OperationPrintingFlags) -> String {
    // SAFETY: the operation and the flags live; the callback outlives the call.
    collect(|callback, data| unsafe {
        mlir_sys::mlirOperationPrintWithFlags(operation.to_raw(), flags.to_raw(), callback, data);
    })
}

/// The name in a location, empty when it has none.
pub(crate) fn name_of(location: Location<'_>) -> String {
    if location.is_name() { identifier_text(location.name_value()) } else { String::new() }
}

/// The line of the text that a location points into. A name may wrap it.
pub(crate) fn line_of(location: Location<'_>) -> Option<usize> {
    if location.is_name() {
        line_of(location.name_child_location())
    } else {
        location.is_file_line_col_range().then(|| location.file_line_col_range_start_line())
    }
}
