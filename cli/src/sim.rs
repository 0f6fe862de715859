//! `barid sim`: the simulator, which is a program of its own beside this one.
//!
//! The simulator plays the core with bugs planted in it, to prove that it would find them. What
//! can plant bugs must not be in the program that runs on every host, and cargo builds a crate
//! once for all that is built together; so they are two binaries, and this verb becomes the other.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::fail::Failure;

/// The name of the other binary.
const NAME: &str = "barid-sim";

/// `barid sim --help` is answered by the simulator itself.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// A plan and options; see barid sim --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Becomes the simulator; returns only if it cannot.
pub(crate) fn sim(args: Args) -> Failure {
    let path = match std::env::current_exe() {
        Ok(own) => own.with_file_name(NAME),
        Err(_) => PathBuf::from(NAME),
    };
    let error = Command::new(&path).args(args.args).exec();
    let what = format!("the simulator {} cannot be started: {error}", path.display());
    let hint = "it is for developers and comes with the sources: cargo build --release -p \
                simulations --bin barid-sim";
    Failure::usage(what, hint)
}
