//! Rule 5: types that mean something.

use crate::types::{Act, BufferType, GROUP_ALIGN, Granularity, NemoType, StateType, Storage, Weight};
use std::ops::RangeInclusive;

/// Legal sizes: products of a few of them stay far from overflow, and they fit CUDA's 32-bit indices.
pub(super) const SIZES: RangeInclusive<usize> = 1..=(1 << 31) - 1;

/// The kinds of states.
const STATE_KINDS: [&str; 3] = ["conv", "ssm", "kv"];
/// What the rows of a buffer can be.
const ROWS: [&str; 2] = ["token", "output"];

/// Says what is wrong with a type, if anything.
pub(super) fn check(r#type: &NemoType) -> Result<(), String> {
    let problem = match r#type {
        NemoType::Tokens => None,
        NemoType::Act(act) => size("cols", act.cols).or_else(|| activation(act)),
        NemoType::Weight(w) => size("rows", w.rows).or_else(|| size("cols", w.cols)).or_else(|| weight(w)),
        NemoType::Vector(vector) => size("len", vector.len).or_else(|| float(vector.storage)),
        NemoType::State(state) => size("elements", state.elements).or_else(|| state_type(state)),
        NemoType::Buffer(buffer) => size("cols", buffer.cols).or_else(|| buffer_type(buffer)),
    };
    problem.map_or(Ok(()), |problem| Err(format!("{type}: {problem}")))
}

fn size(name: &str, size: usize) -> Option<String> {
    (!SIZES.contains(&size)).then(|| format!("{name} is {size}, expected 1 to 2147483647"))
}

fn float(storage: Storage) -> Option<String> {
    (!storage.is_float()).then(|| format!("storage is {storage}, expected a float"))
}

fn activation(act: &Act) -> Option<String> {
    let expected = match act.storage {
        Storage::F32 => Granularity::None,
        Storage::I8 | Storage::U8 => Granularity::Token,
        Storage::I32 => Granularity::TokenChannel,
        other => return Some(format!("storage is {other}, expected f32, i8, ui8 or i32")),
    };
    (act.granularity != expected)
        .then(|| format!("granularity of {} is {}, expected {expected}", act.storage, act.granularity))
}

fn weight(weight: &Weight) -> Option<String> {
    let (storage, granularity) = (weight.storage, weight.granularity);
    match (storage, granularity) {
        (storage, Granularity::None) if storage.is_float() => None,
        (Storage::I8, Granularity::Channel) => None,
        (Storage::I4, Granularity::Group(n) | Granularity::TwoLevel(n)) => (!n.is_multiple_of(GROUP_ALIGN))
            .then(|| format!("granularity is {granularity}, expected groups of a multiple of {GROUP_ALIGN}")),
        _ => Some(format!(
            "granularity of {storage} is {granularity}, expected none for floats, channel for i8, group_N or two_level_N for i4"
        )),
    }
}

fn state_type(state: &StateType) -> Option<String> {
    let known = STATE_KINDS.contains(&state.kind.as_str());
    let kind = (!known).then(|| format!("kind is {}, expected {}", state.kind, STATE_KINDS.join(", ")));
    // Windows are not rounded: their kernels take floats.
    let storable = state.storage.is_float() || (state.storage == Storage::I8 && state.kind != "conv");
    let expected = if state.kind == "conv" { "a float" } else { "a float or i8" };
    kind.or_else(|| (!storable).then(|| format!("storage is {}, expected {expected}", state.storage)))
}

fn buffer_type(buffer: &BufferType) -> Option<String> {
    if !ROWS.contains(&buffer.rows.as_str()) {
        return Some(format!("rows is {}, expected {}", buffer.rows, ROWS.join(", ")));
    }
    let storable = matches!(buffer.storage, Storage::F32 | Storage::I8 | Storage::U8 | Storage::I32);
    (!storable).then(|| format!("storage is {}, expected f32, i8, ui8 or i32", buffer.storage))
}
