//! Orders of which too many hosts have failed or were missed, if operators want to hear of them.
//!
//! An order is an event and no state, so its alert lasts an hour from its close.

use std::collections::BTreeMap;
use std::time::Duration;

use alerts::{Desk, Seen};
use mesh::OrderId;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::answers::Reader;
use crate::live::{Live, Update};
use crate::orders::blocking;
use crate::tables::Tables;

/// How long an order that failed is an alert.
const LASTS: Duration = Duration::from_secs(3600);
/// How often it is looked whose time is over.
const LOOK: Duration = Duration::from_secs(60);
/// How many at once.
const MOST: usize = 100;
/// States of hosts that are no failure of the order.
const WELL: [&str; 4] = ["ok", "skipped", "cancelled", "waiting"];

/// The rule.
pub(crate) struct Orders {
    pub(crate) desk: Desk,
    pub(crate) live: Live,
    pub(crate) tables: Tables,
}

impl Orders {
    /// Looks at each order that closes. Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut updates = self.live.watch();
        let mut failed: BTreeMap<OrderId, (Instant, Seen)> = BTreeMap::new();
        // Those of an earlier process are over.
        self.desk.set("orders", Vec::new(), |_| None).await;
        loop {
            let before = failed.len();
            failed.retain(|_, (since, _)| since.elapsed() < LASTS);
            match timeout(LOOK, updates.recv()).await {
                Ok(Ok(Update::Closed(id))) => {
                    if let Some(seen) = self.look(id).await {
                        failed.insert(id, (Instant::now(), seen));
                    }
                }
                Ok(Err(RecvError::Closed)) => return,
                // Of orders that were missed in a crowd nothing is said.
                Ok(Ok(Update::Answers(_)) | Err(RecvError::Lagged(_))) | Err(_) => {
                    if failed.len() == before {
                        continue;
                    }
                }
            }
            while failed.len() > MOST {
                failed.pop_first();
            }
            let seen = failed.values().map(|(_, seen)| seen.clone()).collect();
            self.desk.set("orders", seen, |_| None).await;
        }
    }

    async fn look(&self, id: OrderId) -> Option<Seen> {
        let percent = self.desk.settings().percent("orders-failing")?;
        let (tables, hosts) = (self.tables.clone(), self.live.state().hosts.clone());
        let info = blocking(move || {
            let released = BTreeMap::new();
            let reader = Reader { tables: &tables, hosts: &hosts, released: &released };
            tables.order(id)?.map(|row| reader.info(id, &row)).transpose()
        });
        let info = match info.await {
            Ok(info) => info.filter(|info| info.kind == "run" || info.kind == "push")?,
            Err(failure) => {
                warn!(order = %id, error = %failure.error.message, "the order is not read");
                return None;
            }
        };
        let well = |(word, _): &(&String, &u64)| WELL.contains(&word.as_str());
        let all: u64 = info.states.values().sum();
        let bad: u64 = all - info.states.iter().filter(well).map(|(_, count)| count).sum::<u64>();
        if bad == 0 || bad * 100 < all.saturating_mul(percent) {
            return None;
        }
        let order = info.id.clone();
        let summary = format!("{bad} of {all} hosts failed or were missed by {}", info.what);
        let labels = BTreeMap::from([("order".into(), order.clone())]);
        Some(Seen { kind: "orders-failing", of: order, labels, summary, ..Seen::default() })
    }
}
