//! What legal IR is. MLIR checks names, numbers of operands, attributes and type classes against the IRDL definition;
//! this module adds the rules IRDL cannot say and collects every violation instead of stopping at the first.

use crate::border::with_diagnostics;
use crate::error::{IrError, Violation};
use crate::stage::Stage;
use melior::{Context, ir::Module, ir::operation::OperationLike};

/// Checks a module.
///
/// # Errors
/// [`IrError::Invalid`] with every broken rule.
pub fn verify(context: &Context, module: &Module<'_>) -> Result<(), IrError> {
    let (ok, diagnostics) = with_diagnostics(context, || module.as_operation().verify());
    if !ok {
        return Err(IrError::Invalid(diagnostics));
    }
    if Stage::of(module).is_none() {
        let message = "`nemo.stage` is no known stage".to_owned();
        return Err(IrError::Invalid(vec![Violation { at: "module".into(), line: None, message }]));
    }
    Ok(())
}
