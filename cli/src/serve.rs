//! `barid controller`: the root of the tree.

use std::future::ready;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use certs::Role;
use tracing::info;

use crate::backup;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::node::{Stop, runtime};
use crate::units::parse_some_duration;

/// Options of `barid controller`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Option<backup::Verb>,
    /// The controller's private folder; the first start makes it, and the mesh
    #[arg(long, value_name = "DIR", required = true)]
    state: Option<PathBuf>,
    /// Where relays and hosts dial (UDP)
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// How long certificates of nodes are good; they renew themselves in time [default: 365d]
    #[arg(long, value_name = "TIME", value_parser = parse_some_duration)]
    certificate: Option<Duration>,
    /// How long orders and their answers are kept, and with them content [default: 90d]
    #[arg(long, value_name = "TIME", value_parser = parse_some_duration)]
    keep: Option<Duration>,
    /// How much output of all orders together is kept, in MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    keep_output: Option<u64>,
    /// How much of the disk is to stay free, in MiB; with less no orders are taken [default: 64]
    #[arg(long, value_name = "MIB")]
    min_free: Option<u64>,
    /// How much content is kept, in MiB; a push that needs more is refused [default: no limit]
    #[arg(long, value_name = "MIB")]
    store_max: Option<u64>,
    /// Content down each link, at most, in kbit/s
    #[arg(long, value_name = "KBIT")]
    rate_limit: Option<u64>,
    /// Serve metrics here as well (TCP), to anybody who asks
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// A Unix socket for the bus that every user may open; bus.toml says what he may there
    #[arg(long, value_name = "PATH")]
    bus: Option<PathBuf>,
    /// For more hosts than this a push goes out in waves, unless it is given --all-at-once
    /// [default: 500]
    #[arg(long, value_name = "HOSTS")]
    waves_above: Option<u64>,
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
    let Args { init, until_eof, .. } = args;
    let options = controller::Options {
        state: args.state.unwrap_or_default(),
        listen: args.listen,
        certificate: args.certificate,
        keep: args.keep,
        keep_output_mib: args.keep_output,
        min_free_mib: args.min_free,
        store_max_mib: args.store_max,
        rate_limit_kbit: args.rate_limit,
        metrics: args.metrics,
        bus: args.bus,
        waves_above: args.waves_above,
        ..controller::Options::default()
    };
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
