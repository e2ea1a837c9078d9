//! Every linear and embedding says which arithmetic it runs in; the KV cache and scan states, how they are stored.
//!
//! ```text
//! linear(%x, %w) {name = N}             =>    linear(%x, %w) {name = N, precision = P(N)}
//! read_state : state<"kv", n, f32>      =>    read_state : state<"kv", n, bf16>
//! read_state : state<"ssm", n, f32>     =>    read_state : state<"ssm", n, f16>
//! ```
//!
//! | phase | in_proj, out_proj | MLP, attention | embedding, lm_head |
//! |---|---|---|---|
//! | 0 | float | float | float |
//! | 1 | w8a8 | w8a8 | w8a8 |
//! | 2 | w4a8 | w4a8 | w8a8 |
//! | 3 | w4a8 | w8a8 | w8a8 |
//!
//! Overrides of the recipe come after the table, later ones win. The dt rows of in_proj feed softplus and exp: they keep
//! 8 bits or more whatever a phase or an override says that matches others too.
//!
//! Fires once: the same recipe decides the same. Legal because it changes no arithmetic; a recipe whose override
//! matches nothing is refused, for its author meant something else.
//!
//! Buys: one place where precision is decided; insert-qdq only obeys. The recipe stays in the module as `nemo.recipe`.

use crate::copy;
use crate::precision::Precision;
use crate::recipe::{Phase, Recipe};
use ir::IrError;
use ir::melior::{
    Context,
    ir::{Module, operation::OperationLike},
};
use ir::module::{get_string, ops, set_string, type_of};
use ir::ops::{Op, build, views};
use ir::pass::{Pass, PassError, PassFailure};
use ir::rewrite::{Action, Rewriter, rewrite};
use ir::stage::Stage;
use ir::types::{NemoType, StateType, Storage};
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The module attribute that holds the recipe, as JSON.
pub const RECIPE_ATTRIBUTE: &str = "nemo.recipe";
/// The module attribute that holds facts about the model, as JSON; the phase is one of them.
const MODEL_ATTRIBUTE: &str = "nemo.model";

/// See the module's documentation.
pub struct AssignPrecision {
    /// What is asked for.
    pub recipe: Recipe,
}

impl Pass for AssignPrecision {
    fn name(&self) -> &'static str {
        "assign-precision"
    }

    fn requires(&self) -> RangeInclusive<Stage> {
        Stage::Imported..=Stage::Annotated
    }

    fn run<'c>(&self, context: &'c Context, module: &Module<'c>) -> Result<Option<Module<'c>>, PassFailure> {
        let names = names(module)?;
        let decided = decide(&self.recipe, &names)?;
        let kept = Kept { kv: self.recipe.kv_storage(), ssm: self.recipe.ssm_storage() };
        let recipe = serde_json::to_string(&self.recipe).expect("bug: a recipe is JSON");
        let model = get_string(module, MODEL_ATTRIBUTE).map(|model| with_phase(&model, self.recipe.phase));
        let same_attributes = get_string(module, RECIPE_ATTRIBUTE).as_ref() == Some(&recipe)
            && get_string(module, MODEL_ATTRIBUTE) == model
            && Stage::of(module) == Some(Stage::Annotated);
        if same_attributes && ops(module)?.into_iter().all(|op| is_assigned(op, &decided, kept)) {
            return Ok(None);
        }
        let mut new = rewrite(context, module, |rewriter, op| assign(rewriter, op, &decided, kept))?;
        set_string(context, &mut new, RECIPE_ATTRIBUTE, &recipe);
        if let Some(model) = model {
            set_string(context, &mut new, MODEL_ATTRIBUTE, &model);
        }
        Stage::Annotated.set(context, &mut new);
        Ok(Some(new))
    }
}

/// The facts about the model, with the phase the user asked for.
fn with_phase(model: &str, phase: Phase) -> String {
    match serde_json::from_str::<serde_json::Value>(model) {
        Ok(serde_json::Value::Object(mut facts)) => {
            facts.insert("phase".to_owned(), phase.to_string().into());
            serde_json::Value::Object(facts).to_string()
        }
        _ => model.to_owned(),
    }
}

/// What gets a precision, in order.
pub(crate) fn names(module: &Module<'_>) -> Result<Vec<String>, IrError> {
    let names = ops(module)?.into_iter().filter_map(|op| match op {
        Op::Embed(embed) => Some(embed.name()),
        Op::Linear(linear) => Some(linear.name()),
        _ => None,
    });
    Ok(names.collect())
}

pub(crate) fn is_dt(name: &str) -> bool {
    name.ends_with(".in_proj.dt")
}

/// The table of phases.
fn by_phase(phase: Phase, name: &str) -> Precision {
    let of_mamba_layer = name.contains(".in_proj") || name.ends_with(".out_proj");
    let of_vocabulary = matches!(name, "embeddings" | "lm_head");
    match phase {
        Phase::Reference => Precision::Float,
        Phase::Conservative => Precision::W8a8,
        _ if is_dt(name) || of_vocabulary => Precision::W8a8,
        Phase::Aggressive => Precision::W4a8,
        Phase::Mixed if of_mamba_layer => Precision::W4a8,
        Phase::Mixed => Precision::W8a8,
    }
}

/// The precision of each name.
pub(crate) fn decide(recipe: &Recipe, names: &[String]) -> Result<HashMap<String, Precision>, PassError> {
    let mut decided: HashMap<String, Precision> =
        names.iter().map(|name| (name.clone(), by_phase(recipe.phase, name))).collect();
    for rule in &recipe.overrides {
        let regex = rule.regex().map_err(|error| refuse(format!("override `{}`: {error}", rule.pattern), None))?;
        let matched: Vec<_> = names.iter().filter(|name| regex.is_match(name)).collect();
        if matched.is_empty() {
            return Err(matches_nothing(&rule.pattern, names));
        }
        let Some(precision) = rule.precision else { continue };
        if precision.is_4_bit() && matched.iter().all(|name| is_dt(name)) {
            let message = format!("override `{}` asks for {precision} in {} alone", rule.pattern, matched[0]);
            let help = "dt feeds softplus and exp: it keeps 8 bits or more; choose w8a8 or float".to_owned();
            return Err(refuse(message, Some(help)));
        }
        for name in matched {
            let precision = if is_dt(name) && precision.is_4_bit() { Precision::W8a8 } else { precision };
            decided.insert(name.clone(), precision);
        }
    }
    Ok(decided)
}

fn refuse(message: String, help: Option<String>) -> PassError {
    PassError { pass: "assign-precision", message, help }
}

fn matches_nothing(pattern: &str, names: &[String]) -> PassError {
    const SHOWN: usize = 3;
    let mut examples: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    if let Some(last) = names.last().filter(|_| names.len() > SHOWN) {
        examples.push(last);
    }
    let help = format!("names are {}, ...; patterns are unanchored regular expressions", examples.join(", "));
    refuse(format!("override `{pattern}` matches no linear"), Some(help))
}

fn is_assigned(op: Op<'_, '_>, decided: &HashMap<String, Precision>, kept: Kept) -> bool {
    let agrees = |name: String, found: Option<String>| found.as_deref() == Some(decided[&name].as_str());
    match op {
        Op::Embed(embed) => agrees(embed.name(), embed.precision()),
        Op::Linear(linear) => agrees(linear.name(), linear.precision()),
        Op::ReadState(read) => kept.retyped(type_of(read.value())) == type_of(read.value()),
        _ => true,
    }
}

/// How states are stored.
#[derive(Clone, Copy)]
struct Kept {
    kv: Storage,
    ssm: Storage,
}

impl Kept {
    /// The type of a state, stored so.
    fn retyped(self, state: NemoType) -> NemoType {
        let NemoType::State(state) = state else { return state };
        let storage = match state.kind.as_str() {
            "kv" => self.kv,
            "ssm" => self.ssm,
            _ => state.storage,
        };
        NemoType::State(StateType { storage, ..state })
    }
}

fn assign<'c>(
    rewriter: &mut Rewriter<'c, '_>,
    op: Op<'c, '_>,
    decided: &HashMap<String, Precision>,
    kept: Kept,
) -> Result<Action, IrError> {
    match op {
        Op::Embed(embed) => {
            let precision = Some(decided[&embed.name()].to_string());
            let new = build::Embed { precision, ..copy::embed(rewriter, embed) };
            let new = rewriter.builder().push(new, embed.0.location())?;
            rewriter.map(embed.y(), new.y());
        }
        Op::Linear(linear) => {
            let precision = Some(decided[&linear.name()].to_string());
            let new = build::Linear { precision, ..copy::linear(rewriter, linear) };
            let new = rewriter.builder().push(new, linear.0.location())?;
            rewriter.map(linear.y(), new.y());
        }
        Op::ReadState(read) => {
            let new = build::ReadState { name: read.name(), value: kept.retyped(type_of(read.value())) };
            let new = rewriter.builder().push(new, read.0.location())?;
            rewriter.map(read.value(), new.value());
        }
        Op::Attention(attention) => retype_attention(rewriter, attention, kept)?,
        Op::SsmScan(scan) => retype_scan(rewriter, scan, kept)?,
        _ => return Ok(Action::Keep),
    }
    Ok(Action::Done)
}

fn retype_attention<'c>(
    rewriter: &mut Rewriter<'c, '_>,
    attention: views::Attention<'c, '_>,
    kept: Kept,
) -> Result<(), IrError> {
    let copy = copy::attention(rewriter, attention);
    let new = build::Attention { new_state: kept.retyped(copy.new_state.clone()), ..copy };
    let new = rewriter.builder().push(new, attention.0.location())?;
    rewriter.map(attention.y(), new.y());
    rewriter.map(attention.new_state(), new.new_state());
    Ok(())
}

fn retype_scan<'c>(rewriter: &mut Rewriter<'c, '_>, scan: views::SsmScan<'c, '_>, kept: Kept) -> Result<(), IrError> {
    let copy = copy::ssm_scan(rewriter, scan);
    let new = build::SsmScan { new_state: kept.retyped(copy.new_state.clone()), ..copy };
    let new = rewriter.builder().push(new, scan.0.location())?;
    rewriter.map(scan.y(), new.y());
    rewriter.map(scan.new_state(), new.new_state());
    Ok(())
}
