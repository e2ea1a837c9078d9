//! In which basis an artifact keeps its residual stream, and how two artifacts come to have the same.

use codegen::weights::{NoTensors, Orthogonal, dequantize_stored};
use ir::weights::{FloatType, Rotation, RotationKind, StorageFormat};
use passes::Recipe;
use runtime::artifact::Artifact;
use runtime::plan::{DType, Embedding, Kernel, WeightFormat};

/// What is done to the residual stream of an artifact before it is compared.
pub enum Turn {
    /// Nothing.
    Stay,
    /// The rotation that the recipe says is undone.
    Back(Orthogonal),
    /// It is rotated to the other artifact's.
    Towards(Orthogonal),
}

impl Turn {
    /// Rotates rows of the stream.
    pub fn apply(&self, rows: &mut [f32]) {
        match self {
            Turn::Stay => (),
            Turn::Back(rotation) => rotation.rotate_rows(rows, true),
            Turn::Towards(rotation) => rotation.rotate_rows(rows, false),
        }
    }
}

/// For the reference and for the model. Rotations that anyone can draw are undone. One that follows the data (`klt`) is not
/// kept in the artifact: then the model's stream is turned to the reference's by what turns the one embedding into
/// the other. `None` when that cannot be found.
pub fn turns(reference: &Artifact, model: &Artifact) -> Option<[Turn; 2]> {
    let rotations = [rotation(reference), rotation(model)];
    if !rotations.iter().flatten().any(|rotation| rotation.kind == RotationKind::Klt) {
        return Some(rotations.map(back));
    }
    let size = reference.plan().model.hidden_size;
    let towards = Orthogonal::between(&embeddings(model)?, &embeddings(reference)?, size)?;
    Some([Turn::Stay, Turn::Towards(towards)])
}

fn back(rotation: Option<Rotation>) -> Turn {
    rotation.and_then(|rotation| Orthogonal::new(&rotation, &NoTensors).ok()).map_or(Turn::Stay, Turn::Back)
}

/// The rotation of the residual stream that the recipe of an artifact asks for.
fn rotation(artifact: &Artifact) -> Option<Rotation> {
    let rotations = Recipe::parse(artifact.recipe(), "the recipe of the artifact").ok()?.rotation;
    let kind = rotations.kind.filter(|_| rotations.residual)?;
    let (name, size) = ("residual".to_owned(), artifact.plan().model.hidden_size);
    Some(Rotation { name, kind, size, seed: rotations.seed })
}

/// The embedding of every token, as the artifact stores it.
fn embeddings(artifact: &Artifact) -> Option<Vec<f32>> {
    let table = artifact.plan().launches.iter().find_map(|launch| match &launch.kernel {
        Kernel::Embed { table, .. } => Some(table),
        _ => None,
    })?;
    let Embedding { weight, format, vocab_size, hidden_size } = table;
    dequantize_stored(artifact, weight, stored(*format)?, *vocab_size, *hidden_size)
}

fn stored(format: WeightFormat) -> Option<StorageFormat> {
    Some(match format {
        WeightFormat::Float { dtype: DType::F32 } => StorageFormat::Float { dtype: FloatType::F32 },
        WeightFormat::Float { dtype: DType::F16 } => StorageFormat::Float { dtype: FloatType::F16 },
        WeightFormat::Float { dtype: DType::Bf16 } => StorageFormat::Float { dtype: FloatType::Bf16 },
        WeightFormat::Float { .. } => return None,
        WeightFormat::W8 => StorageFormat::W8,
        WeightFormat::W4TwoLevel { group_size } => StorageFormat::W4TwoLevel { group_size },
        WeightFormat::W4Group { group_size } => StorageFormat::W4Group { group_size },
    })
}
