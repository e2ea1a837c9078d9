use crate::plan::{DType, K_ALIGN, WeightFormat};
use crate::tensors::{TensorStore, TensorView};
use half::{bf16, f16};
use std::collections::HashMap;

/// Named tensors in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tensors: HashMap<String, Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl TensorStore for MemoryStore {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).map(|tensor| TensorView {
            dtype: tensor.dtype,
            shape: &tensor.shape,
            bytes: &tensor.bytes,
        })
    }
}

impl MemoryStore {
    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize], bytes: Vec<u8>) {
        let shape = shape.to_vec();
        self.tensors.insert(name.into(), Tensor { dtype, shape, bytes });
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.bytes.len()).sum()
    }

    /// Adds f32 values.
    pub fn insert_floats(&mut self, name: impl Into<String>, shape: &[usize], values: &[f32]) {
        self.insert(name, DType::F32, shape, bytemuck::cast_slice(values).to_vec());
    }

    /// Rounds a matrix `[n, k]` to nearest in a format and adds its tensors.
    pub fn insert_weight(&mut self, name: &str, format: WeightFormat, k: usize, values: &[f32]) {
        let n = values.len() / k;
        let weight = format!("{name}.weight");
        match format {
            WeightFormat::Float { dtype } => self.insert(weight, dtype, &[n, k], floats(dtype, values)),
            WeightFormat::W8 => {
                let rows: Vec<(Vec<i8>, f32)> = values.chunks(k).map(|row| round(row, 127.0)).collect();
                let bytes = rows.iter().flat_map(|(q, _)| padded(q)).map(|q| q as u8);
                self.insert(weight, DType::I8, &[n, k.next_multiple_of(K_ALIGN)], bytes.collect());
                let scales: Vec<f32> = rows.iter().map(|(_, scale)| *scale).collect();
                self.insert_floats(format!("{name}.scale"), &[n], &scales);
            }
            WeightFormat::W4TwoLevel { group_size } => self.insert_two_level(name, group_size, k, values),
            WeightFormat::W4Group { group_size } => self.insert_group(name, group_size, k, values),
        }
    }

    fn insert_nibbles(&mut self, name: &str, n: usize, k: usize, rows: &[i8]) {
        let packed = rows.chunks(k).flat_map(|row| {
            let pack = |chunk: &[i8]| -> Vec<u8> {
                let nibble = |j: usize| (chunk[j] + 8) as u8;
                (0..16).map(|j| nibble(j) | nibble(16 + j) << 4).collect()
            };
            padded(row).chunks(32).flat_map(pack).collect::<Vec<u8>>()
        });
        let shape = [n, k.next_multiple_of(K_ALIGN) / 2];
        self.insert(format!("{name}.weight"), DType::U8, &shape, packed.collect());
    }

    fn insert_group(&mut self, name: &str, group_size: usize, k: usize, values: &[f32]) {
        let n = values.len() / k;
        let groups: Vec<(Vec<i8>, f32)> =
            values.chunks(k).flat_map(|row| row.chunks(group_size)).map(|group| round(group, 7.0)).collect();
        let q: Vec<i8> = groups.iter().flat_map(|(q, _)| q.iter().copied()).collect();
        let scales: Vec<f16> = groups.iter().map(|(_, scale)| f16::from_f32(*scale)).collect();
        self.insert_nibbles(name, n, k, &q);
        let shape = [n, k.div_ceil(group_size)];
        self.insert(format!("{name}.group_scale"), DType::F16, &shape, bytemuck::cast_slice(&scales).to_vec());
    }

    fn insert_two_level(&mut self, name: &str, group_size: usize, k: usize, values: &[f32]) {
        let n = values.len() / k;
        let (mut q, mut steps, mut scales) = (Vec::new(), Vec::new(), Vec::new());
        for row in values.chunks(k) {
            let scale = row.iter().fold(0.0f32, |max, v| max.max(v.abs())) / 119.0;
            scales.push(scale);
            for group in row.chunks(group_size) {
                let absmax = group.iter().fold(0.0f32, |max, v| max.max(v.abs()));
                let step = (absmax / scale / 7.0).ceil().clamp(1.0, 17.0);
                steps.push(step as u8);
                q.extend(group.iter().map(|v| (v / scale / step).round().clamp(-7.0, 7.0) as i8));
            }
        }
        self.insert_nibbles(name, n, k, &q);
        self.insert(format!("{name}.group_scale"), DType::U8, &[n, k.div_ceil(group_size)], steps);
        self.insert_floats(format!("{name}.scale"), &[n], &scales);
    }
}

fn round(row: &[f32], levels: f32) -> (Vec<i8>, f32) {
    let scale = row.iter().fold(0.0f32, |max, v| max.max(v.abs())) / levels;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    (row.iter().map(|v| (v * inverse).round_ties_even() as i8).collect(), scale)
}

fn padded(row: &[i8]) -> Vec<i8> {
    let mut row = row.to_vec();
    row.resize(row.len().next_multiple_of(K_ALIGN), 0);
    row
}

fn floats(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        _ => bytemuck::cast_slice(values).to_vec(),
    }
}
