//! Starting and stopping the controller.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use certs::{Authority, Credentials, MeshId, NodeKey, Role};
use content::Store;
use mesh::{HostId, Kind};
use relay::{Journal, Settings, Setup};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::alerting::{Happened, Orders, Rules, TableKeeper};
use crate::api::{Api, router};
use crate::clock::now_ms;
use crate::closing::close;
use crate::collect::Collections;
use crate::enrol::{self, Enroller, identity};
use crate::figures::{Counted, Figures};
use crate::fleet::Fleet;
use crate::fleet::dist::{Distributor, Running};
use crate::fleet::schedule;
use crate::given::Pieces;
use crate::groups::Groups;
use crate::live::Live;
use crate::orders::Desk;
use crate::push::Packer;
use crate::retention::{Cleaner, Keep};
use crate::rollout::driver::Rollouts;
use crate::tables::{HostRow, Tables};
use crate::traffic::Meter;
use crate::viewers::{Viewers, Watched};

/// The UDP port of the mesh.
const PORT: u16 = 7400;
const CACHE: usize = 64 << 20;
/// What alerts have become that may wait for the node.
const NOTICED: usize = 64;
/// How many hosts a push may go to at once, unless it says otherwise.
const WAVES_ABOVE: u64 = 500;
/// The controller makes its own certificate at each start.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

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
    let state = options.state.clone();
    let usable = certs::files::private_dir(&state);
    usable.map_err(|source| RunError::State { path: state.clone(), source })?;
    let journal = Journal::open(&state.join("controller.redb"), CACHE)?;
    let authority = Arc::new(authority(&state)?);
    let tables = Tables::open(journal.clone())?;
    let store = Arc::new(Store::open(state.join("store"))?);
    let fleet = Fleet::open(journal.clone(), store.clone())?;
    let live = Live::new();
    live.state().hosts = Arc::new(tables.hosts()?);
    live.state().labels = Arc::new(tables.labels()?);
    live.state().facts = Arc::new(tables.facts()?);
    let published = Arc::new(OnceLock::new());
    let certificate = options.certificate.unwrap_or(enrol::CERTIFICATE_LIFETIME);
    let longest =
        tables.note_lifetime(u64::try_from(certificate.as_millis()).unwrap_or(u64::MAX))?;
    let enroller = Enroller {
        authority: authority.clone(),
        tables: tables.clone(),
        certificate,
        longest: std::time::Duration::from_millis(longest),
        changed: on_change(live.clone(), tables.clone(), fleet.clone()),
        removed: on_removal(published.clone()),
    };
    let kept = journal.clone();
    let node = relay::start(Setup {
        credentials: credentials(&authority)?,
        settings: settings(&options),
        state: state.clone(),
        journal,
        store: store.clone(),
        witness: live.witness(),
        registrar: Some(Arc::new(enroller.clone())),
        obeys: false,
    })?;
    let node = Arc::new(node);
    Publisher { enroller: enroller.clone(), node: node.clone() }.begin(&published);
    // After the node has forgotten what had expired, so that none falls between.
    match tables.close_expired(now_ms()) {
        // They are closed when there is room.
        Err(relay::JournalError::Full { .. }) => {}
        closed => closed?,
    }
    let listen = node.addr().map_or_else(String::new, |addr| addr.to_string());
    let ended = node.watch_end();
    let meter = Meter::new(node.clone(), tables.traffic()?);
    let (viewers, watched) = Viewers::new({
        let node = node.clone();
        move || node.previews()
    });
    let desk = Desk { authority: authority.clone(), tables: tables.clone(), node: node.clone() };
    let (keep, pushes) = (options.keep(), Arc::default());
    let cleaner = Cleaner {
        tables: tables.clone(),
        journal: kept,
        store: store.clone(),
        keep,
        pushes: Arc::clone(&pushes),
        fleet: fleet.clone(),
    };
    let known = live.state().hosts.clone();
    meet(&fleet, &known);
    let packer = Packer { tables: tables.clone(), store: store.clone() };
    let distributor = Distributor {
        fleet: fleet.clone(),
        packer: packer.clone(),
        desk: desk.clone(),
        live: live.clone(),
        pushes: Arc::clone(&pushes),
        running: Running::default(),
    };
    let (events, noticed) = mpsc::channel(NOTICED);
    let (rollouts, begun) = Rollouts::new(distributor.clone(), state.join("barid.sock"));
    tables.rollouts()?.iter().for_each(|(id, row)| rollouts.hold(*id, row));
    let alerts = alerts::start(alerts::Setup {
        state: state.clone(),
        from: alerts::Sender { node: "controller".into(), mesh: authority.mesh().to_string() },
        keeper: Arc::new(TableKeeper(tables.clone())),
        events,
    });
    let counted = Counted::default();
    let whose = (alerts.clone(), desk.clone());
    let figures = Figures::new(whose, live.clone(), tables.clone(), counted.clone()).router();
    local::start(local::Setup {
        state: state.clone(),
        node: node.clone(),
        metrics: figures.clone(),
        listen: options.metrics,
        bus: options.bus,
    });
    let happened = Happened { desk: alerts.clone(), live: live.clone(), tables: tables.clone() };
    let orders = Orders { desk: alerts.clone(), live: live.clone(), tables: tables.clone() };
    let rules = Rules {
        desk: alerts.clone(),
        live: live.clone(),
        node: node.clone(),
        tables: tables.clone(),
    };
    let tasks = [
        tokio::spawn(rules.run()),
        tokio::spawn(orders.run()),
        tokio::spawn(happened.run()),
        tokio::spawn(pass_events(noticed, node.clone())),
        tokio::spawn(counted.run(live.clone(), tables.clone())),
        tokio::spawn(schedule::run(rollouts.clone())),
        tokio::spawn(rollouts.clone().run(begun)),
        tokio::spawn(pass_watches(watched, node.clone())),
        tokio::spawn(close(desk.clone(), live.stopped.clone())),
        tokio::spawn(cleaner.clone().run()),
        tokio::spawn(meter.clone().run(tables.clone())),
    ];
    let api = Api {
        alerts,
        fleet,
        distributor,
        groups: Groups::new(&state),
        listen: listen.clone(),
        mesh: authority.mesh().to_string(),
        tables: tables.clone(),
        live,
        desk,
        pieces: Pieces { store },
        packer,
        collections: Collections::default(),
        state: state.clone(),
        enroller,
        meter: meter.clone(),
        viewers,
        rollouts,
        waves_above: options.waves_above.unwrap_or(WAVES_ABOVE),
        cleaner,
        pushes,
    };
    write_listen(&state, &listen)?;
    let served = serve(&state, router(api).merge(figures), stop, ended).await;
    tasks.iter().for_each(|task| task.abort());
    meter.keep(&tables);
    std::fs::remove_file(state.join("barid.sock")).ok();
    info!("stopping");
    node.stop().await?;
    served
}

fn settings(options: &Options) -> Settings {
    let defaults = Settings::default();
    Settings {
        listen: Some(options.listen.unwrap_or((Ipv4Addr::UNSPECIFIED, PORT).into())),
        beat_interval_ms: options.beat_interval_ms.unwrap_or(defaults.beat_interval_ms),
        flush_ms: options.flush_ms.unwrap_or(defaults.flush_ms),
        min_free_mib: options.min_free_mib.unwrap_or(defaults.min_free_mib),
        store_max_mib: options.store_max_mib.unwrap_or(defaults.store_max_mib),
        rate_limit_kbit: options.rate_limit_kbit.unwrap_or(defaults.rate_limit_kbit),
        ..defaults
    }
}

/// The authority of this state folder; made at the first start.
fn authority(state: &Path) -> Result<Authority, RunError> {
    let dir = state.join("authority");
    if dir.exists() {
        return Ok(Authority::open(&dir)?);
    }
    info!(state = %state.display(), "first start: making the authority's keys");
    Ok(Authority::create(&dir, MeshId::random(), SystemTime::now())?)
}

/// A new key and certificate for the controller's own links, at each start.
fn credentials(authority: &Authority) -> Result<Credentials, RunError> {
    let key = NodeKey::generate();
    let who = identity(authority.mesh(), 0, Role::Controller, "controller", "");
    let now = SystemTime::now();
    let certificate = authority.issue(&key.csr(), &who, CERTIFICATE_LIFETIME, now)?;
    let (ca, order_key) = (authority.certificate().to_vec(), authority.order_signer().key());
    Ok(Credentials::new(key, certificate, ca, order_key)?)
}

/// Tells the mesh who was removed from it.
struct Publisher {
    enroller: Enroller,
    node: Arc<relay::Running>,
}

impl Publisher {
    /// Tells what is known, and from here on what comes.
    fn begin(self, published: &OnceLock<Publisher>) {
        self.publish();
        published.set(self).ok();
    }

    fn publish(&self) {
        match self.enroller.signed_removals() {
            Ok(Some(list)) => {
                if let Err(error) = self.node.remove(&list) {
                    tracing::error!(error = %relay::chain(&error), "removals are not told");
                }
            }
            Ok(None) => {}
            Err(error) => warn!(error = %relay::chain(&error), "removals are not told"),
        }
    }
}

/// Reads the inventory again when somebody has enrolled or was removed. Of many at once a few read
/// for all: whoever waits for its turn finds that it was read after its own change.
fn on_change(live: Live, tables: Tables, fleet: Fleet) -> Arc<dyn Fn() + Send + Sync> {
    let (changes, read) = (AtomicU64::new(0), Mutex::new(0));
    Arc::new(move || {
        let own = changes.fetch_add(1, Ordering::SeqCst) + 1;
        // One at a time: of two newcomers at once, the older reading must not come last.
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        if *read >= own {
            return;
        }
        let covered = changes.load(Ordering::SeqCst);
        match tables.hosts() {
            Ok(hosts) => {
                let hosts = Arc::new(hosts);
                let mut state = live.state();
                state.hosts = hosts.clone();
                Arc::make_mut(&mut state.facts).retain(|id, _| hosts.contains_key(id));
                drop(state);
                meet(&fleet, &hosts);
                *read = covered;
            }
            Err(error) => {
                tracing::error!(error = %relay::chain(&error), "the inventory is not read");
            }
        }
    })
}

/// Tells the mesh that somebody was removed.
fn on_removal(publisher: Arc<OnceLock<Publisher>>) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        if let Some(publisher) = publisher.get() {
            publisher.publish();
        }
    })
}

/// Lets the fleet's book know who has enrolled. At the latest the next start does it again.
fn meet(fleet: &Fleet, hosts: &BTreeMap<HostId, HostRow>) {
    if let Err(failure) = fleet.meet(hosts) {
        warn!(error = %failure.error.message, "the fleet does not know who has enrolled");
    }
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

fn write_listen(state: &Path, listen: &str) -> Result<(), RunError> {
    let path = state.join("listen");
    match std::fs::write(&path, format!("{listen}\n")) {
        Err(error) if content::is_full(&error) => {
            warn!(path = %path.display(), %error, "the address is not noted");
            Ok(())
        }
        written => written.map_err(|source| RunError::Socket { path, source }),
    }
}

async fn serve(
    state: &Path,
    router: Router,
    stop: impl Future<Output = ()>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let path = state.join("barid.sock");
    let failed = |source| RunError::Socket { path: path.clone(), source };
    // The database is locked by this process, so a socket that is there is nobody's.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    info!(socket = %path.display(), "ready");
    let server = axum::serve(listener, router);
    tokio::select! {
        served = server.into_future() => served.map_err(failed),
        () = stop => Ok(()),
        // The node's own error is reported by its stop.
        _ = ended.wait_for(|ended| *ended) => Ok(()),
    }
}
