//! `barid controller`: the root of the tree.

use std::future::ready;
use std::net::SocketAddr;
use std::path::PathBuf;

use certs::Role;
use tracing::info;

use crate::exit::Exit;
use crate::fail::Failure;
use crate::node::{Stop, runtime};

/// Options of `barid controller`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The controller's private folder; the first start makes it, and the mesh
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where relays and hosts dial (UDP)
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Content down each link, at most, in kbit/s
    #[arg(long, value_name = "KBIT")]
    rate_limit: Option<u64>,
    /// Only make what is missing, then end
    #[arg(long)]
    init: bool,
    /// Stop at the end of standard input, for whoever starts controllers by program
    #[arg(long, hide = true)]
    until_eof: bool,
}

/// Runs the controller until it is told to stop.
pub(crate) fn main(args: Args, verbose: u8) -> Result<Exit, Failure> {
    crate::logs::init("info", verbose)?;
    let Args { state, listen, rate_limit, init, until_eof } = args;
    let rate_limit_kbit = rate_limit;
    let options =
        controller::Options { state, listen, rate_limit_kbit, ..controller::Options::default() };
    runtime(Role::Controller)?.block_on(async {
        let mut stop = Stop::new(until_eof)?;
        let result = match init {
            true => Box::pin(controller::run(options, ready(()))).await,
            false => {
                let stop = async move {
                    let signal = stop.wait().await;
                    info!(signal, "stopping");
                };
                Box::pin(controller::run(options, stop)).await
            }
        };
        result.map(|()| Exit::Ok).map_err(|error| Failure::local(&error))
    })
}
