//! How far an order is at each site, and for which branch of the tree it waits.
//!
//! What hosts have answered is known here; where they live and whether they can be reached is for
//! the controller to say. A host without an answer counts as running if it can be reached: whether
//! its command has begun, it alone knows.

use std::collections::{BTreeMap, HashMap};

use controller::sets::{expand, fold, natural_cmp};
use controller::types::{HostInfo, OrderInfo};

use crate::exit::Class;
use crate::gathered::Gathered;
use crate::units::show_count;

/// How many sites a status names.
const SITES: usize = 8;
/// How many a progress bar has room for.
const SITES_IN_BAR: usize = 3;
/// The longest folded set within a sentence.
const SET_IN_LINE: usize = 120;

/// How far an order is in one part of its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Standing {
    total: u64,
    ok: u64,
    failed: u64,
    cancelled: u64,
    missed: u64,
    running: u64,
    away: u64,
}

/// How far an order is in each part of the tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Branches {
    all: Standing,
    /// By the name of the site, those first of which most is missing.
    sites: Vec<(String, Standing)>,
    /// The relay behind which most is missing, with those hosts; none if there is only one.
    slowest: Option<(String, Standing, Vec<String>)>,
}

impl Standing {
    fn open(&self) -> u64 {
        self.running + self.away
    }

    fn add(&mut self, is_up: bool, class: Option<Class>) {
        self.total += 1;
        let count = match class {
            Some(Class::Good) => &mut self.ok,
            Some(Class::Failed) => &mut self.failed,
            Some(Class::Cancelled) => &mut self.cancelled,
            Some(Class::Missed) => &mut self.missed,
            None if is_up => &mut self.running,
            None => &mut self.away,
        };
        *count += 1;
    }

    /// `12/40 done: 2 failed, 25 running, 3 away`
    fn words(&self) -> String {
        let (done, total) = (show_count(self.total - self.open()), show_count(self.total));
        match self.mishaps_and_rest(true) {
            rest if rest.is_empty() => format!("{done}/{total} done"),
            rest => format!("{done}/{total} done: {rest}"),
        }
    }

    fn mishaps_and_rest(&self, with_running: bool) -> String {
        let running = if with_running { self.running } else { 0 };
        let parts = [
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.missed, "missed"),
            (running, "running"),
            (self.away, "away"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> =
            parts.map(|(count, word)| format!("{} {word}", show_count(count))).collect();
        parts.join(", ")
    }
}

impl Branches {
    /// How far an order is, by where its targets are.
    pub(crate) fn new(order: &OrderInfo, hosts: &[HostInfo], gathered: &Gathered) -> Branches {
        let places: HashMap<&str, &HostInfo> =
            hosts.iter().map(|host| (host.name.as_str(), host)).collect();
        let mut all = Standing::default();
        let mut sites = BTreeMap::<String, Standing>::new();
        let mut relays = BTreeMap::<String, (Standing, Vec<String>)>::new();
        for name in expand(&order.targets).unwrap_or_default() {
            let place = places.get(name.as_str());
            let class = gathered.state(&name).map(Class::of);
            let is_up = place.is_some_and(|place| place.up);
            all.add(is_up, class);
            let site = place.map(|place| place.site.clone()).unwrap_or_default();
            sites.entry(site).or_default().add(is_up, class);
            let parent = place.map(|place| place.parent.clone()).unwrap_or_default();
            let (standing, open) = relays.entry(parent).or_default();
            standing.add(is_up, class);
            if class.is_none() {
                open.push(name);
            }
        }
        let mut sites: Vec<_> = sites.into_iter().collect();
        sites.sort_by(|(a, x), (b, y)| y.open().cmp(&x.open()).then_with(|| natural_cmp(a, b)));
        let many = relays.len() > 1;
        let slowest = relays.into_iter().max_by_key(|(_, (standing, _))| standing.open());
        let slowest = slowest
            .filter(|(relay, (standing, _))| many && !relay.is_empty() && standing.open() > 0);
        let slowest = slowest.map(|(relay, (standing, open))| (relay, standing, open));
        Branches { all, sites, slowest }
    }

    /// What a progress bar says: `2 failed, 1 away  lyon 12/40, paris 3/9`.
    pub(crate) fn in_bar(&self) -> String {
        let open = self.sites.iter().filter(|(_, standing)| standing.open() > 0);
        let site = |(name, standing): &(String, Standing)| {
            let done = standing.total - standing.open();
            format!("{} {done}/{}", site_name(name), standing.total)
        };
        let sites: Vec<String> = open.take(SITES_IN_BAR).map(site).collect();
        let text = format!("{}  {}", self.all.mishaps_and_rest(false), sites.join(", "));
        text.trim().to_owned()
    }

    /// What a status says: a line for each site that is not done, and the slowest branch.
    pub(crate) fn lines(&self) -> Vec<String> {
        let open: Vec<_> = self.sites.iter().filter(|(_, standing)| standing.open() > 0).collect();
        let line = |(name, standing): &&(String, Standing)| {
            format!("  {}  {}", site_name(name), standing.words())
        };
        let mut lines: Vec<String> = open.iter().take(SITES).map(line).collect();
        if let Some(rest) = open.get(SITES..).filter(|rest| !rest.is_empty()) {
            let hosts = rest.iter().map(|(_, standing)| standing.open()).sum();
            let (sites, hosts) = (show_count(rest.len() as u64), show_count(hosts));
            lines.push(format!("  {sites} more sites  {hosts} hosts are not done"));
        }
        if let Some((relay, standing, hosts)) = &self.slowest {
            let (open, total) = (show_count(standing.open()), show_count(standing.total));
            let set = match fold(hosts) {
                set if set.chars().count() > SET_IN_LINE => String::new(),
                set => format!(": {set}"),
            };
            lines.push(format!("  slowest: below {relay} {open} of {total} are not done{set}"));
        }
        lines
    }
}

fn site_name(site: &str) -> &str {
    if site.is_empty() { "no site" } else { site }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gathered::testing::answer;

    fn host(name: &str, site: &str, parent: &str, up: bool) -> HostInfo {
        HostInfo {
            name: name.into(),
            site: site.into(),
            role: "host".into(),
            up,
            parent: parent.into(),
            ..HostInfo::default()
        }
    }

    #[test]
    fn sites_and_the_slowest_branch() {
        let mut hosts: Vec<HostInfo> =
            (1..=4).map(|n| host(&format!("a{n}"), "lyon", "r1", n != 4)).collect();
        hosts.extend((1..=9).map(|n| host(&format!("b{n}"), "paris", "r2", true)));
        hosts.push(host("c1", "", "controller", true));
        let mut order = crate::render::tests::order("a[1-4],b[1-9],c1");
        order.count = 14;
        let mut gathered = Gathered::default();
        gathered.add(answer("a1,b1", "ok", None, ""));
        gathered.add(answer("a2", "failed", Some(1), ""));
        gathered.add(answer("b2", "not-reached", None, ""));
        gathered.add(answer("b3", "cancelled", None, ""));
        gathered.add(answer("c1", "ok", None, ""));
        let branches = Branches::new(&order, &hosts, &gathered);
        assert_eq!(
            branches.lines(),
            [
                "  paris  3/9 done: 1 cancelled, 1 missed, 6 running",
                "  lyon  2/4 done: 1 failed, 1 running, 1 away",
                "  slowest: below r2 6 of 9 are not done: b[4-9]",
            ]
        );
        assert_eq!(
            branches.in_bar(),
            "1 failed, 1 cancelled, 1 missed, 1 away  paris 3/9, lyon 2/4"
        );
    }

    #[test]
    fn what_is_done_says_nothing() {
        let mut gathered = Gathered::default();
        gathered.add(answer("a1", "ok", None, ""));
        let hosts = [host("a1", "lyon", "r1", true)];
        let order = crate::render::tests::order("a1");
        let branches = Branches::new(&order, &hosts, &gathered);
        assert_eq!((branches.lines(), branches.in_bar()), (vec![], String::new()));
    }
}
