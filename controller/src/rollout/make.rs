//! Beginning a rollout: what is asked for is read and checked, its waves are cut, and it is kept.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Zoned;
use jiff::tz::TimeZone;
use mesh::{HostId, HostSet, OrderId};
use tokio::sync::mpsc;

use super::driver::{MOST, Rollouts};
use super::gate::WaveGate;
use super::moment::moment;
use super::row::{Goods, RolloutRow};
use super::waves::{Tier, USUAL, WavesError, cut, spread, tiers};
use crate::api::{Api, Hosts};
use crate::clock::to_ms;
use crate::fault::Failure;
use crate::fleet::types::{Distribution, Frequency, NewDist};
use crate::ids::new_id;
use crate::orders::{Draft, blocking};
use crate::push::Step;
use crate::types::{NewPush, PushEvent, Targets, Waves};

/// The least that a host that is away is waited for: below that a wave would be over at once.
const LEAST_REACH: Duration = Duration::from_secs(1);

/// A rollout that can begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The gate, as it is written.
    pub(crate) gate: String,
    pub(crate) waves: Vec<HostSet>,
    /// When it is to begin; 0: at once.
    pub(crate) begins_ms: u64,
}

/// The gate of what goes to everybody at once at a later time: there is no wave behind it.
const OPEN: &str = "errors<=100% missed<=100%";

impl Api {
    /// The waves in which a push goes: those that were asked for, or the usual ones if it is for
    /// more hosts than may have it at once. `None`: everybody at once.
    pub(crate) async fn waves_of(
        &self,
        new: &NewPush,
        targets: &HostSet,
    ) -> Result<Option<Cut>, Failure> {
        let waves = match (&new.waves, new.all_at_once) {
            (Some(_), true) => {
                let message = "waves, and everybody at once";
                return Err(Failure::bad(message, "--waves or --all-at-once"));
            }
            (Some(_), false) if new.verify => {
                let message = "a verification changes nothing: it needs no waves";
                return Err(Failure::bad(message, "leave --waves out"));
            }
            (Some(waves), false) => waves.clone(),
            (None, false) if !new.verify && self.waves_above < targets.len() => {
                Waves { waves: USUAL.into(), ..Waves::default() }
            }
            (None, _) if new.begins.is_empty() => return Ok(None),
            (None, _) if new.verify => {
                let message = "a verification changes nothing, and is made at once";
                return Err(Failure::bad(message, "leave --start-at out"));
            }
            (None, _) => Waves { waves: "100%".into(), gate: OPEN.into() },
        };
        let sets = self.sets_of(&waves).await?;
        let mut cut = self.rollouts.cut(&waves, targets, &sets)?;
        if !new.begins.is_empty() {
            let read = moment(&new.begins, || self.clocks_of(targets), &Zoned::now());
            let help = "as in 22:00, 2026-12-01 02:30 UTC, 06:00 Europe/Paris or 22:00 site";
            cut.begins_ms = read.map_err(|error| Failure::bad(error.to_string(), help))?;
        }
        Ok(Some(cut))
    }

    /// The clocks of the sites that these hosts are at, if they have the same.
    fn clocks_of(&self, targets: &HostSet) -> Result<TimeZone, String> {
        let (book, hosts) = (self.fleet.known().book.clone(), self.live.state().hosts.clone());
        let mut zones = BTreeMap::new();
        for host in targets.iter().filter_map(|id| hosts.get(&id)) {
            let zone = book.sites.get(&host.site).map(|site| site.zone.as_str());
            let zone =
                zone.filter(|zone| !zone.is_empty()).ok_or_else(|| match host.site.as_str() {
                    "" => format!("{} is at no site, and so has no clocks of one", host.name),
                    site => format!("nobody has said what time it is at {site}"),
                })?;
            zones.insert(zone, &host.site);
        }
        match zones.iter().next() {
            Some((zone, _)) if zones.len() == 1 => {
                TimeZone::get(zone).map_err(|_| format!("the clocks of {zone} are not known here"))
            }
            _ => {
                let sites: Vec<_> = zones.values().map(|site| site.as_str()).collect();
                Err(format!("{} have different clocks: one push for each", sites.join(" and ")))
            }
        }
    }

    /// Who is meant by each of the sets in a list of waves.
    pub(crate) async fn sets_of(&self, new: &Waves) -> Result<Vec<HostSet>, Failure> {
        let mut sets = Vec::new();
        for tier in tiers(&new.waves).map_err(no_waves)? {
            if let Tier::Set(set) = tier {
                let meant = Targets { sets: vec![set], ..Targets::default() };
                sets.push(self.meant(meant).await?.1);
            }
        }
        Ok(sets)
    }

    /// Reads what is pushed, and keeps the rollout. Blocks. What is left out comes with it.
    pub(crate) fn make_rollout(
        &self,
        new: NewPush,
        targets: HostSet,
        cut: Cut,
        tell: &mpsc::Sender<PushEvent>,
    ) -> Result<Made, Failure> {
        let step = self.packer.step(&new, tell)?;
        self.check_same_place(&step.dest, &targets)?;
        if new.max_link_bytes.is_some() {
            let all = self.packer.step(&new, tell)?;
            let packed = self.packer.prepare_for(&new, all, targets.clone())?;
            let draft: &Draft = &packed.draft;
            self.check_budget(&new, draft)?;
        }
        self.keep_rollout(new, step, targets, cut)
    }

    /// Keeps a rollout of what was read. Blocks.
    pub(crate) fn keep_rollout(
        &self,
        new: NewPush,
        step: Step,
        targets: HostSet,
        cut: Cut,
    ) -> Result<Made, Failure> {
        self.check_same_place(&step.dest, &targets)?;
        let root = self.packer.keep(&step.manifest)?;
        let least = u64::try_from(LEAST_REACH.as_millis()).unwrap_or(u64::MAX);
        let reach_ms = new.reach_ms.max(least);
        let new = NewPush { dest: step.dest, reach_ms, ..new };
        let goods = Goods::Push { new: Box::new(new), root: root.to_string() };
        let (id, row) = row(step.what, goods, &cut, &self.desk.by);
        self.tables.add_rollout(id, &row, &cut.waves)?;
        Ok(Made { id, row, skipped: step.skipped })
    }

    /// Two rollouts to one place would undo each other.
    pub(crate) fn check_same_place(&self, dest: &str, targets: &HostSet) -> Result<(), Failure> {
        let mut open = self.tables.rollouts()?;
        open.retain(|(_, row)| !row.is_over());
        check_room(open.len())?;
        for (id, row) in open {
            let Goods::Push { new, .. } = &row.goods else { continue };
            let waves = self.tables.waves(id)?;
            if new.dest == dest && waves.iter().any(|wave| wave.intersects(targets)) {
                let short = super::routes::short(id);
                let message = format!("rollout {short} to {dest} is {}", row.state());
                let help = format!("let it end, or `barid rollout abort {short}`");
                return Err(Failure::conflict(message, help));
            }
        }
        Ok(())
    }
}

fn check_room(open: usize) -> Result<(), Failure> {
    if open >= MOST {
        let message = format!("{MOST} rollouts are unfinished already");
        return Err(Failure::conflict(message, "`barid rollout` lists them"));
    }
    Ok(())
}

/// A rollout that begins now.
fn row(what: String, goods: Goods, cut: &Cut, by: &str) -> (OrderId, RolloutRow) {
    let now = SystemTime::now();
    let size = (cut.waves.len(), cut.waves.iter().map(HostSet::len).sum());
    let mut row = RolloutRow::new((what, goods), cut.gate.clone(), size, to_ms(now));
    row.course = row.course.beginning(cut.begins_ms);
    row.by = by.into();
    (new_id(now), row)
}

/// A rollout that was made.
pub(crate) struct Made {
    pub(crate) id: OrderId,
    pub(crate) row: RolloutRow,
    pub(crate) skipped: Vec<String>,
}

fn no_waves(error: WavesError) -> Failure {
    Failure::bad(error.to_string(), "for example 1,5%,25%,100%, or @canary,25%,100%")
}

impl Rollouts {
    /// Cuts targets into waves. `sets`: who is meant by each of the list's sets.
    pub(crate) fn cut(
        &self,
        new: &Waves,
        targets: &HostSet,
        sets: &[HostSet],
    ) -> Result<Cut, Failure> {
        let help = "for example ok>=98% errors<=1% soak=10m check=\"COMMAND\"";
        let gate = new.gate.parse::<WaveGate>();
        let gate = gate.map_err(|error| Failure::bad(error.to_string(), help))?;
        let list = tiers(&new.waves).map_err(no_waves)?;
        let (up, hosts) = {
            let state = self.live.state();
            (state.up.clone(), state.hosts.clone())
        };
        let site = |host: HostId| hosts.get(&host).map_or_else(String::new, |h| h.site.clone());
        let order = spread(targets, &up, site);
        let waves = cut(&new.waves, &list, &order, sets).map_err(no_waves)?;
        for (at, wave) in waves.iter().enumerate() {
            if let Some(why) = gate.impossible(wave.len()) {
                let message = format!("wave {} can never pass: {why}", at + 1);
                return Err(Failure::bad(message, "make the wave larger, or ask for a percentage"));
            }
        }
        Ok(Cut { gate: new.gate.clone(), waves, begins_ms: 0 })
    }

    /// The waves in which a distribution goes: those that were asked for, or the frequency's.
    pub(crate) fn waves_of_dist(&self, new: &NewDist) -> Result<Option<Waves>, Failure> {
        if new.all_at_once && new.waves.is_some() {
            let message = "waves, and everybody at once";
            return Err(Failure::bad(message, "--waves or --all-at-once"));
        }
        let frequencies = self.distributor.planner.fleet.known().book.frequencies.clone();
        let usual = frequencies.get(&new.frequency).filter(|_| new.hosts.is_empty());
        let usual = usual.filter(|_| !new.all_at_once).and_then(Frequency::rolled);
        Ok(new.waves.clone().or(usual))
    }

    /// Distributes: in waves, if they are asked for or the frequency has some, else at once.
    pub(crate) async fn distribute(
        &self,
        new: NewDist,
        sets: Vec<HostSet>,
    ) -> Result<Distribution, Failure> {
        if new.verify && new.waves.is_some() {
            let message = "who only looks needs no waves";
            return Err(Failure::bad(message, "leave waves out"));
        }
        let Some(waves) = self.waves_of_dist(&new)?.filter(|_| !new.verify) else {
            return self.distributor.distribute(new).await;
        };
        let maker = self.clone();
        let made = blocking(move || maker.make_dist(new, &waves, &sets)).await?;
        if let Some(id) = made.1 {
            self.tell(id).await;
        }
        Ok(made.0)
    }

    /// Finds out who lacks what, and keeps the rollout. Blocks.
    fn make_dist(
        &self,
        new: NewDist,
        waves: &Waves,
        sets: &[HostSet],
    ) -> Result<(Distribution, Option<OrderId>), Failure> {
        let survey = self.distributor.planner.survey(&new)?;
        self.distributor.check_rolled(&new.frequency)?;
        if self.distributor.running.is_on(&new.frequency) {
            let message = format!("a distribution of {} goes on", new.frequency);
            return Err(Failure::conflict(message, "let it end"));
        }
        let open = self.tables.rollouts()?.iter().filter(|(_, row)| !row.is_over()).count();
        check_room(open)?;
        let (hosts, files) = (survey.part.hosts, survey.part.files);
        let mut told = Distribution { notes: survey.notes, ..Distribution::default() };
        if hosts.is_empty() {
            return Ok((told, None));
        }
        let cut = self.cut(waves, &hosts, sets)?;
        (told.hosts, told.files) = (hosts.len(), files.len() as u64);
        let what = format!("distribution of {}", new.frequency);
        let (id, row) = row(what, Goods::Dist { new, files }, &cut, &self.desk.by);
        self.tables.add_rollout(id, &row, &cut.waves)?;
        self.hold(id, &row);
        told.rollout = Some(id.to_string());
        Ok((told, Some(id)))
    }

    /// A rollout that was made begins.
    pub(crate) async fn begin(&self, made: Made, hosts: Hosts) -> Result<PushEvent, Failure> {
        self.tell(made.id).await;
        let tables = self.tables.clone();
        let Made { id, row, skipped } = made;
        let info = blocking(move || super::routes::info(&tables, &hosts, id, &row, true)).await?;
        Ok(PushEvent::Rolling { rollout: Box::new(info), skipped })
    }
}
