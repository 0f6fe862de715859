//! `barid sim` and `barid bench`: the simulator and the benchmarks, programs of their own beside
//! this one.
//!
//! The simulator plays the core with bugs planted in it, to prove that it would find them. What
//! can plant bugs must not be in the program that runs on every host, and cargo builds a crate
//! once for all that is built together; so they are binaries apart, and these verbs become them.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::fail::Failure;

/// `--help` is answered by the other program itself.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What to do, and options; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Becomes the simulator; returns only if it cannot.
pub(crate) fn sim(args: Args) -> Failure {
    become_other("barid-sim", args)
}

/// Becomes the benchmarks; returns only if it cannot.
pub(crate) fn bench(args: Args) -> Failure {
    become_other("barid-bench", args)
}

fn become_other(name: &str, args: Args) -> Failure {
    let path = match std::env::current_exe() {
        Ok(own) => own.with_file_name(name),
        Err(_) => PathBuf::from(name),
    };
    let error = Command::new(&path).args(args.args).exec();
    let what = format!("{} cannot be started: {error}", path.display());
    let hint = "it is for developers and comes with the sources: cargo build --release -p \
                simulations --bin ";
    Failure::usage(what, format!("{hint}{name}"))
}
