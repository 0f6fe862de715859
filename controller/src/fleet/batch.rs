//! What goes into one order of a distribution, and when it is full.

use std::time::Duration;

use bytes::Bytes;
use mesh::{HostSet, Need};
use protos::{Dist, DistItem, Work};

use super::domain::DomainPath;
use super::store::PlanRow;
use crate::orders::Draft;
use crate::push::INLINE;

/// How long to wait for a host that cannot be reached before saying so.
const REACH: Duration = Duration::from_secs(15);
/// How long an order waits for hosts that are away. Whoever comes later gets it when it is due.
const HOLD: Duration = Duration::from_secs(60);
/// How long putting files in place may take, with their commands.
const LONGEST: Duration = Duration::from_secs(3600);
/// Beyond these an order is closed and the next one begun: files, content beside it, bytes.
const FILES: usize = 256;
const NEEDS: usize = 3_000;
const BYTES: usize = 256 << 10;

/// What goes into one order.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<DistItem>,
    pub(super) files: Vec<(DomainPath, String)>,
    needs: Vec<Need>,
    content: usize,
    bytes: usize,
    inline: usize,
    weight: u64,
}

impl Batch {
    /// How much content may still travel inside the order.
    pub(super) fn room(&self) -> usize {
        INLINE.saturating_sub(self.inline)
    }

    pub(super) fn is_full(&self, weight: usize, needs: &[Need]) -> bool {
        let content: usize = needs.iter().map(|need| need.content.len()).sum();
        !self.items.is_empty()
            && (self.items.len() >= FILES
                || self.content + content > NEEDS
                || self.bytes + weight > BYTES)
    }

    pub(super) fn take(&mut self, item: DistItem, needs: Vec<Need>, bytes: u64) {
        self.content += needs.iter().map(|need| need.content.len()).sum::<usize>();
        self.bytes += weight(&item.push) + item.command.len() + item.frequency.len();
        self.inline += item.push.inline.iter().map(Bytes::len).sum::<usize>();
        self.weight += bytes;
        self.needs.extend(needs);
        self.items.push(item);
    }

    pub(super) fn draft(
        self,
        (planned, begin_by_ms): (u64, u64),
        hosts: &HostSet,
        frequency: &str,
    ) -> (Draft, PlanRow) {
        let count = self.items.len();
        let noun = if count == 1 { "file" } else { "files" };
        let work = Dist { items: self.items, frequency: frequency.into(), begin_by_ms };
        let verify = work.verifies();
        let does = if verify { "verify " } else { "" };
        let what = match (count, self.files.first()) {
            (1, Some((path, _))) => format!("{does}{frequency}: {path}"),
            _ => format!("{does}{frequency}: {count} {noun}"),
        };
        let draft = Draft {
            targets: hosts.clone(),
            needs: self.needs,
            reach: REACH,
            hold: HOLD,
            longest: LONGEST,
            kind: "dist",
            what,
            until: None,
            gate: None,
            run: None,
            retries: None,
            work: Work::Dist(work),
            push: None,
        };
        (draft, PlanRow { planned, files: self.files, verify })
    }
}

/// About how many bytes a push has in an order.
pub(super) fn weight(push: &protos::Push) -> usize {
    let bundle = |bundle: &protos::Bundle| {
        160 + 12 * bundle.hosts.ranges().len() + 44 * (bundle.segments.len() + bundle.deltas.len())
    };
    let bundles: usize = push.bundles.iter().map(bundle).sum();
    let inline: usize = push.inline.iter().map(|part| part.len() + 8).sum();
    let exclude: usize = push.terms.exclude.iter().map(|pattern| pattern.len() + 8).sum();
    128 + push.dest.len() + exclude + bundles + inline
}
