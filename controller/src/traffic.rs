//! What crossed the controller's links, counted over all their connections.
//!
//! quinn counts for each connection; here its counters are sampled once a second and whenever
//! somebody asks, and the growth is added up per child, so that a link that broke keeps its sum.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use mesh::HostId;
use relay::{LinkStatus, Running};

use crate::tables::{Tables, Traffic};

type Sample = (SystemTime, Traffic);

#[derive(Default)]
struct Sums {
    total: BTreeMap<HostId, Traffic>,
    /// The last sample of each child's present connection.
    last: BTreeMap<HostId, Sample>,
}

/// Sums of what crossed each link.
#[derive(Clone)]
pub(crate) struct Meter {
    node: Arc<Running>,
    sums: Arc<Mutex<Sums>>,
}

impl Meter {
    pub(crate) fn new(node: Arc<Running>, total: BTreeMap<HostId, Traffic>) -> Meter {
        let sums = Sums { total, last: BTreeMap::new() };
        Meter { node, sums: Arc::new(Mutex::new(sums)) }
    }

    /// The links as they stand, and the sums with them.
    pub(crate) fn read(&self) -> (Vec<LinkStatus>, BTreeMap<HostId, Traffic>) {
        let links = self.node.links();
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        for link in &links {
            let now = Traffic {
                wire_sent: link.wire_sent,
                wire_received: link.wire_received,
                content_sent: link.content_sent,
                content_received: link.content_received,
            };
            let last = sums.last.insert(link.host, (link.since, now));
            let before = last.filter(|(since, _)| *since == link.since).map(|(_, last)| last);
            let before = before.unwrap_or_default();
            let total = sums.total.entry(link.host).or_default();
            total.wire_sent += now.wire_sent.saturating_sub(before.wire_sent);
            total.wire_received += now.wire_received.saturating_sub(before.wire_received);
            total.content_sent += now.content_sent.saturating_sub(before.content_sent);
            total.content_received += now.content_received.saturating_sub(before.content_received);
        }
        (links, sums.total.clone())
    }

    /// Keeps the sums, at the end.
    pub(crate) fn keep(&self, tables: &Tables) {
        let (_, total) = self.read();
        if let Err(error) = tables.set_traffic(&total) {
            // If it is the database that failed, the node says so.
            tracing::warn!(error = %relay::chain(&error), "link counters are not kept");
        }
    }

    /// Samples once a second and keeps the sums once a minute.
    pub(crate) async fn run(self, tables: Tables) {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        for n in 1u64.. {
            tick.tick().await;
            let (_, total) = self.read();
            if n.is_multiple_of(60) {
                let tables = tables.clone();
                let keep = move || tables.set_traffic(&total);
                if let Ok(Err(error)) = tokio::task::spawn_blocking(keep).await {
                    tracing::warn!(error = %relay::chain(&error), "link counters are not kept");
                }
            }
        }
    }
}
