//! Schedules that go on while the controller is silent: a relay has its own children, and itself,
//! put right what is distributed as often as is due.
//!
//! The times are in the list that the controller signs and every node keeps. Whose a time is, and
//! whose turn it is, [`SiteRun`] says; each relay sees to its own children, whoever is above it, so
//! no two see to one host, and a host does nothing twice for one time. What is noted is on disk
//! before anybody is told to do something.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::{Class, HostId, HostSet, Kind, Severity};
use protos::Schedule;
use relay::Running;
use timing::{Cron, Said, Sight, SiteRun, SiteTodo, Word, clock_text};
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
/// So many groups of children have their turn at once, then others wait.
const GROUPS: usize = 64;
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
    runs: BTreeMap<String, SiteRun>,
    /// Who has his turn, by frequency.
    in_turn: BTreeMap<String, HostSet>,
    /// Those that have theirs together, and what comes of it.
    groups: JoinSet<()>,
    ended: mpsc::Receiver<Ended>,
    end: mpsc::Sender<Ended>,
    /// What has been told and may not be on disk yet, by frequency: when it was due, since when.
    telling: BTreeMap<String, (u64, Instant)>,
    /// Frequencies whose times this machine does not understand, so that it is told once.
    unclear: BTreeSet<String>,
    /// Everybody who was ever here since this node has started, by name.
    names: BTreeMap<HostId, String>,
}

/// What has come of some turns.
struct Ended {
    frequency: String,
    due_ms: u64,
    hosts: HostSet,
    /// What one of them says; else there was no word of those with these names.
    said: Result<RestoreDone, Vec<String>>,
}

/// Something to be told.
type Notice = (Kind, String);

impl Site {
    fn open(node: Arc<Running>, once: Arc<Once>, path: PathBuf) -> Site {
        let runs = notes::read(&path);
        let (end, ended) = mpsc::channel(TOGETHER);
        Site {
            node,
            once,
            ended,
            end,
            path,
            runs,
            in_turn: BTreeMap::new(),
            groups: JoinSet::new(),
            telling: BTreeMap::new(),
            unclear: BTreeSet::new(),
            names: BTreeMap::new(),
        }
    }

    /// Does what is due. Returns how long to wait.
    async fn step(&mut self) -> Duration {
        self.tell_done().await;
        let schedule = self.node.schedule();
        if schedule.frequencies.is_empty() && self.runs.is_empty() {
            return LOOK;
        }
        let Some(standing) = self.node.standing().await else { return LOOK };
        let now_ms = now_ms();
        let age = u64::try_from(standing.controller_age.as_millis()).unwrap_or(u64::MAX);
        let heard_ms = if standing.heard { now_ms.saturating_sub(age) } else { 0 };
        let word = Word { heard_ms, stale: standing.silent };
        let here = self.here();
        let before = self.runs.clone();
        self.runs.retain(|name, _| schedule.frequencies.contains_key(name));
        let mut unclear = self.check(&schedule);
        let todo = self.look(&schedule, &here, word, now_ms);
        if self.runs != before && !self.save() {
            // What is not noted is not begun.
            self.runs = before;
            return LOOK;
        }
        let (mut pause, mut turns) = (LOOK, Vec::new());
        for (frequency, todo) in todo {
            unclear.extend(self.told(&frequency, &todo));
            if todo.open {
                pause = pause.min(OPEN);
            }
            let next = todo.next_ms.map(|next| next.saturating_sub(now_ms).max(1));
            pause = next.map_or(pause, |next| pause.min(Duration::from_millis(next)));
            if !todo.turns.is_empty() {
                turns.push((frequency, todo.due_ms, todo.turns));
            }
        }
        for (kind, text) in unclear {
            self.node.notice(kind, &text).await;
        }
        while self.groups.try_join_next().is_some() {}
        for (frequency, due_ms, hosts) in turns {
            if self.groups.len() < GROUPS {
                self.begin(frequency, due_ms, hosts, &here);
            }
        }
        pause
    }

    /// Tells what has come of times of which all have had their turns. It is noted as told only
    /// once the event is on disk, too: who is killed before tells it again.
    async fn tell_done(&mut self) {
        let (mut notices, mut is_noted) = (Vec::new(), true);
        for (frequency, run) in &mut self.runs {
            let is_over = self.in_turn.get(frequency).is_none_or(HostSet::is_empty);
            if run.told || !run.is_done() || !is_over || run.said == Said::default() {
                continue;
            }
            let Said { hosts, restored, failed } = run.said;
            let due_ms = run.run.due_ms;
            match self.telling.get(frequency).filter(|(due, _)| *due == due_ms) {
                Some((_, since)) => {
                    run.told = since.elapsed() >= LOOK;
                    is_noted &= !run.told;
                }
                None => {
                    self.telling.insert(frequency.clone(), (due_ms, Instant::now()));
                    let at = clock_text(due_ms);
                    let text = format!(
                        "{frequency}, due {at}, went on without the controller: {hosts} nodes, \
                         {restored} with something put right, {failed} with something that is not \
                         right"
                    );
                    notices.push((DONE, text));
                }
            }
        }
        self.telling.retain(|frequency, _| self.runs.get(frequency).is_some_and(|run| !run.told));
        if !is_noted {
            self.save();
        }
        for (kind, text) in notices {
            self.node.notice(kind, &text).await;
        }
    }

    /// Who is here: this node, and its children.
    fn here(&mut self) -> BTreeMap<HostId, String> {
        let children = self.node.links().into_iter().filter(|link| !link.is_parent);
        let mut here: BTreeMap<_, _> = children.map(|link| (link.host, link.name)).collect();
        here.insert(self.node.host(), self.node.name().to_owned());
        self.names.extend(here.clone());
        here
    }

    fn look(
        &mut self,
        schedule: &Schedule,
        here: &BTreeMap<HostId, String>,
        word: Word,
        now_ms: u64,
    ) -> Vec<(String, SiteTodo)> {
        let here: BTreeMap<HostId, &str> = here.iter().map(|(id, name)| (*id, &**name)).collect();
        let own = schedule.zones.get(self.node.site());
        let mut all = Vec::new();
        for (name, times) in &schedule.frequencies {
            let zone = timing::zone(own.unwrap_or(&times.zone));
            let run = self.runs.entry(name.clone()).or_insert_with(|| SiteRun::new(now_ms));
            let in_turn = self.in_turn.get(name).cloned().unwrap_or_default();
            let sight = Sight {
                times,
                zone: &zone,
                here: &here,
                in_turn: &in_turn,
                word,
                now_ms,
                hash: sequence,
            };
            all.push((name.clone(), run.look(&sight)));
        }
        all
    }

    /// What this machine does not understand of the schedule, and has not said yet.
    fn check(&mut self, schedule: &Schedule) -> Vec<Notice> {
        let mut notices = Vec::new();
        self.unclear.retain(|name| schedule.frequencies.contains_key(name));
        for (name, times) in &schedule.frequencies {
            match Cron::check(times) {
                Ok(_) => drop(self.unclear.remove(name)),
                Err(error) if self.unclear.insert(name.clone()) => {
                    let what = "cannot go on here without the controller";
                    notices.push((MISSED, format!("{name} {what}: {error}")));
                }
                Err(_) => {}
            }
        }
        notices
    }

    /// What was missed.
    fn told(&self, frequency: &str, todo: &SiteTodo) -> Vec<Notice> {
        let mut notices = Vec::new();
        if todo.missed > 0 {
            let text = format!(
                "{frequency} was due {} times while the controller and this relay were not there",
                todo.missed
            );
            notices.push((MISSED, text));
        }
        let (late, since) = &todo.late;
        for (hosts, due_ms) in [(late, *since), (&todo.expired, todo.due_ms)] {
            if !hosts.is_empty() {
                let (at, names) = (clock_text(due_ms), self.names(hosts));
                let text =
                    format!("{frequency}, due {at}, without the controller: no turn: {names}");
                notices.push((MISSED, text));
            }
        }
        notices
    }

    /// Children have their turn.
    fn begin(
        &mut self,
        frequency: String,
        due_ms: u64,
        hosts: HostSet,
        here: &BTreeMap<HostId, String>,
    ) {
        info!(frequency, hosts = hosts.len(), "due, and the controller is silent");
        let in_turn = self.in_turn.entry(frequency.clone()).or_default();
        *in_turn = in_turn.union(&hosts);
        let mut children = here.clone();
        children.retain(|id, _| hosts.contains(*id));
        if children.remove(&self.node.host()).is_some() {
            let (node, once, end) = (self.node.clone(), self.once.clone(), self.end.clone());
            let frequency = frequency.clone();
            self.groups.spawn(async move {
                let said = Ok(once.put_right(&node, &frequency, due_ms).await);
                let hosts = HostSet::one(node.host());
                end.send(Ended { frequency, due_ms, hosts, said }).await.ok();
            });
        }
        if !children.is_empty() {
            let (node, end) = (self.node.clone(), self.end.clone());
            self.groups.spawn(ask(node, end, (frequency, due_ms), children));
        }
    }

    /// Some turns are over.
    async fn end(&mut self, all: Vec<Ended>) {
        let mut notices = Vec::new();
        for Ended { frequency, due_ms, hosts, said } in all {
            let left = self.in_turn.remove(&frequency).unwrap_or_default().difference(&hosts);
            self.in_turn.insert(frequency.clone(), left);
            let at = clock_text(due_ms);
            if let Err(silent) = &said {
                let what = format!("no word of {}", notes::list(silent, NAMED, 0));
                let text = format!("{frequency}, due {at}, without the controller: {what}");
                notices.push((MISSED, text));
            }
            let run = self.runs.get_mut(&frequency).filter(|run| run.run.due_ms == due_ms);
            let Some(run) = run else { continue };
            run.run.had(&hosts);
            if let Ok(done) = said {
                run.said.hosts += 1;
                run.said.restored += u64::from(!done.restored.is_empty());
                run.said.failed += u64::from(!done.failed.is_empty());
            }
        }
        for (kind, text) in notices {
            self.node.notice(kind, &text).await;
        }
        self.save();
    }

    fn save(&self) -> bool {
        notes::write(&self.path, &self.runs)
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
    (frequency, due_ms): (String, u64),
    children: BTreeMap<HostId, String>,
) {
    let ended = |hosts, said| Ended { frequency: frequency.clone(), due_ms, hosts, said };
    let no_word = |silent: BTreeMap<HostId, String>| {
        let hosts = silent.keys().copied().collect();
        ended(hosts, Err(silent.into_values().collect()))
    };
    let mut asking = match Asking::due(&node, (&frequency, due_ms), children.clone()).await {
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

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
