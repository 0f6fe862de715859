//! The root's side of gated orders: whom to release next, and when to stop.
//!
//! A window looks at what is known (who was released, who has answered what, who is reachable)
//! and says what follows. It keeps nothing that a restart must not lose but the set of those who
//! were released, and that is on disk before anybody hears of it: so a controller that comes back
//! releases nobody for whom there is no room.
//!
//! A host that was released counts as running until it has given its own word. What others
//! suppose of it does not end that: a host that is cut off may still run. It ends when the host can
//! be running no more, because the time in which it may begin and the time for which it may run are
//! both over. A host that was never released cannot begin, so of those the root itself may say what
//! became of them: not reached, if they are away when it is their turn; skipped, after a stop.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agenda::Agenda;
use crate::wake::Deadline;
use crate::{Gate, HostSet, Order, OrderId, State, Stop, Tally, Time, Wake};

/// Hosts of which it is known by about the same moment that they are over are given up together.
const GRAIN: Duration = Duration::from_secs(1);

/// What a window looks at.
pub(crate) struct View<'a> {
    pub(crate) order: &'a Order,
    pub(crate) gate: &'a Gate,
    pub(crate) tally: &'a Tally,
    /// Those of the targets for whom nobody has taken the order back.
    pub(crate) stands: HostSet,
    /// Those who have given their own word.
    pub(crate) heard: HostSet,
    /// Who is reachable now.
    pub(crate) up: HostSet,
    /// Which of the targets are known to be down.
    pub(crate) down: HostSet,
    /// When somebody else may be, if nobody comes or goes.
    pub(crate) next_down: Option<Time>,
    /// Who lives behind each of the root's children.
    pub(crate) children: Vec<HostSet>,
    /// How long a release may be on its way without anybody noticing.
    pub(crate) slack: Duration,
}

/// What follows from it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// These may begin.
    pub(crate) release: HostSet,
    /// It was their turn, and they were away.
    pub(crate) not_reached: HostSet,
    /// They were released, have not been heard of, and can run no more.
    pub(crate) lost: HostSet,
    /// They never may begin.
    pub(crate) skip: HostSet,
}

/// One gated order.
pub(crate) struct Window {
    released: HostSet,
    /// Released hosts without a word of their own, by when they can run no more.
    flying: BTreeMap<Time, HostSet>,
    /// Those of whom the root has said that they are skipped.
    skipped: HostSet,
    /// From here on nobody begins.
    late_at: Time,
    /// Since when only those who are away wait for their turn.
    turn_since: Option<Time>,
    /// Since when somebody has been silent for whom the order was taken back.
    barred_since: Option<Time>,
    /// How many may be released before the next part of the targets; 0 before the first.
    part: u64,
    /// Since when all of the last part have ended.
    ended_since: Option<Time>,
    /// Whether it goes on after a restart.
    pub(crate) restored: bool,
}

impl Window {
    /// Whether no host is between its release and its end.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.flying.is_empty()
    }

    pub(crate) fn new(now: Time, view: &View<'_>, released: HostSet) -> Window {
        let (order, gate) = (view.order, view.gate);
        let part = gate.batch.map_or(0, |batch| released.len().next_multiple_of(batch.size));
        let mut window = Window {
            flying: BTreeMap::new(),
            skipped: HostSet::new(),
            late_at: now + order.ttl.saturating_sub(gate.begin + gate.longest),
            turn_since: None,
            barred_since: None,
            part,
            ended_since: None,
            restored: !released.is_empty(),
            released: HostSet::new(),
        };
        window.fly(now, view, &released);
        window
    }

    fn fly(&mut self, now: Time, view: &View<'_>, hosts: &HostSet) {
        self.released = self.released.union(hosts);
        let over = now + view.gate.begin + view.gate.longest + view.slack + GRAIN;
        let over = Time(Duration::from_secs(over.0.as_secs()));
        let flying = self.flying.entry(over).or_default();
        *flying = flying.union(hosts);
    }

    /// Everybody who was ever released.
    pub(crate) fn released(&self) -> &HostSet {
        &self.released
    }

    /// What follows now, and when to look again.
    pub(crate) fn step(&mut self, now: Time, view: &View<'_>) -> (Step, Option<Time>) {
        let (mut step, again) = self.go_on(now, view);
        let (barred, barred_until) = self.barred(now, view);
        step.skip = step.skip.union(&barred);
        (step, [again, barred_until].into_iter().flatten().min())
    }

    /// Those for whom the order was taken back before they were released, and who have had the time
    /// to say so: a node on the way may have had no room for the order that takes it back, and then
    /// they would wait for ever. And when there may be some.
    fn barred(&mut self, now: Time, view: &View<'_>) -> (HostSet, Option<Time>) {
        let barred = view.order.targets.difference(&view.stands).difference(&self.released);
        let barred = barred.difference(&self.skipped).difference(view.tally.hosts());
        if barred.is_empty() {
            self.barred_since = None;
            return (barred, None);
        }
        let until = *self.barred_since.get_or_insert(now) + view.order.reach;
        if until > now {
            return (HostSet::new(), Some(until));
        }
        self.skipped = self.skipped.union(&barred);
        (barred, None)
    }

    fn go_on(&mut self, now: Time, view: &View<'_>) -> (Step, Option<Time>) {
        let mut step = Step { lost: self.land(now, view), ..Step::default() };
        if !step.lost.is_empty() {
            // They count as missed before anybody takes their place.
            return (step, Some(now));
        }
        let waiting = view.stands.difference(&self.released).difference(&self.skipped);
        let waiting = waiting.difference(view.tally.hosts());
        let next_over = self.flying.first_key_value().map(|(at, _)| *at);
        if waiting.is_empty() {
            return (step, next_over);
        }
        if self.stop(now, view).is_some() {
            self.skipped = self.skipped.union(&waiting);
            step.skip = waiting;
            return (step, next_over);
        }
        let (room, wait_until) = self.room(now, view.gate);
        let ready = waiting.intersection(&view.up);
        step.release = self.pick(view, &ready, room);
        let mut turn_until = None;
        if !ready.is_empty() {
            self.turn_since = None;
        }
        if ready.is_empty() && room > 0 {
            let until = *self.turn_since.get_or_insert(now) + view.order.reach;
            if until <= now {
                step.not_reached = waiting;
            } else {
                step.not_reached = waiting.intersection(&view.down);
                turn_until = view.next_down.into_iter().chain([until]).min();
            }
        }
        if !step.release.is_empty() {
            let released = step.release.clone();
            self.fly(now, view, &released);
        }
        let next_over = self.flying.first_key_value().map(|(at, _)| *at);
        let again = [next_over, wait_until, turn_until, Some(self.late_at)];
        (step, again.into_iter().flatten().min())
    }

    /// Takes those out of the air who have said how they ended, and those who can run no more.
    /// Returns those of the latter of whom nothing is known.
    fn land(&mut self, now: Time, view: &View<'_>) -> HostSet {
        let mut lost = HostSet::new();
        self.flying.retain(|at, hosts| {
            *hosts = hosts.difference(&view.heard);
            if *at <= now {
                lost = lost.union(hosts);
            }
            *at > now && !hosts.is_empty()
        });
        lost.difference(view.tally.hosts())
    }

    /// Why nobody is released any more, if so.
    pub(crate) fn stop(&self, now: Time, view: &View<'_>) -> Option<Stop> {
        let (errors, missed) = mishaps(view.tally);
        let over = |limit: Option<u64>, count| limit.is_some_and(|limit| count > limit);
        if over(view.gate.max_errors, errors) {
            Some(Stop::Errors)
        } else if over(view.gate.max_missed, missed) {
            Some(Stop::Missed)
        } else {
            (now >= self.late_at).then_some(Stop::Late)
        }
    }

    /// How many more may be released; and when there may be more, if that is a matter of time.
    fn room(&mut self, now: Time, gate: &Gate) -> (u64, Option<Time>) {
        let flying: u64 = self.flying.values().map(HostSet::len).sum();
        let room = gate.window.saturating_sub(flying);
        let Some(batch) = gate.batch else { return (room, None) };
        if flying == 0 && self.released.len() >= self.part {
            let wait = if self.part == 0 { Duration::ZERO } else { batch.wait };
            let until = *self.ended_since.get_or_insert(now) + wait;
            if until > now {
                return (0, Some(until));
            }
            self.ended_since = None;
            self.part = self.released.len() + batch.size;
        }
        (room.min(self.part.saturating_sub(self.released.len())), None)
    }

    /// The next hosts, as many as there is room for in all and in each group.
    fn pick(&self, view: &View<'_>, ready: &HostSet, room: u64) -> HostSet {
        let gate = view.gate;
        let mut ready = ready.clone();
        let lots = gate.lots.iter().map(|lot| (lot, gate.per_lot));
        let children = gate.per_child.map(|most| view.children.iter().map(move |c| (c, most)));
        for (group, most) in lots.chain(children.into_iter().flatten()) {
            let flying = self.flying.values().map(|hosts| hosts.intersection(group).len());
            let most = most.of(view.order.targets.intersection(group).len());
            let free = most.saturating_sub(flying.sum());
            let here = first(&ready.intersection(group), free);
            ready = ready.difference(group).union(&here);
        }
        first(&ready, room)
    }
}

/// How many hosts have failed, and how many were missed.
fn mishaps(tally: &Tally) -> (u64, u64) {
    let (mut errors, mut missed) = (0, 0);
    for (outcome, hosts) in tally.lines() {
        match outcome.state {
            State::Failed(_) | State::Signalled(_) | State::Refused => errors += hosts.len(),
            state if state.is_missed() => missed += hosts.len(),
            _ => {}
        }
    }
    (errors, missed)
}

/// The first so many hosts of a set.
fn first(hosts: &HostSet, most: u64) -> HostSet {
    let mut left = most;
    let ranges = hosts.ranges().iter().map_while(|&(first, last)| {
        let take = left.min(u64::from(last - first) + 1);
        left -= take;
        let last = u64::from(first) + take.checked_sub(1)?;
        Some((first, u32::try_from(last).expect("it is not beyond the last host")))
    });
    HostSet::from_ranges(ranges)
}

/// The windows of all gated orders that the root remembers.
#[derive(Default)]
pub(crate) struct Windows {
    windows: BTreeMap<OrderId, Window>,
    /// When to look at which.
    looks: Agenda,
}

impl Windows {
    /// Opens the window of an order; it is looked at at once.
    pub(crate) fn open(&mut self, now: Time, order: OrderId, window: Window) {
        self.windows.insert(order, window);
        self.looks.set(order, now);
    }

    pub(crate) fn get(&self, order: OrderId) -> Option<&Window> {
        self.windows.get(&order)
    }

    pub(crate) fn get_mut(&mut self, order: OrderId) -> Option<&mut Window> {
        self.windows.get_mut(&order)
    }

    /// Something has changed for an order that may have a window.
    pub(crate) fn stir(&mut self, now: Time, order: OrderId) {
        if self.windows.contains_key(&order) {
            self.looks.by(order, now);
        }
    }

    /// Something has changed for all.
    pub(crate) fn stir_all(&mut self, now: Time) {
        self.windows.keys().for_each(|order| self.looks.by(*order, now));
    }

    /// Looks at an order again at this moment, if not before.
    pub(crate) fn look_by(&mut self, order: OrderId, at: Time) {
        self.looks.by(order, at);
    }

    /// The next order to look at now.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<OrderId> {
        let due = self.looks.due(now)?;
        self.looks.clear(due);
        Some(due)
    }

    pub(crate) fn forget(&mut self, order: OrderId) {
        self.windows.remove(&order);
        self.looks.clear(order);
    }

    pub(crate) fn poll_timeout(&self) -> Deadline {
        self.looks.next().map(|at| (at, Wake::Gate))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Batch, HostId, Outcome, Share};

    const REACH: Duration = Duration::from_secs(5);

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn gate(window: u64) -> Gate {
        Gate {
            window,
            per_child: None,
            lots: Vec::new(),
            per_lot: Share::Hosts(1),
            batch: None,
            max_errors: None,
            max_missed: None,
            begin: Duration::from_secs(10),
            longest: Duration::from_secs(20),
        }
    }

    /// A run over hosts 1 to 10, and what is known of it.
    struct Run {
        order: Arc<Order>,
        gate: Gate,
        tally: Tally,
        stands: HostSet,
        up: HostSet,
        down: HostSet,
        window: Option<Window>,
    }

    impl Run {
        fn new(gate: Gate) -> Run {
            let order = Order {
                id: OrderId([1; 16]),
                targets: hosts(1, 10),
                needs: Vec::new(),
                reach: REACH,
                hold: REACH,
                ttl: Duration::from_secs(1_030),
                again: false,
                cancels: None,
                lapses: false,
                supersedes: Vec::new(),
                gate: Some(gate.clone()),
                body: Bytes::new(),
            };
            let (tally, window) = (Tally::new(), None);
            let (stands, up, down) = (hosts(1, 10), hosts(0, 10), HostSet::new());
            Run { order: order.into(), gate, tally, stands, up, down, window }
        }

        fn step(&mut self, now: Time) -> (Step, Option<Time>) {
            let view = View {
                order: &self.order,
                gate: &self.gate,
                tally: &self.tally,
                stands: self.stands.clone(),
                heard: self.tally.settled(),
                up: self.up.clone(),
                down: self.down.clone(),
                next_down: None,
                children: vec![hosts(1, 5), hosts(6, 10)],
                slack: Duration::from_secs(60),
            };
            let window = self.window.take();
            let mut window = window.unwrap_or_else(|| Window::new(now, &view, HostSet::new()));
            let step = window.step(now, &view);
            self.window = Some(window);
            step
        }

        fn released(&mut self, now: Time) -> HostSet {
            self.step(now).0.release
        }

        fn say(&mut self, state: State, hosts: HostSet) {
            self.tally.record(Outcome::bare(state), &hosts);
        }

        /// The node starts anew, with what is on the disk.
        fn restart(&mut self, now: Time) {
            let released = self.window.take().map(|window| window.released);
            let view = View {
                order: &self.order,
                gate: &self.gate,
                tally: &self.tally,
                stands: self.stands.clone(),
                heard: self.tally.settled(),
                up: HostSet::new(),
                down: HostSet::new(),
                next_down: None,
                children: Vec::new(),
                slack: Duration::from_secs(60),
            };
            self.window = Some(Window::new(now, &view, released.unwrap_or_default()));
        }
    }

    /// Something that happens to a run.
    #[derive(Clone, Debug)]
    enum Happens {
        Says(u32, State),
        Moves(u32, bool),
        Waits(u64),
        Restarts,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        let states =
            [State::Ok, State::Failed(1), State::TimedOut, State::RelayLost, State::NotReached];
        let state = proptest::sample::select(states.to_vec());
        prop_oneof![
            6 => (1..=10u32, state).prop_map(|(host, state)| Happens::Says(host, state)),
            2 => (1..=10u32, any::<bool>()).prop_map(|(host, up)| Happens::Moves(host, up)),
            3 => (0..40u64).prop_map(Happens::Waits),
            1 => Just(Happens::Restarts),
        ]
    }

    fn any_gate() -> impl Strategy<Value = Gate> {
        let maybe = || proptest::option::of(1..4u64);
        let share =
            prop_oneof![(1..4u64).prop_map(Share::Hosts), (1..=100u32).prop_map(Share::Percent),];
        let share = || proptest::option::of(share.clone());
        let budget = || proptest::option::of(0..4u64);
        (1..5u64, share(), share(), maybe(), budget(), budget()).prop_map(
            |(window, per_child, per_lot, batch, max_errors, max_missed)| Gate {
                per_child,
                lots: per_lot.map_or(Vec::new(), |_| vec![hosts(1, 3), hosts(4, 8)]),
                per_lot: per_lot.unwrap_or(Share::Hosts(1)),
                batch: batch.map(|size| Batch { size, wait: Duration::from_secs(3) }),
                max_errors,
                max_missed,
                ..gate(window)
            },
        )
    }

    /// Plays a run and looks at each release with its own eyes.
    fn play(gate: Gate, story: Vec<Happens>) -> Result<(), TestCaseError> {
        let mut run = Run::new(gate.clone());
        // Who was let begin, and when, as far as the root's present life knows.
        let (mut now, mut since) = (at(0), BTreeMap::<u32, Time>::new());
        for happens in story {
            match happens {
                // Only who was let begin can say how it ended.
                Happens::Says(host, _) if !since.contains_key(&host) => {}
                Happens::Says(host, state) => run.say(state, hosts(host, host)),
                Happens::Moves(host, true) => run.up = run.up.union(&hosts(host, host)),
                Happens::Moves(host, false) => run.up = run.up.difference(&hosts(host, host)),
                Happens::Waits(secs) => now = now + Duration::from_secs(secs),
                Happens::Restarts => {
                    since.values_mut().for_each(|since| *since = now);
                    run.restart(now);
                }
            }
            let (errors, missed) = mishaps(&run.tally);
            let before = run.tally.clone();
            let (step, _) = run.step(now);
            let ever: HostSet = since.keys().map(|host| HostId(*host)).collect();
            prop_assert!(!step.skip.intersects(&ever) && !step.not_reached.intersects(&ever));
            // Ten seconds to begin, twenty to run, a minute on the way.
            let may_run = |host: u32, since: &Time| {
                let is_over = now >= *since + Duration::from_secs(90);
                !is_over && !before.settled().contains(HostId(host))
            };
            prop_assert!(step.lost.iter().all(|host| !may_run(host.0, &since[&host.0])));
            if !step.release.is_empty() {
                let running = since.iter().filter(|(host, since)| may_run(**host, since));
                let running: HostSet = running.map(|(host, _)| HostId(*host)).collect();
                let all = running.union(&step.release);
                // A group may be over its limit, after a restart, as long as nobody joins it.
                let keeps = |group: &HostSet, most: Share| {
                    let most = match most {
                        Share::Hosts(number) => number,
                        Share::Percent(percent) => {
                            (group.len() as f64 * f64::from(percent) / 100.0).ceil() as u64
                        }
                    };
                    !step.release.intersects(group) || all.intersection(group).len() <= most
                };
                prop_assert!(all.len() <= gate.window);
                prop_assert!(gate.lots.iter().all(|lot| keeps(lot, gate.per_lot)));
                let most = gate.per_child.unwrap_or(Share::Hosts(u64::MAX));
                prop_assert!(keeps(&hosts(1, 5), most) && keeps(&hosts(6, 10), most));
                prop_assert!(gate.max_errors.is_none_or(|most| errors <= most));
                prop_assert!(gate.max_missed.is_none_or(|most| missed <= most));
                prop_assert!(step.release.is_subset(&run.up) && !step.release.intersects(&ever));
                prop_assert!(!step.release.intersects(before.hosts()));
                if let Some(batch) = gate.batch {
                    let last = (ever.len() + step.release.len() - 1) / batch.size;
                    prop_assert_eq!(ever.len() / batch.size, last, "it lies within one part");
                    let begins = ever.len().is_multiple_of(batch.size);
                    prop_assert!(!begins || running.is_empty());
                }
                since.extend(step.release.iter().map(|host| (host.0, now)));
            }
            run.say(State::NotReached, step.not_reached);
            run.say(State::RelayLost, step.lost);
            run.say(State::Skipped, step.skip);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_story_exceeds_a_limit(
            gate in any_gate(),
            story in proptest::collection::vec(happens(), 1..60),
        ) {
            play(gate, story)?;
        }
    }

    #[test]
    fn a_word_of_ones_own_makes_room_and_a_supposition_does_not() {
        let mut run = Run::new(gate(3));
        assert_eq!(run.released(at(0)), hosts(1, 3));
        assert_eq!(run.released(at(1)), HostSet::new());
        run.say(State::Ok, hosts(2, 2));
        run.say(State::RelayLost, hosts(1, 1));
        assert_eq!(run.released(at(2)), hosts(4, 4));
        run.restart(at(3));
        assert_eq!(run.released(at(3)), HostSet::new());
        run.say(State::Interrupted, hosts(1, 1));
        assert_eq!(run.released(at(4)), hosts(5, 5));
    }

    #[test]
    fn who_can_run_no_more_makes_room_and_is_lost() {
        let mut run = Run::new(gate(1));
        assert_eq!(run.released(at(0)), hosts(1, 1));
        let (step, again) = run.step(at(1));
        assert_eq!((step, again), (Step::default(), Some(at(91))));
        let (step, _) = run.step(at(91));
        assert_eq!((step.lost, step.release), (hosts(1, 1), HostSet::new()));
        run.say(State::RelayLost, hosts(1, 1));
        assert_eq!(run.released(at(91)), hosts(2, 2));
    }

    #[test]
    fn groups_have_windows_within_the_window() {
        let mut run = Run::new(Gate { per_child: Some(Share::Hosts(2)), ..gate(3) });
        let first = run.released(at(0));
        assert_eq!(first, hosts(1, 2).union(&hosts(6, 6)));
        let mut run =
            Run::new(Gate { lots: vec![hosts(1, 8)], per_lot: Share::Hosts(1), ..gate(9) });
        assert_eq!(run.released(at(0)), hosts(1, 1).union(&hosts(9, 10)));
    }

    #[test]
    fn a_share_is_one_of_each_group_rounded_up() {
        let share = |percent| Some(Share::Percent(percent));
        let mut run = Run::new(Gate { per_child: share(41), ..gate(9) });
        assert_eq!(run.released(at(0)), hosts(1, 3).union(&hosts(6, 8)));
        let mut run = Run::new(Gate { per_child: share(1), ..gate(9) });
        assert_eq!(run.released(at(0)), hosts(1, 1).union(&hosts(6, 6)));
        run.say(State::Ok, hosts(1, 1));
        assert_eq!(run.released(at(1)), hosts(2, 2), "the share is one of all, not of the rest");
        let lots = vec![hosts(1, 2), hosts(3, 9)];
        let mut run = Run::new(Gate { lots, per_lot: Share::Percent(50), ..gate(9) });
        assert_eq!(run.released(at(0)), HostSet::from_ranges([(1, 1), (3, 6), (10, 10)]));
    }

    #[test]
    fn a_batch_waits_for_the_one_before_it_and_then_a_while() {
        let wait = Duration::from_secs(7);
        let mut run = Run::new(Gate { batch: Some(Batch { size: 4, wait }), ..gate(3) });
        assert_eq!(run.released(at(0)), hosts(1, 3));
        run.say(State::Ok, hosts(1, 2));
        assert_eq!(run.released(at(1)), hosts(4, 4));
        run.say(State::Ok, hosts(3, 4));
        assert_eq!(run.step(at(2)), (Step::default(), Some(at(9))));
        // The wait begins anew with the process, and the part before it is still over.
        run.restart(at(5));
        assert_eq!(run.step(at(5)), (Step::default(), Some(at(12))));
        assert_eq!(run.released(at(12)), hosts(5, 7));
    }

    #[test]
    fn budgets_count_apart_and_the_rest_is_skipped_once() {
        let mut run = Run::new(Gate { max_errors: Some(1), max_missed: Some(1), ..gate(2) });
        assert_eq!(run.released(at(0)), hosts(1, 2));
        run.say(State::Failed(1), hosts(1, 1));
        run.say(State::TimedOut, hosts(2, 2));
        assert_eq!(run.released(at(1)), hosts(3, 4));
        run.say(State::Signalled(9), hosts(3, 3));
        let (step, _) = run.step(at(2));
        assert_eq!((step.skip, step.release), (hosts(5, 10), HostSet::new()));
        assert_eq!(run.step(at(3)).0, Step::default());
        // After a restart it is the same, as long as the words are not on disk.
        run.restart(at(4));
        assert_eq!(run.step(at(4)).0.skip, hosts(5, 10));
    }

    #[test]
    fn nobody_begins_when_it_is_too_late() {
        let mut run = Run::new(gate(1));
        assert_eq!(run.released(at(0)), hosts(1, 1));
        run.say(State::Ok, hosts(1, 1));
        assert_eq!(run.released(at(999)), hosts(2, 2));
        run.say(State::Ok, hosts(2, 2));
        assert_eq!(run.step(at(1_000)).0.skip, hosts(3, 10));
    }

    #[test]
    fn those_who_are_away_have_their_turn_last_and_then_are_not_reached() {
        let mut run = Run::new(gate(8));
        run.up = hosts(3, 10);
        assert_eq!(run.released(at(0)), hosts(3, 10));
        assert_eq!(run.step(at(1)), (Step::default(), Some(at(91))));
        run.say(State::Ok, hosts(3, 3));
        assert_eq!(run.step(at(2)), (Step::default(), Some(at(7))));
        run.up = hosts(2, 10);
        assert_eq!(run.released(at(3)), hosts(2, 2));
        // Somebody had come back, so the rest has all of its time once more.
        run.say(State::Ok, hosts(4, 10));
        assert_eq!(run.step(at(7)), (Step::default(), Some(at(12))));
        let (step, _) = run.step(at(12));
        assert_eq!((step.not_reached, step.release), (hosts(1, 1), HostSet::new()));
    }

    #[test]
    fn those_who_are_known_to_be_down_are_not_waited_for_when_their_turn_comes() {
        let mut run = Run::new(gate(7));
        (run.up, run.down) = (hosts(4, 10), hosts(1, 2));
        assert_eq!(run.released(at(0)), hosts(4, 10));
        assert_eq!(run.step(at(1)).0, Step::default(), "there is no room, so it is not their turn");
        run.say(State::Ok, hosts(4, 10));
        let (step, again) = run.step(at(2));
        assert_eq!((step.not_reached, again), (hosts(1, 2), Some(at(7))));
        run.say(State::NotReached, hosts(1, 2));
        assert_eq!(run.step(at(7)).0.not_reached, hosts(3, 3));
    }

    #[test]
    fn who_has_been_taken_back_is_not_released() {
        let mut run = Run::new(gate(2));
        run.stands = hosts(4, 10);
        assert_eq!(run.released(at(0)), hosts(4, 5));
    }

    #[test]
    fn who_has_been_taken_back_and_is_silent_is_skipped_in_time() {
        let mut run = Run::new(gate(3));
        assert_eq!(run.released(at(0)), hosts(1, 3));
        run.stands = hosts(6, 10);
        assert_eq!(run.step(at(1)), (Step::default(), Some(at(6))));
        run.say(State::Cancelled, hosts(4, 4));
        run.say(State::Ok, hosts(1, 1));
        assert_eq!(run.released(at(2)), hosts(6, 6));
        let (step, _) = run.step(at(6));
        assert_eq!((step.skip, step.release), (hosts(5, 5), HostSet::new()));
        assert_eq!(run.step(at(7)).0, Step::default(), "it is said once");
    }

    #[test]
    fn the_first_of_a_set() {
        let set = HostSet::from_ranges([(2, 4), (8, 8), (u32::MAX, u32::MAX)]);
        assert_eq!(first(&set, 0), HostSet::new());
        assert_eq!(first(&set, 2), hosts(2, 3));
        assert_eq!(first(&set, 4), hosts(2, 4).union(&hosts(8, 8)));
        assert_eq!(first(&set, 9), set);
    }
}
