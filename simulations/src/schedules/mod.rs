//! Schedules: what the controller begins when it is due, and what sites do by themselves while it
//! is silent.
//!
//! The deciding is what ships: [`timing::look`] and the controller's `Running` at the root,
//! [`timing::SiteKeeper`] at relays, [`timing::Once`] at hosts. Here they are given clocks that run
//! fast and jump, disks that fill, links that break, and processes that die between what they note
//! and what they tell. `account` knows from outside what each clock has passed and when the
//! controller was heard, so it knows what must follow: every time is begun once, left to the
//! controller, or told as missed, inside its window, and nothing of it that is over.

pub(crate) mod account;
pub mod calendar;
pub(crate) mod due;
mod host;
mod root;
mod site;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesh::{Frame, HostId, HostSet, LinkId, OrderId};
use timing::{LastRun, Once, Planted, SiteKeeper, SiteRun, SiteTurns, may_begin};

use self::calendar::Due;
use crate::checks::Violation;
use crate::coverage::Strike;
use crate::net::Side;
use crate::sim::Sim;

/// What the controller has told of its schedule; a later one takes the place of an earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// The controller's epoch, and the version within it.
    pub(crate) issue: (u64, u64),
    /// When each frequency is due.
    pub(crate) dues: BTreeMap<String, Due>,
}

/// What a node has of schedules in its files.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    pub(crate) list: List,
    /// Relay: what its site has come to.
    pub(crate) site: BTreeMap<String, SiteRun>,
    /// What this host has done; how it was says a number.
    pub(crate) once: Once<u64>,
    /// Root: when each frequency was last begun.
    pub(crate) runs: BTreeMap<String, LastRun>,
    /// Root: the orders of each frequency, and for whom.
    pub(crate) given: BTreeMap<String, Vec<(OrderId, HostSet)>>,
}

/// What a process knows of schedules.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) list: List,
    pub(crate) keeper: SiteKeeper,
    /// Children that have their turn, by the number under which they were told.
    pub(crate) groups: BTreeMap<u64, (SiteTurns, HostSet)>,
    pub(crate) numbers: u64,
    /// What this host is told to put right, the first of which it is about.
    pub(crate) jobs: VecDeque<Job>,
    /// Root: which distributions go on.
    pub(crate) running: controller::fleet::running::Running,
    /// Root: those that are not closed.
    pub(crate) open: Vec<root::Open>,
    /// When the controller was last heard of, and what each parent has said.
    heard: Option<Duration>,
    said: (BTreeMap<LinkId, u64>, u64),
}

/// Something to be put right.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// By which link it was told; none: by this node itself.
    pub(crate) by: Option<LinkId>,
    /// Under which number.
    pub(crate) no: u64,
    pub(crate) frequency: String,
    pub(crate) due_ms: u64,
    pub(crate) end: End,
}

/// By when something that was due must have begun, and what the checks must know of it.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// As the real thing says it; 0: whenever one can.
    pub(crate) by_ms: u64,
    pub(crate) due: Due,
    pub(crate) due_ms: u64,
    /// How wrong the clock is of whoever says it.
    pub(crate) skew_ms: i64,
}

impl Desk {
    /// A parent's beat has come, which names the root's.
    pub(crate) fn hear(&mut self, link: LinkId, root: u64, now: Duration) {
        let (by_link, most) = &mut self.said;
        let before = by_link.insert(link, root);
        if before.map_or(root > *most, |before| before != root) {
            *most = root;
            self.heard = Some(now);
        }
    }
}

impl Sim {
    /// What time a node has.
    pub(crate) fn clock(&self, node: usize) -> u64 {
        let passed = self.now.as_millis() as u64 * self.plan.calendar.haste;
        let at = self.plan.calendar.origin_ms + passed;
        at.saturating_add_signed(self.seats[node].skew_ms)
    }

    /// Real time as clocks pass it.
    fn by_clock(&self, time: Duration) -> u64 {
        time.as_millis() as u64 * self.plan.calendar.haste
    }

    /// How long a node sleeps at most before it looks at its schedule again.
    fn look_every(&self) -> Duration {
        Duration::from_secs(1).max(self.plan.beat / 2)
    }

    /// A clock jumps.
    pub(crate) fn jump(&mut self, node: usize, by_ms: i64) {
        self.struck(Strike::Clock, node);
        self.seats[node].skew_ms += by_ms;
        self.remark(node, &format!("has a clock that jumps by {by_ms} ms"));
    }

    /// Plans what there is to do with schedules.
    pub(crate) fn plan_schedules(&mut self) {
        for no in 0..self.plan.calendar.edicts.len() {
            let at = self.plan.calendar.edicts[no].at;
            self.queue.push(at, crate::queue::Event::Edict { no });
        }
    }

    /// A process has started: it has what its files have.
    pub(crate) fn open_desk(&mut self, node: usize) {
        if self.plan.calendar.edicts.is_empty() {
            return;
        }
        let seat = &mut self.seats[node];
        let notes = &seat.disk.image.notes;
        let Some(process) = &mut seat.process else { return };
        process.desk.list = notes.list.clone();
        process.desk.keeper = SiteKeeper::new(notes.site.clone());
        process.desk.keeper.planted.bug = self.plan.bug;
        let life = seat.life;
        if node == 0 || self.plan.tree[node].serves {
            self.queue.push(self.now, crate::queue::Event::Look { node, life });
        }
    }

    /// A frame has come to a node, by a link that it has.
    pub(crate) fn overhear(&mut self, node: usize, link: LinkId, frame: &Frame) {
        let is_child = self.net.links.get(&link).is_some_and(|l| l.side(node) == Side::Child);
        if let (Frame::Beat { root, .. }, true) = (frame, is_child)
            && let Some(process) = &mut self.seats[node].process
        {
            process.desk.hear(link, *root, self.now);
        }
    }

    /// Whether a node may still begin something. Where its clock is as wrong as that of whoever has
    /// said it, what it begins must be inside of the window.
    pub(crate) fn may_begin(&mut self, node: usize, end: &End) -> Result<bool, Violation> {
        let now_ms = self.clock(node);
        let may = may_begin(end.by_ms, now_ms, Planted { bug: self.plan.bug });
        if may && self.seats[node].skew_ms == end.skew_ms {
            account::begins(host(node), &end.due, end.due_ms, now_ms)?;
        }
        Ok(may)
    }

    /// Keeps what a node has in its files, at once; whether it could be.
    fn keep_notes(&mut self, node: usize, change: impl FnOnce(&mut Notes)) -> bool {
        let disk = &mut self.seats[node].disk;
        let has_room = self.now >= disk.full_until;
        if has_room {
            change(&mut disk.image.notes);
        }
        has_room
    }

    /// A moment between two things that must both happen, or neither: whether the process dies in
    /// it.
    fn dies_here(&mut self, node: usize) -> Result<bool, Violation> {
        use rand::RngExt;
        if !self.rough || !self.rng.random_bool(self.plan.weather.trip) {
            return Ok(false);
        }
        self.struck(Strike::Trip, node);
        let down = Duration::from_secs(8).mul_f64(self.rng.random_range(0.01..1.0));
        self.kill(node, down)?;
        Ok(true)
    }

    /// Tells a node's children the list that it has.
    fn tell_children(&mut self, node: usize) {
        let links: Vec<LinkId> = self.net.open_links(node, Side::Parent);
        links.into_iter().for_each(|link| self.tell_list(node, link));
    }

    /// A child is told the list.
    pub(crate) fn tell_list(&mut self, node: usize, link: LinkId) {
        let Some(process) = &self.seats[node].process else { return };
        if process.desk.list.issue == (0, 0) {
            return;
        }
        let item = crate::net::Item::List(Box::new(process.desk.list.clone()));
        let dice = (&mut self.rng, &mut self.queue);
        self.net.send(self.now, link, Side::Child, item, dice);
    }

    /// A parent has told a list.
    pub(crate) fn take_list(&mut self, node: usize, list: List) {
        let Some(process) = &mut self.seats[node].process else { return };
        if list.issue <= process.desk.list.issue {
            return;
        }
        process.desk.list = list.clone();
        // What cannot be kept the parent says again after a restart.
        self.keep_notes(node, |notes| notes.list = list);
        self.tell_children(node);
    }

    /// Schedules are over: the operator takes all frequencies out.
    pub(crate) fn end_schedules(&mut self) -> Result<(), Violation> {
        if self.plan.calendar.edicts.is_empty() {
            return Ok(());
        }
        for node in 1..self.seats.len() {
            self.nothing_is_open(node)?;
        }
        let names: Vec<String> = self.plan.calendar.names();
        names.into_iter().for_each(|name| self.decree(&name, None));
        Ok(())
    }

    /// What of schedules is not as it should be, once they are over.
    pub(crate) fn unscheduled(&self) -> Option<String> {
        let root = self.seats[0].process.as_ref()?;
        for (node, seat) in self.seats.iter().enumerate() {
            let desk = &seat.process.as_ref()?.desk;
            if desk.list != root.desk.list || seat.disk.image.notes.list != root.desk.list {
                let (has, is) = (desk.list.issue, root.desk.list.issue);
                return Some(format!("{node} has the list {has:?}, the root {is:?}"));
            }
            if !desk.jobs.is_empty() || !desk.groups.is_empty() {
                return Some(format!("{node} is still putting right {:?}", desk.jobs));
            }
        }
        None
    }

    fn remark(&mut self, node: usize, text: &str) {
        self.trace.step(self.now, node, [103, text.len() as u64]);
        if self.trace.wants_text() {
            self.trace.line(self.now, node, text);
        }
    }
}

/// How a node is called.
fn name(node: usize) -> String {
    format!("n{node}")
}

/// What puts nodes into a sequence.
fn sequence(name: &str) -> [u8; 8] {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step).to_be_bytes()
}

fn host(node: usize) -> HostId {
    HostId(node as u32)
}
