//! Pushes in two steps: the content first, and all that is to happen later, at once.
//!
//! A stage is an order of its own that brings the content of a push into the stores of relays and
//! hosts, where it stays for as long as the order is valid, and changes nothing. Starting it is a
//! push like any, of the tree that was read then: it names the same pieces, and whoever has them
//! asks for none. So nothing has to be true of a host for it to be started: one that has missed the
//! stage, or has something else by now, gets what it lacks as with any push.

use std::time::Duration;

use axum::extract::Path;
use axum::response::Response;
use bytes::Bytes;
use mesh::HostSet;
use protos::{Terms, Work};
use serde::{Deserialize, Serialize};

use crate::api::body;
use crate::asker::Asked;
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::order_routes::{pushing, rolling};
use crate::orders::{Draft, blocking};
use crate::past::find;
use crate::push::{Packed, Packer, Step, asked};
use crate::tables::OrderRow;
use crate::terms::terms;
use crate::types::{NewPush, NewStart, PushInfo};

/// The kind of an order that only brings content.
pub(crate) const STAGE: &str = "stage";

/// What is kept of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageRow {
    /// What was asked for, without the waves in which it may be started.
    pub(crate) new: NewPush,
    /// What it weighs, and the tree's root hash.
    pub(crate) info: PushInfo,
}

/// Whether this can be staged.
pub(crate) fn check_stage(new: &NewPush) -> Result<(), Failure> {
    if new.verify {
        let message = "a verification puts nothing in place: there is nothing to stage";
        return Err(Failure::bad(message, "leave --stage out"));
    }
    if !new.begins.is_empty() {
        let message = "a stage changes nothing: it needs no time to begin at";
        return Err(Failure::bad(message, "give it with --start"));
    }
    Ok(())
}

impl StageRow {
    /// A push that is packed, as a stage.
    pub(crate) fn of(new: &NewPush, packed: Packed) -> Result<(Packed, StageRow), Failure> {
        let Packed { draft, .. } = packed;
        let (Work::Push(push), Some(info)) = (draft.work, draft.push) else {
            return Err(Failure::internal("only a push is staged"));
        };
        let new = NewPush { stage: false, waves: None, all_at_once: false, ..new.clone() };
        let row = StageRow { new, info: info.clone() };
        let draft = Draft {
            kind: STAGE,
            what: format!("stage {}", draft.what),
            // It is good for as long as it waits for hosts.
            longest: Duration::ZERO,
            work: Work::Stage(protos::Push { terms: Terms::default(), ..push }),
            push: Some(info),
            ..draft
        };
        Ok((Packed { draft, ..packed }, row))
    }
}

/// `POST /v1/pushes/{id}/start`
pub(crate) async fn start(
    Asked(api): Asked,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Response, Failure> {
    let new: NewStart = body(&bytes)?;
    let chosen = match &new.targets {
        Some(targets) => Some(api.meant(targets.clone()).await?.1),
        None => None,
    };
    let (tables, hosts) = (api.tables.clone(), api.live.state().hosts.clone());
    let (row, stage, tally) = blocking(move || {
        let (id, row) = find(&tables, &id)?;
        let stage = tables.stage(id)?.ok_or_else(|| not_staged(&row))?;
        Ok((row, stage, tables.tally(id)?.0))
    })
    .await?;
    let ok = tally.lines().filter(|(outcome, _)| outcome.state == mesh::State::Ok);
    let there = ok.fold(HostSet::new(), |all, (_, hosts)| all.union(hosts));
    let targets = match chosen {
        Some(chosen) => chosen,
        // Whoever has left the mesh since is nobody's target.
        None => row.targets().intersection(&hosts.keys().copied().collect()),
    };
    check(&row, &targets)?;
    let push = new.over(stage.new.clone());
    let cut = api.waves_of(&push, &targets).await?;
    if cut.as_ref().is_some_and(|cut| cut.begins_ms >= row.expires_ms) {
        let message = "the stage has expired by then: hosts do not keep its content so long";
        return Err(Failure::bad(message, "stage it again; --hold says for how long"));
    }
    let maker = api.clone();
    let step =
        move |packer: &Packer| staged(packer, &push, &stage).map(|step| (push.clone(), step));
    Ok(match cut {
        Some(cut) => rolling(api, hosts, move |_| {
            let (push, found) = step(&maker.packer)?;
            if push.max_link_bytes.is_some() {
                let (_, all) = step(&maker.packer)?;
                let packed = maker.packer.prepare_for(&push, all, targets.clone())?;
                maker.check_budget_beyond(&push, &packed.draft, &there)?;
            }
            maker.keep_rollout(push, found, targets, cut)
        }),
        None => pushing(api, hosts, move |_| {
            let (push, step) = step(&maker.packer)?;
            let packed = maker.packer.prepare_for(&push, step, targets)?;
            maker.check_budget_beyond(&push, &packed.draft, &there)?;
            Ok(packed)
        }),
    })
}

impl NewStart {
    /// What was staged, with what is said otherwise now.
    fn over(&self, push: NewPush) -> NewPush {
        NewPush {
            reach_ms: self.reach_ms,
            hold_ms: self.hold_ms,
            waves: self.waves.clone(),
            all_at_once: self.all_at_once,
            begins: self.begins.clone(),
            max_link_bytes: self.max_link_bytes,
            ..push
        }
    }
}

fn not_staged(row: &OrderRow) -> Failure {
    let message = format!("that {} was not staged: there is nothing to start", row.kind);
    Failure::bad(message, "`barid runs` lists stages; `barid push --stage` makes one")
}

/// Whether a stage can be started for these hosts.
fn check(row: &OrderRow, targets: &HostSet) -> Result<(), Failure> {
    if row.expires_ms <= now_ms() {
        let message = "the stage has expired: hosts do not keep its content any more";
        return Err(Failure::conflict(message, "stage it again; --hold says for how long"));
    }
    let others = targets.difference(&row.targets());
    if !others.is_empty() {
        let message = format!("{} of these hosts were not targets of the stage", others.len());
        return Err(Failure::bad(message, "push to them, or leave them out"));
    }
    match targets.is_empty() {
        true => Err(Failure::conflict("no host of the stage is left", "stage it again")),
        false => Ok(()),
    }
}

/// The push that was staged, of the tree that was read then. Blocks.
fn staged(packer: &Packer, push: &NewPush, stage: &StageRow) -> Result<Step, Failure> {
    let gone = || {
        let message = "the tree that was staged is not in the store any more";
        Failure::unknown("content-gone", message, "stage it again")
    };
    let root = stage.info.manifest.parse().map_err(|_| gone())?;
    let manifest = packer.manifest(root)?.ok_or_else(gone)?;
    let (terms, _) = terms(push)?;
    let dest = stage.info.dest.clone();
    let what = format!("{} -> {dest}", push.source);
    let asked = asked(push)?;
    Ok(Step { dest, manifest, skipped: Vec::new(), terms, what, asked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_started_while_it_is_good_and_for_its_own_hosts() {
        let hosts = |first, last| HostSet::from_ranges([(first, last)]);
        let hour = 3_600_000;
        let row = |expires_ms| OrderRow {
            targets: vec![(1, 3)],
            expires_ms,
            kind: STAGE.into(),
            ..OrderRow::default()
        };
        let refused = |row: &OrderRow, targets| match check(row, &targets) {
            Ok(()) => String::new(),
            Err(failure) => failure.error.message,
        };
        let good = row(now_ms() + hour);
        assert_eq!(refused(&good, hosts(2, 3)), "");
        assert_eq!(refused(&good, hosts(3, 5)), "2 of these hosts were not targets of the stage");
        assert_eq!(refused(&good, HostSet::new()), "no host of the stage is left");
        assert!(refused(&row(now_ms() - 1), hosts(1, 1)).starts_with("the stage has expired"));
    }
}
