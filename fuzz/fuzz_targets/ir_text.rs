//! Any text as IR: an error, or a module that verifies or says why not; a legal one survives printing.
#![no_main]

use ir::melior::Context;
use std::cell::LazyCell;

thread_local! {
    static CONTEXT: LazyCell<Context> = const { LazyCell::new(ir::irdl::context) };
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    CONTEXT.with(|context| {
        let Ok(module) = ir::module::parse(context, text) else {
            return;
        };
        let printed = ir::module::print(&module);
        if ir::verify::verify(context, &module).is_ok() {
            let again = ir::module::parse(context, &printed).expect("printed IR can be read");
            ir::verify::verify(context, &again).expect("printed IR is as legal as its module");
            assert_eq!(ir::module::print(&again), printed);
        }
    });
});
