//! Taking rollouts on: one task for each that is not over, which looks whenever something about it
//! has changed.
//!
//! Nothing is done from memory: each look reads the row, and what it leads to is written only if
//! the row is still where it was. So operators, this task and the next controller never undo each
//! other, and whoever dies leaves a row from which it goes on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh::{HostSet, OrderId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{RwLock, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::check::{About, check};
use super::course::{Next, Stage};
use super::gate::Verdict;
use super::routes::short;
use super::row::{Back, Goods, RolloutRow, WaveOrder};
use super::standing::{Standing, at_sites, going_on};
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::fleet::dist::Distributor;
use crate::fleet::planner::Part;
use crate::fleet::store::PlanRow;
use crate::fleet::types::NewDist;
use crate::live::{Live, Update};
use crate::orders::{Desk, Draft, blocking};
use crate::push::{Packer, Step, asked};
use crate::tables::{Note, Tables, rollouts};
use crate::terms::terms;
use crate::types::NewPush;

/// How many rollouts may be unfinished at once.
pub(super) const MOST: usize = 100;
/// How often to look at least.
const LOOK: Duration = Duration::from_secs(30);
/// The pause after something that may pass has gone wrong.
const AGAIN: Duration = Duration::from_secs(10);
/// How long answers are let come in before they are counted.
const GATHER: Duration = Duration::from_millis(100);
/// How long to wait for hosts that are to take something back.
const REACH: Duration = Duration::from_secs(15);
/// How much of what a check complains about is kept.
const SAID: usize = 400;

/// Takes rollouts on.
#[derive(Clone)]
pub(crate) struct Rollouts {
    pub(crate) tables: Tables,
    pub(crate) live: Live,
    pub(crate) desk: Desk,
    pub(crate) packer: Packer,
    pub(crate) distributor: Distributor,
    /// Held for reading while a push is made, so that nothing of it is cleaned away.
    pub(crate) pushes: Arc<RwLock<()>>,
    /// The operators' socket, for the commands of gates.
    pub(crate) socket: PathBuf,
    /// Held while a row changes.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Moves when a row has changed.
    pub(super) changed: watch::Sender<u64>,
    /// Those that are new.
    begun: mpsc::Sender<OrderId>,
}

/// What a look has led to.
enum Look {
    /// Look again when one of these orders has moved, and after this time.
    Again(Duration, BTreeSet<OrderId>),
    /// It is over, and nothing is left to be done.
    Over,
}

impl Rollouts {
    /// The second half is for [`Rollouts::run`].
    pub(crate) fn new(
        distributor: Distributor,
        socket: PathBuf,
    ) -> (Rollouts, mpsc::Receiver<OrderId>) {
        let (begun, news) = mpsc::channel(MOST);
        let (turn, changed) = (Arc::default(), watch::channel(0).0);
        let rollouts = Rollouts {
            tables: distributor.desk.tables.clone(),
            live: distributor.live.clone(),
            desk: distributor.desk.clone(),
            packer: distributor.planner.packer.clone(),
            pushes: distributor.pushes.clone(),
            distributor,
            socket,
            turn,
            changed,
            begun,
        };
        (rollouts, news)
    }

    /// The same; what it begins names this one.
    pub(crate) fn on_behalf_of(&self, by: &str) -> Rollouts {
        let (desk, distributor) = (self.desk.on_behalf_of(by), self.distributor.on_behalf_of(by));
        Rollouts { desk, distributor, ..self.clone() }
    }

    /// Takes on what is not over, and what is new. Runs until it is dropped.
    pub(crate) async fn run(self, mut news: mpsc::Receiver<OrderId>) {
        let tables = self.tables.clone();
        let known = blocking(move || Ok(tables.rollouts()?)).await.unwrap_or_else(|failure| {
            error!(error = %failure.error.message, "rollouts do not go on");
            Vec::new()
        });
        let mut tasks = JoinSet::new();
        let is_open = |row: &RolloutRow| !row.is_over() || row.take_back.is_some();
        for (id, _) in known.into_iter().filter(|(_, row)| is_open(row)) {
            tasks.spawn(self.clone().take_on(id));
        }
        loop {
            tokio::select! {
                Some(id) = news.recv() => drop(tasks.spawn(self.clone().take_on(id))),
                Some(_) = tasks.join_next() => {}
                else => return,
            }
        }
    }

    /// What is rolled out of a frequency does not go to everybody meanwhile.
    pub(crate) fn hold(&self, id: OrderId, row: &RolloutRow) {
        if let Goods::Dist { new, .. } = &row.goods {
            let running = &self.distributor.running;
            running.note_rollout(&new.frequency, &short(id), row.is_over());
        }
    }

    /// Somebody is to take this rollout on.
    pub(super) async fn tell(&self, id: OrderId) {
        self.changed.send_modify(|no| *no += 1);
        self.begun.send(id).await.ok();
    }

    async fn take_on(self, id: OrderId) {
        loop {
            // Watching begins before the look, so that nothing falls between.
            let (mut changed, mut updates) = (self.changed.subscribe(), self.live.watch());
            let (pause, orders) = match self.look(id).await {
                Ok(Look::Over) => return,
                Ok(Look::Again(pause, orders)) => (pause, orders),
                Err(failure) => {
                    warn!(rollout = %id, error = %failure.error.message, "does not go on now");
                    (AGAIN, BTreeSet::new())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause.min(LOOK)) => {}
                _ = changed.changed() => {}
                () = moved(&mut updates, &orders) => tokio::time::sleep(GATHER).await,
            }
        }
    }

    /// Looks at a rollout, and does what is next.
    async fn look(&self, id: OrderId) -> Result<Look, Failure> {
        let hosts = self.live.state().hosts.clone();
        let (tables, inventory) = (self.tables.clone(), hosts.clone());
        let read = blocking(move || {
            let Some(row) = tables.rollout(id)? else { return Ok(None) };
            let (waves, standing) = (tables.waves(id)?, Standing::read(&tables, &row)?);
            let all = waves.iter().fold(HostSet::new(), |all, wave| all.union(wave));
            // Whoever is to get it once more has not failed yet.
            let broken = match row.again {
                true => Vec::new(),
                false => standing.broken_sites(&row, &all, &inventory),
            };
            Ok(Some((row, waves, standing, broken)))
        });
        let Some((row, waves, standing, broken)) = read.await? else { return Ok(Look::Over) };
        let at_once = Look::Again(Duration::ZERO, BTreeSet::new());
        if let Some(back) = &row.take_back {
            self.take_back(id, &row, back).await?;
            return Ok(at_once);
        }
        if row.is_over() {
            return Ok(Look::Over);
        }
        if row.recall {
            self.recall(id, &row).await?;
            return Ok(at_once);
        }
        if broken.iter().any(|site| !row.left_out.contains(site)) {
            self.leave_out(id, broken).await?;
            return Ok(at_once);
        }
        if row.course.is_judged() && !row.course.is_paused() && !standing.owed.is_empty() {
            self.change(id, |row| row.course.give_again()).await?;
            return Ok(at_once);
        }
        let (wave, left_out) = going_on(&row, &waves, &hosts);
        if row.course.is_judged() && wave.is_empty() && standing.count(&left_out).errors > 0 {
            let why = "every host of this wave is at a site that was left out";
            self.change(id, move |row| row.course.stop(why.into())).await?;
            return Ok(at_once);
        }
        let mut course = row.course.clone();
        let count = standing.count(&wave);
        let next = course.step(now_ms(), &row.gate(), count, standing.ended);
        let orders = row.orders.iter().filter_map(WaveOrder::id).collect();
        match next {
            Next::Wait(until_ms) => {
                let until = until_ms.map(|at| at.saturating_sub(now_ms()).max(1));
                Ok(Look::Again(until.map_or(LOOK, Duration::from_millis), orders))
            }
            Next::Rest => Ok(Look::Again(LOOK, orders)),
            Next::Moved => {
                let before = row.course;
                self.change(id, move |row| {
                    if row.course == before {
                        row.course = course;
                    }
                })
                .await?;
                Ok(at_once)
            }
            Next::Check => self.check(id, &row, waves.len()).await.map(|()| at_once),
            Next::Give => {
                let owed = owed(&row, &waves, &standing);
                let owed = owed.difference(&at_sites(&owed, &row.left_out, &hosts));
                match self.give(id, row, owed, (waves.len(), standing.waits)).await {
                    Err(failure) if failure.is_lasting() => {
                        let why = failure.error.message;
                        self.change(id, move |row| row.course.stop(why)).await?;
                        Ok(at_once)
                    }
                    given => given.map(|()| at_once),
                }
            }
        }
    }

    /// Changes a row, if it is there, and lets everybody know. Returns it.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        id: OrderId,
        change: impl FnOnce(&mut RolloutRow) -> T + Send + 'static,
    ) -> Result<(RolloutRow, T), Failure> {
        let _turn = self.turn.lock().await;
        let tables = self.tables.clone();
        let changed = blocking(move || {
            let gone =
                || Failure::unknown("unknown-rollout", "the rollout is not kept any more", "");
            let mut row = tables.rollout(id)?.ok_or_else(gone)?;
            let before = row.clone();
            let result = change(&mut row);
            if row != before {
                row.moved_from(&before, now_ms());
                let stopped = match (row.course.stage(), before.course.stage()) {
                    (Stage::Stopped(why), was) if !matches!(was, Stage::Stopped(_)) => {
                        Some(why.clone())
                    }
                    _ => None,
                };
                tables.set_rollout(id, &row, stopped.as_deref(), now_ms())?;
                let (state, wave) = (row.state(), row.course.wave() + 1);
                info!(rollout = %id, state, wave, stage = ?row.course.stage(), "a rollout moves");
            }
            Ok((row, result))
        });
        let changed = changed.await?;
        self.hold(id, &changed.0);
        self.changed.send_modify(|no| *no += 1);
        Ok(changed)
    }

    async fn leave_out(&self, id: OrderId, sites: Vec<String>) -> Result<(), Failure> {
        self.change(id, move |row| {
            row.left_out.extend(sites);
            row.left_out.sort_unstable();
            row.left_out.dedup();
            row.take_back.get_or_insert(Back::LeftOut);
        })
        .await
        .map(drop)
    }

    /// Takes back what was not begun, where it was not begun.
    async fn take_back(&self, id: OrderId, row: &RolloutRow, back: &Back) -> Result<(), Failure> {
        let hosts = self.live.state().hosts.clone();
        for order in row.orders.iter().filter_map(WaveOrder::id) {
            let tables = self.tables.clone();
            let found = blocking(move || {
                Ok(tables.order(order)?.map(|row| (row, tables.tally(order)))).and_then(|found| {
                    found.map(|(row, tally)| Ok((row, tally?.0.settled()))).transpose()
                })
            });
            let Some((given, settled)) = found.await? else { continue };
            let Ok(mut draft) = Desk::cancel(order, &given, &settled, REACH) else {
                // Everybody has ended, or it is not valid any more.
                continue;
            };
            if *back == Back::LeftOut {
                draft.targets = at_sites(&draft.targets, &row.left_out, &hosts);
            }
            if !draft.targets.is_empty() {
                self.desk.on_behalf_of(&row.by).give(draft).await?;
            }
        }
        let back = back.clone();
        self.change(id, move |row| {
            if row.take_back.as_ref() == Some(&back) {
                row.take_back = None;
            }
        })
        .await
        .map(drop)
    }

    /// Takes back what was not begun for the time of a pause. Who that is is written with each of
    /// the orders that do it.
    async fn recall(&self, id: OrderId, row: &RolloutRow) -> Result<(), Failure> {
        let (mut round, mut of_round, mut later) = (None, HostSet::new(), HostSet::new());
        for order in row.orders.iter().rev() {
            let Some(wave_order) = order.id() else { continue };
            if round != Some(order.round) {
                later = later.union(&std::mem::take(&mut of_round));
                round = Some(order.round);
            }
            let tables = self.tables.clone();
            let found = blocking(move || {
                let Some(row) = tables.order(wave_order)? else { return Ok(None) };
                Ok(Some((row, tables.tally(wave_order)?.0.settled())))
            });
            let Some((given, settled)) = found.await? else { continue };
            of_round = of_round.union(&given.targets());
            // Whoever was given it again waits for the later order.
            let not = settled.union(&later);
            let Ok(draft) = self.desk.recall(wave_order, &given, &not, REACH) else { continue };
            let _turn = self.turn.lock().await;
            let tables = self.tables.clone();
            let now = blocking(move || Ok(tables.rollout(id)?)).await?;
            let Some(mut now) = now.filter(|now| now.recall) else { return Ok(()) };
            let hosts = draft.targets.clone();
            let note = move |txn: &redb::WriteTransaction, by: OrderId| {
                now.note_recall(&hosts, by);
                rollouts::note_rollout(txn, id, &now)
            };
            self.desk.on_behalf_of(&row.by).give_noting(draft, Some(Box::new(note))).await?;
        }
        self.change(id, |row| row.recall = false).await.map(drop)
    }

    /// Runs the gate's command, unless somebody ends the rollout meanwhile.
    async fn check(&self, id: OrderId, row: &RolloutRow, waves: usize) -> Result<(), Failure> {
        let line = row.gate().check;
        let wave = row.course.wave();
        let about = About { rollout: id.to_string(), wave: wave + 1, waves };
        let mut changed = self.changed.subscribe();
        let checking = check(&line, &self.socket, &about);
        tokio::pin!(checking);
        let result = loop {
            tokio::select! {
                result = &mut checking => break result,
                _ = changed.changed() => {
                    let tables = self.tables.clone();
                    let now = blocking(move || Ok(tables.rollout(id)?)).await?;
                    if now.is_none_or(|now| *now.course.stage() != Stage::Checking) {
                        return Ok(());
                    }
                }
            }
        };
        let result = result.map_err(|mut why| {
            why.truncate((0..=SAID).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0));
            why
        });
        // What has come meanwhile counts as well.
        let result = match result {
            Ok(()) => self.holds(id).await?,
            failed => failed,
        };
        self.change(id, move |row| row.course.checked(result)).await.map(drop)
    }

    /// Whether the gate of the wave that goes on still holds.
    async fn holds(&self, id: OrderId) -> Result<Result<(), String>, Failure> {
        let (tables, hosts) = (self.tables.clone(), self.live.state().hosts.clone());
        blocking(move || {
            let Some(row) = tables.rollout(id)? else { return Ok(Ok(())) };
            let (waves, standing) = (tables.waves(id)?, Standing::read(&tables, &row)?);
            let (wave, _) = going_on(&row, &waves, &hosts);
            Ok(match row.gate().judge(standing.count(&wave), true) {
                Verdict::Fails(why) => Err(why),
                _ => Ok(()),
            })
        })
        .await
    }

    /// Gives a wave to these hosts, in the commit in which the rollout says so.
    async fn give(
        &self,
        id: OrderId,
        row: RolloutRow,
        owed: HostSet,
        (waves, waits): (usize, HostSet),
    ) -> Result<(), Failure> {
        let _held = self.pushes.read().await;
        let drafts = match owed.is_empty() {
            true => Vec::new(),
            false => self.drafts(&row, owed, waves).await?,
        };
        if drafts.is_empty() {
            return self.change(id, move |row| row.given(&waits)).await.map(drop);
        }
        let (round, count) = (row.next_round(), drafts.len());
        for (no, (draft, plan)) in drafts.into_iter().enumerate() {
            let _turn = self.turn.lock().await;
            let tables = self.tables.clone();
            let now = blocking(move || Ok(tables.rollout(id)?)).await?;
            let Some(mut now) = now.filter(|now| now.course == row.course) else { return Ok(()) };
            let waits = waits.clone();
            let note: Note = Box::new(move |txn, order| {
                now.add_order(order, round);
                now.half = true;
                if no + 1 == count {
                    now.given(&waits);
                }
                rollouts::note_rollout(txn, id, &now)
            });
            let desk = self.desk.on_behalf_of(&row.by);
            let Some(plan) = plan else {
                desk.give_noting(draft, Some(note)).await?;
                continue;
            };
            if self.distributor.give(&desk, draft, plan, Some(note)).await?.is_none() {
                // The next look plans what is left anew, or finds that it cannot go on.
                return Ok(());
            }
        }
        self.changed.send_modify(|no| *no += 1);
        Ok(())
    }

    /// The orders that bring a wave to these hosts.
    async fn drafts(
        &self,
        row: &RolloutRow,
        owed: HostSet,
        waves: usize,
    ) -> Result<Vec<(Draft, Option<PlanRow>)>, Failure> {
        let (new, root) = match row.goods.clone() {
            Goods::Push { new, root } => (new, root),
            Goods::Dist { new, files } => {
                let (maker, part) = (self.distributor.clone(), Part { hosts: owed, files });
                // A file is known to be in place where only its command has failed.
                let new = NewDist { compare: new.compare || row.again, ..new };
                let drafts = blocking(move || maker.planner.orders(&new, &part)).await?;
                return Ok(drafts.into_iter().map(|(draft, plan)| (draft, Some(plan))).collect());
            }
        };
        let (maker, what) = (self.clone(), row.what.clone());
        let ours: BTreeSet<OrderId> = row.orders.iter().filter_map(WaveOrder::id).collect();
        let (wave, since) = (row.course.wave() + 1, row.issued_ms);
        let draft = blocking(move || {
            maker.check_later(&new.dest, since, &ours)?;
            maker.packed(&new, &root, format!("{what}, wave {wave} of {waves}"), owed)
        });
        Ok(vec![(draft.await?, None)])
    }

    /// Refuses to overwrite what a later push has brought to the same place. Blocks.
    fn check_later(
        &self,
        dest: &str,
        since_ms: u64,
        ours: &BTreeSet<OrderId>,
    ) -> Result<(), Failure> {
        let Some(id) = self.tables.later_push(dest, since_ms, ours)? else { return Ok(()) };
        let message = format!("push {} has gone to {dest} since", short(id));
        Err(Failure::bad(message, ""))
    }

    /// A push of the tree that was read when the rollout was made. Blocks.
    fn packed(
        &self,
        new: &NewPush,
        root: &str,
        what: String,
        targets: HostSet,
    ) -> Result<Draft, Failure> {
        let gone = || {
            let message = "the tree that is rolled out is not in the store any more";
            Failure::unknown("content-gone", message, "push it anew")
        };
        let id = root.parse().map_err(|_| gone())?;
        let manifest = self.packer.manifest(id)?.ok_or_else(gone)?;
        let (terms, _) = terms(new)?;
        let (dest, asked) = (new.dest.clone(), asked(new)?);
        let step = Step { dest, manifest, skipped: Vec::new(), terms, what, asked };
        Ok(self.packer.prepare_for(new, step, targets)?.draft)
    }
}

/// Who is to get the next order: the wave, and after a stop also whoever before it has nothing.
/// After a pause whoever had it taken back, and nobody else if the wave was given before.
fn owed(row: &RolloutRow, waves: &[HostSet], standing: &Standing) -> HostSet {
    let at = row.course.wave();
    if !row.again && !row.half && row.orders.iter().any(|order| order.wave == at) {
        return standing.owed.clone();
    }
    let first = if row.again { 0 } else { at };
    let some = waves.get(first..=at).unwrap_or_default();
    let some = some.iter().fold(HostSet::new(), |some, wave| some.union(wave));
    let ok = match row.half {
        true => standing.ok().difference(&standing.round),
        false => standing.ok(),
    };
    some.difference(&ok).union(&standing.owed)
}

/// Waits until one of these orders has moved, or something was missed.
async fn moved(updates: &mut broadcast::Receiver<Update>, orders: &BTreeSet<OrderId>) {
    loop {
        match updates.recv().await {
            Ok(update) if !orders.contains(&update.order()) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_round_is_owed_the_rest_by_whoever_reads_it_again() {
        let hosts = |first, last| HostSet::from_ranges([(first, last)]);
        let waves = [hosts(1, 2), hosts(3, 6)];
        let mut row = RolloutRow::sample(2);
        row.course.stop("no".into());
        assert!(row.course.accept() && row.course.wave() == 1);
        // The first order of the round went to 3 and 4, who are well, and then the controller died.
        row.add_order(OrderId([1; 16]), 0);
        row.half = true;
        let kept = serde_json::to_string(&row).expect("it is kept");
        let mut row: RolloutRow = serde_json::from_str(&kept).expect("it is read");
        let standing = Standing { given: hosts(1, 4), round: hosts(3, 4), ..Standing::default() };
        assert_eq!(owed(&row, &waves, &standing), hosts(3, 6));
        row.again = true;
        assert_eq!(owed(&row, &waves, &standing), hosts(3, 6), "1 and 2 have theirs");
        row.half = false;
        assert_eq!(owed(&row, &waves, &standing), hosts(5, 6), "nothing is half done");
    }

    #[test]
    fn after_a_pause_those_are_owed_it_from_whom_it_was_taken_back() {
        let hosts = |first, last| HostSet::from_ranges([(first, last)]);
        let waves = [hosts(1, 4), hosts(5, 6)];
        let mut row = RolloutRow::sample(2);
        row.add_order(OrderId([1; 16]), 0);
        row.given(&HostSet::new());
        assert!(row.pause() && row.recall && !row.pause());
        row.note_recall(&hosts(2, 3), OrderId([2; 16]));
        // 1 has failed, 2 has begun it all the same and is well.
        let (given, errors, back) = (hosts(1, 4), hosts(1, 1), hosts(3, 3));
        let pending = back.clone();
        let standing =
            Standing { given, errors, pending, owed: back.clone(), ..Standing::default() };
        assert!(row.resume() && !row.recall);
        row.course.give_again();
        assert_eq!((row.course.stage(), owed(&row, &waves, &standing)), (&Stage::Due, back));
        row.given(&hosts(2, 2));
        assert_eq!((&row.recalled[..], row.recalls.len()), (&[(2, 2)][..], 1));
        row.given(&HostSet::new());
        assert!(row.recalled.is_empty() && row.recalls.is_empty());
        // It may have come to the next wave meanwhile.
        let mut row = RolloutRow::sample(2);
        row.add_order(OrderId([1; 16]), 0);
        row.note_recall(&hosts(3, 3), OrderId([2; 16]));
        row.course.stop("no".into());
        assert!(row.course.accept());
        assert_eq!(owed(&row, &waves, &standing), hosts(3, 3).union(&hosts(5, 6)));
    }
}
