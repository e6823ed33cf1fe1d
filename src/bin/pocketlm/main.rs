//! The command line `pocketlm`: a door, so it prints, reads the environment and starts devices; the rooms
//! below do none of that.

mod answering;
mod args;
mod checks;
mod commands;
mod failure;
mod interrupt;
mod load;
mod models;
mod output;
#[cfg(feature = "serve")]
mod serve;
mod soak;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

/// Runs small, heavily compressed language models on this machine.
#[derive(Parser)]
#[command(name = "pocketlm", version, after_help = ENVIRONMENT)]
struct Cli {
    #[command(flatten)]
    verbosity: args::VerbosityArgs,
    #[command(subcommand)]
    command: commands::Command,
}

const ENVIRONMENT: &str = "Environment:
  POCKETLM_CACHE   the folder that keeps downloaded models
  POCKETLM_HISTORY the file that keeps what is typed into `chat`; empty for none
  POCKETLM_LOG     what to log, by module: pocketlm=debug,wgpu_hal=warn
  HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE   as the Hugging Face hub's own tools read them

Exit codes: 0 fine, 1 other failure, 2 usage, 3 model file, 4 device, 5 memory, 130 interrupted.";

fn main() -> ExitCode {
    failure::quiet_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error).into(),
    };
    cli.verbosity.start_log();
    failure::guard(|| interrupt::listen().map_err(Into::into).and_then(|()| cli.command.run()), output::error)
        .into()
}
