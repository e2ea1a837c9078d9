//! The programs that NVRTC compiles: one a template file, so that they compile side by side and a changed template alone is compiled again.

use crate::kernels::{FILES, KERNELS, KernelFile, KernelRow};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write;

/// A translation unit: a template file, and one thin entry a row of the kernel table that names it.
#[derive(Clone, Debug)]
pub struct Program {
    /// The name of its template file, without the ending.
    pub name: &'static str,
    /// Its text.
    pub text: String,
    /// What it includes, directly or not, but `params.cuh`.
    pub headers: Vec<&'static KernelFile>,
}

/// Templates that take long for their few entries, the longest first.
const LONG: [&str; 3] = ["linear_pingpong.cuh", "linear_gemm.cuh", "attention_decode.cuh"];

/// All programs, roughly those first that take longest to compile: the last ones should be short, so that no core waits.
pub fn programs() -> Vec<Program> {
    let mut files: Vec<&str> = KERNELS.iter().map(|row| row.file).collect();
    files.sort_unstable();
    files.dedup();
    let place = |file: &str| LONG.iter().position(|long| *long == file).unwrap_or(LONG.len());
    files.sort_by_key(|file| (place(file), Reverse(rows(file).count())));
    files.into_iter().map(program).collect()
}

fn rows(file: &str) -> impl Iterator<Item = &'static KernelRow> {
    KERNELS.iter().filter(move |row| row.file == file)
}

fn program(file: &'static str) -> Program {
    let mut text = String::from("#include \"params.cuh\"\n");
    let _ = writeln!(text, "#include \"{file}\"");
    for row in rows(file) {
        text.push_str(&entry(row));
    }
    let mut wanted = BTreeSet::new();
    collect_headers(&text, &mut wanted);
    let headers = FILES.iter().filter(|file| wanted.contains(file.name)).collect();
    Program { name: file.strip_suffix(".cuh").unwrap_or(file), text, headers }
}

/// Adds the files that a text includes, and what they include.
fn collect_headers<'a>(text: &'a str, wanted: &mut BTreeSet<&'a str>) {
    for name in text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"')) {
        if wanted.insert(name)
            && let Some(file) = FILES.iter().find(|file| file.name == name)
        {
            collect_headers(file.text, wanted);
        }
    }
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

    #[test]
    fn programs_begin_with_the_long_ones() {
        let files: Vec<String> = programs().iter().map(|program| format!("{}.cuh", program.name)).collect();
        assert_eq!(files[..LONG.len()], LONG);
    }

    #[test]
    fn every_entry_is_in_one_program() {
        let programs = programs();
        for row in KERNELS {
            let symbol = format!("\n{}(", row.entry.symbol());
            let holding = programs.iter().filter(|program| program.text.contains(&symbol)).count();
            assert_eq!(holding, 1, "{}", row.entry.name);
        }
    }

    #[test]
    fn a_program_has_the_headers_that_it_includes_and_no_others() {
        let embed = program("embed.cuh");
        let names: Vec<&str> = embed.headers.iter().map(|file| file.name).collect();
        assert_eq!((embed.name, &names[..]), ("embed", &["common.cuh", "embed.cuh"][..]));
        for program in programs() {
            let inside = |name: &str| name == "params.cuh" || program.headers.iter().any(|file| file.name == name);
            for file in &program.headers {
                let included = file.text.lines().filter(|line| line.trim_start().starts_with("#include"));
                for line in included {
                    let name = line.split('"').nth(1).unwrap_or(line);
                    assert!(inside(name), "{} of {} lacks {name}", file.name, program.name);
                }
            }
        }
    }
}
