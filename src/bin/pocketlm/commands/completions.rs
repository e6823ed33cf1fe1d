//! `completions`: what a shell completes.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::{Cli, output};

/// Prints what a shell has to read to complete commands and flags
///
/// For example: pocketlm completions bash > ~/.local/share/bash-completion/completions/pocketlm
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "pocketlm", &mut script);
    output::piece(&String::from_utf8(script)?)
}
