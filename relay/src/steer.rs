//! Carrying out an order about this node's parents: change the list, and wait for the change-over;
//! or what content may come from them.
//!
//! The answer says behind whom the node is then. It is kept and told like every other, so it
//! arrives by the new parent as well as by the old one.

use std::time::Duration;

use bytes::Bytes;
use mesh::{HostId, Input, Peer, State};
use protos::{Answer, Cap, Steer};
use tokio::time::Instant;

use crate::cap::Caps;
use crate::drive::Arrival;
use crate::exec::failed;
use crate::link::Inbox;
use crate::links::Links;
use crate::parents::{Change, Parents};
use crate::probe::Prober;

/// How long a node may take to find the parent that it is to have. It goes on looking afterwards.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(100);

/// What steering needs.
#[derive(Clone)]
pub(crate) struct Helm {
    pub(crate) parents: Parents,
    pub(crate) caps: Caps,
    /// How many children it takes.
    pub(crate) children: usize,
    pub(crate) links: Links,
    pub(crate) inbox: Inbox,
    /// Who finds out who answers where.
    pub(crate) prober: Option<Prober>,
}

impl Helm {
    /// Does what the order says.
    pub(crate) async fn carry_out(&self, steer: Steer) -> (State, Answer) {
        let change = match steer {
            Steer::Cap(cap) => return self.cap(cap).await,
            Steer::Survey => return said(self.survey().await),
            Steer::Parents(first) => Change::Move(first),
            Steer::Avoid { relay, on } => Change::Avoid(relay, on),
        };
        let parents = self.parents.clone();
        let kept = tokio::task::spawn_blocking({
            let change = change.clone();
            move || parents.change(&change)
        });
        match kept.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return failed("parents", "list", crate::chain(&error)),
            Err(error) => return failed("parents", "list", error.to_string()),
        }
        let (count, here) = self.standing();
        let input = Input::Parents { count, here };
        self.inbox.send(Arrival::Input(input)).await.ok();
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.parent();
            if let Some((host, name, address)) = &now
                && self.is_meant(&change, *host, address)
            {
                return said(format!("behind {name}\n"));
            }
            if Instant::now() >= until {
                let behind =
                    now.map_or("no parent".into(), |(_, name, _)| format!("behind {name}"));
                let detail = format!(
                    "still {behind}: the one that it should have does not take it; it keeps trying"
                );
                return failed("parents", "link", detail);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Changes how much content may come, and tells the parents at once.
    async fn cap(&self, cap: Cap) -> (State, Answer) {
        let caps = self.caps.clone();
        match tokio::task::spawn_blocking(move || caps.change(cap)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return failed("cap", "file", crate::chain(&error)),
            Err(error) => return failed("cap", "file", error.to_string()),
        }
        let links = self.links.all();
        let up = links.iter().filter(|link| matches!(link.peer, Peer::Parent { .. }));
        up.for_each(|link| link.repeat_beat());
        said(format!("{}\n", self.caps.words()))
    }

    /// The parents in their order, with who has answered there, and the children that may be.
    async fn survey(&self) -> String {
        let mut text = String::new();
        for (address, known) in self.parents.known() {
            let host = match (known, &self.prober) {
                (None, Some(prober)) => prober.look(&address).await.map(|(host, _)| host),
                (known, _) => known,
            };
            if let Some(host) = host.filter(|_| known.is_none())
                && self.parents.learn(&address, host)
            {
                let (count, here) = self.standing();
                self.inbox.send(Arrival::Input(Input::Parents { count, here })).await.ok();
            }
            let host = host.map_or("-".into(), |host| host.to_string());
            text.push_str(&format!("parent {address} {host}\n"));
        }
        text.push_str(&format!("children {}\n", self.children));
        text
    }

    /// Whether this is a parent as the change wants it.
    fn is_meant(&self, change: &Change, host: HostId, address: &str) -> bool {
        match change {
            Change::Avoid(relay, true) => host != *relay,
            // To be allowed to go back is not to have to.
            Change::Avoid(_, false) => true,
            Change::Move(_) => self.parents.place(address) == Some(0),
        }
    }

    /// How many parents there are now, and which place the present one has.
    pub(crate) fn standing(&self) -> (usize, Option<usize>) {
        let here = self.parent().and_then(|(_, _, address)| self.parents.place(&address));
        (self.parents.list().len(), here)
    }

    /// Who the parent is, its name, and where it was dialled.
    fn parent(&self) -> Option<(HostId, String, String)> {
        let links = self.links.all();
        // While the node changes over there are two; the older one serves until then.
        let up = links.iter().find(|link| matches!(link.peer, Peer::Parent { .. }))?;
        Some((up.peer.host(), up.name.clone(), up.dialled.clone()))
    }
}

fn said(text: String) -> (State, Answer) {
    let stdout = Bytes::from(text);
    let stdout_size = stdout.len() as u64;
    (State::Ok, Answer { stdout, stdout_size, ..Answer::default() })
}
