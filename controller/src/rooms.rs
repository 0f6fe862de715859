//! Whether relays have room for what a push brings, asked before it is given.
//!
//! Each relay above the targets says how much would find room in its content store, on the page of
//! its figures, which is fetched as it is for collectors. What it is to take in is known exactly,
//! since the push is packed by then.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{HostId, HostSet};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::Api;
use crate::costs::Cost;
use crate::figures::page_of;
use crate::types::PlanRoom;

/// Relays that are asked at once.
const ASKED: usize = 16;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(9);
/// What stands before the figure on the page.
const NAME: &str = "barid_store_room_bytes ";

/// What each relay above these targets is to take in.
pub(crate) fn needs(api: &Api, cost: &Cost<'_>, targets: &HostSet) -> BTreeMap<HostId, u64> {
    let parents = {
        let state = api.live.state();
        mesh::alerts::parents(&state.below, &state.branches)
    };
    let mut behind: BTreeMap<HostId, HostSet> = BTreeMap::new();
    for target in targets.iter() {
        let mut at = target;
        while let Some(parent) = parents.get(&at).filter(|parent| **parent != HostId::ROOT) {
            behind.entry(*parent).or_default().insert(target);
            at = *parent;
        }
    }
    behind.into_iter().map(|(relay, targets)| (relay, cost.content_over(&targets))).collect()
}

/// Asks them. Of a relay that does not say it, or is older, nothing is known.
pub(crate) async fn ask(api: &Api, needs: BTreeMap<HostId, u64>) -> Vec<PlanRoom> {
    let (mut asked, mut rooms) = (JoinSet::new(), BTreeMap::new());
    let mut waiting = needs.keys().copied();
    loop {
        while asked.len() < ASKED
            && let Some(relay) = waiting.next()
        {
            let desk = api.desk.clone();
            asked.spawn(async move {
                let page = timeout(LIMIT, page_of(&desk, relay)).await;
                (relay, page.ok().and_then(Result::ok).and_then(|page| room(&page)))
            });
        }
        let Some(answer) = asked.join_next().await else { break };
        let (relay, room) = answer.expect("asking does not panic");
        rooms.insert(relay, room);
    }
    let hosts = api.live.state().hosts.clone();
    let told = needs.into_iter().filter_map(|(relay, bytes)| {
        let row = hosts.get(&relay)?;
        let (relay_name, site) = (row.name.clone(), row.site.clone());
        let room = rooms.get(&relay).copied().flatten();
        Some(PlanRoom { relay: relay_name, site, bytes, room })
    });
    told.collect()
}

fn room(page: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(NAME))?;
    line.trim().parse::<f64>().ok().map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_read_from_the_page() {
        let page = "# TYPE barid_store_room_bytes gauge\nbarid_store_room_bytes 1.5e3\n# EOF\n";
        assert_eq!(room(page), Some(1_500));
        assert_eq!(room("barid_store_bytes 7\n# EOF\n"), None);
    }
}
