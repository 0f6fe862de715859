//! `barid completion`: a script for the shell's own completion.

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;

/// Options of `barid completion`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For which shell
    shell: For,
}

/// The shells we know.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(crate) fn main(args: &Args, screen: &mut Screen) -> Result<Exit, Failure> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "barid", &mut script);
    screen.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
