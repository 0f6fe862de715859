//! `barid`: the operator's verbs, and the processes of the mesh, in one binary.
//!
//! A verb reads its options, asks the controller through [`client`], and shows the answer through
//! [`render`] and [`screen`]; `controller`, `node` and `join` start what they are named after.
//! There is no logic of the mesh here: what runs where is for the controller to say.
//!
//! | module | |
//! |---|---|
//! | `args` | the command line |
//! | `run` `push` `runs` `out` `attach` `cancel` `retry` `rollout` | verbs about orders |
//! | `pace` `given` | options of `run` |
//! | `events` `report` | what happens, and what went wrong |
//! | `bus` | messages between programs, by the node of this machine |
//! | `hosts` `nodes` `tree` `token` `alerting` `completion` | other verbs that ask the controller |
//! | `fleet` `fdist` | domains, hosts and files, by two kinds of names |
//! | `steer` `survey` `whatif` `cap` | verbs about the tree |
//! | `serve` `node` `join` | verbs that are a part of the mesh |
//! | `backup` | backups of the controller, and a controller out of one |
//! | `demo` `emulated` | a fleet on this machine, behind emulated lines if wanted |
//! | `sim` | the simulator, another binary |
//! | `targets` `hostfile` `guard` `plan` | which hosts, and whether that many are meant |
//! | `client` | the controller's API |
//! | `follow` `keys` `progress` `branches` | watching an order until it closes, by site and state |
//! | `lines` `rows` | output that comes before its answer |
//! | `gathered` `render` `alike` `diff` `words` | answers, put together and in words |
//! | `save` | answers in files |
//! | `screen` `escape` | the two streams, and what a terminal must not see |
//! | `exit` `fail` | how a verb ends |

mod alerting;
mod alike;
mod args;
mod attach;
mod backup;
mod branches;
mod bus;
mod cancel;
mod cap;
mod client;
mod completion;
mod delegate;
mod demo;
mod diff;
mod emulated;
mod escape;
mod events;
mod exit;
mod fail;
mod fdist;
mod fleet;
mod follow;
mod foreign;
mod gathered;
mod given;
mod guard;
mod hostfile;
mod hosts;
mod join;
mod keys;
mod laboratory;
mod lines;
mod logs;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod memory;
mod node;
mod nodes;
mod out;
mod pace;
mod plan;
mod preflight;
mod progress;
mod pull;
mod push;
mod render;
mod report;
mod retry;
mod rollback;
mod rollout;
mod rows;
mod run;
mod runs;
mod save;
mod screen;
mod serve;
mod stage;
mod steer;
mod store;
mod survey;
mod targets;
mod token;
mod tree;
mod units;
mod whatif;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};

use crate::args::{Cli, Verb};
use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::{ColorWhen, Screen};

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    memory::keep();
    let args = args::with_verb(std::env::args_os());
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, &args),
    };
    let mut screen = Screen::standard(cli.global.color, cli.global.json);
    screen.verbose = cli.global.verbose > 0;
    let result = dispatch(cli, &mut screen);
    let result = result.and_then(|exit| screen.flush().map(|()| exit).map_err(Failure::from));
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // If stderr is closed too there is nobody left to tell.
            if !failure.is_broken_pipe() {
                screen.fail(&failure).ok();
            }
            failure.exit.into()
        }
    }
}

fn dispatch(cli: Cli, screen: &mut Screen) -> Result<Exit, Failure> {
    let verbose = cli.global.verbose;
    match cli.verb {
        Verb::Controller(args) if args.verb.is_none() => serve::main(args, verbose),
        Verb::Node(args) => node::main(args, verbose),
        Verb::Join(args) => join::main(args, verbose, screen),
        Verb::Sim(args) => Err(laboratory::sim(args)),
        Verb::Bench(args) => Err(laboratory::bench(args)),
        Verb::Completion(args) => completion::main(&args, screen),
        Verb::Fdist(args) => Ok(fdist::main(args, cli.global.socket, screen)),
        verb => {
            if verbose > 0 {
                logs::init("warn", verbose)?;
            }
            let client = Client::new(cli.global.socket);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::local(&error))?;
            runtime.block_on(ask(verb, &client, screen))
        }
    }
}

/// The verbs that ask the controller.
async fn ask(verb: Verb, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    match verb {
        Verb::Run(args) => ordered(Box::pin(run::main(*args, client, screen)).await),
        Verb::Pull(args) => Box::pin(pull::main(args, client, screen)).await,
        Verb::Push(args) => ordered(Box::pin(push::main(args, client, screen)).await),
        Verb::Rollout(args) => ordered(Box::pin(rollout::main(args, client, screen)).await),
        Verb::Rollback(args) => ordered(Box::pin(rollback::main(args, client, screen)).await),
        Verb::Retry(args) => ordered(Box::pin(retry::main(args, client, screen)).await),
        Verb::Runs(args) => runs::main(args, client, screen).await,
        Verb::Out(args) => Box::pin(out::main(args, client, screen)).await,
        Verb::Attach(args) => ordered(Box::pin(attach::main(args, client, screen)).await),
        Verb::Cancel(args) => ordered(Box::pin(cancel::main(args, client, screen)).await),
        Verb::Bus(args) => bus::main(args, screen).await,
        Verb::Events(args) => events::main(args, client, screen).await,
        Verb::Report(args) => report::main(args, client, screen).await,
        Verb::Hosts(args) => hosts::main(args, client, screen).await,
        Verb::Nodes(args) => nodes::main(args, client, screen).await,
        Verb::Tree(args) => ordered(Box::pin(tree::main(args, client, screen)).await),
        Verb::Store(args) => store::main(args, client, screen).await,
        Verb::Token(args) => token::main(args, client, screen).await,
        Verb::Alerts(args) => alerting::main(args, client, screen).await,
        Verb::Domain(args) => fleet::verbs::domain(args, client, screen).await,
        Verb::Host(args) => fleet::verbs::host(args, client, screen).await,
        Verb::File(args) => fleet::verbs::file(args, client, screen).await,
        Verb::Demo(args) => Box::pin(demo::run(&args)).await,
        Verb::Controller(args) => backup::main(args.verb, client, screen).await,
        Verb::Node(_)
        | Verb::Join(_)
        | Verb::Sim(_)
        | Verb::Bench(_)
        | Verb::Fdist(_)
        | Verb::Completion(_) => unreachable!("dispatched before"),
    }
}

/// An order goes on when whoever reads our output leaves, as `| head` does.
fn ordered(result: Result<Exit, Failure>) -> Result<Exit, Failure> {
    result.map_err(|failure| match failure.is_broken_pipe() {
        true => Failure { exit: Exit::Detached, ..failure },
        false => failure,
    })
}

/// Help, the version, or what is wrong with the options.
fn not_parsed(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let hint = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) => foreign::hint(option),
        _ => None,
    };
    if error.use_stderr() && args::wants_json(args) {
        let text = error.render().to_string();
        let message = text.trim().trim_start_matches("error: ").to_owned();
        let failure = Failure::usage(message, hint.unwrap_or("barid --help"));
        Screen::standard(ColorWhen::Never, true).fail(&failure).ok();
        return failure.exit.into();
    }
    // If the stream is closed there is nobody left to tell.
    error.print().ok();
    if let Some(hint) = hint {
        eprintln!("  help: {hint}");
    }
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}
