//! Orders in a script, with what they need and the gates that they pass.

use std::sync::Arc;

use mesh::{Batch, Gate, HostSet, Need, Order, OrderId, Share};
use serde::{Deserialize, Serialize};

use super::words::{hosts, id, is_false, millis, ms, span, spanned};
use crate::plan::{self, CONTENTS, Work};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderLines {
    no: u64,
    at_ms: u64,
    targets: String,
    reach_ms: u64,
    hold_ms: u64,
    ttl_ms: u64,
    takes_ms: [u64; 2],
    #[serde(default, skip_serializing_if = "is_false")]
    again: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancels: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    lapses: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    supersedes: Vec<SupersededLines>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    needs: Vec<NeedLines>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<GateLines>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SupersededLines {
    no: u64,
    hosts: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NeedLines {
    hosts: String,
    content: Vec<u8>,
}

/// A number, or a percentage.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum ShareLine {
    Hosts(u64),
    Percent { percent: u32 },
}

impl ShareLine {
    pub(super) fn of(share: Share) -> ShareLine {
        match share {
            Share::Hosts(number) => ShareLine::Hosts(number),
            Share::Percent(percent) => ShareLine::Percent { percent },
        }
    }

    fn share(self) -> Result<Share, String> {
        match self {
            ShareLine::Hosts(0) | ShareLine::Percent { percent: 0 | 101.. } => {
                Err("a gate lets at least one host begin: per_lot and per_child are not 0".into())
            }
            ShareLine::Hosts(number) => Ok(Share::Hosts(number)),
            ShareLine::Percent { percent } => Ok(Share::Percent(percent)),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GateLines {
    window: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_child: Option<ShareLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lots: Vec<String>,
    per_lot: ShareLine,
    /// How many, and after how long a wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_ms: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_errors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_missed: Option<u64>,
    begin_ms: u64,
    longest_ms: u64,
}

fn superseded((older, hosts): &(OrderId, HostSet)) -> SupersededLines {
    SupersededLines { no: plan::order_no(*older), hosts: hosts.to_string() }
}

impl OrderLines {
    pub(super) fn of(work: &Work) -> OrderLines {
        let order = &work.order;
        let need = |need: &Need| NeedLines {
            hosts: need.hosts.to_string(),
            content: need.content.iter().map(plan::content_no).collect(),
        };
        OrderLines {
            no: plan::order_no(order.id),
            at_ms: ms(work.at),
            targets: order.targets.to_string(),
            reach_ms: ms(order.reach),
            hold_ms: ms(order.hold),
            ttl_ms: ms(work.expires - work.at),
            takes_ms: span(work.takes),
            again: order.again,
            cancels: order.cancels.map(plan::order_no),
            lapses: order.lapses,
            supersedes: order.supersedes.iter().map(superseded).collect(),
            extra: work.extra.as_ref().map(plan::content_no),
            needs: order.needs.iter().map(need).collect(),
            gate: order.gate.as_ref().map(GateLines::of),
        }
    }

    pub(super) fn work(self) -> Result<Work, String> {
        let content = |n: u8| match n < CONTENTS {
            true => Ok(plan::content(n)),
            false => Err(format!("order {} wants content {n} of {CONTENTS}", self.no)),
        };
        let need = |need: &NeedLines| {
            let content: Result<_, String> = need.content.iter().map(|n| content(*n)).collect();
            Ok(Need { hosts: hosts(&need.hosts)?, content: content? })
        };
        let needs: Result<_, String> = self.needs.iter().map(need).collect();
        let older = |lines: &SupersededLines| Ok((id(lines.no), hosts(&lines.hosts)?));
        let supersedes: Result<_, String> = self.supersedes.iter().map(older).collect();
        let (at, ttl) = (millis(self.at_ms), millis(self.ttl_ms));
        let order = Order {
            id: id(self.no),
            needs: needs?,
            reach: millis(self.reach_ms),
            hold: millis(self.hold_ms),
            ttl,
            again: self.again,
            cancels: self.cancels.map(id),
            lapses: self.lapses,
            supersedes: supersedes?,
            gate: self.gate.map(GateLines::gate).transpose()?,
            ..plan::run(self.no as usize, hosts(&self.targets)?)
        };
        let extra = self.extra.map(content).transpose()?;
        let takes = spanned(self.takes_ms)?;
        Ok(Work { at, expires: at + ttl, order: Arc::new(order), extra, takes })
    }
}

impl GateLines {
    pub(super) fn of(gate: &Gate) -> GateLines {
        GateLines {
            window: gate.window,
            per_child: gate.per_child.map(ShareLine::of),
            lots: gate.lots.iter().map(HostSet::to_string).collect(),
            per_lot: ShareLine::of(gate.per_lot),
            batch_ms: gate.batch.map(|batch| [batch.size, ms(batch.wait)]),
            max_errors: gate.max_errors,
            max_missed: gate.max_missed,
            begin_ms: ms(gate.begin),
            longest_ms: ms(gate.longest),
        }
    }

    fn gate(self) -> Result<Gate, String> {
        if self.window == 0 {
            return Err("a gate lets at least one host begin: the window is not 0".into());
        }
        let lots: Result<_, String> = self.lots.iter().map(|lot| hosts(lot)).collect();
        let batch = |[size, wait]: [u64; 2]| Batch { size: size.max(1), wait: millis(wait) };
        Ok(Gate {
            window: self.window,
            per_child: self.per_child.map(ShareLine::share).transpose()?,
            lots: lots?,
            per_lot: self.per_lot.share()?,
            batch: self.batch_ms.map(batch),
            max_errors: self.max_errors,
            max_missed: self.max_missed,
            begin: millis(self.begin_ms),
            longest: millis(self.longest_ms),
        })
    }
}
