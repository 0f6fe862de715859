//! Alerts of a node by itself: the one who notices that the controller is silent, or its parent
//! gone, is on this side of the break, and must have ways of his own to say so.
//!
//! A node does this only if its state folder has an `alerts.toml`. A relay with channels says in
//! its beats that it speaks for those below it, who then are quiet while it does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alerts::{Act, Desk, FileKeeper, Seen, Sender, Settings, Wanted, next_wanted};
use bytes::Bytes;
use certs::Identity;
use mesh::alerts::{Above, Missing};
use mesh::{HostId, Input, Kind};
use tokio::sync::{mpsc, watch};

use crate::bus::Hub;
use crate::drive::Arrival;
use crate::links::Links;
use crate::notice;
use crate::parents::Parents;
use crate::space::Space;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What reactions want that may wait.
const ACTS: usize = 16;
/// What alerts have become that may wait for the node.
const NOTICED: usize = 64;

/// What is above a node, as the drive loop last knew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outlook {
    pub(crate) missing: Option<Missing>,
    pub(crate) linked: bool,
}

impl Outlook {
    pub(crate) fn of(above: &Above) -> Outlook {
        Outlook { missing: above.missing(), linked: above.is_linked() }
    }
}

/// Whether this node has channels of its own. Settings that are not valid are told by the desk.
pub(crate) fn speaks(state: &Path) -> bool {
    Settings::load(&state.join("alerts.toml")).is_ok_and(|settings| settings.has_channels())
}

/// Starts the alerts of a node, if it has the settings for them.
pub(crate) fn start(
    state: &Path,
    identity: &Identity,
    outlook: watch::Receiver<Outlook>,
    (parents, links, space): (Parents, Links, Space),
    (inbox, hub): (mpsc::Sender<Arrival>, Hub),
) -> Option<Desk> {
    if !state.join("alerts.toml").exists() {
        return None;
    }
    let from = Sender { node: identity.name.clone(), mesh: identity.mesh.to_string() };
    let (events, mut noticed) = mpsc::channel::<(Kind, String)>(NOTICED);
    let who = (HostId(identity.id), identity.name.clone());
    tokio::spawn(async move {
        while let Some((kind, text)) = noticed.recv().await {
            let happening = notice::make((who.0, &who.1), kind, &text);
            inbox.send(Arrival::Input(Input::Happened(happening))).await.ok();
        }
    });
    let keeper = Arc::new(FileKeeper::open(state.join("alerts").join("state.json")));
    let (acts, wanted) = mpsc::channel(ACTS);
    tokio::spawn(react(hub, wanted));
    let (state, orders) = (state.into(), None);
    let setup = alerts::Setup { state, from, keeper, events, acts, orders };
    let desk = alerts::start(setup);
    let identity = identity.clone();
    let told = desk.clone();
    let watcher = Watcher { desk, identity, parents, links, space, parent: String::new() };
    tokio::spawn(watcher.run(outlook));
    Some(told)
}

/// Does what reactions of this node want.
async fn react(hub: Hub, mut wanted: mpsc::Receiver<Wanted>) {
    while let Some(Wanted { act, told, reply, .. }) = next_wanted(&mut wanted).await {
        let done = match act {
            Act::Publish { subject } => publish(&hub, &subject, told).await,
            Act::Run { .. } | Act::Distribute { .. } => {
                Err("only the controller gives orders".into())
            }
        };
        reply.send(done).ok();
    }
}

/// Publishes an alert on the bus, for a reaction.
pub async fn publish(hub: &Hub, subject: &str, told: Bytes) -> Result<String, String> {
    match hub.publish(subject, told).await {
        Ok(true) => Ok(format!("published on {subject}")),
        Ok(false) => Ok(format!("published on {subject}, and nobody wants it now")),
        Err(error) => Err(error.to_string()),
    }
}

struct Watcher {
    desk: Desk,
    identity: Identity,
    /// Where its parents are.
    parents: Parents,
    links: Links,
    space: Space,
    /// The name of the parent that it has, or had last.
    parent: String,
}

impl Watcher {
    /// Says what is wrong whenever that changes, and now and then. Runs until the node stops.
    async fn run(mut self, mut outlook: watch::Receiver<Outlook>) {
        loop {
            let now = *outlook.borrow_and_update();
            if now.linked {
                let parent = self.links.parent_link();
                self.parent = parent.map_or(std::mem::take(&mut self.parent), |l| l.name.clone());
            }
            let mut seen = Vec::new();
            seen.extend(now.missing.map(|missing| self.missing(now, missing)));
            seen.extend(self.space.lack(self.space.floor()).map(|lack| {
                let summary = format!("{}: {lack}", self.identity.name);
                self.seen("disk-low", self.identity.name.clone(), summary)
            }));
            self.desk.set("node", seen, |_| None).await;
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, outlook.changed()).await {
                // Nobody drives the node any more.
                return;
            }
        }
    }

    fn seen(&self, kind: &'static str, of: String, summary: String) -> Seen {
        let Identity { name, site, role, .. } = &self.identity;
        let labels = [("host", name.clone()), ("site", site.clone()), ("role", role.to_string())];
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
        let labels = labels.map(|(label, value)| (label.into(), value)).collect();
        Seen { kind, of, group: site.clone(), labels, summary, ..Seen::default() }
    }

    fn missing(&self, now: Outlook, missing: Missing) -> Seen {
        let Identity { name, site, .. } = &self.identity;
        let (parent, parents) = (&self.parent, self.parents.list().join(", "));
        match missing {
            Missing::Controller => {
                let how = match now.linked {
                    true => format!("nothing new from it comes through {parent}"),
                    false => "the link to it is lost".into(),
                };
                // One for each site, whoever of it says so.
                let of = if site.is_empty() { name.clone() } else { site.clone() };
                let summary = format!("the controller is silent, says {name}: {how}");
                self.seen("controller-silent", of, summary)
            }
            Missing::Parent(lost) => {
                let who = match lost {
                    Some(HostId(_)) if !parent.is_empty() => format!("{parent} is lost"),
                    _ => "none was reached yet".into(),
                };
                let summary = format!("{name} has no parent: {who}, tried: {parents}");
                self.seen("parent-lost", name.clone(), summary)
            }
        }
    }
}
