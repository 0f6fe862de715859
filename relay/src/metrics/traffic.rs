//! What has crossed the links of a node, over all their connections.
//!
//! Each link counts for itself; the growth is added up for each peer when somebody asks and when
//! the link goes, so that a link which broke keeps its sum and no sum ever falls.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use mesh::{LinkId, Peer};
use metrics::{Page, Unit};

use crate::link::{CLASSES, Link};

/// Peers that are named, of those that serve; all others stand together, and so do all hosts.
pub(crate) const PEERS: usize = 64;

/// Frames of each class and content, each in both directions.
const FLOWS: usize = 2 * (CLASSES.len() + 1);
/// And then: what UDP carries, in both directions, and packets lost.
const WIRE: usize = FLOWS;
const LOST: usize = FLOWS + 2;

type Figures = [u64; FLOWS + 3];
/// On which side of the link the peer is, and its name.
type Key = (&'static str, String);

/// The sums.
#[derive(Clone, Default)]
pub(crate) struct Traffic(Arc<Mutex<Sums>>);

#[derive(Default)]
struct Sums {
    total: BTreeMap<Key, Figures>,
    /// What was added already of links that stand.
    last: BTreeMap<LinkId, Figures>,
}

impl Sums {
    fn key(&self, peer: &Peer, name: &str) -> Key {
        let (side, named) = match peer {
            Peer::Parent { .. } => ("parent", true),
            Peer::Child { serves, .. } => (if *serves { "relay" } else { "host" }, *serves),
        };
        let key = (side, name.to_owned());
        let room = self.total.len() < PEERS || self.total.contains_key(&key);
        if named && room { key } else { (side, String::new()) }
    }

    fn grow(&mut self, key: Key, link: LinkId, now: Figures) {
        let last = self.last.insert(link, now).unwrap_or_default();
        let total = self.total.entry(key).or_default();
        for (total, (now, last)) in total.iter_mut().zip(now.iter().zip(&last)) {
            *total += now.saturating_sub(*last);
        }
    }
}

impl Traffic {
    /// A link goes.
    pub(crate) fn end(&self, link: &Link) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = sums.key(&link.peer, &link.name);
        sums.grow(key, link.id, figures(link));
        sums.last.remove(&link.id);
    }

    /// Puts all sums on the page, and how the links stand.
    pub(crate) fn put(&self, page: &mut Page, links: &[Arc<Link>]) {
        let mut stands: BTreeMap<Key, Vec<&Link>> = BTreeMap::new();
        let totals = {
            let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for link in links {
                let key = sums.key(&link.peer, &link.name);
                sums.grow(key.clone(), link.id, figures(link));
                stands.entry(key).or_default().push(link);
            }
            sums.total.clone()
        };
        for (key, figures) in &totals {
            put_sums(page, key, figures);
        }
        let sides = ["parent", "relay", "host"];
        for side in sides {
            let count: usize =
                stands.iter().filter(|(key, _)| key.0 == side).map(|s| s.1.len()).sum();
            let links = page.gauge(Unit::None, "barid_links", "Links that stand");
            links.put(&[("side", side)], count as f64);
        }
        for (key, links) in &stands {
            put_state(page, key, links);
        }
    }
}

fn labels<'a>(key: &'a Key, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let peer = (!key.1.is_empty()).then_some(("peer", key.1.as_str()));
    std::iter::once(("side", key.0)).chain(peer).chain(more.iter().copied()).collect()
}

fn put_sums(page: &mut Page, key: &Key, figures: &Figures) {
    let help = "What crossed the links, by class; what QUIC adds is not in it";
    let bytes = page.counter(Unit::Bytes, "barid_link_bytes", help);
    let classes = CLASSES.iter().map(|class| class.name).chain(["content"]);
    for (class, pair) in classes.zip(figures[..FLOWS].chunks(2)) {
        for (dir, value) in ["sent", "received"].iter().zip(pair) {
            bytes.put(&labels(key, &[("dir", dir), ("class", class)]), *value as f64);
        }
    }
    let help = "UDP payload that crossed the links, with all that QUIC adds";
    let wire = page.counter(Unit::Bytes, "barid_link_wire_bytes", help);
    for (dir, value) in ["sent", "received"].iter().zip(&figures[WIRE..LOST]) {
        wire.put(&labels(key, &[("dir", dir)]), *value as f64);
    }
    let help = "Packets that this node has sent and that were lost";
    let lost = page.counter(Unit::None, "barid_link_lost_packets", help);
    lost.put(&labels(key, &[]), figures[LOST] as f64);
}

/// Of several links that stand together the worst is told.
fn put_state(page: &mut Page, key: &Key, links: &[&Link]) {
    let stats: Vec<_> = links.iter().map(|link| link.conn.stats().path).collect();
    let rtt = stats.iter().map(|path| path.rtt).max().unwrap_or_default();
    let help = "Round-trip time; of several links together, the longest";
    let family = page.gauge(Unit::Seconds, "barid_link_rtt_seconds", help);
    family.put(&labels(key, &[]), rtt.as_secs_f64());
    let window = stats.iter().map(|path| path.cwnd).min().unwrap_or_default();
    let help = "Congestion window; of several links together, the smallest";
    let family = page.gauge(Unit::Bytes, "barid_link_cwnd_bytes", help);
    family.put(&labels(key, &[]), window as f64);
    let waiting = links.iter().map(|link| link.waiting()).max().unwrap_or_default();
    let help = "Frames that wait for a link; of several links together, the most";
    let family = page.gauge(Unit::None, "barid_link_queue_frames", help);
    family.put(&labels(key, &[]), waiting as f64);
}

fn figures(link: &Link) -> Figures {
    let (counters, stats) = (&link.counters, link.conn.stats());
    let load = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let mut figures = [0; FLOWS + 3];
    for (n, flow) in counters.frames.iter().enumerate() {
        figures[2 * n] = load(&flow.sent);
        figures[2 * n + 1] = load(&flow.received);
    }
    let content = 2 * counters.frames.len();
    figures[content] = load(&counters.content_sent);
    figures[content + 1] = load(&counters.content_received);
    figures[WIRE] = stats.udp_tx.bytes;
    figures[WIRE + 1] = stats.udp_rx.bytes;
    figures[LOST] = stats.path.lost_packets;
    figures
}

#[cfg(test)]
mod tests {
    use mesh::HostId;

    use super::*;

    #[test]
    fn sums_outlive_links_and_few_peers_are_named() {
        let mut sums = Sums::default();
        let relay = |n: u32| Peer::Child { host: HostId(n), serves: true };
        let at = |value| std::array::from_fn(|_| value);
        let key = sums.key(&relay(1), "r1");
        sums.grow(key.clone(), LinkId(1), at(5));
        sums.grow(key.clone(), LinkId(1), at(7));
        sums.last.remove(&LinkId(1));
        // Another connection begins with nothing.
        sums.grow(key.clone(), LinkId(2), at(2));
        assert_eq!(sums.total[&key], at(9));
        for n in 2..200 {
            let key = sums.key(&relay(n), &format!("r{n}"));
            sums.grow(key, LinkId(u64::from(n) + 10), at(1));
            let host = Peer::Child { host: HostId(n + 1_000), serves: false };
            let key = sums.key(&host, &format!("web{n}"));
            sums.grow(key, LinkId(u64::from(n) + 1_010), at(1));
        }
        assert_eq!(sums.total.len(), PEERS + 1, "the named ones, and other relays");
        assert_eq!(sums.total[&("host", String::new())], at(198));
        let all: u64 = sums.total.values().map(|figures| figures[0]).sum();
        assert_eq!(all, 9 + 2 * 198, "nothing is lost by standing together");
        assert_eq!(sums.key(&relay(1), "r1"), key, "who is named stays so");
    }
}
