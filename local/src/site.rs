//! Schedules that go on while the controller is silent: a relay has its own children, and itself,
//! put right what is distributed as often as is due.
//!
//! The times are in the list that the controller signs and every node keeps. Whose a time is, whose
//! turn it is and what is noted [`SiteKeeper`] says, which the simulator plays, too; here are the
//! clock, the file and the words. Each relay sees to its own children, whoever is above it, so
//! no two see to one host, and a host does nothing twice for one time. What is noted is on disk
//! before anybody is told to do something.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::{Class, HostId, HostSet, Kind, Severity};
use relay::Running;
use timing::{Said, SiteKeeper, SiteTold, SiteTurns, SiteView, Word, clock_text};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::notes;
use crate::once::Once;
use crate::restore::{Asking, RestoreDone};

/// The file in the state folder.
const FILE: &str = "site.json";
/// How long to sleep at most; and while it is not known whose a time is.
const LOOK: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_millis(500);
/// How long children are waited for: their commands may take a while.
const WITHIN: Duration = Duration::from_secs(15 * 60);
/// Who has had no link here for so long will say nothing more, and holds up nobody's turn.
const GONE: Duration = Duration::from_secs(60);
/// So many groups of children have their turn at once, then others wait; but whoever has had it for
/// this long, as those who never answer, holds up nobody. There are never more than [`ALL_GROUPS`].
const GROUPS: usize = 64;
const SLOW: Duration = Duration::from_secs(60);
const ALL_GROUPS: usize = 1024;
/// What so many have said is noted together.
const TOGETHER: usize = 64;
/// So many names stand in an event.
const NAMED: usize = 20;

const DONE: Kind = Kind { subject: "schedule.site", severity: Severity::Info, class: Class::Relay };
const MISSED: Kind =
    Kind { subject: "schedule.missed", severity: Severity::Warning, class: Class::Relay };

/// Keeps the schedule of the site, until the runtime ends.
pub(crate) async fn keep(node: Arc<Running>, once: Arc<Once>, state: PathBuf) {
    // Who serves nobody has no site, and the controller has a schedule of its own.
    if node.addr().is_none() || node.host() == HostId::ROOT {
        return;
    }
    let mut site = Site::open(node, once, state.join(FILE));
    loop {
        let pause = site.step().await;
        let mut ended = Vec::new();
        tokio::select! {
            _ = site.ended.recv_many(&mut ended, TOGETHER) => site.end(ended).await,
            () = sleep(pause) => {}
        }
    }
}

struct Site {
    node: Arc<Running>,
    once: Arc<Once>,
    path: PathBuf,
    keeper: SiteKeeper,
    started: Instant,
    /// Those that have their turn together, and what comes of it.
    groups: JoinSet<()>,
    begun: Begun,
    ended: mpsc::Receiver<Ended>,
    end: mpsc::Sender<Ended>,
    /// Everybody who was ever here since this node has started, by name.
    names: BTreeMap<HostId, String>,
}

/// What has come of some turns.
struct Ended {
    turns: SiteTurns,
    /// What one of them says; else there was no word of those with these names.
    said: Result<RestoreDone, Vec<String>>,
}

impl Site {
    fn open(node: Arc<Running>, once: Arc<Once>, path: PathBuf) -> Site {
        let keeper = SiteKeeper::new(notes::read(&path));
        let (end, ended) = mpsc::channel(TOGETHER);
        let (groups, begun, names) = Default::default();
        let started = Instant::now();
        Site { node, once, path, keeper, started, groups, begun, ended, end, names }
    }

    /// Does what is due. Returns how long to wait.
    async fn step(&mut self) -> Duration {
        let (told, is_noted) = self.keeper.tell_done(self.started.elapsed());
        if is_noted {
            self.save();
        }
        self.tell(told).await;
        let schedule = self.node.schedule();
        if schedule.frequencies.is_empty() && self.keeper.notes().is_empty() {
            return LOOK;
        }
        let Some(standing) = self.node.standing().await else { return LOOK };
        let now_ms = now_ms();
        let age = u64::try_from(standing.controller_age.as_millis()).unwrap_or(u64::MAX);
        let heard_ms = if standing.heard { now_ms.saturating_sub(age) } else { 0 };
        let here = self.here();
        let before = self.keeper.notes().clone();
        let look = self.keeper.look(&SiteView {
            frequencies: &schedule.frequencies,
            zone: schedule.zones.get(self.node.site()).map(String::as_str),
            here: &here,
            word: Word { heard_ms, stale: standing.silent },
            now_ms,
            hash: sequence,
        });
        if *self.keeper.notes() != before && !self.save() {
            // What is not noted is not begun.
            self.keeper.take_back(before);
            return LOOK;
        }
        self.tell(look.told).await;
        while self.groups.try_join_next().is_some() {}
        for turns in look.turns {
            if self.begun.has_room(Instant::now(), self.groups.len()) {
                self.begin(turns, &here);
            }
        }
        let pause = if look.is_open { OPEN } else { LOOK };
        let next = look.next_ms.map(|next| next.saturating_sub(now_ms).max(1));
        next.map_or(pause, |next| pause.min(Duration::from_millis(next)))
    }

    /// Who is here: this node, and its children.
    fn here(&mut self) -> BTreeMap<HostId, String> {
        let children = self.node.links().into_iter().filter(|link| !link.is_parent);
        let mut here: BTreeMap<_, _> = children.map(|link| (link.host, link.name)).collect();
        here.insert(self.node.host(), self.node.name().to_owned());
        self.names.extend(here.clone());
        here
    }

    async fn tell(&self, told: Vec<SiteTold>) {
        for told in told {
            let (kind, text) = self.words(&told);
            self.node.notice(kind, &text).await;
        }
    }

    fn words(&self, told: &SiteTold) -> (Kind, String) {
        match told {
            SiteTold::Done { frequency, due_ms, said } => {
                let (at, Said { hosts, restored, failed }) = (clock_text(*due_ms), said);
                let text = format!(
                    "{frequency}, due {at}, went on without the controller: {hosts} nodes, \
                     {restored} with something put right, {failed} with something that is not \
                     right"
                );
                (DONE, text)
            }
            SiteTold::Missed { frequency, times } => {
                let text = format!(
                    "{frequency} was due {times} times while the controller and this relay were \
                     not there"
                );
                (MISSED, text)
            }
            SiteTold::NoTurn { frequency, due_ms, hosts } => {
                let (at, names) = (clock_text(*due_ms), self.names(hosts));
                let text =
                    format!("{frequency}, due {at}, without the controller: no turn: {names}");
                (MISSED, text)
            }
            SiteTold::Unclear { frequency, error } => {
                let what = "cannot go on here without the controller";
                (MISSED, format!("{frequency} {what}: {error}"))
            }
        }
    }

    /// Children have their turn.
    fn begin(&mut self, turns: SiteTurns, here: &BTreeMap<HostId, String>) {
        let SiteTurns { frequency, due_ms, by_ms, hosts } = &turns;
        info!(frequency, hosts = hosts.len(), "due, and the controller is silent");
        self.keeper.begin(&turns);
        let (own, mut children) = (self.node.host(), here.clone());
        children.retain(|id, _| hosts.contains(*id));
        if children.remove(&own).is_some() {
            let (node, once, end) = (self.node.clone(), self.once.clone(), self.end.clone());
            let turns = SiteTurns { hosts: HostSet::one(own), ..turns.clone() };
            let times = (*due_ms, *by_ms);
            self.groups.spawn(async move {
                let said = Ok(once.put_right(&node, &turns.frequency, times).await);
                end.send(Ended { turns, said }).await.ok();
            });
        }
        if !children.is_empty() {
            let (node, end) = (self.node.clone(), self.end.clone());
            self.groups.spawn(ask(node, end, turns, children));
        }
    }

    /// Some turns are over.
    async fn end(&mut self, all: Vec<Ended>) {
        let mut silent_ones = Vec::new();
        for Ended { turns, said } in all {
            let counted = said.as_ref().ok().map(|done| Said {
                hosts: 1,
                restored: u64::from(!done.restored.is_empty()),
                failed: u64::from(!done.failed.is_empty()),
            });
            self.keeper.end(&turns, counted);
            silent_ones.extend(said.err().map(|silent| (turns, silent)));
        }
        for (SiteTurns { frequency, due_ms, .. }, silent) in silent_ones {
            let (at, names) = (clock_text(due_ms), notes::list(&silent, NAMED, 0));
            let text = format!("{frequency}, due {at}, without the controller: no word of {names}");
            self.node.notice(MISSED, &text).await;
        }
        self.save();
    }

    fn save(&self) -> bool {
        notes::write(&self.path, self.keeper.notes())
    }

    fn names(&self, hosts: &HostSet) -> String {
        let name = |id: HostId| self.names.get(&id).cloned().unwrap_or_else(|| format!("#{id}"));
        notes::list(&hosts.iter().map(name).collect::<Vec<_>>(), NAMED, 0)
    }
}

/// Has children do what was due, and says what they say.
async fn ask(
    node: Arc<Running>,
    end: mpsc::Sender<Ended>,
    turns: SiteTurns,
    children: BTreeMap<HostId, String>,
) {
    let ended = |hosts, said| Ended { turns: SiteTurns { hosts, ..turns.clone() }, said };
    let no_word = |silent: BTreeMap<HostId, String>| {
        let hosts = silent.keys().copied().collect();
        ended(hosts, Err(silent.into_values().collect()))
    };
    let times = (&*turns.frequency, turns.due_ms, turns.by_ms);
    let mut asking = match Asking::due(&node, times, children.clone()).await {
        Ok(asking) => asking,
        Err(error) => {
            warn!(error = %relay::chain(&error), "the children are not asked");
            return drop(end.send(no_word(children)).await);
        }
    };
    let (until, mut absent) = (Instant::now() + WITHIN, Absent::default());
    while Instant::now() < until && !asking.silent.is_empty() {
        match timeout_at(until.min(Instant::now() + LOOK), asking.next()).await {
            Ok(Some((host, _, done))) => {
                end.send(ended(HostSet::one(host), Ok(done))).await.ok();
            }
            Ok(None) => break,
            Err(_) => {
                let linked = node.links().into_iter().map(|link| link.host).collect();
                let gone = absent.look(Instant::now(), &linked, &mut asking.silent);
                if !gone.is_empty() {
                    end.send(no_word(gone)).await.ok();
                }
            }
        }
    }
    if !asking.silent.is_empty() {
        end.send(no_word(asking.silent)).await.ok();
    }
}

/// When the last groups had their turn.
#[derive(Default)]
struct Begun(VecDeque<Instant>);

impl Begun {
    /// Whether one more may have it now, while so many do; it counts as begun.
    fn has_room(&mut self, now: Instant, running: usize) -> bool {
        self.0.retain(|at| now - *at < SLOW);
        let has_room = running.min(self.0.len()) < GROUPS && running < ALL_GROUPS;
        if has_room {
            self.0.push_back(now);
        }
        has_room
    }
}

/// Since when those have had no link here who are waited for.
#[derive(Default)]
struct Absent(BTreeMap<HostId, Instant>);

impl Absent {
    /// Takes out of the silent ones who has been absent for too long.
    fn look(
        &mut self,
        now: Instant,
        linked: &BTreeSet<HostId>,
        silent: &mut BTreeMap<HostId, String>,
    ) -> BTreeMap<HostId, String> {
        self.0.retain(|host, _| !linked.contains(host));
        let away = silent.keys().filter(|host| !linked.contains(host)).copied();
        let away = away.filter(|host| now - *self.0.entry(*host).or_insert(now) >= GONE);
        let gone: Vec<_> = away.collect();
        gone.into_iter().filter_map(|host| silent.remove_entry(&host)).collect()
    }
}

/// What puts hosts into a sequence, as the controller does it.
fn sequence(name: &str) -> [u8; 8] {
    let mut start = [0; 8];
    start.copy_from_slice(&relay::hash(name.as_bytes()).0[..8]);
    start
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_answers_holds_up_no_other_group_for_long() {
        let (start, mut begun) = (Instant::now(), Begun::default());
        let mut begin = |after, running| {
            (0..100).filter(|n| begun.has_room(start + after, running + n)).count()
        };
        // None of them answers.
        assert_eq!(begin(Duration::ZERO, 0), GROUPS);
        assert_eq!(begin(SLOW - LOOK, GROUPS), 0);
        assert_eq!(begin(SLOW, GROUPS), GROUPS);
        // Those that have answered make room at once.
        assert_eq!(begin(SLOW, GROUPS - 1), 1);
        assert_eq!(begin(SLOW * 2, ALL_GROUPS - 1), 1, "there is a limit");
    }

    #[test]
    fn who_is_away_too_long_is_waited_for_no_more() {
        let begun = Instant::now();
        let (one, two) = (HostId(1), HostId(2));
        let mut silent = BTreeMap::from([(one, "one".to_owned()), (two, "two".to_owned())]);
        let mut absent = Absent::default();
        let mut look = |after: Duration, linked: &[HostId]| {
            let linked = linked.iter().copied().collect();
            absent.look(begun + after, &linked, &mut silent).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(look(Duration::ZERO, &[two]), []);
        // The other is away, too, and comes back in time.
        assert_eq!(look(GONE / 2, &[]), []);
        assert_eq!(look(GONE - LOOK, &[two]), []);
        assert_eq!(look(GONE, &[two]), [one]);
        assert_eq!(look(GONE * 2, &[]), []);
        assert_eq!(look(GONE * 3, &[]), [two]);
        assert!(silent.is_empty());
    }
}
