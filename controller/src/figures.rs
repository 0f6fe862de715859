//! `GET /metrics`: the figures of the controller, or with `?relay=NAME` those of a node below it
//! that no collector can reach.
//!
//! A node below is asked when somebody asks here, by the way that outputs take, and its page is
//! handed on as it is, up to a limit. Nothing is asked for while nobody scrapes. It costs something
//! on links, so only who may open the operators' socket can ask; a TCP port has the own page alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use bytes::BytesMut;
use mesh::{HostId, OrderId, Stream};
use metrics::{Page, Unit};
use protos::{OutputBody, OutputFault, OutputRequest};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tracing::warn;

use crate::answers::Reader;
use crate::clock::to_ms;
use crate::fault::Failure;
use crate::live::{Live, Update};
use crate::orders::{Desk, blocking};
use crate::tables::Tables;

/// Nodes that are asked at once; whoever asks for more is to come again.
const ASKED: usize = 16;
/// Own pages that are made at once; likewise.
const OWN: usize = 4;
/// The longest page of a node.
const PAGE: usize = 1 << 20;
/// How long a node may take: collectors give up after ten seconds, as a rule.
const LIMIT: Duration = Duration::from_secs(9);
/// How long a wish is good; clocks may differ by about as much.
const GOOD: Duration = Duration::from_secs(3600);

/// What the page is made from.
#[derive(Clone)]
pub(crate) struct Figures {
    pub(crate) alerts: alerts::Desk,
    pub(crate) desk: Desk,
    pub(crate) live: Live,
    pub(crate) tables: Tables,
    pub(crate) counted: Counted,
    turns: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// What has become of the targets of orders that closed since the start, by kind and state.
#[derive(Clone, Default)]
pub(crate) struct Counted(Arc<Mutex<BTreeMap<(String, String), u64>>>);

/// Whose page is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    relay: Option<String>,
}

impl Figures {
    pub(crate) fn new(
        (alerts, desk): (alerts::Desk, Desk),
        live: Live,
        tables: Tables,
        counted: Counted,
    ) -> Figures {
        let turns = Arc::new(Semaphore::new(ASKED));
        let own = Arc::new(Semaphore::new(OWN));
        Figures { alerts, desk, live, tables, counted, turns, own }
    }

    /// The route, for who may ask about any node.
    pub(crate) fn router(self) -> Router {
        Router::new().route("/metrics", get(metrics)).with_state(self)
    }

    /// The route, for whoever reaches a TCP port.
    pub(crate) fn open_router(self) -> Router {
        Router::new().route("/metrics", get(own_metrics)).with_state(self)
    }

    async fn own(&self) -> Result<String, Failure> {
        let busy = |_| Failure::busy("too many ask for this page just now");
        let _turn = self.own.try_acquire().map_err(busy)?;
        let mut page = self.desk.node.metrics().await;
        self.alerts.list().await?.put(&mut page);
        let tables = self.tables.clone();
        let open = blocking(move || Ok(tables.open_orders()?)).await?;
        let help = "Orders of which some host has no outcome yet";
        page.gauge(Unit::None, "barid_orders_open", help).put(&[], open as f64);
        let known = self.live.state().hosts.len();
        let help = "Nodes that are enrolled";
        page.gauge(Unit::None, "barid_nodes_enrolled", help).put(&[], known as f64);
        self.counted.put(&mut page);
        Ok(page.text())
    }

    async fn of(&self, name: &str) -> Result<String, Failure> {
        let away = |why: &str| Failure::away(format!("{name}: {why}"));
        let _turn =
            self.turns.try_acquire().map_err(|_| away("too many nodes are asked just now"))?;
        let hosts = self.live.state().hosts.clone();
        let host = hosts.iter().find(|(_, row)| row.name == name).map(|(id, _)| *id);
        let host = host.ok_or_else(|| {
            Failure::unknown("unknown-host", format!("there is no node {name}"), "barid hosts")
        })?;
        let asked = timeout(LIMIT, page_of(&self.desk, host)).await;
        let page = asked.map_err(|_| away("no answer in time"))?;
        page.map_err(|not| match not.fault {
            // It has looked for an output, for want of knowing better.
            OutputFault::Gone => away("it is older than metrics"),
            _ => away(&not.to_string()),
        })
    }
}

/// The page of a node below, as it is now.
pub(crate) async fn page_of(desk: &Desk, host: HostId) -> Result<String, relay::NotComing> {
    let broken = |detail: &str| {
        let (fault, detail) = (OutputFault::Broken, detail.to_owned());
        relay::NotComing { fault, detail }
    };
    let envelope = desk.wish(OutputBody {
        mesh: desk.authority.mesh().0,
        order: OrderId([0; 16]),
        host,
        stream: Stream::Stdout,
        not_after_ms: to_ms(SystemTime::now() + GOOD),
        metrics: true,
    });
    let request = OutputRequest { envelope, offset: 0, files: Vec::new() };
    let mut coming = desk.node.output(host, &request).await?;
    let mut page = BytesMut::new();
    while let Some(piece) = coming.next().await? {
        if page.len() + piece.len() > PAGE {
            return Err(broken("its page is too long"));
        }
        page.extend_from_slice(&piece);
    }
    let text = String::from_utf8(page.into()).map_err(|_| broken("its page is no text"))?;
    match text.ends_with("# EOF\n") {
        true => Ok(text),
        false => Err(broken("its page came in part")),
    }
}

async fn metrics(
    State(figures): State<Figures>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(whose) = whose.map_err(|e| Failure::bad(e.body_text(), "/metrics?relay=NAME"))?;
    let text = match whose.relay {
        Some(name) => figures.of(&name).await?,
        None => figures.own().await?,
    };
    Ok(local::page(text))
}

async fn own_metrics(
    State(figures): State<Figures>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Response, Failure> {
    match whose {
        Ok(Query(Whose { relay: None })) => Ok(local::page(figures.own().await?)),
        _ => {
            let help = "curl --unix-socket STATE/barid.sock 'http://barid/metrics?relay=NAME'";
            Err(Failure::bad("here is the controller's own page alone", help))
        }
    }
}

impl Counted {
    /// Counts each order that closes. Runs until it is dropped.
    pub(crate) async fn run(self, live: Live, tables: Tables) {
        let mut updates = live.watch();
        loop {
            match updates.recv().await {
                Ok(Update::Closed(id)) => self.count(&live, &tables, id).await,
                Ok(Update::Answers(_)) => {}
                Err(RecvError::Lagged(missed)) => {
                    warn!(missed, "some orders are not in barid_job_targets");
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn count(&self, live: &Live, tables: &Tables, id: OrderId) {
        let (tables, hosts) = (tables.clone(), live.state().hosts.clone());
        let read = blocking(move || {
            let released = BTreeMap::new();
            let reader = Reader { tables: &tables, hosts: &hosts, released: &released };
            tables.order(id)?.map(|row| reader.info(id, &row)).transpose()
        });
        match read.await {
            Ok(info) => {
                let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                for (kind, states) in info.into_iter().map(|info| (info.kind, info.states)) {
                    for (state, count) in states {
                        *counts.entry((kind.clone(), state)).or_default() += count;
                    }
                }
            }
            Err(failure) => warn!(order = %id, error = %failure.error.message, "not counted"),
        }
    }

    fn put(&self, page: &mut Page) {
        let help = "Targets of orders that have closed, by what had become of them then";
        let family = page.counter(Unit::None, "barid_job_targets", help);
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((kind, state), count) in &*counts {
            family.put(&[("kind", kind), ("result", state)], *count as f64);
        }
    }
}
