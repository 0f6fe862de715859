//! [`Engine`]: takes the conditions of each source, hands out what to tell and what to keep.
//!
//! A source says all that it sees, each time: what it names holds, what it leaves out is over, so
//! nothing can be missed and nothing said twice. Telling is apart from being: an alert is firing or
//! over as it is true, and whether somebody is told depends on what that somebody believes
//! ([`Alert::told`]), on silences, on larger causes, and on how restless the alert is.

use std::collections::{BTreeMap, BTreeSet};

use crate::Time;

use super::{Ack, Alert, Condition, News, Notice, Pace, Phase, Silence, Silences, Step};

/// How many of its firings an alert remembers.
const FIRES: usize = 8;
/// The source of what is wrong with alerts themselves: few, and there is always a place for them.
pub const OWN: &str = "desk";

/// The alerts of one node.
pub struct Engine {
    pace: Pace,
    alerts: BTreeMap<String, Alert>,
    silences: Silences,
    /// When each group that has news is told.
    due: BTreeMap<String, Time>,
    changed: BTreeSet<String>,
    steps: Vec<Step>,
    /// Of each source, for how many conditions there was no place when it last said what it sees.
    crowded: BTreeMap<String, u64>,
    /// Whether anybody can be told of an alert.
    audience: Box<dyn Fn(&Alert) -> bool + Send>,
    /// Silences that have ended by themselves.
    ended: Vec<String>,
}

/// An alert was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckError {
    /// There is no such alert.
    Unknown,
    /// It is over.
    Over,
}

impl Engine {
    /// An engine with what was kept of an earlier one.
    pub fn new(
        pace: Pace,
        alerts: impl IntoIterator<Item = Alert>,
        silences: impl IntoIterator<Item = Silence>,
        now: Time,
    ) -> Engine {
        let mut engine = Engine {
            pace,
            alerts: BTreeMap::new(),
            silences: Silences::default(),
            due: BTreeMap::new(),
            changed: BTreeSet::new(),
            steps: Vec::new(),
            crowded: BTreeMap::new(),
            audience: Box::new(|_| true),
            ended: Vec::new(),
        };
        for mut alert in alerts.into_iter().take(engine.pace.alerts) {
            // A clock that was ahead must not make anything wait for it.
            let early = [&mut alert.began, &mut alert.waits].into_iter();
            let maybe = [&mut alert.fired, &mut alert.ended, &mut alert.told];
            early.chain(maybe.into_iter().flatten()).for_each(|at| *at = (*at).min(now));
            alert.fires.iter_mut().for_each(|at| *at = (*at).min(now));
            match alert.phase {
                Phase::Pending => alert.waits = now,
                // Nobody has looked since: whether it is over is said by whoever looks next.
                Phase::Firing => alert.ended = alert.ended.map(|_| now),
                Phase::Over => {}
            }
            engine.alerts.insert(alert.condition.key.clone(), alert);
        }
        for silence in silences {
            // One that has ended takes no place from one that lasts.
            if silence.until <= now {
                engine.ended.push(silence.id);
            } else {
                engine.silences.add(silence);
            }
        }
        for alert in engine.alerts.values_mut().filter(|alert| alert.phase == Phase::Firing) {
            // It may have been told just before the end of that process: better twice than never.
            let silent = alert.ack.is_some() || engine.silences.covering(now, alert).is_some();
            alert.unsure = !silent;
        }
        engine.settle(now);
        engine
    }

    /// Takes another pace from now on.
    pub fn set_pace(&mut self, now: Time, pace: Pace) {
        self.pace = pace;
        self.settle(now);
    }

    /// Says of what anybody can be told from now on. Of what nobody can, nothing counts as told.
    pub fn set_audience(&mut self, now: Time, audience: impl Fn(&Alert) -> bool + Send + 'static) {
        self.audience = Box::new(audience);
        self.settle(now);
    }

    /// All that a source sees now. `explained`: of an alert that it does not name, the cause by
    /// which nothing can be said of it, if that is why; it stands as it did then.
    pub fn set(
        &mut self,
        now: Time,
        source: &str,
        conditions: Vec<Condition>,
        explained: &dyn Fn(&Condition) -> Option<String>,
    ) {
        let mut named = BTreeSet::new();
        let mut crowded = 0;
        for condition in conditions {
            named.insert(condition.key.clone());
            crowded += u64::from(!self.hold(now, source, condition));
        }
        self.crowded.insert(source.into(), crowded);
        self.alerts.retain(|key, alert| {
            if alert.source != source || alert.ended.is_some() || named.contains(key) {
                return true;
            }
            if let Some(cause) = explained(&alert.condition) {
                alert.condition.cause = Some(cause);
                return true;
            }
            alert.ended = Some(now);
            // What was never told of, and never will be, leaves no trace.
            alert.phase != Phase::Pending || alert.fired.is_some()
        });
        self.settle(now);
    }

    /// Somebody takes an alert upon himself: it is not told again while it lasts.
    pub fn ack(&mut self, now: Time, key: &str, by: &str, note: &str) -> Result<(), AckError> {
        let alert = self.alerts.get_mut(key).ok_or(AckError::Unknown)?;
        if alert.phase == Phase::Over {
            return Err(AckError::Over);
        }
        alert.ack = Some(Ack { by: by.into(), note: note.into(), at: now });
        self.changed.insert(key.into());
        self.settle(now);
        Ok(())
    }

    /// Takes a silence. `false`: there are too many.
    pub fn silence(&mut self, now: Time, silence: Silence) -> bool {
        let taken = self.silences.add(silence);
        self.settle(now);
        taken
    }

    /// Ends a silence. `false`: there is no such one.
    pub fn unsilence(&mut self, now: Time, id: &str) -> bool {
        let known = self.silences.remove(id).is_some();
        self.settle(now);
        known
    }

    /// Does what is due. Drain [`Engine::poll_step`] afterwards, as after everything else.
    pub fn handle_timeout(&mut self, now: Time) {
        self.settle(now);
    }

    /// When to call [`Engine::handle_timeout`], given when it was called last.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        let alerts = self.alerts.values().flat_map(|alert| self.deadlines(now, alert));
        let silences = self.silences.iter().flat_map(|s| [s.from, s.until]);
        let all = alerts.chain(silences).chain(self.due.values().copied());
        all.filter(|at| *at > now).min()
    }

    /// The next thing that the engine wants.
    pub fn poll_step(&mut self) -> Option<Step> {
        if !self.steps.is_empty() {
            return Some(self.steps.remove(0));
        }
        let key = self.changed.pop_first()?;
        Some(match self.alerts.get(&key) {
            Some(alert) => Step::Changed(Box::new(alert.clone())),
            None => Step::Forgotten(key),
        })
    }

    /// The next silence that has ended by itself and need not be kept any more.
    pub fn poll_ended(&mut self) -> Option<String> {
        self.ended.pop()
    }

    /// All alerts, by their keys.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    /// One of them.
    pub fn alert(&self, key: &str) -> Option<&Alert> {
        self.alerts.get(key)
    }

    /// All silences.
    pub fn silences(&self) -> &Silences {
        &self.silences
    }

    /// How many conditions have no place at present.
    pub fn crowded(&self) -> u64 {
        self.crowded.values().sum()
    }

    /// `false`: there is no place for it.
    fn hold(&mut self, now: Time, source: &str, condition: Condition) -> bool {
        if let Some(alert) = self.alerts.get_mut(&condition.key) {
            if alert.phase == Phase::Over {
                (alert.phase, alert.began, alert.waits) = (Phase::Pending, now, now);
                alert.ack = None;
            }
            (alert.ended, alert.condition) = (None, condition);
            alert.source = source.into();
        } else if self.has_room() || source == OWN {
            let key = condition.key.clone();
            let alert = Alert::kept(condition, source.into(), Phase::Pending, now);
            self.alerts.insert(key, alert);
        } else {
            return false;
        }
        true
    }

    /// Makes room for one more, if need be and if it can be had.
    fn has_room(&mut self) -> bool {
        if self.alerts.len() < self.pace.alerts {
            return true;
        }
        let over = self.alerts.values().filter(|alert| self.is_done(alert));
        let oldest = over.min_by_key(|alert| alert.ended).map(|a| a.condition.key.clone());
        if let Some(key) = &oldest {
            self.alerts.remove(key);
            self.changed.insert(key.clone());
        }
        oldest.is_some()
    }

    /// Whether nobody is to be told any more of an alert that is over.
    fn is_done(&self, alert: &Alert) -> bool {
        alert.phase == Phase::Over && !(alert.is_believed() && (self.audience)(alert))
    }

    /// Lets everything take its course up to now.
    fn settle(&mut self, now: Time) {
        self.ended.extend(self.silences.take_ended(now));
        let holds = |alert: &Alert| alert.ended.is_none();
        let present: BTreeSet<String> =
            self.alerts.values().filter(|a| holds(a)).map(|a| a.condition.key.clone()).collect();
        let (clear, remember) = (self.pace.clear, self.pace.remember);
        for (key, alert) in &mut self.alerts {
            let explained = |cause: &String| cause != key && present.contains(cause);
            let quiet = holds(alert) && alert.condition.cause.as_ref().is_some_and(explained);
            if std::mem::replace(&mut alert.quiet, quiet) && !quiet {
                // What was explained until now is given its own time.
                alert.waits = now;
            }
            if step(now, alert, clear) {
                self.changed.insert(key.clone());
            }
        }
        let old = |alert: &Alert| {
            let ended = alert.ended.filter(|_| self.is_done(alert));
            ended.is_some_and(|ended| now.since(ended) >= remember)
        };
        let keys: Vec<String> =
            self.alerts.iter().filter(|(_, a)| old(a)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.alerts.remove(&key);
            self.changed.insert(key);
        }
        let late = self.alerts.values().filter(|alert| self.news(now, alert).is_some());
        let groups: BTreeSet<String> = late.map(|a| a.condition.group.clone()).collect();
        self.due.retain(|group, _| groups.contains(group));
        for group in groups {
            self.due.entry(group).or_insert(now + self.pace.gather);
        }
        while let Some(group) = self.due.iter().find(|(_, at)| **at <= now).map(|(g, _)| g.clone())
        {
            self.due.remove(&group);
            self.tell(now, group);
        }
    }

    /// Tells all that is new in a group.
    fn tell(&mut self, now: Time, group: String) {
        let of = self.alerts.values().filter(|alert| alert.condition.group == group);
        let mut news: Vec<(News, String)> =
            of.filter_map(|a| Some((self.news(now, a)?, a.condition.key.clone()))).collect();
        let rank = |(_, key): &(News, String)| self.alerts.get(key).map(|a| a.condition.severity);
        news.sort_by_key(|entry| std::cmp::Reverse(rank(entry)));
        let mut alerts = Vec::with_capacity(news.len());
        for (news, key) in &news {
            let Some(alert) = self.alerts.get_mut(key) else { continue };
            alerts.push((*news, alert.clone()));
            alert.unsure = false;
            match news {
                News::Over => (alert.told, alert.ack) = (None, None),
                News::Firing | News::Again => alert.told = Some(now),
            }
            self.changed.insert(key.clone());
        }
        self.steps.push(Step::Tell(Notice { group, alerts }));
    }

    /// What is to be told of an alert now.
    fn news(&self, now: Time, alert: &Alert) -> Option<News> {
        let silent = || alert.ack.is_some() || self.silences.covering(now, alert).is_some();
        if !(self.audience)(alert) {
            // It is told when there is somebody to tell.
            return None;
        }
        match (alert.phase, alert.told) {
            // What is about to be over already is not told any more.
            (Phase::Firing, None) => {
                let on = alert.ended.is_none() && !alert.quiet;
                (on && !silent()).then_some(News::Firing)
            }
            (Phase::Firing, Some(at)) => {
                let due = now.since(at) >= self.pace.repeat && alert.ended.is_none();
                (due && !alert.quiet && !silent()).then_some(News::Again)
            }
            (Phase::Over, _) if alert.is_believed() => {
                (self.told_over(alert)? <= now).then_some(News::Over)
            }
            _ => None,
        }
    }

    /// When it is told that an alert is over.
    fn told_over(&self, alert: &Alert) -> Option<Time> {
        let ended = alert.ended?;
        let restless = alert.is_flapping(ended, self.pace.damp);
        Some(ended + if restless { self.pace.damp } else { self.pace.clear })
    }

    /// When something may happen to an alert by itself.
    fn deadlines(&self, now: Time, alert: &Alert) -> [Time; 2] {
        let never = now;
        let first = match (alert.phase, alert.ended) {
            (Phase::Pending, None) if !alert.quiet => alert.waits + alert.condition.hold,
            (Phase::Firing, Some(ended)) => ended + self.pace.clear,
            (Phase::Over, Some(ended)) if self.is_done(alert) => ended + self.pace.remember,
            (Phase::Over, Some(_)) => self.told_over(alert).unwrap_or(never),
            _ => never,
        };
        [first, alert.told.map_or(never, |at| at + self.pace.repeat)]
    }
}

/// Moves an alert on. Returns whether it stands otherwise than before.
fn step(now: Time, alert: &mut Alert, clear: std::time::Duration) -> bool {
    match (alert.phase, alert.ended) {
        (Phase::Pending, None) => {
            let due = !alert.quiet && now.since(alert.waits) >= alert.condition.hold;
            if due {
                (alert.phase, alert.fired) = (Phase::Firing, Some(now));
                alert.fires.push(now);
                let extra = alert.fires.len().saturating_sub(FIRES);
                alert.fires.drain(..extra);
            }
            due
        }
        (Phase::Pending, Some(_)) => {
            alert.phase = Phase::Over;
            true
        }
        (Phase::Firing, Some(ended)) if now.since(ended) >= clear => {
            alert.phase = Phase::Over;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
