//! `nemoc opt`: passes on IR text.

use crate::failure::{Failure, Outcome};
use crate::pipeline::PipelineArguments;
use crate::recipe::RecipeArguments;
use std::io::{Read, Write};
use std::path::PathBuf;

/// Read IR text, run passes, print the result.
///
/// Reads any file that `--dump-ir` writes; what it prints can be read again.
#[derive(clap::Args)]
pub struct Arguments {
    /// The IR; `-` reads stdin.
    #[arg(value_name = "FILE.mlir")]
    file: PathBuf,
    /// Passes to run, in order; `nemoc list passes` names them. Without: read, verify and print.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    passes: Vec<String>,
    /// Where the result goes, in place of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    pipeline: PipelineArguments,
}

pub fn run(arguments: &Arguments) -> Outcome {
    if arguments.recipe.is_auto() {
        let help = "choose with nemoc compile --phase auto --save-recipe R.toml, then give --recipe R.toml here";
        return Err(Failure::Usage(format!(
            "--phase auto measures weights, which IR text does not have\nhelp: {help}"
        )));
    }
    let options = arguments.recipe.options()?;
    let passes = arguments.passes.iter().map(|name| passes::find(name.trim(), &options));
    let passes = passes.collect::<Result<Vec<_>, _>>()?;
    let text = read(arguments)?;
    let context = ir::irdl::context();
    let at = |error: ir::IrError| Failure::at(arguments.file.display(), error);
    let module = ir::module::parse(&context, &text).map_err(at)?;
    ir::verify::verify(&context, &module).map_err(at)?;
    let (module, _) = arguments.pipeline.run(&context, module, passes, "input")?;
    let printed = ir::module::print(&module);
    match &arguments.output {
        Some(path) => std::fs::write(path, printed).map_err(|error| {
            Failure::at(path.display(), format!("cannot write: {error}\nhelp: is the folder there and writable?"))
        })?,
        None => anstream::stdout().write_all(printed.as_bytes())?,
    }
    Ok(())
}

fn read(arguments: &Arguments) -> Result<String, Failure> {
    let mut text = String::new();
    let result = if arguments.file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(&arguments.file)
    };
    result.map_err(|error| {
        let help = "give a file of IR text, for example one that `nemoc compile --dump-ir DIR` wrote";
        Failure::at(arguments.file.display(), format!("cannot read the IR: {error}\nhelp: {help}"))
    })
}
