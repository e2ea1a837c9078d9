//! The translation unit that NVRTC compiles: includes, and one thin entry a row of the kernel table.

use crate::kernels::{KERNELS, KernelRow};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The text of the program.
pub fn program() -> String {
    let mut text = String::from("#include \"params.cuh\"\n");
    let files: BTreeSet<&str> = KERNELS.iter().map(|row| row.file).collect();
    for file in files {
        let _ = writeln!(text, "#include \"{file}\"");
    }
    for row in KERNELS {
        text.push_str(&entry(row));
    }
    text
}

fn entry(row: &KernelRow) -> String {
    format!(
        "\nextern \"C\" __global__ void __launch_bounds__({threads}, RESIDENT({blocks}))\n{name}(const __grid_constant__ {params} p) {{\n  {instance}(p);\n}}\n",
        threads = row.entry.threads,
        blocks = row.entry.blocks_per_sm,
        name = row.entry.symbol(),
        params = row.params,
        instance = row.instance,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_an_instance_and_nothing_else() {
        let text = entry(&KERNELS[0]);
        assert_eq!(
            text,
            "\nextern \"C\" __global__ void __launch_bounds__(256, RESIDENT(1))\nnemo_embed(const __grid_constant__ EmbedParams p) {\n  embed(p);\n}\n"
        );
    }
}
