//! A command starts at most once, where it may, and never before its intent is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::{HostId, Order, State};

use super::known::Known;
use super::words::Words;
use super::{Job, Violation};
use crate::gated::Gated;
use crate::plan::giver;
use crate::seat::Seat;

/// Which commands have started.
#[derive(Default)]
pub(super) struct Commands {
    /// How often each command was started.
    starts: BTreeMap<Job, u32>,
    /// Started by the process that lives now.
    started_now: BTreeSet<Job>,
    /// Orders that were taken back before their host had them.
    barred: BTreeSet<Job>,
}

/// What else is known when a command starts.
pub(super) struct Said<'a> {
    pub(super) known: &'a Known,
    pub(super) words: &'a Words,
    pub(super) gated: &'a mut Gated,
}

impl Commands {
    /// A command starts.
    pub(super) fn starting(
        &mut self,
        seat: &Seat,
        order: &Order,
        told: Said<'_>,
        now: Duration,
    ) -> Result<(), Violation> {
        let (me, id) = (seat.host(), order.id);
        let broken =
            |check, text: &str| Err(Violation::new(check, format!("{me:?} starts {id:?} {text}")));
        if !order.targets.contains(me) {
            return broken("authority", "which is not for it");
        }
        if !told.known.held.contains(&(giver(id), id)) {
            return broken("authority", "which its giver might not remember");
        }
        if !seat.disk.image.intents.contains(&id) {
            return broken("intent before effect", "before its intent is on disk");
        }
        if self.barred.contains(&(id, me)) {
            return broken("cancelled", "though it was taken back before it came");
        }
        told.gated.starting(me, id, now)?;
        let starts = self.starts.entry((id, me)).or_default();
        *starts += 1;
        if !order.again && *starts > 1 {
            return broken("at most once", "a second time");
        }
        if !self.started_now.insert((id, me)) {
            return broken("at most once", "twice in one life");
        }
        let words = told.words.own(id, me);
        let is_over = |state: State| match state {
            State::Skipped => order.gate.is_none(),
            state => state.weight() >= State::Refused.weight(),
        };
        if words.is_some_and(|words| words.iter().any(|word| is_over(word.state))) {
            return broken("at most once", "though it has answered");
        }
        Ok(())
    }

    /// A host has an order on disk, and perhaps the one that it takes back has not come yet.
    pub(super) fn kept(&mut self, me: HostId, order: &Order, known: &Known) {
        if let Some(older) = order.cancels.filter(|_| order.targets.contains(me))
            && !known.got.contains(&(me, older))
        {
            self.barred.insert((older, me));
        }
        let mine = order.supersedes.iter().filter(|(_, hosts)| hosts.contains(me));
        let new = mine.map(|(older, _)| *older).filter(|older| !known.got.contains(&(me, *older)));
        self.barred.extend(new.map(|older| (older, me)));
    }

    /// A process died: it may start again what may be started again.
    pub(super) fn died(&mut self, me: HostId) {
        self.started_now.retain(|(_, host)| *host != me);
    }
}
