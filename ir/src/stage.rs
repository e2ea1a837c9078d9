//! The levels a module goes through. A pass states which it requires and which it leaves behind.

use melior::{Context, ir::Module};
use std::fmt;

const ATTRIBUTE: &str = "nemo.stage";

/// How far a module has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As imported: float ops, weights as in the checkpoint.
    Imported,
    /// Every linear and embedding says its precision.
    Annotated,
    /// Weights and activations are quantized where the annotation says so.
    Quantized,
    /// Buffers and launches.
    Planned,
}

const NAMES: [(Stage, &str); 4] = [
    (Stage::Imported, "imported"),
    (Stage::Annotated, "annotated"),
    (Stage::Quantized, "quantized"),
    (Stage::Planned, "planned"),
];

impl Stage {
    /// Every stage, first to last.
    pub fn all() -> [Self; 4] {
        NAMES.map(|(stage, _)| stage)
    }

    /// The stage a module says it is at; a module that says nothing is [`Stage::Imported`].
    pub fn of(module: &Module<'_>) -> Option<Self> {
        match crate::module::get_string(module, ATTRIBUTE) {
            None => Some(Stage::Imported),
            Some(name) => NAMES.iter().find(|(_, text)| *text == name).map(|(stage, _)| *stage),
        }
    }

    /// Marks a module.
    pub fn set<'c>(self, context: &'c Context, module: &mut Module<'c>) {
        crate::module::set_string(context, module, ATTRIBUTE, &self.to_string());
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = NAMES.iter().find(|(stage, _)| stage == self).expect("every stage is listed");
        f.write_str(name)
    }
}
