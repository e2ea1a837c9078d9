//! `nemoc plan-memory`: does it fit?

use crate::device;
use crate::eval::hardware::{self, Gpu};
use crate::failure::{Failure, Outcome};
use crate::table::{bytes, count, table};
use runtime::generate::parse_bytes;
use runtime::memory::{Footprint, GPUS, Needs, RESERVED_BYTES, Use};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Say whether an artifact fits a GPU, by how much, and what is the most that fits.
#[derive(clap::Args)]
pub struct Arguments {
    /// The artifact.
    #[arg(value_name = "M.nemo")]
    artifact: PathBuf,
    /// A known GPU [default: the first one of this machine].
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(GPUS.iter().map(|gpu| gpu.name)))]
    gpu: Option<String>,
    /// Memory of another GPU, for example 16G.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "gpu")]
    memory: Option<u64>,
    /// Tokens of each sequence.
    #[arg(long, value_name = "TOKENS", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(1..1 << 40))]
    context: u64,
    /// Sequences.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..1 << 30))]
    batch: u64,
    /// Prompt tokens computed at once.
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..1 << 30))]
    chunk: u64,
    /// Memory that the driver keeps for itself, for example 600M [default: 600M].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    reserved: Option<u64>,
    /// For scripts.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let artifact = device::open(&arguments.artifact)?;
    let Gpu { name, bytes: memory, capability } = gpu(arguments)?;
    let reserved = arguments.reserved.unwrap_or(RESERVED_BYTES);
    let plan = MemoryPlan {
        gpu: name,
        memory,
        available: memory.saturating_sub(reserved),
        of: Use { context: arguments.context, batch: arguments.batch, step_rows: arguments.chunk },
        footprint: Footprint::of(&artifact).on(artifact.plan(), capability),
    };
    let text = if arguments.json { serde_json::to_string_pretty(&plan.as_json())? + "\n" } else { plan.draw() };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn gpu(arguments: &Arguments) -> Result<Gpu, Failure> {
    if let Some(memory) = arguments.memory {
        return Ok(Gpu { name: bytes(memory), bytes: memory, capability: UNKNOWN });
    }
    if let Some(name) = &arguments.gpu {
        let gpu = GPUS.iter().find(|gpu| gpu.name == name).expect("clap accepts known names only");
        return Ok(Gpu { name: gpu.name.to_owned(), bytes: gpu.bytes, capability: gpu.capability });
    }
    hardware::gpus().into_iter().next().ok_or_else(|| {
        let known: Vec<&str> = GPUS.iter().map(|gpu| gpu.name).collect();
        Failure::Message(format!(
            "no GPU was found on this machine\nhelp: name one with --gpu ({}), or give its --memory",
            known.join(", ")
        ))
    })
}

/// Takes no memory that only some GPUs need.
const UNKNOWN: (u32, u32) = (0, 0);

struct MemoryPlan {
    gpu: String,
    memory: u64,
    available: u64,
    of: Use,
    footprint: Footprint,
}

impl MemoryPlan {
    fn needs(&self) -> Needs {
        self.footprint.needs(self.of)
    }

    fn longest_context(&self) -> Option<u64> {
        self.footprint.longest_context(self.of, self.available)
    }

    fn largest_batch(&self) -> Option<u64> {
        self.footprint.largest_batch(self.of, self.available)
    }

    fn as_json(&self) -> serde_json::Value {
        let needs = self.needs();
        json!({
            "gpu": self.gpu,
            "memory_bytes": self.memory,
            "available_bytes": self.available,
            "context": self.of.context,
            "batch": self.of.batch,
            "needs": needs,
            "total_bytes": needs.total(),
            "fits": needs.total() <= self.available,
            "spare_bytes": i128::from(self.available) - i128::from(needs.total()),
            "longest_context": self.longest_context(),
            "largest_batch": self.largest_batch(),
        })
    }

    fn draw(&self) -> String {
        let needs = self.needs();
        let mut drawn = table(&["", "bytes>", "share>"]);
        let total = needs.total();
        let parts = [
            ("weights", needs.weights),
            ("expanded weights", needs.expanded),
            ("keys and values", needs.kv),
            ("states", needs.states),
            ("buffers", needs.buffers),
            ("total", total),
        ];
        for (name, part) in parts.into_iter().filter(|(name, part)| *name != "expanded weights" || *part > 0) {
            let share = format!("{:.1} %", 100.0 * part as f64 / self.available.max(1) as f64);
            drawn.add_row([name.to_owned(), bytes(part), share]);
        }
        let Use { context, batch, .. } = self.of;
        let use_text = format!("{} tokens of context, batch {batch}", count(context));
        let verdict = if total <= self.available {
            format!("fits {}: {use_text}, {} to spare", self.gpu, bytes(self.available - total))
        } else {
            format!("does not fit {}: {use_text}, {} too much", self.gpu, bytes(total - self.available))
        };
        format!(
            "{drawn}\n{verdict} ({} of {} can be used)\nlongest context at batch {batch}: {}\nlargest batch at {} tokens: {}\n",
            bytes(self.available),
            bytes(self.memory),
            most(self.longest_context(), "tokens"),
            count(context),
            most(self.largest_batch(), "sequences"),
        )
    }
}

fn most(number: Option<u64>, unit: &str) -> String {
    match number {
        None => "none fits".to_owned(),
        Some(u64::MAX) => "no limit".to_owned(),
        Some(number) => format!("{} {unit}", count(number)),
    }
}
