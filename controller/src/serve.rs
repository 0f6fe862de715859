//! Starting and stopping the controller: its node, what works beside it, and the socket of its API.

mod members;
mod opening;
mod socket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use certs::Authority;
use mesh::Kind;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{info, warn};

use self::members::meet;
use self::opening::Opened;
use crate::alerting::{Happened, Orders, Rules, TableKeeper, check, react};
use crate::api::{Api, router};
use crate::clock::now_ms;
use crate::closing::close;
use crate::collect::Collections;
use crate::enrol::Enroller;
use crate::export::Export;
use crate::figures::{Counted, Figures};
use crate::fleet::Requests;
use crate::fleet::dist::Distributor;
use crate::fleet::planner::Planner;
use crate::fleet::running::Running;
use crate::fleet::schedule;
use crate::given::Pieces;
use crate::groups::Groups;
use crate::ids::Ids;
use crate::live::Live;
use crate::orders::Desk;
use crate::push::Packer;
use crate::report::post::Post;
use crate::retention::{Cleaner, Keep};
use crate::rollout::driver::Rollouts;
use crate::slowest::Slowest;
use crate::tables::Tables;
use crate::traffic::Meter;
use crate::viewers::{Viewers, Watched};

/// What alerts have become that may wait for the node.
const NOTICED: usize = 64;
/// How many hosts a push may go to at once, unless it says otherwise.
const WAVES_ABOVE: u64 = 500;

/// How to run a controller.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its private folder: keys, database, content, socket.
    pub state: PathBuf,
    /// Where nodes dial (UDP); all addresses at port 7400 by default.
    pub listen: Option<SocketAddr>,
    /// How often it beats.
    pub beat_interval_ms: Option<u64>,
    /// How long answers wait for others to fold with.
    pub flush_ms: Option<u64>,
    /// How long the certificates of nodes are good; they are renewed after two thirds of it.
    pub certificate: Option<Duration>,
    /// How long orders and their answers are kept after they were given.
    pub keep: Option<Duration>,
    /// How much output of all orders together is kept, in MiB.
    pub keep_output_mib: Option<u64>,
    /// How much of the state disk is to stay free, in MiB: with less, no new orders are taken.
    pub min_free_mib: Option<u64>,
    /// How much content is kept, in MiB: a push that needs more is refused.
    pub store_max_mib: Option<u64>,
    /// Content down each child's link, at most, in kbit/s.
    pub rate_limit_kbit: Option<u64>,
    /// Where metrics can be read (TCP), without any proof of who asks.
    pub metrics: Option<SocketAddr>,
    /// A Unix socket with the bus, that every user may open.
    pub bus: Option<PathBuf>,
    /// For more hosts than this a push goes out in waves, unless it says otherwise.
    pub waves_above: Option<u64>,
}

impl Options {
    fn keep(&self) -> Keep {
        let defaults = Keep::default();
        let age = self.keep.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Keep {
            age_ms: age.unwrap_or(defaults.age_ms),
            output: self.keep_output_mib.map_or(defaults.output, |mib| mib.saturating_mul(1 << 20)),
            ..defaults
        }
    }
}

/// The controller could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state folder cannot be used.
    #[error("{}: the state folder cannot be used", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: certs::files::FileError,
    },
    /// The authority's keys cannot be made.
    #[error("the authority cannot be created")]
    Create(#[from] certs::CreateError),
    /// The authority's keys cannot be read.
    #[error("the authority cannot be opened")]
    Authority(#[from] certs::OpenError),
    /// The controller's own certificate cannot be made.
    #[error("the controller's own certificate cannot be issued")]
    Issue(#[from] certs::IssueError),
    /// The controller's own certificate does not fit.
    #[error("the controller's own certificate does not fit")]
    Credentials(#[from] certs::CredentialsError),
    /// The database failed.
    #[error(transparent)]
    Journal(#[from] relay::JournalError),
    /// The content store failed.
    #[error("the content store cannot be opened")]
    Store(#[from] content::StoreError),
    /// The node did not start.
    #[error(transparent)]
    Node(#[from] relay::StartError),
    /// The node stopped by itself.
    #[error(transparent)]
    Drive(#[from] relay::DriveError),
    /// The API's socket cannot be used.
    #[error("{}: the operators' socket cannot be used", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs a controller until `stop` resolves. The first start makes its state.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let opened = Opened::new(&options.state)?;
    let (node, enroller) = opened.start(&options)?;
    // After the node has forgotten what had expired, so that none falls between.
    match opened.tables.close_expired(now_ms()) {
        // They are closed when there is room.
        Err(relay::JournalError::Full { .. }) => {}
        closed => closed?,
    }
    let state = opened.state.clone();
    let listen = node.addr().map_or_else(String::new, |addr| addr.to_string());
    let ended = node.watch_end();
    let meter = Meter::new(node.clone(), opened.tables.traffic()?);
    let tables = opened.tables.clone();
    let (api, figures, tasks) = work(opened, &options, (&node, enroller, meter.clone()))?;
    socket::write_listen(&state, &listen)?;
    let ending = tasks.iter().map(JoinHandle::abort_handle).collect();
    tokio::spawn(rest(node.clone(), api.alerts.clone(), ending));
    let served = socket::serve(&state, router(api).merge(figures), stop, ended).await;
    tasks.iter().for_each(|task| task.abort());
    meter.keep(&tables);
    std::fs::remove_file(state.join("barid.sock")).ok();
    info!("stopping");
    node.stop().await?;
    served
}

/// Begins all that a controller does beside its node, and says what its API works with.
fn work(
    opened: Opened,
    options: &Options,
    (node, enroller, meter): (&Arc<relay::Running>, Enroller, Meter),
) -> Result<(Api, Router, Vec<JoinHandle<()>>), RunError> {
    let Opened { state, journal, authority, tables, store, fleet, live } = opened;
    let (viewers, watched) = Viewers::new({
        let node = node.clone();
        move || node.previews()
    });
    let desk = Desk {
        authority: authority.clone(),
        tables: tables.clone(),
        store: store.clone(),
        node: node.clone(),
        ids: Ids::after(tables.newest_order()?),
        by: "controller".into(),
    };
    let pushes = Arc::default();
    let cleaner = Cleaner {
        tables: tables.clone(),
        journal,
        store: store.clone(),
        keep: options.keep(),
        pushes: Arc::clone(&pushes),
        fleet: fleet.clone(),
    };
    let known = live.state().hosts.clone();
    meet(&fleet, &known);
    let packer = Packer {
        tables: tables.clone(),
        store: store.clone(),
        slowest: Slowest(Some((meter.clone(), live.clone()))),
    };
    let distributor = Distributor {
        planner: Planner { fleet: fleet.clone(), packer: packer.clone() },
        desk: desk.clone(),
        live: live.clone(),
        pushes: Arc::clone(&pushes),
        running: Running::default(),
        giving: Arc::default(),
    };
    let (rollouts, begun) = Rollouts::new(distributor.clone(), state.join("barid.sock"));
    tables.rollouts()?.iter().for_each(|(id, row)| rollouts.hold(*id, row));
    let (alerts, wanted, mut tasks) = alerts(&state, &authority, &tables, (&live, node));
    let post = Post {
        desk: alerts.clone(),
        from: sender(&authority),
        live: live.clone(),
        fleet: fleet.clone(),
        tables: tables.clone(),
    };
    let from = sender(&authority);
    let export = Export::new(alerts.clone(), from, live.clone(), tables.clone());
    let counted = Counted::default();
    let whose = (alerts.clone(), desk.clone());
    let figures = Figures::new(whose, live.clone(), tables.clone(), counted.clone());
    let (open_figures, figures) = (figures.clone().open_router(), figures.router());
    local::start(local::Setup {
        state: state.clone(),
        node: node.clone(),
        metrics: figures.clone(),
        listen: options.metrics.map(|addr| (addr, open_figures)),
        bus: options.bus.clone(),
    });
    tasks.extend([
        tokio::spawn(post.run()),
        tokio::spawn(export.run()),
        tokio::spawn(counted.run(live.clone(), tables.clone())),
        tokio::spawn(schedule::run(rollouts.on_behalf_of("schedule"), enroller.removed.clone())),
        tokio::spawn(rollouts.clone().run(begun)),
        tokio::spawn(Requests::new(distributor.clone()).run()),
        tokio::spawn(pass_watches(watched, node.clone())),
        tokio::spawn(close(desk.clone(), live.stopped.clone())),
        tokio::spawn(cleaner.clone().run()),
        tokio::spawn(meter.clone().run(tables.clone())),
    ]);
    let api = Api {
        alerts,
        fleet,
        distributor,
        groups: Groups::new(&state),
        listen: node.addr().map_or_else(String::new, |addr| addr.to_string()),
        mesh: authority.mesh().to_string(),
        tables,
        live,
        desk,
        pieces: Pieces { store },
        packer,
        collections: Collections::default(),
        state,
        enroller,
        meter,
        viewers,
        rollouts,
        waves_above: options.waves_above.unwrap_or(WAVES_ABOVE),
        cleaner,
        pushes,
    };
    tasks.push(tokio::spawn(api.collections.clone().keep_clean(api.clone())));
    tasks.push(tokio::spawn(react(api.clone(), node.clone(), wanted)));
    Ok((api, figures, tasks))
}

/// The desk of alerts, what its reactions want, and all who bring it something or take something
/// from it.
fn alerts(
    state: &Path,
    authority: &Authority,
    tables: &Tables,
    (live, node): (&Live, &Arc<relay::Running>),
) -> (alerts::Desk, mpsc::Receiver<alerts::Wanted>, Vec<JoinHandle<()>>) {
    let ((events, noticed), (acts, wanted)) = (mpsc::channel(NOTICED), mpsc::channel(NOTICED));
    let desk = alerts::start(alerts::Setup {
        state: state.to_owned(),
        from: sender(authority),
        keeper: Arc::new(TableKeeper(tables.clone())),
        events,
        acts,
        orders: Some(check),
    });
    let (live, tables, node) = (live.clone(), tables.clone(), node.clone());
    let happened = Happened { desk: desk.clone(), live: live.clone(), tables: tables.clone() };
    let orders = Orders { desk: desk.clone(), live: live.clone(), tables: tables.clone() };
    let rules = Rules { desk: desk.clone(), live, node: node.clone(), tables };
    let tasks = vec![
        tokio::spawn(rules.run()),
        tokio::spawn(orders.run()),
        tokio::spawn(happened.run()),
        tokio::spawn(pass_events(noticed, node)),
    ];
    (desk, wanted, tasks)
}

/// Ends all that a controller does by itself when another was restored in its place: its word
/// counts no more, and what it would tell people is not so.
async fn rest(node: Arc<relay::Running>, alerts: alerts::Desk, tasks: Vec<AbortHandle>) {
    if node.superseded().wait_for(Option::is_some).await.is_err() {
        return;
    }
    tasks.iter().for_each(AbortHandle::abort);
    let by_itself = |silence: &alerts::SilenceRow| silence.author == "controller";
    if alerts.list().await.is_ok_and(|all| all.silences.iter().any(by_itself)) {
        return;
    }
    let of_all = alerts::SilenceRow {
        from_ms: now_ms(),
        until_ms: now_ms() + 10 * 365 * 24 * 3600 * 1000,
        author: "controller".into(),
        reason: "another controller was restored in the place of this one".into(),
        ..alerts::SilenceRow::default()
    };
    if let Err(error) = alerts.silence(of_all).await {
        warn!(%error, "alerts of a controller that is over are still told");
    }
}

/// Who speaks in alerts and reports.
fn sender(authority: &Authority) -> alerts::Sender {
    alerts::Sender { node: "controller".into(), mesh: authority.mesh().to_string() }
}

/// Tells the node what alerts have become, as events.
async fn pass_events(mut noticed: mpsc::Receiver<(Kind, String)>, node: Arc<relay::Running>) {
    while let Some((kind, text)) = noticed.recv().await {
        node.notice(kind, &text).await;
    }
}

/// Tells the node what is watched, whenever that changes.
async fn pass_watches(mut watched: watch::Receiver<Watched>, node: Arc<relay::Running>) {
    while watched.changed().await.is_ok() {
        let orders = watched.borrow_and_update().clone();
        node.watch(orders).await;
    }
}
