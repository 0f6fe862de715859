//! What is kept of a rollout.

use std::collections::BTreeMap;

use mesh::{HostSet, OrderId};
use serde::{Deserialize, Serialize};

use super::course::{Course, Stage};
use super::gate::WaveGate;
use crate::fault::Failure;
use crate::fleet::types::NewDist;
use crate::tables::Tables;
use crate::types::NewPush;

/// A rollout as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RolloutRow {
    /// What goes out, in one line.
    pub(crate) what: String,
    pub(crate) goods: Goods,
    /// The gate, as it is written.
    pub(crate) gate: String,
    pub(crate) course: Course,
    /// How many hosts it is for.
    pub(crate) hosts: u64,
    pub(crate) issued_ms: u64,
    /// Who has begun it, for people to read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) by: String,
    pub(crate) ended_ms: u64,
    /// The orders of all waves, in the sequence in which they were given.
    pub(crate) orders: Vec<WaveOrder>,
    /// Whether whoever of the earlier waves is not ok gets the next order, too.
    pub(crate) again: bool,
    /// Where what was not begun is still to be taken back.
    pub(crate) take_back: Option<Back>,
    /// Sites that are left out.
    pub(crate) left_out: Vec<String>,
    /// Whether only some orders of the last round were given, so that its hosts are owed others
    /// whatever they have said.
    #[serde(default)]
    pub(crate) half: bool,
    /// Whether what was not begun is still to be taken back for the time of a pause.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) recall: bool,
    /// From whom a pause has taken it back: ranges of hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) recalled: Vec<(u32, u32)>,
    /// The ids of the orders that did it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) recalls: Vec<String>,
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Goods {
    /// A tree that was read when the rollout was made.
    Push {
        /// What was asked for.
        new: Box<NewPush>,
        /// The tree's root hash.
        root: String,
    },
    /// Files under control.
    Dist {
        /// What was asked for.
        new: NewDist,
        /// The files, and the root of what each was when it began.
        files: BTreeMap<String, String>,
    },
}

/// From whom something is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Back {
    Everybody,
    /// The hosts of sites that are left out.
    LeftOut,
}

/// An order of a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaveOrder {
    /// Which wave, from 0.
    pub(crate) wave: usize,
    /// The how manyth time that hosts are given anything; orders of one round belong together.
    pub(crate) round: u32,
    pub(crate) id: String,
}

impl WaveOrder {
    pub(crate) fn id(&self) -> Option<OrderId> {
        order_id(&self.id)
    }
}

impl RolloutRow {
    /// A rollout of so many waves to so many hosts, that begins now.
    pub(crate) fn new(
        (what, goods): (String, Goods),
        gate: String,
        (waves, hosts): (usize, u64),
        issued_ms: u64,
    ) -> RolloutRow {
        RolloutRow {
            what,
            goods,
            gate,
            course: Course::new(waves),
            hosts,
            issued_ms,
            by: String::new(),
            ended_ms: 0,
            orders: Vec::new(),
            again: false,
            take_back: None,
            left_out: Vec::new(),
            half: false,
            recall: false,
            recalled: Vec::new(),
            recalls: Vec::new(),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.goods {
            Goods::Push { .. } => "push",
            Goods::Dist { .. } => "dist",
        }
    }

    /// Whether it never goes on again.
    pub(crate) fn is_over(&self) -> bool {
        self.course.is_over()
    }

    /// Whether it can never go on again, not even for whoever was left out.
    pub(crate) fn is_done(&self) -> bool {
        match self.course.stage() {
            Stage::Done => self.left_out.is_empty(),
            stage => *stage == Stage::Aborted,
        }
    }

    /// The tree that is still to be given.
    pub(crate) fn root(&self) -> Option<&str> {
        match &self.goods {
            Goods::Push { root, .. } => Some(root),
            // The newest revision of a file is kept anyway.
            Goods::Dist { .. } => None,
        }
    }

    /// The gate; what is kept was read before.
    pub(crate) fn gate(&self) -> WaveGate {
        self.gate.parse().unwrap_or_default()
    }

    /// `running`, `paused`, `stopped`, `aborted` or `done`.
    pub(crate) fn state(&self) -> &'static str {
        match self.course.stage() {
            Stage::Stopped(_) => "stopped",
            Stage::Aborted => "aborted",
            Stage::Done => "done",
            _ if self.course.is_paused() => "paused",
            _ => "running",
        }
    }

    /// The round that comes next.
    pub(crate) fn next_round(&self) -> u32 {
        self.orders.last().map_or(0, |order| order.round + 1)
    }

    /// Some of the wave was given, in this round.
    pub(crate) fn add_order(&mut self, id: OrderId, round: u32) {
        let wave = self.course.wave();
        self.orders.push(WaveOrder { wave, round, id: id.to_string() });
    }

    /// The wave was given, to everybody who needs it. `waits`: of those from whom a pause has taken
    /// it back, who is to say first whether he had begun it.
    pub(crate) fn given(&mut self, waits: &HostSet) {
        self.course.given();
        (self.again, self.half) = (false, false);
        self.recalled = waits.ranges().to_vec();
        if waits.is_empty() {
            self.recalls.clear();
        }
    }

    /// Whoever had it taken back by a pause is owed nothing more.
    pub(crate) fn keep_back(&mut self) {
        (self.recall, self.recalled, self.recalls) = Default::default();
    }

    /// No other wave opens, and who has not begun does not. Returns whether that is new.
    pub(crate) fn pause(&mut self) -> bool {
        let is_new = self.course.pause();
        self.recall |= is_new;
        is_new
    }

    /// It goes on after a pause or a stop. Returns whether there was anything to go on from.
    pub(crate) fn resume(&mut self) -> bool {
        let can = self.course.resume();
        self.recall &= !can;
        can
    }

    /// An order has taken it back from these hosts, for the time of a pause.
    pub(crate) fn note_recall(&mut self, hosts: &HostSet, by: OrderId) {
        let all = HostSet::from_ranges(self.recalled.iter().copied()).union(hosts);
        self.recalled = all.ranges().to_vec();
        self.recalls.push(by.to_string());
    }

    /// What follows from a change by itself: what has stopped or was aborted is taken back where
    /// it was not begun, and when it is over it has an end.
    pub(crate) fn moved_from(&mut self, before: &RolloutRow, now_ms: u64) {
        let (now, was) = (self.course.stage(), before.course.stage());
        if now == was {
            return;
        }
        if matches!(now, Stage::Stopped(_) | Stage::Aborted) {
            self.take_back = Some(Back::Everybody);
        }
        self.ended_ms = if self.is_over() { now_ms } else { 0 };
    }
}

/// An id of an order or a rollout, as it is printed.
pub(crate) fn order_id(text: &str) -> Option<OrderId> {
    let mut id = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(OrderId(id))
}

/// The rollout that a text means: an id, a unique beginning or end of one, or `last`.
pub(crate) fn find(tables: &Tables, text: &str) -> Result<(OrderId, RolloutRow), Failure> {
    let unknown = || {
        let message = format!("no rollout {text}");
        Failure::unknown("unknown-rollout", message, "`barid rollout` lists them")
    };
    let mut found = tables.rollouts()?;
    match text {
        "last" => found.truncate(1),
        _ if text.len() < 4 => return Err(unknown()),
        _ => found.retain(|(id, _)| {
            let id = id.to_string();
            id.starts_with(text) || id.ends_with(text)
        }),
    }
    if found.len() > 1 {
        let message = format!("{text} means more than one rollout");
        return Err(Failure::bad(message, "give more digits"));
    }
    found.pop().ok_or_else(unknown)
}

#[cfg(test)]
impl RolloutRow {
    /// One of so many waves that has not begun.
    pub(crate) fn sample(waves: usize) -> RolloutRow {
        let goods = Goods::Dist { new: NewDist::of("all"), files: BTreeMap::new() };
        RolloutRow::new(("files".into(), goods), String::new(), (waves, 1), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_printed() {
        let id = OrderId([0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(order_id(&id.to_string()), Some(id));
        for wrong in
            ["", "0f", "zz000000000000000000000000000000", "ä0000000000000000000000000000000"]
        {
            assert_eq!(order_id(wrong), None, "{wrong}");
        }
    }
}
