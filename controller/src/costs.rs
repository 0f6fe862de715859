//! What a push costs before it is given: what changes for whom, and the bytes on each link.
//!
//! The bytes are what goes over a link once, however many hosts are behind it: the order, and the
//! content that its hosts need. A relay that has some of it already takes less, and hosts that
//! are not as they were left ask for more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use content::{ContentId, Manifest};
use mesh::{Digest, HostId, HostSet};
use protos::Push;

use crate::api::Api;
use crate::fault::Failure;
use crate::orders::Draft;
use crate::push::Packed;
use crate::sets;
use crate::tables::HostRow;
use crate::targets::names;
use crate::types::{NewPush, PushPlan, PushStep};

/// How many changes of each step are named.
const NAMED: usize = 200;

/// The bytes of an order on links.
pub(crate) struct Cost<'a> {
    draft: &'a Draft,
    sizes: BTreeMap<Digest, u64>,
    /// The order itself.
    pub(crate) order: u64,
}

impl Cost<'_> {
    /// Weighs an order that is ready to be given. Blocks.
    pub(crate) fn of<'a>(api: &Api, draft: &'a Draft) -> Result<Cost<'a>, Failure> {
        let sizes = match &draft.work {
            protos::Work::Push(push) | protos::Work::Stage(push) => sizes([push]),
            protos::Work::Dist(dist) => sizes(dist.items.iter().map(|item| &item.push)),
            _ => BTreeMap::new(),
        };
        let order = api.desk.sealed(draft, SystemTime::now())?.1.len() as u64;
        Ok(Cost { draft, sizes, order })
    }

    /// What goes over a link behind which these targets are.
    pub(crate) fn over(&self, targets: &HostSet) -> u64 {
        self.order + self.content_over(targets)
    }

    /// The content of that alone.
    pub(crate) fn content_over(&self, targets: &HostSet) -> u64 {
        let needs = self.draft.needs.iter();
        let needs = needs.filter(|need| !need.hosts.intersection(targets).is_empty());
        let content: BTreeSet<_> = needs.flat_map(|need| &need.content).collect();
        let bytes = content.into_iter().filter_map(|id| self.sizes.get(id));
        bytes.sum()
    }
}

fn sizes<'a>(pushes: impl IntoIterator<Item = &'a Push>) -> BTreeMap<Digest, u64> {
    let bundles = pushes.into_iter().flat_map(|push| &push.bundles);
    let parts = bundles.flat_map(|b| [&b.manifest].into_iter().chain(&b.segments).chain(&b.deltas));
    parts.map(|part| (part.id, u64::from(part.bytes))).collect()
}

impl Api {
    /// Refuses a push that would put more on a link than the operator wants. Blocks.
    pub(crate) fn check_budget(&self, new: &NewPush, draft: &Draft) -> Result<(), Failure> {
        self.check_budget_beyond(new, draft, &HostSet::new())
    }

    /// The same where some hosts have the content already.
    pub(crate) fn check_budget_beyond(
        &self,
        new: &NewPush,
        draft: &Draft,
        there: &HostSet,
    ) -> Result<(), Failure> {
        let Some(budget) = new.max_link_bytes else { return Ok(()) };
        let cost = Cost::of(self, draft)?;
        let state = self.live.state();
        for (child, below) in state.below.iter() {
            let bytes = cost.over(&draft.targets.intersection(below).difference(there));
            if bytes > budget && !draft.targets.intersection(below).is_empty() {
                let name = state.hosts.get(child).map_or("", |row| row.name.as_str());
                let message =
                    format!("{bytes} bytes would go over the link to {name}; {budget} may");
                let help = "--plan shows what changes; nothing was sent";
                return Err(Failure::conflict(message, help));
            }
        }
        Ok(())
    }

    /// What a push would change, by what hosts have. Blocks.
    pub(crate) fn push_plan(
        &self,
        packed: &Packed,
        hosts: &BTreeMap<HostId, HostRow>,
    ) -> Result<PushPlan, Failure> {
        let target = &packed.manifest;
        let mut steps = Vec::new();
        for (base, targets, pack_bytes) in &packed.steps {
            let known = match base {
                Some(root) => self.packer.manifest(*root)?,
                None => None,
            };
            steps.push(step(known.as_ref(), target, names(hosts, targets), *pack_bytes));
        }
        Ok(PushPlan {
            files: target.files(),
            bytes: target.bytes(),
            manifest: ContentId::of(&target.encode()).to_string(),
            steps,
            skipped: packed.skipped.clone(),
        })
    }
}

fn step(
    base: Option<&Manifest>,
    target: &Manifest,
    hosts: Vec<String>,
    pack_bytes: u64,
) -> PushStep {
    let nothing = Manifest { entries: Vec::new() };
    let lines = if base.is_some() { NAMED } else { 0 };
    let changes = target.changes(base.unwrap_or(&nothing), lines);
    PushStep {
        set: sets::fold(&hosts),
        count: hosts.len() as u64,
        known: base.is_some(),
        added: changes.added,
        changed: changes.changed,
        described: changes.described,
        removed: changes.removed,
        changes: changes.lines,
        changed_bytes: changes.bytes,
        pack_bytes,
    }
}
