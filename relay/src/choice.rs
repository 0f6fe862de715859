//! Which parent is the best to have, where the settings leave that to what is measured.
//!
//! The delay of each parent is looked at now and then, by a handshake that makes this node nobody's
//! child; how fast content comes is seen when some comes. When one is clearly better than those
//! before it ([`crate::rank`]) the list changes, and the core goes about the change as always: the
//! old parent serves until the new one has spoken. Looks are rare, so that changes are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh::{Input, Peer};
use tokio::time::Instant;
use tracing::info;

use crate::drive::Arrival;
use crate::steer::Helm;

/// How often content is counted, and from how much on it says something of the link.
const COUNT: Duration = Duration::from_secs(5);
const ENOUGH: u64 = 512 << 10;

/// Measures until the node ends.
pub(crate) async fn run(helm: Helm, every: Duration) {
    let mut look = Instant::now() + part_of(every);
    let mut seen = None;
    loop {
        tokio::time::sleep(COUNT.min(every)).await;
        count(&helm, &mut seen);
        if Instant::now() >= look {
            look = Instant::now() + every / 2 + part_of(every);
            probe(&helm).await;
            let parents = helm.parents.clone();
            if tokio::task::spawn_blocking(move || parents.rank()).await.unwrap_or(false) {
                info!(parents = ?helm.parents.list(), "another parent serves better");
                let (count, here) = helm.standing();
                let input = Input::Parents { count, here };
                if helm.inbox.send(Arrival::Input(input)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A random part of a time, so that children of one parent do not look in step.
fn part_of(time: Duration) -> Duration {
    time.mul_f64(f64::from(u32::from_le_bytes(certs::random::<4>())) / f64::from(u32::MAX))
}

/// Notes how fast content came from the present parent, if enough came to tell.
fn count(helm: &Helm, seen: &mut Option<(mesh::LinkId, u64, Instant)>) {
    let links = helm.links.all();
    let Some(up) = links.iter().find(|link| matches!(link.peer, Peer::Parent { .. })) else {
        *seen = None;
        return;
    };
    let (now, bytes) = (Instant::now(), up.counters.content_received.load(Ordering::Relaxed));
    let before = seen.replace((up.id, bytes, now));
    if let Some((link, old, at)) = before
        && link == up.id
        && bytes - old >= ENOUGH
    {
        let rate = (bytes - old) as f64 / (now - at).as_secs_f64();
        helm.parents.measure(&up.dialled, |measured| measured.on_rate(rate as u64));
    }
}

/// Looks how far away each parent is.
async fn probe(helm: &Helm) {
    let Some(prober) = &helm.prober else { return };
    for address in helm.parents.list() {
        if let Some((_, rtt)) = prober.look(&address).await {
            helm.parents.measure(&address, |measured| measured.on_rtt(rtt));
        }
    }
}
