//! `barid node`: a relay or a host, whichever its certificate says.
//!
//! A host is idle almost always and there are thousands, so it gets one thread and small caches.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::{Credentials, Role};
use controller::site::Site;
use relay::{Journal, JournalError, NoWitness, Running, Settings, Setup};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::exit::Exit;
use crate::fail::Failure;
use crate::join;

/// The database's cache of a host.
const HOST_CACHE: usize = 4 << 20;
/// The database's cache of a relay.
const RELAY_CACHE: usize = 32 << 20;
/// Threads of a relay or controller.
const WORKERS: usize = 2;

/// How long a node waits before it asks again to be enrolled, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Options of `barid node`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The node's private folder, as `barid join` has made it
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where a relay listens for its children (UDP); wins over node.toml
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A parent as HOST:PORT; several in order of preference; wins over node.toml
    #[arg(long = "parent", value_name = "ADDR", value_parser = join::parse_parent)]
    parents: Vec<String>,
    /// The folder below which pushes install; wins over node.toml
    #[arg(long, value_name = "DIR")]
    install_root: Option<PathBuf>,
    /// Enrol first, if that has not been done, with this token; - reads it from stdin
    #[arg(long, value_name = "TOKEN", env = "BARID_TOKEN", hide_env_values = true)]
    join: Option<String>,
    /// The name to enrol with [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Stop at the end of standard input, for whoever starts nodes by program
    #[arg(long, hide = true)]
    until_eof: bool,
}

/// Runs the node until it is told to stop.
pub(crate) fn main(args: Args, verbose: u8) -> Result<Exit, Failure> {
    crate::logs::init("info", verbose)?;
    let mut settings = join::settings(&args.state)?;
    settings.listen = args.listen.or(settings.listen);
    settings.install_root = args.install_root.unwrap_or(settings.install_root);
    if !args.parents.is_empty() {
        settings.parents = args.parents;
    }
    let mut end = args.until_eof.then(end_of_input);
    let credentials = match (join::load(&args.state)?, args.join) {
        (Some(known), token) => {
            if token.is_some() {
                info!(identity = %known.identity(), "enrolled already: the token is not used");
            }
            known
        }
        (None, Some(token)) => {
            let ask = || join::enrol(&args.state, &mut settings, &token, args.name.as_deref());
            match ask_on(ask, &mut end)? {
                Some(credentials) => credentials,
                None => return Ok(Exit::Ok),
            }
        }
        (None, None) => return Err(not_enrolled(&args.state)),
    };
    let role = credentials.identity().role;
    if role == Role::Controller {
        let state = args.state.display();
        let message = format!("{state}: these are the credentials of a controller");
        return Err(Failure::usage(message, format!("barid controller --state {state}")));
    }
    runtime(role)?.block_on(run(credentials, settings, args.state, end))
}

/// The runtime that fits a role.
pub(crate) fn runtime(role: Role) -> Result<Runtime, Failure> {
    let mut builder = match role {
        Role::Host => Builder::new_current_thread(),
        Role::Controller | Role::Relay => Builder::new_multi_thread(),
    };
    if role.serves() {
        builder.worker_threads(WORKERS);
    }
    let runtime = builder.enable_all().build().map_err(|error| Failure::local(&error))?;
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    crate::memory::give_back(&runtime);
    Ok(runtime)
}

async fn run(
    credentials: Credentials,
    settings: Settings,
    state: PathBuf,
    end: Option<EndOfInput>,
) -> Result<Exit, Failure> {
    let mut stop = Stop::with(end)?;
    let (listen, bus) = (settings.metrics.listen, settings.bus.socket.clone());
    let (running, site) = start(credentials.clone(), settings, &state)?;
    let running = Arc::new(running);
    if let Some(site) = site {
        site.start(running.clone(), credentials, &state);
    }
    let metrics = local::metrics_of(running.clone());
    local::start(local::Setup {
        state: state.clone(),
        node: running.clone(),
        listen: listen.map(|addr| (addr, metrics.clone())),
        metrics,
        bus,
    });
    let mut ended = running.watch_end();
    write_listen(&state, running.addr())?;
    let exit = tokio::select! {
        // Its own error is reported by its stop.
        _ = ended.wait_for(|ended| *ended) => Exit::Failed,
        signal = stop.wait() => {
            info!(signal, "stopping");
            Exit::Ok
        }
    };
    running.stop().await.map_err(|error| Failure::local(&error))?;
    Ok(exit)
}

fn start(
    credentials: Credentials,
    settings: Settings,
    state: &Path,
) -> Result<(Running, Option<Site>), Failure> {
    let cache = match credentials.identity().role {
        Role::Host => HOST_CACHE,
        Role::Controller | Role::Relay => RELAY_CACHE,
    };
    let journal = Journal::with_daybook(&state.join("node.redb"), cache);
    let journal = journal.map_err(|error| Failure::local(&error))?;
    let site = match credentials.identity().role {
        Role::Relay => site(&journal)?,
        _ => None,
    };
    let store = content::Store::open(state.join("store"));
    let store = store.map_err(|error| Failure::local(&error))?;
    let setup = Setup {
        credentials,
        settings,
        state: state.to_owned(),
        journal,
        store: Arc::new(store),
        witness: match &site {
            Some(site) => site.witness(),
            None => Box::new(NoWitness),
        },
        registrar: None,
        obeys: true,
    };
    let running = relay::start(setup).map_err(|error| match error {
        relay::StartError::NoListen(_) | relay::StartError::NoParents(_) => {
            Failure { exit: Exit::Usage, ..Failure::local(&error) }
                .with_help(format!("in {}, or as an option", state.join("node.toml").display()))
        }
        error => Failure::local(&error),
    })?;
    Ok((running, site))
}

/// What a relay's own operators need. A relay whose disk is full at its very first start goes
/// without until the next one.
fn site(journal: &Journal) -> Result<Option<Site>, Failure> {
    match Site::open(journal.clone()) {
        Ok(site) => Ok(Some(site)),
        Err(error @ JournalError::Full { .. }) => {
            warn!(error = %relay::chain(&error), "this relay has no operators' socket");
            Ok(None)
        }
        Err(error) => Err(Failure::local(&error)),
    }
}

/// Leaves a note of the real address, for whoever has asked for port 0. Readers never see a part.
fn write_listen(state: &Path, addr: Option<SocketAddr>) -> Result<(), Failure> {
    let (path, beside) = (state.join("listen"), state.join("listen.new"));
    let written = match addr {
        Some(addr) => std::fs::write(&beside, format!("{addr}\n"))
            .and_then(|()| std::fs::rename(&beside, &path)),
        None => Ok(()),
    };
    if let Err(error) = &written
        && content::is_full(error)
    {
        // Whoever restarts with a full disk listens where the note says, usually.
        warn!(path = %path.display(), %error, "the address is not noted");
        return Ok(());
    }
    written.map_err(|error| {
        Failure::new(Exit::Failed, "failed", format!("{}: writing failed: {error}", path.display()))
    })
}

/// Enrols, and waits for as long as nobody answers: a node that starts with its machine may come up
/// before its relay, or before that has a link. `None`: it was told to stop meanwhile.
fn ask_on(
    mut ask: impl FnMut() -> Result<Credentials, Failure>,
    end: &mut Option<EndOfInput>,
) -> Result<Option<Credentials>, Failure> {
    let clock = Builder::new_current_thread().enable_time().build();
    let clock = clock.map_err(|error| Failure::local(&error))?;
    let mut pause = FIRST_PAUSE;
    loop {
        match ask() {
            Err(failure) if failure.exit == Exit::Unreachable => {
                let [random] = certs::random::<1>();
                let wait = pause.mul_f64(0.5 + f64::from(random) / 510.0);
                warn!(
                    reason = failure.error.message,
                    wait_s = wait.as_secs_f32(),
                    "not enrolled yet"
                );
                let stopped = clock.block_on(async { timeout(wait, ended(end)).await.is_ok() });
                if stopped {
                    return Ok(None);
                }
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
            other => return other.map(Some),
        }
    }
}

fn not_enrolled(state: &Path) -> Failure {
    let state = state.display();
    let help = format!("barid join --state {state} --parent HOST:PORT --token -");
    Failure::usage(format!("{state}: this node is not enrolled yet"), help)
}

/// SIGTERM or SIGINT, whichever comes first.
pub(crate) struct Stop {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    end: Option<EndOfInput>,
}

/// Tells when standard input has ended.
type EndOfInput = tokio::sync::oneshot::Receiver<()>;

impl Stop {
    /// From here on the signals no longer end the process by themselves.
    /// With `until_eof` the end of standard input is a third one.
    pub(crate) fn new(until_eof: bool) -> Result<Stop, Failure> {
        Stop::with(until_eof.then(end_of_input))
    }

    fn with(end: Option<EndOfInput>) -> Result<Stop, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error| Failure::local(&error));
        let (term, int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Stop { term, int, end })
    }

    /// Waits for the first, and names it.
    pub(crate) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
            () = ended(&mut self.end) => "end of input",
        }
    }
}

/// Reads standard input to its end on a thread of its own: whoever holds the other end of the pipe
/// need only die for this process to stop as well.
fn end_of_input() -> EndOfInput {
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
        end.send(()).ok();
    });
    ended
}

async fn ended(end: &mut Option<EndOfInput>) {
    match end {
        Some(end) => drop(end.await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_noted() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let addr = "127.0.0.1:7400".parse().ok();
        write_listen(dir.path(), addr).expect("written");
        let text = std::fs::read_to_string(dir.path().join("listen")).expect("it is there");
        assert_eq!(text, "127.0.0.1:7400\n");
        write_listen(dir.path(), None).expect("a host listens nowhere");
        let failure = write_listen(&dir.path().join("absent"), addr).expect_err("no such folder");
        assert!(failure.text().contains("absent/listen"), "{}", failure.text());
    }

    #[test]
    fn only_silence_is_worth_another_question() {
        let told = |exit| Failure::new(exit, "kind", "text".to_string());
        let (end, ended) = tokio::sync::oneshot::channel();
        end.send(()).expect("it is there");
        let mut asked = 0;
        let mut silent = || {
            asked += 1;
            Err(told(Exit::Unreachable))
        };
        let stopped = ask_on(&mut silent, &mut Some(ended)).expect("it stops").is_none();
        assert!(stopped && asked == 1);
        let mut answers = [Exit::Unreachable, Exit::Denied].into_iter();
        let ask = || Err(told(answers.next().expect("it asks twice")));
        let failure = ask_on(ask, &mut None).expect_err("it is refused");
        assert_eq!(failure.exit, Exit::Denied);
    }

    #[test]
    fn who_is_not_enrolled_is_told_how() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let failure = not_enrolled(dir.path());
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.text().contains("barid join --state"), "{}", failure.text());
    }
}
