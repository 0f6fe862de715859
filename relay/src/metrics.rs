//! What a node counts and measures of itself, and the page that it makes of it when asked.
//!
//! What happens is counted in [`Counts`] where it happens; what is so is looked up when somebody
//! asks, so that a node which nobody asks does nothing for it. The page holds no name of a host:
//! the parent and at most [`traffic::PEERS`] relays are named, all others stand together.

pub(crate) mod traffic;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alerts::Desk;
use certs::Role;
use content::Store;
use mesh::{Event, Severity};
use metrics::{Counter, Histogram, Kind, Page, Unit, Words};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::bus::Hub;
use crate::drive::Arrival;
use crate::keep::Shelves;
use crate::link::Counters;
use crate::links::Links;
use crate::space::Space;
use crate::spool::Spool;

use self::traffic::Traffic;

/// How long the drive loop may take to say how it stands.
const LIMIT: Duration = Duration::from_secs(5);
/// Bounds for commits and for jobs, in seconds.
const COMMIT: [f64; 7] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.5, 2.0];
const JOB: [f64; 8] = [0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1_800.0, 7_200.0];
/// Kinds of jobs.
const KINDS: [&str; 4] = ["run", "push", "dist", "other"];

/// What is counted while it happens.
pub(crate) struct Counts {
    /// How long the journal's commits took.
    pub(crate) commits: Histogram,
    times: [Histogram; KINDS.len()],
    results: Words<2>,
    /// Contents that were asked of the parent, by what came of it.
    pub(crate) pulls: Words<1>,
    /// What has come from siblings, and gone to them.
    pub(crate) siblings: Counters,
    /// Bytes that installs have written into files.
    pub(crate) installed: Counter,
    /// What this node has noticed, by severity.
    noticed: Words<1>,
    /// Events of this node that found no room.
    dropped: Counter,
    /// Limits that have cut something.
    cut: Counter,
    /// When the certificate ends, in unix seconds.
    certificate_end: AtomicU64,
    /// By how much this clock is ahead of the parent's, in seconds.
    pub(crate) clock_ahead: AtomicI64,
}

impl Counts {
    pub(crate) fn new() -> Counts {
        Counts {
            commits: Histogram::new(&COMMIT),
            times: std::array::from_fn(|_| Histogram::new(&JOB)),
            results: Words::default(),
            pulls: Words::default(),
            siblings: Counters::default(),
            installed: Counter::default(),
            noticed: Words::default(),
            dropped: Counter::default(),
            cut: Counter::default(),
            certificate_end: AtomicU64::new(0),
            clock_ahead: AtomicI64::new(0),
        }
    }

    /// An order was carried out here.
    pub(crate) fn job(&self, kind: &'static str, result: &'static str, took: Duration) {
        let place = KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len() - 1);
        self.times[place].observe(took);
        self.results.add([KINDS[place], result], 1);
    }

    /// The core has told something.
    pub(crate) fn told(&self, event: &Event) {
        match event {
            Event::Dropped { count } => self.dropped.add(*count),
            Event::Cut { count, .. } => self.cut.add(*count),
            _ => {}
        }
    }

    /// This node has noticed something.
    pub(crate) fn noticed(&self, severity: Severity) {
        self.noticed.add([severity.word()], 1);
    }

    /// The node has another certificate.
    pub(crate) fn certified(&self, until: SystemTime) {
        self.certificate_end.store(unix(until).as_secs(), Ordering::Relaxed);
    }

    fn put(&self, page: &mut Page) {
        let times =
            page.times("barid_store_commit_seconds", "How long commits of the journal took");
        self.commits.put(&[], times);
        let times = page.times("barid_job_duration_seconds", "How long orders took at this node");
        for (kind, histogram) in KINDS.iter().zip(&self.times) {
            histogram.put(&[("kind", kind)], times);
        }
        let help = "Orders carried out at this node, by what became of them";
        let results = page.counter(Unit::None, "barid_job_results", help);
        self.results.put(["kind", "result"], results);
        let help = "Contents asked of the parent, by what came of it";
        self.pulls.put(["result"], page.counter(Unit::None, "barid_content_pulls", help));
        let help = "Content that this host has fetched from siblings, and served to them";
        let family = page.counter(Unit::Bytes, "barid_sibling_bytes", help);
        let Counters { content_sent, content_received, .. } = &self.siblings;
        for (dir, bytes) in [("sent", content_sent), ("received", content_received)] {
            family.put(&[("dir", dir)], bytes.load(Ordering::Relaxed) as f64);
        }
        let help = "Bytes that pushes have written into files of this node";
        let name = "barid_content_installed_bytes";
        page.counter(Unit::Bytes, name, help).put(&[], self.installed.now() as f64);
        let help = "Events that this node has noticed";
        self.noticed.put(["severity"], page.counter(Unit::None, "barid_events_noticed", help));
        let help = "Events of this node that found no room";
        let dropped = page.counter(Unit::None, "barid_events_dropped", help);
        dropped.put(&[], self.dropped.now() as f64);
        let help = "Times that a limit of this node has cut something of an order";
        page.counter(Unit::None, "barid_cuts", help).put(&[], self.cut.now() as f64);
        let left = self.certificate_end.load(Ordering::Relaxed) as f64
            - unix(SystemTime::now()).as_secs_f64().floor();
        let help = "Until this node's certificate ends; negative: it has ended";
        page.gauge(Unit::Seconds, "barid_cert_expiry_seconds", help).put(&[], left);
    }
}

/// How the core stands.
pub(crate) struct Sight {
    pub(crate) below: u64,
    pub(crate) up: u64,
    pub(crate) degraded: u64,
    pub(crate) orders: usize,
    pub(crate) events: (usize, usize),
    pub(crate) waiting: usize,
    pub(crate) root_age: Duration,
    pub(crate) root_word: (bool, bool),
    pub(crate) linked: bool,
}

impl Sight {
    pub(crate) fn of(node: &mesh::Node, now: mesh::Time) -> Sight {
        let tree = node.subtree();
        Sight {
            below: tree.below.len(),
            up: tree.up.len(),
            degraded: tree.degraded.len(),
            orders: node.orders(),
            events: node.events(),
            waiting: node.waiting(),
            root_age: node.root_age(now),
            root_word: node.root_word(),
            linked: node.parent().is_some(),
        }
    }
}

/// What a page is made from.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    role: Role,
    counts: Arc<Counts>,
    traffic: Traffic,
    links: Links,
    inbox: mpsc::Sender<Arrival>,
    space: Space,
    spool: Option<Spool>,
    store: Arc<Store>,
    started: SystemTime,
    desk: OnceLock<Desk>,
    hub: OnceLock<Hub>,
    shelves: OnceLock<Shelves>,
}

impl Metrics {
    pub(crate) fn new(
        role: Role,
        counts: Arc<Counts>,
        (links, traffic, inbox): (Links, Traffic, mpsc::Sender<Arrival>),
        (space, spool, store): (Space, Option<Spool>, Arc<Store>),
    ) -> Metrics {
        let (desk, hub, shelves) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Metrics(Arc::new(Inner {
            role,
            counts,
            traffic,
            links,
            inbox,
            space,
            spool,
            store,
            started: SystemTime::now(),
            desk,
            hub,
            shelves,
        }))
    }

    /// This node tells people of what is wrong, by this desk.
    pub(crate) fn set_desk(&self, desk: Desk) {
        self.0.desk.set(desk).ok();
    }

    /// The desk of this node, if it has one.
    pub(crate) fn desk(&self) -> Option<&Desk> {
        self.0.desk.get()
    }

    /// Programs at this node speak on the bus by this hub.
    pub(crate) fn set_hub(&self, hub: Hub) {
        self.0.hub.set(hub).ok();
    }

    /// This node keeps messages of the bus there.
    pub(crate) fn set_shelves(&self, shelves: Shelves) {
        self.0.shelves.set(shelves).ok();
    }

    /// How the core stands, if it says so in time.
    pub(crate) async fn look(&self) -> Option<Sight> {
        let (reply, sight) = oneshot::channel();
        let asked = async {
            self.0.inbox.send(Arrival::Look(reply)).await.ok()?;
            sight.await.ok()
        };
        timeout(LIMIT, asked).await.ok().flatten()
    }

    /// The page as it is now.
    pub(crate) async fn page(&self) -> Page {
        let (inner, mut page) = (&*self.0, Page::default());
        let (version, role) = (env!("CARGO_PKG_VERSION"), inner.role.to_string());
        let build = page.family((Kind::Info, Unit::None), "barid_build", "What runs here");
        build.put(&[("version", version), ("role", &role)], 1.0);
        let help = "When this node was started, in unix time";
        let started = page.gauge(Unit::Seconds, "barid_start_time_seconds", help);
        started.put(&[], unix(inner.started).as_secs_f64());
        if let Some(sight) = self.look().await {
            put_sight(&mut page, inner.role, &sight);
            if inner.role != Role::Controller {
                let ahead = inner.counts.clock_ahead.load(Ordering::Relaxed);
                let help = "By how much this clock is ahead of the parent's, as it last said";
                let family = page.gauge(Unit::Seconds, "barid_clock_ahead_seconds", help);
                family.put(&[], ahead as f64);
            }
        }
        inner.traffic.put(&mut page, &inner.links.all());
        inner.counts.put(&mut page);
        inner.hub.get().inspect(|hub| hub.put(&mut page));
        if let Some(shelves) = inner.shelves.get() {
            shelves.put(&mut page).await;
        }
        let this = self.clone();
        let disk = move || {
            this.put_disk(&mut page);
            page
        };
        let mut page = tokio::task::spawn_blocking(disk).await.expect("looking does not panic");
        if let Some(desk) = inner.desk.get()
            && let Ok(overview) = desk.list().await
        {
            overview.put(&mut page);
        }
        page
    }

    /// Blocks.
    fn put_disk(&self, page: &mut Page) {
        let Inner { space, spool, store, .. } = &*self.0;
        let help = "What is free on the state disk";
        let free = page.gauge(Unit::Bytes, "barid_disk_free_bytes", help);
        free.put(&[], space.free() as f64);
        let help = "What is to stay free on the state disk";
        page.gauge(Unit::Bytes, "barid_disk_floor_bytes", help).put(&[], space.floor() as f64);
        if let Some(spool) = spool {
            let help = "Long outputs that are kept here";
            page.gauge(Unit::Bytes, "barid_spool_bytes", help).put(&[], spool.bytes() as f64);
            let help = "Long outputs that have gone to make room";
            let gone = page.counter(Unit::None, "barid_spool_dropped", help);
            gone.put(&[], spool.gone() as f64);
        }
        // A store that cannot be read says so in the log, whenever it is used.
        if let Ok(usage) = store.usage() {
            let help = "Content in the store";
            page.gauge(Unit::Bytes, "barid_store_bytes", help).put(&[], usage.bytes as f64);
            if let Ok(room) = store.room() {
                let help = "What would find room in the store besides what is needed";
                page.gauge(Unit::Bytes, "barid_store_room_bytes", help).put(&[], room as f64);
            }
            let help = "Objects in the store";
            page.gauge(Unit::None, "barid_store_objects", help).put(&[], usage.objects as f64);
        }
    }
}

fn put_sight(page: &mut Page, role: Role, sight: &Sight) {
    let help = "Nodes below this one, itself included; degraded ones are up, too";
    let nodes = page.gauge(Unit::None, "barid_nodes", help);
    let down = sight.below.saturating_sub(sight.up);
    for (state, count) in [("up", sight.up), ("down", down), ("degraded", sight.degraded)] {
        nodes.put(&[("state", state)], count as f64);
    }
    let help = "Orders that this node remembers";
    page.gauge(Unit::None, "barid_orders", help).put(&[], sight.orders as f64);
    let help = "Outputs in answers, and events, that wait here or are kept to be told once more";
    page.gauge(Unit::Bytes, "barid_waiting_bytes", help).put(&[], sight.waiting as f64);
    let help = "Different events that this node remembers, its own and those it has to tell";
    let events = page.gauge(Unit::None, "barid_events_held", help);
    events.put(&[("of", "own")], sight.events.0 as f64);
    events.put(&[("of", "below")], sight.events.1 as f64);
    if role != Role::Controller {
        let help = "Since the controller's word was fresh here";
        let age = page.gauge(Unit::Seconds, "barid_controller_age_seconds", help);
        age.put(&[], sight.root_age.as_secs_f64());
        let help = "Whether this node has a parent";
        let linked = page.gauge(Unit::None, "barid_parent_linked", help);
        linked.put(&[], f64::from(u8::from(sight.linked)));
    }
}

fn unix(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
