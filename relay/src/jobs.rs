//! The orders that this host is carrying out now, so that another order can end them.
//!
//! A job is entered when the core says "start", before any task runs, and stands until its end has
//! been handed to the core. So whoever ends a job and waits for it knows that the core has heard of
//! its end first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::OrderId;
use tokio::sync::watch;

/// All jobs of this host.
#[derive(Clone, Default)]
pub(crate) struct Jobs(Arc<Mutex<BTreeMap<OrderId, watch::Sender<bool>>>>);

/// One order that is being carried out. Dropping it says that it has ended.
pub(crate) struct Job {
    order: OrderId,
    jobs: Jobs,
    stop: watch::Receiver<bool>,
}

impl Jobs {
    /// Enters an order that is about to be carried out.
    pub(crate) fn enter(&self, order: OrderId) -> Job {
        let (sender, stop) = watch::channel(false);
        self.lock().insert(order, sender);
        Job { order, jobs: self.clone(), stop }
    }

    /// Asks a job to end and waits until it has. Returns whether there was one.
    pub(crate) async fn stop(&self, order: OrderId) -> bool {
        let Some(sender) = self.lock().get(&order).cloned() else { return false };
        sender.send_replace(true);
        sender.closed().await;
        true
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OrderId, watch::Sender<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// The order.
    pub(crate) fn order(&self) -> OrderId {
        self.order
    }

    /// Waits until somebody asks this job to end.
    pub(crate) async fn asked_to_stop(&self) {
        let mut stop = self.stop.clone();
        // The sender stands in the table for as long as the job does.
        stop.wait_for(|stop| *stop).await.ok();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs.lock().remove(&self.order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: OrderId = OrderId([1; 16]);

    #[tokio::test]
    async fn whoever_stops_a_job_waits_for_its_end() {
        let jobs = Jobs::default();
        assert!(!jobs.stop(ORDER).await, "there is none yet");
        let job = jobs.enter(ORDER);
        let stopping = tokio::spawn({
            let jobs = jobs.clone();
            async move { jobs.stop(ORDER).await }
        });
        job.asked_to_stop().await;
        assert!(!stopping.is_finished(), "the job has not ended");
        drop(job);
        assert!(stopping.await.expect("it does not panic"));
        assert!(!jobs.stop(ORDER).await, "it is over");
    }
}
