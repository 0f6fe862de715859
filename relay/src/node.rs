//! Starting a node, and the handle by which whoever started it speaks with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use certs::Credentials;
use content::Store;
use mesh::{HostId, Input, Kind, Node, Order, OrderId, Said};
use protos::{OutputRequest, RecordReply, Schedule, SignedRecord, SignedRemovals};
use quinn::Endpoint;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::info;

use crate::accept::{Acceptor, LinkIds};
use crate::ahead::{Ahead, Decoder};
use crate::alerting::{self, Outlook};
use crate::bus::{self, Hub, Ledger};
use crate::calendar::CalendarError;
use crate::cap::Caps;
use crate::choice;
use crate::claims::Claims;
use crate::collect::Collector;
use crate::dial::Dialler;
use crate::door::Turned;
use crate::drive::{Arrival, Clock, DriveError, Io, drive};
use crate::endpoint::{self, EndpointError};
use crate::exec::Executor;
use crate::facts::Census;
use crate::fanout::Fan;
use crate::given::Giver;
use crate::inherited;
use crate::install::Installs;
use crate::jobs::Jobs;
use crate::join::{JoinService, Registrar};
use crate::journal::{Journal, JournalError};
use crate::keep;
use crate::kind::LinkKind;
use crate::links::{LinkStatus, Links};
use crate::live::{Room, Teller, Watched};
use crate::mandate::{Mandate, Mandates};
use crate::metrics::traffic::Traffic;
use crate::metrics::{Counts, Metrics};
use crate::notice::{self, Notices};
use crate::outputs::{Coming, NotComing, Outputs};
use crate::paced::Paced;
use crate::parents::Parents;
use crate::probe::Prober;
use crate::records::{NotHanded, Records};
use crate::remains;
use crate::removed::{RemovalsFault, Removed, Retelling};
use crate::renew::{Current, Renewer};
use crate::restore::Restored;
use crate::settings::Settings;
use crate::siblings::Siblings;
use crate::space::Space;
use crate::spool::Spool;
use crate::steer::Helm;
use crate::sweep::{self, Sweeper};
use crate::transfer::Transfers;
use crate::verify::Verifier;
use crate::writer::{Witness, Writer};

/// Things that may wait for the drive loop.
const INBOX: usize = 1_024;
/// Previews that somebody at the root may lie behind, of at most 16 KiB each.
const PREVIEWS: usize = 1_024;
/// Enrolments that a relay passes up at once.
const FORWARDS: usize = 8;
/// How long an endpoint lives on after its last word, so that the word leaves. What QUIC would
/// still wait for are late packets, and nobody reads those.
pub(crate) const FAREWELL: Duration = Duration::from_millis(200);

/// What a node is made of.
pub struct Setup {
    /// Who it is.
    pub credentials: Credentials,
    /// Its place and pace.
    pub settings: Settings,
    /// Its private folder.
    pub state: PathBuf,
    /// Its database.
    pub journal: Journal,
    /// Its content.
    pub store: Arc<Store>,
    /// Who writes into its commits.
    pub witness: Box<dyn Witness>,
    /// Who answers newcomers; none: the parent is asked.
    pub registrar: Option<Arc<dyn Registrar>>,
    /// Whether orders may be carried out here; not at the controller.
    pub obeys: bool,
}

/// A node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The socket cannot be had.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A relay or controller without an address to listen on.
    #[error("a {0} needs an address to listen on: set `listen`, for example 0.0.0.0:7400")]
    NoListen(certs::Role),
    /// A node without a parent, though not the controller.
    #[error("a {0} needs at least one parent: set `parents`")]
    NoParents(certs::Role),
    /// The settings cap the link in no way that is understood.
    #[error(transparent)]
    Cap(#[from] CalendarError),
}

/// A node that runs. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    addr: Option<SocketAddr>,
    who: (HostId, String),
    site: String,
    inbox: mpsc::Sender<Arrival>,
    paced: Paced,
    previews: broadcast::Sender<Said>,
    links: Links,
    endpoint: Option<Endpoint>,
    space: Space,
    removed: Removed,
    outputs: Outputs,
    mandates: Mandates,
    records: Records,
    metrics: Metrics,
    hub: Hub,
    executor: Option<Executor>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    task: Mutex<Option<JoinHandle<Result<(), DriveError>>>>,
}

/// How a node stands with those above and below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Since when the controller's word was fresh here.
    pub controller_age: Duration,
    /// Whether the controller was heard since the node has started.
    pub heard: bool,
    /// Whether it counts as silent.
    pub silent: bool,
    /// Whether it has a parent.
    pub linked: bool,
    /// How many nodes are below it.
    pub below: u64,
    /// Of them those that are reachable.
    pub up: u64,
}

/// Starts a node.
pub fn start(setup: Setup) -> Result<Running, StartError> {
    let identity = setup.credentials.identity().clone();
    let is_root = identity.role == certs::Role::Controller;
    let serves = identity.role.serves();
    let listen = match setup.settings.listen {
        None if serves => return Err(StartError::NoListen(identity.role)),
        listen => listen.filter(|_| serves),
    };
    if setup.settings.parents.is_empty() && !is_root {
        return Err(StartError::NoParents(identity.role));
    }
    let beat = Duration::from_millis(setup.settings.beat_interval_ms);
    let saved = setup.journal.load(SystemTime::now())?;
    if setup.obeys {
        remains::end(&identity.name, &remains::interrupted(&saved, HostId(identity.id)));
        inherited::keep_from_commands();
    }
    let sweeper = Sweeper::new(setup.store.clone(), setup.journal.clone());
    if setup.obeys {
        sweeper.sweep(&BTreeSet::new());
    }
    let server = Current::new(endpoint::server(&setup.credentials, beat));
    let endpoint = match listen {
        Some(addr) => Some(endpoint::listening(addr, server.now(), &setup.state)?),
        None => None,
    };
    let addr = endpoint.as_ref().and_then(|endpoint| endpoint.local_addr().ok());
    info!(%identity, listen = ?addr, parents = ?setup.settings.parents, "starting");

    let (inbox, arrivals) = mpsc::channel(INBOX);
    let space = Space::new(&setup.state, setup.settings.min_free_mib << 20);
    // A relay keeps what it has brought once, since it is likely to be asked for again.
    let caches = serves && setup.obeys;
    setup.store.bound(setup.settings.bounds(caches, setup.store.disk()));
    tokio::spawn(space.clone().watch(inbox.clone()));
    let (stop, stopped) = watch::channel(false);
    let links = Links::default();
    let counts = Arc::new(Counts::new());
    counts.certified(setup.credentials.not_after());
    let traffic = Traffic::default();
    let client = Current::new(endpoint::client(&setup.credentials, setup.settings.link, beat));
    let join = Current::new(endpoint::join_server(&setup.credentials));
    let registrar = setup.registrar.clone();
    let removed = Removed::open(&setup.state, &setup.credentials, links.clone(), registrar);
    let mut transfers = Transfers::new(setup.store.clone(), inbox.clone());
    transfers.host = HostId(identity.id);
    transfers.fan = serves.then(|| Fan::new(&setup.settings.siblings));
    let paced = transfers.paced.clone();
    saved.orders.iter().for_each(|order| paced.recall(order));
    if caches {
        let claims = Claims::of(setup.journal.settled_orders()?);
        transfers.own(claims.clone(), setup.journal.clone());
        sweep::bound_around_needed(&setup.store, &setup.journal, &claims, &setup.settings);
    }
    let order_key = setup.credentials.order_key();
    let verifier = Verifier::new(identity.mesh, order_key, HostId(identity.id));
    let verifier = Arc::new(verifier.heeding(removed.clone()));
    if setup.obeys && !serves {
        let has_begun = |order: &&Arc<mesh::Order>| {
            let is_it = |id: &mesh::OrderId| *id == order.id;
            saved.intents.iter().chain(saved.answers.iter().map(|report| &report.order)).any(is_it)
        };
        let waiting = saved.orders.iter().filter(|order| !has_begun(order)).cloned();
        let ahead = Ahead::new(setup.store.clone(), waiting);
        let decoder = Decoder {
            host: HostId(identity.id),
            root: setup.settings.install_root.clone(),
            journal: setup.journal.clone(),
            store: setup.store.clone(),
            verifier: verifier.clone(),
        };
        tokio::spawn(ahead.clone().run(decoder));
        transfers.ahead = Some(ahead);
    }
    let mandates = Mandates::open(&setup.state, &setup.credentials, removed.clone());
    let records = Records::new(setup.registrar.clone(), links.clone());
    let spool_dir = setup.state.join("spool");
    let quota = setup.settings.spool_mib.saturating_mul(1 << 20);
    let spool = setup.obeys.then(|| Spool::open(spool_dir, quota, space.clone()));
    let metrics = Metrics::new(
        identity.role,
        counts.clone(),
        (links.clone(), traffic.clone(), inbox.clone()),
        (space.clone(), spool.clone(), setup.store.clone()),
    );
    let bus_room = Arc::new(Semaphore::new(bus::PLACES));
    let hub = Hub::new((HostId(identity.id), &identity.name), inbox.clone(), bus_room.clone());
    metrics.set_hub(hub.clone());
    metrics.set_shelves(keep::start(&setup.state, hub.clone(), space.clone()));
    let caps = Caps::open(&setup.state, &setup.settings.cap, setup.settings.yields)?;
    let shown = Current::new(setup.credentials.clone());
    if !serves {
        let takes_part = setup.settings.siblings.serve && setup.settings.link != LinkKind::Weak;
        let siblings = Siblings::new(
            (shown.clone(), takes_part),
            removed.clone(),
            caps.clone(),
            counts.clone(),
        );
        transfers.siblings = Some(siblings);
    }
    let outputs = Outputs::new(
        HostId(identity.id),
        verifier.clone(),
        (spool.clone(), metrics.clone()),
        Collector::new(setup.settings.install_root.clone()),
        inbox.clone(),
        links.clone(),
        caps.clone(),
    );
    let ids = LinkIds::default();
    let room = Room::new();
    let (watched, watching) = watch::channel(Watched::new());
    let (previews, _) = broadcast::channel(if is_root { PREVIEWS } else { 1 });
    if let Some(endpoint) = &endpoint {
        let turned = Turned::default();
        let acceptor = Acceptor {
            ids: ids.clone(),
            inbox: inbox.clone(),
            verifier: verifier.clone(),
            room: room.clone(),
            bus_room: bus_room.clone(),
            removed: removed.clone(),
            transfers: transfers.clone(),
            join: JoinService {
                registrar: setup.registrar.clone(),
                links: links.clone(),
                forwards: Arc::new(Semaphore::new(FORWARDS)),
            },
            records: records.clone(),
            join_config: join.clone(),
            max_connections: setup.settings.max_children * 2 + 64,
            config: server.clone(),
            beat,
            memory: Arc::default(),
            turned: turned.clone(),
            rate_limit: setup.settings.rate_limit_kbit.saturating_mul(1_000),
        };
        let who = (HostId(identity.id), identity.name.clone());
        let class = if is_root { mesh::Class::Controller } else { mesh::Class::Relay };
        tokio::spawn(turned.tell(inbox.clone(), class, who));
        tokio::spawn(acceptor.run(endpoint.clone()));
    }
    let dialler = (!is_root).then(|| Dialler {
        ids,
        inbox: inbox.clone(),
        verifier: verifier.clone(),
        room: room.clone(),
        bus_room,
        removed: removed.clone(),
        serves,
        config: client.clone(),
        server_name: certs::parent_name(&identity.mesh),
        outputs: outputs.clone(),
        caps: caps.clone(),
        paced: transfers.paced.clone(),
    });
    if !is_root {
        let census = Census {
            state: setup.state.clone(),
            who: (HostId(identity.id), identity.name.clone()),
            every: Duration::from_millis(setup.settings.facts_interval_ms.max(100)),
            inbox: inbox.clone(),
        };
        tokio::spawn(census.run());
        let ways = (links.clone(), endpoint.clone());
        tokio::spawn(
            Renewer::new(&setup, beat, ways, (client, server, join), shown, counts.clone()).run(),
        );
    }
    let turn = Arc::default();
    if setup.obeys {
        tokio::spawn(sweeper.clone().run(Arc::clone(&turn), transfers.clone()));
    }
    let measures = Duration::from_millis(setup.settings.measure_interval_ms);
    let listed = setup.settings.parents.clone();
    let parents = Parents::open(&setup.state, listed, !measures.is_zero());
    let places = parents.list().len();
    let children = if serves { setup.settings.max_children } else { 0 };
    let prober = Prober::new(&setup.credentials);
    let helm = Helm { parents, caps, children, links: links.clone(), inbox: inbox.clone(), prober };
    if !is_root && !measures.is_zero() {
        tokio::spawn(choice::run(helm.clone(), measures));
    }
    let executor = spool.map(|spool| Executor {
        name: identity.name.as_str().into(),
        verifier,
        installs: Installs {
            host: HostId(identity.id),
            root: setup.settings.install_root.clone(),
            state: setup.state.clone(),
            journal: setup.journal.clone(),
            transfers: transfers.clone(),
            turn: turn.clone(),
            serves,
        },
        giver: Giver { transfers: transfers.clone(), dir: setup.state.join("given") },
        slots: Arc::new(Semaphore::new(setup.settings.max_runs.max(1))),
        jobs: Jobs::default(),
        space: space.clone(),
        helm: helm.clone(),
        mandates: mandates.clone(),
        live: Teller { host: HostId(identity.id), watched: watching, room, inbox: inbox.clone() },
        spool,
        counts: counts.clone(),
    });
    if let Some(executor) = &executor {
        executor.giver.sweep();
    }
    let restorer = executor.clone();
    let writer = Writer::start(setup.journal, setup.witness, space.clone(), counts.clone());
    let Writer { entries: journal, saved: progress, thread } = writer;
    let clock = Clock(Instant::now());
    let mut config = setup.settings.mesh(identity.id, serves, places);
    let above = mesh::alerts::Above::new(helm.parents.known_best());
    let (outlook, view) = watch::channel(Outlook::of(&above));
    if !is_root {
        config.speaks = alerting::speaks(&setup.state);
        let eyes = (helm.parents.clone(), links.clone(), space.clone());
        let ways = (inbox.clone(), hub.clone());
        if let Some(desk) = alerting::start(&setup.state, &identity, view, eyes, ways) {
            metrics.set_desk(desk);
        }
    }
    let seed = u64::from_le_bytes(certs::random::<8>());
    let node = Node::new(config, saved, seed, mesh::Time::ZERO);
    let io = Io {
        clock,
        links: links.clone(),
        helm,
        dialler,
        transfers,
        executor,
        journal,
        entries: Vec::new(),
        progress,
        inbox: inbox.clone(),
        removed: removed.clone(),
        retelling: Retelling::default(),
        sweeper,
        waiting: BTreeMap::new(),
        tasks: JoinSet::new(),
        watched,
        previews: previews.clone(),
        place: None,
        above,
        outlook,
        notices: Notices::new(HostId(identity.id), &identity.name, identity.role, counts.clone()),
        traffic,
        counts,
        hub: hub.clone(),
        ledger: Ledger::default(),
    };
    let (end, ended) = watch::channel(false);
    let task = tokio::spawn(async move {
        let result = drive(node, io, arrivals, stopped).await;
        // The queue is closed: what was in it is written before the node counts as stopped.
        tokio::task::spawn_blocking(move || thread.join()).await.ok();
        crate::drive::log_end(&result);
        end.send(true).ok();
        result
    });
    Ok(Running {
        addr,
        who: (HostId(identity.id), identity.name),
        site: identity.site,
        inbox,
        paced,
        previews,
        links,
        endpoint,
        space,
        removed,
        outputs,
        mandates,
        records,
        metrics,
        hub,
        executor: restorer,
        stop,
        ended,
        task: Mutex::new(Some(task)),
    })
}

impl Running {
    /// Its number.
    pub fn host(&self) -> HostId {
        self.who.0
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.who.1
    }

    /// Its site.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// Where it listens.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// Gives an order to the root, or to the relay that its id names. `false`: it has stopped.
    pub async fn submit(&self, order: Order) -> bool {
        self.paced.recall(&order);
        self.inbox.send(Arrival::Input(Input::Submit(Arc::new(order)))).await.is_ok()
    }

    /// Something has happened at this node that is to be known as an event.
    pub async fn notice(&self, kind: Kind, text: &str) {
        let happening = notice::make((self.who.0, &self.who.1), kind, text);
        self.inbox.send(Arrival::Input(Input::Happened(happening))).await.ok();
    }

    /// Tells the root which orders are watched from now on, all of them, each with a generation; a
    /// new one asks for the output from its beginning. At most [`mesh::WATCHED`] are.
    pub async fn watch(&self, orders: BTreeMap<OrderId, u64>) {
        self.inbox.send(Arrival::Input(Input::Watch { orders })).await.ok();
    }

    /// What hosts write in orders that are watched, from now on. Whoever reads too slowly misses
    /// some of it.
    pub fn previews(&self) -> broadcast::Receiver<Said> {
        self.previews.subscribe()
    }

    /// What a host below the root has written, as a signed wish asks for it.
    pub async fn output(&self, host: HostId, request: &OutputRequest) -> Result<Coming, NotComing> {
        self.outputs.ask(host, request).await
    }

    /// What this node may order by itself, if the controller has delegated anything to it.
    pub fn mandate(&self) -> Option<Arc<Mandate>> {
        self.mandates.now()
    }

    /// Hands the controller a part of a record of this node's own orders.
    pub async fn hand(&self, part: &SignedRecord) -> Result<RecordReply, NotHanded> {
        self.records.hand(part).await
    }

    /// Who lives below this node now. `None`: it has stopped.
    pub async fn subtree(&self) -> Option<mesh::Subtree> {
        let (reply, subtree) = oneshot::channel();
        self.inbox.send(Arrival::Subtree(reply)).await.ok()?;
        subtree.await.ok()
    }

    /// The bus, for programs at this node.
    pub fn bus(&self) -> &Hub {
        &self.hub
    }

    /// What this node has counted and measured of itself.
    pub async fn metrics(&self) -> metrics::Page {
        self.metrics.page().await
    }

    /// How it stands with those above and below it; none: it does not say so in time.
    pub async fn standing(&self) -> Option<Standing> {
        let sight = self.metrics.look().await?;
        Some(Standing {
            controller_age: sight.root_age,
            heard: sight.root_word.0,
            silent: sight.root_word.1,
            linked: sight.linked,
            // Itself is none of them.
            below: sight.below.saturating_sub(1),
            up: sight.up.saturating_sub(1),
        })
    }

    /// The alerts of this node itself; none: it has no settings for them.
    pub async fn alerts(&self) -> Option<alerts::Overview> {
        self.metrics.desk()?.list().await.ok()
    }

    /// Puts right what distributions have put in place here and what is distributed so often;
    /// empty: all of it. Where no orders are carried out there is nothing.
    pub async fn restore(&self, frequency: &str) -> Result<Vec<Restored>, JournalError> {
        match &self.executor {
            Some(executor) => executor.restore(frequency).await,
            None => Ok(Vec::new()),
        }
    }

    /// What is due when, by the controller's last word: for when it is silent.
    pub fn schedule(&self) -> Arc<Schedule> {
        self.removed.schedule()
    }

    /// How the links stand.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.status()
    }

    /// Gives the root's node the list of removed keys: whoever it names is cut off here and, as
    /// soon as they have heard of it, at every node. Blocks. An older list changes nothing.
    pub fn remove(&self, list: &SignedRemovals) -> Result<(), RemovalsFault> {
        self.removed.take(list).map(drop)
    }

    /// At the root: the epoch of the controller that was restored in its place, once it has heard
    /// of one. From then on it serves nobody.
    pub fn superseded(&self) -> watch::Receiver<Option<u64>> {
        self.removed.superseded()
    }

    /// Why nothing new can be taken on at present, if the state disk is short of room.
    pub fn no_room(&self) -> Option<String> {
        self.space.lack(self.space.floor())
    }

    /// Turns true when the node has stopped; [`Running::stop`] then says why.
    pub fn watch_end(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Stops: no new inputs, links closed, what was queued for the disk is written. Says how the
    /// node ended, also if it had ended before; a second call has nothing more to say.
    pub async fn stop(&self) -> Result<(), DriveError> {
        self.stop.send(true).ok();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match task {
            Some(task) => task.await.expect("the drive loop does not panic"),
            None => Ok(()),
        };
        // The links are closed; here the farewells leave.
        for endpoint in self.links.endpoints().iter().chain(&self.endpoint) {
            endpoint.close(crate::link::CLOSE_STOPPING, b"stopping");
            tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await.ok();
        }
        result
    }
}
