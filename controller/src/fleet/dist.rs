//! Distributing: what is due and lacking goes out, one order for each group of hosts that get the
//! same files.
//!
//! What may go on at the same time is the matter of [`super::running`]. Distributions that go on
//! beside each other may bring the same file, and of two orders the later counts at a host. So an
//! order gets its number only while its content is what the book says, one order after the other:
//! what was planned before an edit is never later than what was planned after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh::{Class, HostSet, Kind, OrderId, Severity};
use tokio::sync::{Mutex, RwLock};
use tracing::{info, warn};

use super::domain::DomainPath;
use super::planner::{ORDERS, Planner, everybody};
use super::running::{Running, Turn};
use super::store::{PlanRow, Store};
use super::types::{Distribution, NewDist};
use crate::fault::Failure;
use crate::live::{Live, Update};
use crate::orders::{Desk, Draft, blocking};
use crate::outcomes::under;
use crate::tables::Note;

/// The word for every frequency.
pub(crate) const ALL: &str = "all";
/// Content that is not in the store as it should be, as an event.
const BROKEN: Kind =
    Kind { subject: "dist.source", severity: Severity::Error, class: Class::Controller };
/// How often one distribution is planned again because what it would bring was changed meanwhile.
/// Who is left over gets its files the next time.
const AGAIN: usize = 8;
/// How often to look whether a distribution has ended, should its end be missed.
const LOOK: Duration = Duration::from_secs(10);

/// Makes distributions.
#[derive(Clone)]
pub(crate) struct Distributor {
    pub(crate) planner: Planner,
    pub(crate) desk: Desk,
    pub(crate) live: Live,
    /// Held for reading while one is made, so that nothing of it is cleaned away.
    pub(crate) pushes: Arc<RwLock<()>>,
    pub(crate) running: Running,
    /// Held from the look whether an order is still right until it has its number.
    pub(crate) giving: Arc<Mutex<()>>,
}

/// What became of those who had their turn.
pub(crate) struct Taken {
    /// Who has not been given what he lacks, and still is to get it.
    pub(crate) left: HostSet,
    pub(crate) told: Result<Distribution, Failure>,
}

/// The orders that were given.
#[derive(Default)]
struct Given {
    orders: Vec<OrderId>,
    /// Of those who have their turn: who waits for an order.
    left: HostSet,
}

impl Distributor {
    /// The same; the orders that it gives name this one, if it is known.
    pub(crate) fn on_behalf_of(&self, by: &str) -> Distributor {
        Distributor { desk: self.desk.on_behalf_of(by), ..self.clone() }
    }

    /// Distributes now, or once the one that goes on has ended.
    pub(crate) async fn distribute(&self, new: NewDist) -> Result<Distribution, Failure> {
        let new = NewDist { by: self.desk.by.to_string(), ..new };
        self.planner.check(&new)?;
        if new.verify {
            // It changes nothing at hosts, so it goes on beside everything else.
            return self.begin(&new, &mut Given::default()).await;
        }
        if new.hosts.is_empty() {
            self.check_rolled(&new.frequency)?;
        }
        match self.running.begin(&new) {
            Turn::Now => {}
            turn => {
                let what = match turn {
                    Turn::Later => "goes on: this one begins when it has ended",
                    _ => "goes on, and one waits already: this one is dropped",
                };
                let notes = vec![format!("a distribution of {} {what}", new.frequency)];
                let queued = turn == Turn::Later;
                return Ok(Distribution { queued, notes, ..Distribution::default() });
            }
        }
        self.make(new).await.told
    }

    /// Brings those who have their turn what they lack, if they may begin now. A host that cannot
    /// begin by then does not; 0: whenever it can.
    pub(crate) async fn take_turns(
        &self,
        frequency: &str,
        hosts: HostSet,
        begin_by_ms: u64,
    ) -> Taken {
        let new = NewDist { only: Some(hosts.clone()), begin_by_ms, ..NewDist::of(frequency) };
        if let Err(failure) = self.check_rolled(frequency) {
            return Taken { left: hosts, told: Err(failure) };
        }
        match self.running.begin(&new) {
            Turn::Now => self.make(new).await,
            _ => Taken { left: hosts, told: Ok(Distribution::default()) },
        }
    }

    /// Brings a host these files, whatever it is known to have. Of two orders to one file the
    /// later counts at the host, so this goes on beside everything else.
    pub(crate) async fn bring(
        &self,
        host: &str,
        files: Vec<DomainPath>,
    ) -> Result<(Distribution, Vec<OrderId>), Failure> {
        let hosts = vec![host.to_owned()];
        let new = NewDist { hosts, wanted: Some(files), ..NewDist::of(ALL) };
        let mut given = Given::default();
        let told = self.begin(&new, &mut given).await?;
        Ok((told, given.orders))
    }

    /// Makes one that may begin. Whoever asked may leave meanwhile; its end is seen to all the
    /// same.
    async fn make(&self, new: NewDist) -> Taken {
        let (maker, all) = (self.clone(), new.only.clone().unwrap_or_default());
        let mut given = Given { orders: Vec::new(), left: all.clone() };
        let made = tokio::spawn(async move {
            let told = maker.begin(&new, &mut given).await;
            tokio::spawn(maker.see_to_its_end(new, given.orders));
            Taken { left: given.left, told }
        });
        made.await.unwrap_or_else(|error| {
            let told = Err(Failure::internal(format!("a worker failed: {error}")));
            Taken { left: all, told }
        })
    }

    /// Plans, packs and gives the orders, and notes each one that is given.
    async fn begin(&self, new: &NewDist, given: &mut Given) -> Result<Distribution, Failure> {
        let _held = self.pushes.read().await;
        // It may have waited for one of somebody else.
        let desk = self.desk.on_behalf_of(&new.by);
        let due_of = |new: NewDist| {
            let planner = self.planner.clone();
            blocking(move || Ok(Arc::new(planner.due(&new, None)?)))
        };
        let mut due = due_of(new.clone()).await?;
        let mut told = Distribution { notes: due.notes.clone(), ..Distribution::default() };
        if new.only.is_some() {
            // Whoever lacks nothing has had his turn.
            given.left = everybody(&due.groups);
        }
        let (mut sent, mut broken) = (BTreeSet::new(), BTreeMap::new());
        let (mut at, mut again) = (0, 0);
        while at < due.groups.len() {
            if again > AGAIN || given.orders.len() >= ORDERS {
                let left: u64 = due.groups[at..].iter().map(|group| group.hosts.len()).sum();
                told.notes.push(match new.verify {
                    true => format!("{left} hosts were not looked at; name them"),
                    false => format!("{left} hosts wait for the next distribution"),
                });
                told.left = left;
                break;
            }
            let (planner, now, name) = (self.planner.clone(), due.clone(), new.frequency.clone());
            let made = blocking(move || planner.drafts(&now, at, &name)).await?;
            broken.extend(made.broken);
            if !self.give_all(&desk, made.drafts, given, &mut sent).await? {
                again += 1;
                info!(frequency = new.frequency, again, "changed since it was planned");
                let rest = everybody(&due.groups[at..]);
                due = due_of(NewDist { only: Some(rest), ..new.clone() }).await?;
                if new.only.is_some() {
                    given.left = everybody(&due.groups);
                }
                at = 0;
                continue;
            }
            given.left = given.left.difference(&due.groups[at].hosts);
            told.hosts += due.groups[at].hosts.len();
            at += 1;
        }
        told.files = sent.len() as u64;
        told.orders = given.orders.iter().map(OrderId::to_string).collect();
        for (path, why) in broken {
            let line = under(&path.to_string(), &format!("not delivered: {why}"));
            warn!(%path, why, "the content of a file cannot be read");
            self.desk.node.notice(BROKEN, &line).await;
            told.notes.push(line);
        }
        let Distribution { hosts, files, .. } = told;
        let orders = given.orders.len();
        info!(frequency = new.frequency, hosts, files, orders, "distributing");
        Ok(told)
    }

    /// Gives the orders of a group. `false`: one of them is to be planned again.
    async fn give_all(
        &self,
        desk: &Desk,
        drafts: Vec<(Draft, PlanRow)>,
        given: &mut Given,
        sent: &mut BTreeSet<DomainPath>,
    ) -> Result<bool, Failure> {
        for (draft, plan) in drafts {
            let files: Vec<_> = plan.files.iter().map(|(path, _)| path.clone()).collect();
            let Some(id) = self.give(desk, draft, plan, None).await? else { return Ok(false) };
            sent.extend(files);
            given.orders.push(id);
        }
        Ok(true)
    }

    /// Gives an order, with its plan in the same commit, unless what it brings was changed since it
    /// was planned: then nothing is done, and it is to be planned again.
    pub(crate) async fn give(
        &self,
        desk: &Desk,
        draft: Draft,
        plan: PlanRow,
        also: Option<Note>,
    ) -> Result<Option<OrderId>, Failure> {
        let _giving = self.giving.lock().await;
        if !self.planner.is_current(&plan, &draft.targets) {
            return Ok(None);
        }
        let note: Note = Box::new(move |txn, id| {
            Store::note_plan(txn, id, &plan)?;
            also.map_or(Ok(()), |also| also(txn, id))
        });
        Ok(Some(desk.give_noting(draft, Some(note)).await?.0))
    }

    /// What goes out in waves must not go to everybody meanwhile.
    pub(crate) fn check_rolled(&self, frequency: &str) -> Result<(), Failure> {
        let Some(rollout) = self.running.rolled(frequency) else { return Ok(()) };
        let message = format!("rollout {rollout} of {frequency} is unfinished");
        let help = format!("`barid rollout show {rollout}`; whoever is named gets it all the same");
        Err(Failure::conflict(message, help))
    }

    /// Waits until each host has an outcome; then the one that has waited for that goes on.
    async fn see_to_its_end(self, mut new: NewDist, mut orders: Vec<OrderId>) {
        loop {
            self.wait_for(orders.into_iter().collect()).await;
            let Some(next) = self.running.end(&new) else { return };
            let mut given = Given::default();
            if let Err(failure) = self.begin(&next, &mut given).await {
                let (frequency, error) = (&next.frequency, failure.error.message);
                warn!(frequency, %error, "not distributed in full");
            }
            (new, orders) = (next, given.orders);
        }
    }

    /// Waits until these orders are closed.
    pub(super) async fn wait_for(&self, mut open: BTreeSet<OrderId>) {
        let mut updates = self.live.watch();
        while !open.is_empty() {
            let (tables, asked) = (self.desk.tables.clone(), open.clone());
            let still_open = blocking(move || {
                let mut still_open = BTreeSet::new();
                for id in asked {
                    if tables.order(id)?.is_some_and(|row| row.closed_ms == 0) {
                        still_open.insert(id);
                    }
                }
                Ok(still_open)
            });
            if let Ok(still_open) = still_open.await {
                open = still_open;
            }
            let until = tokio::time::sleep(LOOK);
            tokio::pin!(until);
            while !open.is_empty() {
                tokio::select! {
                    () = &mut until => break,
                    update = updates.recv() => match update {
                        Ok(Update::Closed(id)) => drop(open.remove(&id)),
                        Ok(Update::Answers(_)) => {}
                        // Some were missed, or the controller stops: the tables are asked again.
                        Err(_) => {
                            (&mut until).await;
                            break;
                        }
                    },
                }
            }
        }
    }
}
