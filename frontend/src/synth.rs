//! Random checkpoints of a real shape, to measure speed and memory before a download.
//!
//! Weights are bf16 (A_log, D and dt_bias f32) with a realistic spread, see `values`. Every value is a function of seed,
//! tensor name, row and column, so the result does not depend on the number of threads. Memory is bounded by two
//! blocks; one is generated on all cores while the other is written.
//!
//! `config.json` is copied last: until then the folder is not a checkpoint. On failure every file written is removed.

mod values;

use crate::config::Config;
use crate::error::ConfigError;
use crate::names::{Names, Role, TensorSpec, tensors};
use ir::weights::FloatType;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use values::Generator;

/// Bytes generated and written at once.
const BLOCK_BYTES: usize = 16 << 20;
/// Files copied from beside the configuration, if they are there.
const COMPANIONS: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynthOptions {
    /// Other seeds give other weights.
    pub seed: u64,
    /// A shard is closed before it would grow beyond this.
    pub shard_bytes: u64,
}

impl Default for SynthOptions {
    fn default() -> SynthOptions {
        SynthOptions { seed: 0, shard_bytes: 4 << 30 }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthReport {
    /// The weight files.
    pub files: Vec<PathBuf>,
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of weights.
    pub bytes: u64,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The output folder is in use.
    #[error("the output folder is not empty\n  --> {}\nhelp: give a new folder, or remove this one", dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write: {source}\n  --> {}\nhelp: the model needs {bytes} bytes of disk space and a writable folder", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Bytes the whole checkpoint needs.
        bytes: u64,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes a checkpoint of the shape of `config_path` (a `config.json` or a folder with one) into `out_dir`.
/// `progress` hears of bytes written and of all bytes.
///
/// # Errors
/// When the configuration is not valid, the folder is in use, or the disk is full.
pub fn synthesize(
    config_path: &Path,
    out_dir: &Path,
    options: &SynthOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<SynthReport, SynthError> {
    let config = Config::load(config_path)?;
    let shards = plan_shards(&config, options.shard_bytes);
    let bytes = shards.iter().flatten().map(stored_bytes).sum();
    let mut output = Output::create(out_dir, bytes)?;
    let mut written = 0;
    for (index, shard) in shards.iter().enumerate() {
        let name = shard_name(index, shards.len());
        let mut file = output.file(&name)?;
        let mut on_block = |block: u64| {
            written += block;
            progress(written, bytes);
        };
        let result = write_shard(&mut file, shard, &config, options.seed, &mut on_block);
        result.map_err(|source| output.error(&name, source))?;
    }
    if shards.len() > 1 {
        output.text("model.safetensors.index.json", &index_json(&shards, bytes))?;
    }
    output.copy_companions(config_path)?;
    Ok(SynthReport {
        files: (0..shards.len()).map(|i| out_dir.join(shard_name(i, shards.len()))).collect(),
        parameters: shards.iter().flatten().map(TensorSpec::parameters).sum(),
        bytes,
    })
}

/// Distributes the tensors, in order, over shards; in each, f32 tensors come first so that all are aligned.
fn plan_shards(config: &Config, shard_bytes: u64) -> Vec<Vec<TensorSpec>> {
    let mut shards: Vec<Vec<TensorSpec>> = Vec::new();
    let mut size = 0;
    for tensor in tensors(config, &Names::default(), !config.tied_head) {
        let bytes = stored_bytes(&tensor);
        match shards.last_mut() {
            Some(shard) if size + bytes <= shard_bytes => {
                size += bytes;
                shard.push(tensor);
            }
            _ => {
                size = bytes;
                shards.push(vec![tensor]);
            }
        }
    }
    for shard in &mut shards {
        shard.sort_by_key(|tensor| dtype(tensor.role) != FloatType::F32);
    }
    shards
}

/// Scan parameters are f32 in published checkpoints, everything else bf16.
fn dtype(role: Role) -> FloatType {
    match role {
        Role::ALog | Role::D | Role::DtBias => FloatType::F32,
        _ => FloatType::Bf16,
    }
}

fn stored_bytes(tensor: &TensorSpec) -> u64 {
    tensor.parameters() * dtype(tensor.role).bytes() as u64
}

fn shard_name(index: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    }
}

fn index_json(shards: &[Vec<TensorSpec>], bytes: u64) -> String {
    let places = shards.iter().enumerate().flat_map(|(index, shard)| {
        let file = shard_name(index, shards.len());
        shard.iter().map(move |tensor| (tensor.name.clone(), Value::from(file.clone())))
    });
    let map: Map<String, Value> = places.collect();
    format!("{:#}\n", json!({"metadata": {"total_size": bytes}, "weight_map": map}))
}

/// The header of a shard: its length, and JSON padded with spaces to a multiple of 8 bytes.
fn shard_header(shard: &[TensorSpec]) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in shard {
        let start = end;
        end += stored_bytes(tensor);
        let name = match dtype(tensor.role) {
            FloatType::F32 => "F32",
            FloatType::F16 => "F16",
            FloatType::Bf16 => "BF16",
        };
        let info = json!({"dtype": name, "shape": tensor.shape, "data_offsets": [start, end]});
        map.insert(tensor.name.clone(), info);
    }
    let mut text = Value::Object(map).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn write_shard(
    file: &mut File,
    shard: &[TensorSpec],
    config: &Config,
    seed: u64,
    on_block: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    file.write_all(&shard_header(shard))?;
    let (mut ready, mut next) = (Vec::new(), Vec::new());
    for tensor in shard {
        let generator = Generator::new(tensor, config, seed);
        for rows in blocks(&generator) {
            let (written, ()) = rayon::join(|| file.write_all(&ready), || generator.fill(rows, &mut next));
            written?;
            on_block(ready.len() as u64);
            std::mem::swap(&mut ready, &mut next);
        }
    }
    file.write_all(&ready)?;
    on_block(ready.len() as u64);
    Ok(())
}

/// The rows of a tensor in ranges of about [`BLOCK_BYTES`].
fn blocks(generator: &Generator) -> impl Iterator<Item = Range<usize>> + use<> {
    let (rows, step) = (generator.rows(), (BLOCK_BYTES / generator.row_bytes()).max(1));
    (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
}

/// The output folder. Removes what it has made unless the checkpoint is complete.
struct Output {
    dir: PathBuf,
    bytes: u64,
    made_dir: bool,
    files: Vec<PathBuf>,
    complete: bool,
}

impl Output {
    fn create(dir: &Path, bytes: u64) -> Result<Output, SynthError> {
        let mut output =
            Output { dir: dir.to_owned(), bytes, made_dir: !dir.exists(), files: Vec::new(), complete: false };
        let is_empty =
            fs::create_dir_all(dir).and_then(|()| fs::read_dir(dir)).map(|mut entries| entries.next().is_none());
        match is_empty {
            Ok(true) => Ok(output),
            Ok(false) => Err(SynthError::NotEmpty { dir: dir.to_owned() }),
            Err(source) => {
                output.made_dir = false;
                Err(output.error("", source))
            }
        }
    }

    fn error(&self, name: &str, source: std::io::Error) -> SynthError {
        SynthError::Write {
            path: if name.is_empty() { self.dir.clone() } else { self.dir.join(name) },
            bytes: self.bytes,
            source,
        }
    }

    fn file(&mut self, name: &str) -> Result<File, SynthError> {
        let path = self.dir.join(name);
        let file = File::create_new(&path).map_err(|source| self.error(name, source))?;
        self.files.push(path);
        Ok(file)
    }

    fn text(&mut self, name: &str, text: &str) -> Result<(), SynthError> {
        let mut file = self.file(name)?;
        file.write_all(text.as_bytes()).map_err(|source| self.error(name, source))
    }

    /// Copies the tokenizer and, last of all, the configuration.
    fn copy_companions(&mut self, config_path: &Path) -> Result<(), SynthError> {
        let (from, config) = if config_path.is_dir() {
            (config_path, config_path.join("config.json"))
        } else {
            (config_path.parent().unwrap_or(Path::new("")), config_path.to_owned())
        };
        let companions = COMPANIONS.map(|name| (name, from.join(name)));
        let present = companions.into_iter().filter(|(_, path)| path.is_file());
        for (name, path) in present.chain([("config.json", config)]) {
            let bytes = fs::read(&path).map_err(|source| self.error(name, source))?;
            let mut file = self.file(name)?;
            file.write_all(&bytes).map_err(|source| self.error(name, source))?;
        }
        self.complete = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        // Best effort: the error that led here is the one to report.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if self.made_dir {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}
