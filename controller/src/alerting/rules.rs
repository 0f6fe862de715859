//! What is wrong with the fleet, as the controller sees it: who is lost and who is only unknown
//! behind, whose disk is short of room, whose certificate is about to end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alerts::{Clock, Desk, Seen};
use mesh::alerts::{Condition, Fallen, Lost, What, World};
use mesh::{HostId, HostSet};
use relay::Running;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::clock::now_ms;
use crate::live::Live;
use crate::orders::blocking;
use crate::sets;
use crate::tables::{HostRow, Tables};

/// How often to look at least, and the pause after each look.
const LOOK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// How often certificates are looked at.
const SELDOM: u32 = 60;
/// How long a node that was behind something may take to come back, unless the settings say
/// otherwise: the longest pause between its redials, and a little.
const RETURNING: Duration = Duration::from_secs(330);
/// So long a list of hosts may be in a summary.
const LISTED: usize = 120;
/// A certificate should never have less left than this part of its life, or than so many days.
const LEFT: (u64, u64) = (6, 30 * 24 * 3600 * 1000);

/// The rules.
pub(crate) struct Rules {
    pub(crate) desk: Desk,
    pub(crate) live: Live,
    pub(crate) node: Arc<Running>,
    pub(crate) tables: Tables,
}

impl Rules {
    /// Looks whenever the tree has changed, and now and then. Runs until it is dropped.
    pub(crate) async fn run(self) {
        let clock = Clock::new();
        let mut fallen = Fallen::new(Duration::ZERO, RETURNING, clock.now());
        let mut looks = 0u32;
        loop {
            fallen.returning = self.desk.settings().returning().unwrap_or(RETURNING);
            let (picture, lost) = self.look(&mut fallen, clock.now());
            let unknown = Arc::new(picture.unknown(&lost));
            let tree = lost.iter().map(|lost| picture.lost(lost)).collect();
            let known = unknown.clone();
            self.desk.set("tree", tree, move |alert| explained(&known, alert)).await;
            let disks = picture.disks(self.node.no_room());
            self.desk.set("disk", disks, move |alert| explained(&unknown, alert)).await;
            if looks.is_multiple_of(SELDOM) {
                let tables = self.tables.clone();
                match blocking(move || Ok(tables.certificates()?)).await {
                    Ok(ends) => {
                        let seen = picture.certificates(&ends, now_ms());
                        self.desk.set("certificates", seen, |_| None).await;
                    }
                    Err(failure) => warn!(error = %failure.error.message, "no certificates read"),
                }
            }
            looks = looks.wrapping_add(1);
            sleep(PAUSE).await;
            timeout(LOOK, self.live.changed.notified()).await.ok();
        }
    }

    fn look(&self, fallen: &mut Fallen, now: mesh::Time) -> (Picture, Vec<Lost>) {
        // Nobody else waits while the rule thinks.
        let (hosts, up, degraded, branches, below) = {
            let state = self.live.state();
            let (up, degraded) = (state.up.clone(), state.degraded.clone());
            (state.hosts.clone(), up, degraded, state.branches.clone(), state.below.clone())
        };
        let known: HostSet = hosts.keys().copied().collect();
        let (up, branches, below) = (&up, &branches, &below);
        let lost = fallen.look(now, World { known: &known, up, branches, below });
        let picture = Picture {
            hosts,
            degraded,
            parents: lost
                .iter()
                .filter_map(|lost| match lost.what {
                    What::Node(id) => Some((id, fallen.parent(id)?)),
                    What::Below(_) => None,
                })
                .collect(),
            known: known.len(),
        };
        (picture, lost)
    }
}

/// Of nodes of which nothing is known, by name: the key of the cause.
type Unknown = BTreeMap<String, String>;

fn explained(unknown: &Unknown, alert: &Condition) -> Option<String> {
    let host = alert.labels.get("host")?;
    unknown.get(host).filter(|cause| **cause != alert.key).cloned()
}

/// The fleet at one moment.
struct Picture {
    hosts: Arc<BTreeMap<HostId, HostRow>>,
    degraded: HostSet,
    /// The parents of those that are lost.
    parents: BTreeMap<HostId, HostId>,
    known: u64,
}

impl Picture {
    fn name(&self, id: HostId) -> String {
        match self.hosts.get(&id) {
            _ if id == HostId::ROOT => "controller".into(),
            Some(row) => row.name.clone(),
            None => format!("#{id}"),
        }
    }

    fn is_relay(&self, id: HostId) -> bool {
        self.hosts.get(&id).is_some_and(|row| row.role == "relay")
    }

    fn key(&self, what: What) -> String {
        match what {
            What::Node(id) => Seen::key(self.kind(id), &self.name(id)),
            What::Below(id) => Seen::key("below-lost", &self.name(id)),
        }
    }

    fn kind(&self, id: HostId) -> &'static str {
        if self.is_relay(id) { "relay-lost" } else { "host-lost" }
    }

    fn unknown(&self, lost: &[Lost]) -> Unknown {
        let mut unknown = Unknown::new();
        for lost in lost {
            if let What::Node(id) = lost.what {
                let key = self.key(lost.what);
                unknown.insert(self.name(id), key.clone());
                unknown.extend(lost.behind.iter().map(|id| (self.name(id), key.clone())));
            }
        }
        unknown
    }

    fn seen(&self, kind: &'static str, id: HostId, summary: String) -> Seen {
        let row = self.hosts.get(&id);
        let site = row.map_or_else(String::new, |row| row.site.clone());
        let mut labels = BTreeMap::from([("host".into(), self.name(id))]);
        if !site.is_empty() {
            labels.insert("site".into(), site.clone());
        }
        Seen { kind, of: self.name(id), group: site, labels, summary, ..Seen::default() }
    }

    fn lost(&self, lost: &Lost) -> Seen {
        let behind = lost.behind.len();
        let names: Vec<String> = lost.behind.iter().map(|id| self.name(id)).collect();
        let folded = match sets::fold(&names) {
            folded if folded.len() <= LISTED && behind > 0 => format!(": {folded}"),
            _ => String::new(),
        };
        let hosts = if behind == 1 { "1 node" } else { &format!("{behind} nodes") };
        let (kind, id, summary) = match lost.what {
            What::Below(HostId::ROOT) => {
                let summary = format!("the controller reaches none of its {} nodes", self.known);
                ("below-lost", HostId::ROOT, summary)
            }
            What::Below(id) => {
                let name = self.name(id);
                ("below-lost", id, format!("{name} reaches nobody below it, {hosts}{folded}"))
            }
            What::Node(id) if behind == 0 => {
                let (role, name) =
                    (if self.is_relay(id) { "relay" } else { "host" }, self.name(id));
                let parent = self.parents.get(&id).map_or("controller".into(), |p| self.name(*p));
                (self.kind(id), id, format!("{role} {name} lost, below {parent}"))
            }
            What::Node(id) => {
                let name = self.name(id);
                let summary = format!("relay {name} lost, {hosts} unknown behind it{folded}");
                (self.kind(id), id, summary)
            }
        };
        let cause = lost.cause.map(|cause| self.key(cause));
        Seen { hold: lost.hold, cause, ..self.seen(kind, id, summary) }
    }

    /// `own`: what is to be said of the controller's.
    fn disks(&self, own: Option<String>) -> Vec<Seen> {
        let nodes = self.degraded.iter().filter(|id| self.hosts.contains_key(id)).map(|id| {
            let summary = format!("the state disk of {} is short of room", self.name(id));
            self.seen("disk-low", id, summary)
        });
        let own = own.map(|lack| {
            self.seen("disk-low", HostId::ROOT, format!("the controller takes no orders: {lack}"))
        });
        nodes.chain(own).collect()
    }

    fn certificates(&self, ends: &BTreeMap<HostId, (u64, u64)>, now: u64) -> Vec<Seen> {
        let ending = ends.iter().filter(|(id, (end, life))| {
            let left = (life / LEFT.0).min(LEFT.1);
            self.hosts.contains_key(id) && now.saturating_add(left) >= *end
        });
        let seen = |(id, (end, _)): (&HostId, &(u64, u64))| {
            let name = self.name(*id);
            let summary = match end.saturating_sub(now) / (3600 * 1000) {
                _ if *end <= now => format!("the certificate of {name} has ended"),
                hours if hours < 48 => {
                    format!("the certificate of {name} ends in {hours} h and is not renewed")
                }
                hours => {
                    let days = hours / 24;
                    format!("the certificate of {name} ends in {days} days and is not renewed")
                }
            };
            self.seen("certificate-ending", *id, summary)
        };
        ending.map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let row = |name: &str, role: &str| HostRow {
            name: name.into(),
            site: "lyon".into(),
            role: role.into(),
            key: [0; 32],
            enrolled_ms: 0,
        };
        let mut hosts = BTreeMap::from([(HostId(1), row("r1", "relay"))]);
        hosts.extend((2..=5).map(|n| (HostId(n), row(&format!("web{n}"), "host"))));
        let parents = BTreeMap::from([(HostId(2), HostId(1))]);
        let degraded = HostSet::from_ranges([(2, 2), (99, 99)]);
        Picture { hosts: Arc::new(hosts), degraded, parents, known: 5 }
    }

    fn lost(what: What, behind: &[(u32, u32)]) -> Lost {
        let behind = HostSet::from_ranges(behind.iter().copied());
        Lost { what, behind, hold: Duration::ZERO, cause: None }
    }

    #[test]
    fn causes_in_words() {
        let check = |what, behind: &[(u32, u32)], key: &str, text: &str| {
            let seen = picture().lost(&lost(what, behind));
            assert_eq!(
                (Seen::key(seen.kind, &seen.of).as_str(), seen.summary.as_str()),
                (key, text)
            );
        };
        let node = |id| What::Node(HostId(id));
        let text = "relay r1 lost, 4 nodes unknown behind it: web[2-5]";
        check(node(1), &[(2, 5)], "relay-lost/r1", text);
        check(node(2), &[], "host-lost/web2", "host web2 lost, below r1");
        let below = What::Below(HostId(1));
        check(below, &[(2, 5)], "below-lost/r1", "r1 reaches nobody below it, 4 nodes: web[2-5]");
        let text = "the controller reaches none of its 5 nodes";
        check(What::Below(HostId::ROOT), &[(1, 5)], "below-lost/controller", text);
    }

    #[test]
    fn of_whom_nothing_is_known_nothing_is_said() {
        let picture = picture();
        let unknown = picture.unknown(&[lost(What::Node(HostId(1)), &[(2, 3)])]);
        let of = |kind, id| {
            let seen = picture.seen(kind, HostId(id), String::new());
            let labels = seen.labels;
            let key = Seen::key(kind, &seen.of);
            let condition = Condition {
                key,
                kind: kind.into(),
                group: String::new(),
                severity: mesh::alerts::Severity::Info,
                labels,
                summary: String::new(),
                hold: Duration::ZERO,
                cause: None,
            };
            explained(&unknown, &condition)
        };
        assert_eq!(of("host-lost", 2).as_deref(), Some("relay-lost/r1"));
        assert_eq!(of("disk-low", 1).as_deref(), Some("relay-lost/r1"));
        assert_eq!(of("relay-lost", 1), None);
        assert_eq!(of("host-lost", 4), None);
    }

    #[test]
    fn disks_and_certificates() {
        let picture = picture();
        let disks = picture.disks(Some("no room".into()));
        let keys: Vec<_> = disks.iter().map(|seen| Seen::key(seen.kind, &seen.of)).collect();
        assert_eq!(keys, ["disk-low/web2", "disk-low/controller"]);
        let day = 24 * 3600 * 1000;
        let ends = [(2, (100 * day, 365 * day)), (3, (130 * day, 365 * day)), (4, (90 * day, day))];
        let ends = ends.into_iter().chain([(77, (0, day))]).map(|(id, end)| (HostId(id), end));
        let seen = picture.certificates(&ends.collect(), 95 * day);
        let texts: Vec<_> = seen.iter().map(|seen| seen.summary.as_str()).collect();
        let ending = "the certificate of web2 ends in 5 days and is not renewed";
        assert_eq!(texts, [ending, "the certificate of web4 has ended"]);
    }
}
