//! Rollouts: orders that go out in waves, each behind the gate of the one before.
//!
//! The operator here is the controller's own [`Course`], which sees no more than the controller
//! does: what is on the root's disk, while the root lives. [`Rolled`] looks at what hosts have on
//! their own disks instead: whoever begins something of a wave, of the wave before so many hosts
//! must have ended well, for as long as it had to soak.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use controller::rollout::course::{Course, Next, Stage};
use controller::rollout::gate::{Count, WaveGate};
use mesh::{HostId, HostSet, Order, OrderId, State};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::checks::Violation;
use crate::plan::{self, Span, Work};
use crate::queue::Event;
use crate::sim::Sim;

/// How often the operator looks.
const LOOK: Duration = Duration::from_millis(250);
/// What stands in an order that takes another back from those who have not begun it, and ends
/// nothing.
pub(crate) const RECALL: &[u8] = b"recall";
/// The pause before what has stopped goes on.
const RESUME: Duration = Duration::from_secs(8);

/// A rollout of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// When the operator begins it.
    pub at: Duration,
    /// Its waves, none of them empty.
    pub waves: Vec<HostSet>,
    /// How many percent of a wave must end well.
    pub ok: u32,
    /// How long a wave soaks.
    pub soak: Duration,
    /// How often it goes on after a stop.
    pub resumes: u32,
    /// How long a host takes.
    pub takes: Span,
    /// How long after its beginning it is paused, and for how long.
    pub pause: Option<(Duration, Duration)>,
    /// For the checks themselves: the operator opens the next wave whatever the gate says.
    pub careless: bool,
}

impl Rolling {
    /// Draws a rollout over some of the nodes.
    pub(crate) fn draw(rng: &mut SmallRng, nodes: usize, horizon: Duration) -> Rolling {
        let mut waves = vec![HostSet::new(); rng.random_range(2..5)];
        for host in 0..nodes as u32 {
            let wave = rng.random_range(0..waves.len());
            waves[wave].insert(HostId(host));
        }
        waves.retain(|wave| !wave.is_empty());
        let horizon = horizon.as_millis() as u64;
        Rolling {
            at: Duration::from_millis(rng.random_range(0..=horizon / 2)),
            waves,
            ok: [30, 60, 90, 100][rng.random_range(0..4)],
            soak: Duration::from_secs(rng.random_range(0..4)),
            resumes: rng.random_range(0..4),
            takes: (Duration::from_millis(10), Duration::from_secs(3)),
            careless: false,
            pause: None,
        }
    }

    /// The same with a pause, or not.
    pub(crate) fn paused(self, rng: &mut SmallRng) -> Rolling {
        let mut ms = |most| Duration::from_millis(rng.random_range(1..most));
        let pause = (ms(10_000), ms(20_000));
        Rolling { pause: rng.random_bool(0.5).then_some(pause), ..self }
    }

    fn gate(&self) -> WaveGate {
        let text = match self.careless {
            true => "ok>=0".into(),
            false => format!("ok>={}% soak={}", self.ok, self.soak.as_secs()),
        };
        text.parse().expect("it is a gate")
    }

    fn least(&self, wave: usize) -> u64 {
        (self.waves[wave].len() * u64::from(self.ok)).div_ceil(100)
    }
}

/// Where a rollout is, as the controller keeps it.
pub(crate) struct Roll {
    course: Course,
    /// The orders of each wave, in the sequence in which they were given.
    orders: Vec<(usize, OrderId)>,
    resumes: u32,
    resume_at: Option<Duration>,
    /// When it is paused, and when that ends.
    pause: Option<(Duration, Duration)>,
    /// From whom a pause has taken it back, until they are given it again.
    recalled: HostSet,
    /// How many hosts of whom it was taken back were given it again.
    given_again: u64,
}

impl Roll {
    pub(crate) fn new(rolling: &Rolling) -> Roll {
        let course = Course::new(rolling.waves.len());
        Roll {
            course,
            orders: Vec::new(),
            resumes: rolling.resumes,
            resume_at: None,
            pause: rolling.pause.map(|(after, lasts)| {
                let at = rolling.at + after;
                (at, at + lasts)
            }),
            recalled: HostSet::new(),
            given_again: 0,
        }
    }

    /// Whether nothing moves any more unless somebody says so.
    pub(crate) fn rests(&self) -> bool {
        self.course.is_over()
            || (matches!(self.course.stage(), Stage::Stopped(_)) && self.resume_at.is_none())
    }
}

/// What is known from outside of all rollouts.
#[derive(Default)]
pub(crate) struct Rolled {
    /// Of which rollout and wave an order is.
    orders: BTreeMap<OrderId, (usize, usize)>,
    /// Since when enough hosts of a wave had ended well, as their own disks say.
    well: BTreeMap<(usize, usize), Duration>,
    /// Whoever began something.
    pub(crate) begun: u64,
}

impl Rolled {
    /// A command starts.
    pub(crate) fn starting(
        &mut self,
        me: HostId,
        id: OrderId,
        soak: impl Fn(usize) -> Duration,
        now: Duration,
    ) -> Result<(), Violation> {
        let Some(&(no, wave)) = self.orders.get(&id) else { return Ok(()) };
        self.begun += 1;
        let Some(before) = wave.checked_sub(1) else { return Ok(()) };
        let soaked = self.well.get(&(no, before)).map(|since| *since + soak(no));
        match soaked {
            // The moment itself was seen a look later.
            Some(soaked) if soaked <= now + LOOK => Ok(()),
            soaked => {
                let detail = format!(
                    "{me:?} starts wave {wave} of rollout {no} at {now:?}; the gate: {soaked:?}"
                );
                Err(Violation::new("no wave before its gate", detail))
            }
        }
    }
}

impl Sim {
    /// The operator looks at a rollout, if the controller lives.
    pub(crate) fn roll(&mut self, no: usize) -> Result<(), Violation> {
        self.note_well(no);
        let roll = &self.rolls[no];
        if roll.rests() {
            return Ok(());
        }
        self.queue.push(self.now + LOOK, Event::Roll { no });
        if self.seats[0].process.is_none() {
            return Ok(());
        }
        self.pause(no);
        let roll = &self.rolls[no];
        let (wave, gate) = (roll.course.wave(), self.plan.rollouts[no].gate());
        let (count, ended) = self.stands(no, wave);
        let now_ms = self.now.as_millis() as u64;
        let roll = &mut self.rolls[no];
        match roll.course.step(now_ms, &gate, count, ended) {
            Next::Give => self.give_wave(no, wave),
            Next::Check => roll.course.checked(Ok(())),
            // What is paused is looked at by `pause`.
            Next::Rest => match roll.resume_at {
                Some(at) if at <= self.now => {
                    (roll.resume_at, roll.recalled) = (None, HostSet::new());
                    roll.pause = roll.pause.filter(|_| !roll.course.is_paused());
                    roll.course.resume();
                }
                _ => {}
            },
            Next::Wait(_) | Next::Moved => {
                if matches!(roll.course.stage(), Stage::Stopped(_)) && roll.resumes > 0 {
                    roll.resumes -= 1;
                    roll.resume_at = Some(self.now + RESUME);
                }
            }
        }
        Ok(())
    }

    /// How a wave stands by what the root has on its disk, and whether each host has some word.
    fn stands(&self, no: usize, wave: usize) -> (Count, bool) {
        let hosts = &self.plan.rollouts[no].waves[wave];
        let tallies = &self.seats[0].disk.image.tallies;
        let (mut ok, mut errors, mut missed) = Default::default();
        let mut ended = true;
        for (_, id) in self.rolls[no].orders.iter().filter(|(of, _)| *of == wave) {
            let nothing = mesh::Tally::new();
            let tally = tallies.get(id).unwrap_or(&nothing);
            (errors, missed) = (HostSet::new(), HostSet::new());
            for (outcome, set) in tally.lines() {
                let to = match outcome.state {
                    State::Ok => &mut ok,
                    State::Failed(_) | State::Signalled(_) | State::Refused => &mut errors,
                    _ => &mut missed,
                };
                *to = HostSet::union(to, set);
            }
            // What the root has refused it has forgotten, and nobody answers it.
            let targets = self.work(*id).map(|work| work.order.targets.clone());
            ended = targets.is_some_and(|targets| *tally.hosts() == targets)
                || self.checks.known.is_rejected(*id);
        }
        let owed = self.owed_again(no);
        let errors = errors.difference(&ok).len();
        let missed = missed.difference(&ok).difference(&owed).len();
        let ended = ended && owed.is_empty();
        (Count { hosts: hosts.len(), ok: ok.intersection(hosts).len(), errors, missed }, ended)
    }

    /// The operator pauses a rollout, or goes on with it: for the time between, whoever has not
    /// begun does not.
    fn pause(&mut self, no: usize) {
        let Some((at, until)) = self.rolls[no].pause else { return };
        let roll = &mut self.rolls[no];
        if roll.course.is_paused() {
            if self.now >= until && !matches!(roll.course.stage(), Stage::Stopped(_)) {
                roll.pause = None;
                roll.course.resume();
                if !roll.recalled.is_empty() {
                    roll.course.give_again();
                }
            }
        } else if self.now >= at && roll.course.pause() {
            let orders: Vec<OrderId> = roll.orders.iter().map(|(_, id)| *id).collect();
            orders.into_iter().for_each(|id| self.recall(no, id));
        }
    }

    /// Takes an order of a rollout back from whoever has not spoken for himself.
    fn recall(&mut self, no: usize, older: OrderId) {
        let tallies = &self.seats[0].disk.image.tallies;
        let settled = tallies.get(&older).map(mesh::Tally::settled).unwrap_or_default();
        let Some(work) = self.work(older) else { return };
        let hosts = work.order.targets.difference(&settled);
        let expires = work.expires;
        let ttl = expires.saturating_sub(self.now);
        if hosts.is_empty() || ttl.is_zero() {
            return;
        }
        let again = plan::run(self.plan.free_no(), hosts.clone());
        let body = Bytes::from_static(RECALL);
        let order = Order { again: true, cancels: Some(older), hold: ttl, ttl, body, ..again };
        let takes = (Duration::from_millis(1), Duration::from_millis(50));
        let work = Work { at: self.now, order: Arc::new(order), expires, extra: None, takes };
        self.checks.add(&work);
        self.plan.work.push(work);
        self.queue.push(self.now, Event::Submit { work: self.plan.work.len() - 1 });
        self.rolls[no].recalled = self.rolls[no].recalled.union(&hosts);
    }

    /// Whoever had it taken back, and has not begun as far as the root knows.
    fn owed_again(&self, no: usize) -> HostSet {
        let roll = &self.rolls[no];
        let mut owed = roll.recalled.clone();
        for (_, id) in &roll.orders {
            let tally = self.seats[0].disk.image.tallies.get(id);
            for (outcome, hosts) in tally.into_iter().flat_map(mesh::Tally::lines) {
                if outcome.state != State::Cancelled && !outcome.state.is_provisional() {
                    owed = owed.difference(hosts);
                }
            }
        }
        owed
    }

    /// Gives a wave to whoever has not ended it well; after a pause to whoever is owed it.
    fn give_wave(&mut self, no: usize, wave: usize) {
        let again = self.owed_again(no);
        let roll = &mut self.rolls[no];
        let was_given = roll.orders.iter().any(|(of, _)| *of == wave);
        let after_pause = !std::mem::take(&mut roll.recalled).is_empty() && was_given;
        roll.given_again += again.len();
        let tallies = &self.seats[0].disk.image.tallies;
        let rolling = &self.plan.rollouts[no];
        let mut owed = rolling.waves[wave].clone();
        for (_, id) in self.rolls[no].orders.iter().filter(|(of, _)| *of == wave) {
            let lines = tallies.get(id).into_iter().flat_map(mesh::Tally::lines);
            for (_, set) in lines.filter(|(outcome, _)| outcome.state == State::Ok) {
                owed = owed.difference(set);
            }
        }
        owed = if after_pause { again } else { owed.union(&again) };
        if !owed.is_empty() {
            let order = Order { again: true, ..plan::run(self.plan.free_no(), owed) };
            let (id, takes, expires) = (order.id, rolling.takes, self.now + order.ttl);
            let work = Work { at: self.now, order: Arc::new(order), expires, extra: None, takes };
            self.checks.add(&work);
            self.checks.rolled.orders.insert(id, (no, wave));
            self.plan.work.push(work);
            self.queue.push(self.now, Event::Submit { work: self.plan.work.len() - 1 });
            self.rolls[no].orders.push((wave, id));
        }
        self.rolls[no].course.given();
    }

    /// Notes from when on enough hosts of a wave have ended well, by their own disks.
    fn note_well(&mut self, no: usize) {
        let rolling = &self.plan.rollouts[no];
        for (wave, hosts) in rolling.waves.iter().enumerate() {
            let orders = self.rolls[no].orders.iter().filter(|(of, _)| *of == wave);
            let orders: Vec<OrderId> = orders.map(|(_, id)| *id).collect();
            let is_well = |host: &HostId| {
                let words = orders.iter().filter_map(|id| self.checks.words.own(*id, *host));
                words.flatten().any(|word| word.state == State::Ok)
            };
            if hosts.iter().filter(is_well).count() as u64 >= rolling.least(wave) {
                self.checks.rolled.well.entry((no, wave)).or_insert(self.now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::Options;
    use crate::scenario::Source;
    use crate::sim::Sim;
    use crate::trace::Sink;

    fn play(seed: u64, careless: bool) -> Result<Sim, String> {
        let source = Source::find("default").expect("it is brought along");
        let mut plan = source.plan(seed, &Options::default());
        let mut rng = rand::SeedableRng::seed_from_u64(seed);
        let rolling = super::Rolling::draw(&mut rng, plan.tree.len(), plan.horizon);
        let rolling = rolling.paused(&mut rng);
        plan.rollouts = vec![super::Rolling { careless, ok: 100, ..rolling }];
        // A restored root does not know all of its rollouts, so a plan has one or the other.
        plan.faults.retain(|(_, fault)| !matches!(fault, crate::plan::Fault::Restore { .. }));
        let mut sim = Sim::new(plan, Sink::Hash);
        match sim.play() {
            Ok(()) => Ok(sim),
            Err(violation) => Err(violation.to_string()),
        }
    }

    #[test]
    fn an_operator_who_ignores_the_gate_is_found_out() {
        let found = (0..12).filter_map(|seed| play(seed, true).err()).collect::<Vec<_>>();
        assert!(found.iter().any(|text| text.contains("no wave before its gate")), "{found:?}");
        let others = found.iter().filter(|text| !text.contains("no wave before its gate"));
        assert_eq!(others.count(), 0, "{found:?}");
    }

    #[test]
    fn a_pause_takes_back_and_what_was_taken_back_is_given_again() {
        let (mut again, mut done) = (0, 0);
        for seed in 0..160 {
            let sim = play(seed, false).unwrap_or_else(|text| panic!("{seed}: {text}"));
            again += sim.rolls[0].given_again;
            let was_paused = sim.plan.rollouts[0].pause.is_some() && sim.rolls[0].pause.is_none();
            done += u32::from(was_paused && sim.rolls[0].course.is_over());
        }
        assert!(again > 0 && done > 0, "{again} were given it again, {done} went on to their end");
    }

    #[test]
    fn waves_open_and_gates_fail() {
        let (mut later, mut stopped) = (0, 0);
        for seed in 0..12 {
            let sim = play(seed, false).unwrap_or_else(|text| panic!("{seed}: {text}"));
            let roll = &sim.rolls[0];
            later += u32::from(roll.course.wave() > 0);
            stopped += u32::from(!roll.course.is_over());
        }
        assert!(later > 0 && stopped > 0, "{later} have opened another wave, {stopped} stopped");
    }
}
