//! The operators of a relay, while its site is cut off or not: what they may order, on its socket.
//!
//! The API is the controller's, of which a relay has the part that concerns runs and the nodes
//! below it, with the same words. What may be ordered stands in the relay's mandate, which the
//! controller has signed; each order carries it, and hosts judge by it. Orders and answers are in
//! tables like the controller's, in the commits of the relay's node, and are handed to it whenever
//! there is a way (`hand`); there they appear as what they are.
//!
//! Without a mandate nothing can be ordered here.

mod give;
mod hand;
mod routes;
mod scribe;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use certs::Credentials;
use mesh::{HostId, HostSet};
use relay::{Journal, JournalError, Mandate, Running, Witness};
use tokio::sync::{Notify, broadcast};

use self::scribe::Scribe;
use crate::fault::Failure;
use crate::groups::Groups;
use crate::live::Live;
use crate::orders::blocking;
use crate::tables::{HostRow, Tables};
use crate::targets::{Namespace, Scene};
use crate::traffic::Meter;
use crate::types::Targets;
use crate::viewers::Viewers;

/// The tables of a relay's operators, before its node runs.
pub struct Site {
    tables: Tables,
    live: Live,
    news: Arc<Notify>,
}

/// What the routes work with.
#[derive(Clone)]
struct Desk {
    tables: Tables,
    live: Live,
    /// Told when there is something to hand over.
    news: Arc<Notify>,
    node: Arc<Running>,
    credentials: Arc<Credentials>,
    groups: Groups,
    meter: Meter,
    viewers: Viewers,
}

impl Site {
    /// Opens the tables, and makes them at the first start.
    ///
    /// # Errors
    /// The database fails, or has no room for them.
    pub fn open(journal: Journal) -> Result<Site, JournalError> {
        Ok(Site { tables: Tables::open(journal)?, live: Live::new(), news: Arc::default() })
    }

    /// Who writes answers in the node's commits.
    pub fn witness(&self) -> Box<dyn Witness> {
        Box::new(Scribe { live: self.live.clone(), news: self.news.clone() })
    }

    /// Serves the socket, and hands over what is to be told, until the runtime ends.
    pub fn start(self, node: Arc<Running>, credentials: Credentials, state: &Path) {
        let Site { tables, live, news } = self;
        let desk = Desk {
            meter: Meter::new(node.clone(), Default::default()),
            // Nobody shows live output here: a relay passes it on to its parent.
            viewers: Viewers::new(|| broadcast::channel(1).0.subscribe()).0,
            groups: Groups::new(state),
            credentials: Arc::new(credentials),
            tables,
            live,
            news,
            node,
        };
        tokio::spawn(hand::run(desk.clone()));
        tokio::spawn(local::serve(state.join("barid.sock"), routes::router(desk)));
    }
}

impl Desk {
    /// What may be ordered here, if anything may.
    fn mandate(&self) -> Result<Arc<Mandate>, Failure> {
        let name = &self.credentials.identity().name;
        let help = format!("at the controller: barid tree delegate {name} --for 7d");
        let Some(mandate) = self.node.mandate() else {
            let message = format!("nothing is delegated to {name}: its operators may only look");
            return Err(Failure::denied(message, help));
        };
        match mandate.is_over(SystemTime::now()) {
            false => Ok(mandate),
            true => {
                let message = format!("what was delegated to {name} has ended");
                Err(Failure::denied(message, help))
            }
        }
    }

    /// Takes a look at the tree below. Names are those that came with the mandate.
    async fn look(&self) -> Result<(), Failure> {
        let tree = self.node.subtree().await;
        let tree = tree.ok_or_else(|| Failure::internal("the node is stopping"))?;
        let me = self.me();
        let own = tree.branches.get(&me).cloned().unwrap_or_default();
        let mut state = self.live.state();
        state.below = own.iter().map(|child| (child, below(&tree.branches, child))).collect();
        state.hosts = Arc::new(self.known());
        state.up = tree.up;
        state.degraded = tree.degraded;
        state.silent = tree.silent;
        state.branches = tree.branches;
        state.branches.remove(&me);
        Ok(())
    }

    /// Everybody of whom this relay was told the name.
    fn known(&self) -> BTreeMap<HostId, HostRow> {
        let mandate = self.node.mandate();
        let nodes = mandate.iter().flat_map(|mandate| &mandate.nodes);
        let row = |node: &protos::KnownNode| HostRow {
            name: node.name.clone(),
            site: node.site.clone(),
            role: if node.relay { "relay".into() } else { "host".into() },
            key: [0; 32],
            enrolled_ms: 0,
        };
        nodes.map(|node| (node.id, row(node))).collect()
    }

    /// The nodes that some targets mean.
    async fn meant(&self, targets: Targets) -> Result<HostSet, Failure> {
        self.look().await?;
        let scene = {
            let state = self.live.state();
            Scene {
                hosts: state.hosts.clone(),
                up: state.up.clone(),
                silent: state.silent.clone(),
                below: state.below.clone(),
                ..Scene::default()
            }
        };
        let (groups, tables) = (self.groups.clone(), self.tables.clone());
        blocking(move || {
            let book = groups.open()?;
            Namespace::new(&scene, &book, &tables).resolve(&targets)
        })
        .await
    }

    fn me(&self) -> HostId {
        HostId(self.credentials.identity().id)
    }
}

/// A child and everybody below it.
fn below(branches: &BTreeMap<HostId, HostSet>, child: HostId) -> HostSet {
    let (mut all, mut next) = (HostSet::one(child), vec![child]);
    while let Some(node) = next.pop() {
        let more = branches.get(&node).map(|own| own.difference(&all)).unwrap_or_default();
        next.extend(more.iter());
        all = all.union(&more);
    }
    all
}
