//! What is kept, as figures: looked up when somebody asks, by the thread that knows it.
//!
//! Labels are the names in `bus.toml`, of which there are few.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Page, Unit};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::words::{Ask, Kept};
use super::worker::Job;

/// How long the thread may take to say how it stands.
const LIMIT: Duration = Duration::from_secs(2);

/// What a node keeps, as others of the node see it.
#[derive(Clone, Default)]
pub(crate) struct Shelves(Arc<OnceLock<mpsc::Sender<Job>>>);

impl Shelves {
    /// There is a thread now that answers.
    pub(super) fn begin(&self, jobs: mpsc::Sender<Job>) {
        self.0.set(jobs).ok();
    }

    /// Puts figures about all that is kept into a page. Nothing, if nothing is kept, or the disk is
    /// too slow to say it in time.
    pub(crate) async fn put(&self, page: &mut Page) {
        let Some(jobs) = self.0.get() else { return };
        let (reply, told) = oneshot::channel();
        let asked = async {
            jobs.send(Job::Ask(Ask::List, reply)).await.ok()?;
            told.await.ok()
        };
        if let Ok(Some(reply)) = timeout(LIMIT, asked).await
            && !reply.kept.is_empty()
        {
            put(page, &reply.kept);
        }
    }
}

fn put(page: &mut Page, all: &[Kept]) {
    let help = "Messages of the bus that are kept here";
    let family = page.gauge(Unit::None, "barid_bus_kept_messages", help);
    for kept in all {
        family.put(&[("keep", &kept.name), ("policy", &kept.policy)], kept.messages as f64);
    }
    let help = "What they take";
    let family = page.gauge(Unit::Bytes, "barid_bus_kept_bytes", help);
    all.iter().for_each(|kept| family.put(&[("keep", &kept.name)], kept.bytes as f64));
    let help = "Messages that nobody has taken yet, or the reader furthest behind has not had";
    let family = page.gauge(Unit::None, "barid_bus_kept_waiting", help);
    for kept in all {
        if let Some(waiting) = waiting(kept) {
            family.put(&[("keep", &kept.name)], waiting as f64);
        }
    }
    let help = "Messages that were not kept, or went before everybody had them, by why";
    let family = page.counter(Unit::None, "barid_bus_kept_lost", help);
    for kept in all {
        for (why, count) in &kept.lost {
            family.put(&[("keep", &kept.name), ("why", why)], *count as f64);
        }
    }
}

/// How many messages somebody still has to deal with; none: nobody has to.
fn waiting(kept: &Kept) -> Option<u64> {
    match &*kept.policy {
        "queue" => Some(kept.messages.saturating_sub(kept.taken)),
        "stream" => {
            let behind = kept.readers.iter().map(|(_, through)| *through).min()?;
            Some(kept.next.saturating_sub(1).saturating_sub(behind))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_furthest_behind_says_how_much_waits() {
        let readers = vec![("a".to_owned(), 4), ("b".to_owned(), 7)];
        let stream = Kept { policy: "stream".into(), messages: 5, next: 10, ..Kept::default() };
        assert_eq!(waiting(&stream), None, "nobody reads");
        assert_eq!(waiting(&Kept { readers, ..stream.clone() }), Some(5));
        let queue = Kept { policy: "queue".into(), messages: 5, taken: 2, ..Kept::default() };
        let latest = Kept { policy: "latest".into(), ..queue.clone() };
        assert_eq!((waiting(&queue), waiting(&latest)), (Some(3), None));
    }
}
