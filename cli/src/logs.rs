//! Logs of the long-running verbs: to stderr, for people on a terminal, plain elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::fail::Failure;

/// Which messages are wanted, as for `RUST_LOG`.
const VARIABLE: &str = "BARID_LOG";

/// Begins to log: `BARID_LOG`, or else `base` and more for each `-v`.
pub(crate) fn init(base: &str, verbose: u8) -> Result<(), Failure> {
    let level = match verbose {
        0 => base,
        1 => "debug",
        _ => "trace",
    };
    let wanted = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = match &wanted {
        Some(text) => EnvFilter::try_new(text).map_err(|error| {
            let message = format!("{VARIABLE}: {error}");
            Failure::usage(message, "for example BARID_LOG=info,relay=debug")
        })?,
        None => EnvFilter::new(level),
    };
    let is_terminal = io::stderr().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(is_terminal && !plain)
        .init();
    Ok(())
}
