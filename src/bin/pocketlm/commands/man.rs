//! `man`: the pages of the manual.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use pocketlm::{Error, Result};

use crate::{Cli, output};

/// Prints the page of the manual, or writes the pages of all commands
///
/// For example: pocketlm man ~/.local/share/man/man1
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder that gets pocketlm.1 and a page for each command; without it, pocketlm.1 is printed
    folder: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut program = Cli::command();
    program.build();
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        Man::new(program).render(&mut page)?;
        return output::piece(&String::from_utf8(page)?);
    };
    fs::create_dir_all(folder).map_err(|error| Error::from(error).in_file(folder))?;
    write(&program, "pocketlm", folder)?;
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        write(command, &format!("pocketlm-{}", command.get_name()), folder)?;
    }
    Ok(())
}

fn write(command: &Command, name: &str, folder: &Path) -> Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name).render(&mut page)?;
    let path = folder.join(name).with_extension("1");
    fs::write(&path, page).map_err(|error| Error::from(error).in_file(path))
}
