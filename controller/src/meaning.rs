//! Requests that only ask: who is meant, which groups there are, what an order would do.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use mesh::{HostId, HostSet};
use tokio::sync::mpsc;

use crate::api::{Answer, Api, Hosts, body};
use crate::costs::Cost;
use crate::fault::Failure;
use crate::orders::{Desk, blocking};
use crate::sets;
use crate::tables::HostRow;
use crate::targets::{Namespace, Scene, names};
use crate::types::{
    GroupInfo, GroupQuery, NewPush, NewRun, Plan, PlanLink, PlanQuery, PushPlan, Resolved, Targets,
};

/// How many groups one question may ask about.
const GROUPS: usize = 10_000;
/// Of so many hosts at most a source is asked for each one's groups, before it is asked for all of
/// its groups instead.
const ASKED_ONE_BY_ONE: u64 = 16;

/// `POST /v1/resolve`
pub(crate) async fn resolve(State(api): State<Api>, bytes: Bytes) -> Answer<Resolved> {
    let targets: Targets = body(&bytes)?;
    let (hosts, set) = api.meant(targets).await?;
    let hosts = names(&hosts, &set);
    let set = sets::fold(&hosts);
    Ok(Json(Resolved { hosts, set }))
}

/// `POST /v1/groups`
pub(crate) async fn groups(State(api): State<Api>, bytes: Bytes) -> Answer<Vec<GroupInfo>> {
    let query: GroupQuery = body(&bytes)?;
    let scene = api.scene();
    blocking(move || {
        let book = api.groups.open()?;
        let namespace = Namespace::new(&scene, &book, &api.tables);
        let of = query.of.as_ref().map(|of| namespace.resolve(of)).transpose()?;
        let mut sources = vec![query.source.clone()];
        if query.source == "*" {
            sources = ["", "domain", "relay", "role", "site"].map(String::from).to_vec();
            sources.extend(book.sources().map(String::from));
        }
        let mut infos = Vec::new();
        for source in &sources {
            let names = match &of {
                Some(of) => groups_of(&namespace, &scene, source, of)?,
                None => namespace.listed(source)?,
            };
            if names.len() + infos.len() > GROUPS {
                let message = format!("these are more than {GROUPS} groups");
                return Err(Failure::bad(message, "ask about one source, or about fewer hosts"));
            }
            for name in names {
                // A group that is wrong must not hide the others.
                let (mut set, age, error) = match namespace.group_set(&name) {
                    Ok((set, age)) => (set, age, String::new()),
                    Err(failure) => (HostSet::new(), Duration::ZERO, failure.error.message),
                };
                if let Some(of) = &of {
                    set = set.intersection(of);
                }
                if of.is_none() || !set.is_empty() || !error.is_empty() {
                    infos.push(GroupInfo { error, ..info(&scene, name, &set, age) });
                }
            }
        }
        infos.sort_by(|a, b| sets::natural_cmp(&a.name, &b.name));
        Ok(infos)
    })
    .await
    .map(Json)
}

/// The groups of a source in which one of these hosts may be.
fn groups_of(
    namespace: &Namespace<'_>,
    scene: &Scene,
    source: &str,
    of: &HostSet,
) -> Result<Vec<String>, Failure> {
    if of.len() <= ASKED_ONE_BY_ONE {
        let mut found = Vec::new();
        let mut all_said = true;
        for name in names(&scene.hosts, of) {
            match namespace.groups_of(source, &name)? {
                Some(groups) => found.extend(groups),
                None => all_said = false,
            }
        }
        if all_said {
            found.sort_unstable();
            found.dedup();
            return Ok(found);
        }
    }
    namespace.listed(source)
}

fn info(scene: &Scene, name: String, set: &HostSet, age: Duration) -> GroupInfo {
    GroupInfo {
        name,
        set: sets::fold(names(&scene.hosts, set)),
        count: set.len(),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        error: String::new(),
    }
}

/// `POST /v1/plan`
pub(crate) async fn plan(State(api): State<Api>, bytes: Bytes) -> Answer<Plan> {
    let query: PlanQuery = body(&bytes)?;
    let targets = match &query {
        PlanQuery::Run(new) => &new.targets,
        PlanQuery::Push(new) => &new.targets,
    };
    let scene = api.scene();
    let (hosts, set) = api.meant(targets.clone()).await?;
    let mut links = links(&api, &scene, &set);
    let (order_bytes, push) = match query {
        PlanQuery::Run(new) if new.argv.iter().all(String::is_empty) => (None, None),
        PlanQuery::Run(new) => (Some(weigh(&api, &new, &set)?), None),
        PlanQuery::Push(new) => {
            let _making = api.pushes.read().await;
            let (api, set, hosts) = (api.clone(), set.clone(), hosts.clone());
            let weighed = blocking(move || weigh_push(&api, &new, &set, &hosts));
            let (order, over, plan) = weighed.await?;
            for link in links.iter_mut().filter(|link| !link.via.is_empty()) {
                link.bytes = over.get(&link.via).copied();
            }
            (Some(order), Some(plan))
        }
    };
    let down = set.difference(&scene.up);
    let relays = hosts.iter().filter(|(id, row)| row.role == "relay" && set.contains(**id));
    let folded = |set: &HostSet| sets::fold(names(&hosts, set));
    let names = names(&hosts, &set);
    Ok(Json(Plan {
        set: sets::fold(&names),
        hosts: names,
        down: folded(&down),
        down_count: down.len(),
        relays: folded(&relays.map(|(id, _)| *id).collect()),
        links,
        order_bytes,
        push,
    }))
}

/// The bytes of a push as an order, over each of the controller's links, and what it changes.
fn weigh_push(
    api: &Api,
    new: &NewPush,
    targets: &HostSet,
    hosts: &BTreeMap<HostId, HostRow>,
) -> Result<(u64, BTreeMap<String, u64>, PushPlan), Failure> {
    // Nobody listens to how far it is.
    let tell = mpsc::channel(1).0;
    let packed = api.packer.pack(new, targets.clone(), &tell)?;
    let cost = Cost::of(api, &packed.draft)?;
    let mut over = BTreeMap::new();
    for (child, below) in &api.scene().below {
        if let Some(row) = hosts.get(child) {
            over.insert(row.name.clone(), cost.over(&targets.intersection(below)));
        }
    }
    Ok((cost.order, over, api.push_plan(&packed, hosts)?))
}

/// What an order like this has on a link, in bytes.
fn weigh(api: &Api, new: &NewRun, targets: &HostSet) -> Result<u64, Failure> {
    let given = api.pieces.find(new)?;
    let draft = Desk::run(new, targets.clone(), given, &api.live.state().hosts.clone())?;
    Ok(api.desk.sealed(&draft, SystemTime::now())?.1.len() as u64)
}

/// The controller's own links on the way to the targets.
fn links(api: &Api, scene: &Scene, set: &HostSet) -> Vec<PlanLink> {
    let (up_links, _) = api.meter.read();
    let mut links = Vec::new();
    let mut rest = set.clone();
    let link = |via: Option<HostId>, part: &HostSet| {
        let row = via.and_then(|via| scene.hosts.get(&via));
        let link = up_links.iter().find(|link| Some(link.host) == via);
        PlanLink {
            via: row.map_or_else(String::new, |row| row.name.clone()),
            site: row.map_or_else(String::new, |row| row.site.clone()),
            targets: part.len(),
            down: part.difference(&scene.up).len(),
            rtt_us: link.map_or(0, |link| link.rtt_us),
            bytes: None,
        }
    };
    let below: &BTreeMap<HostId, HostSet> = &scene.below;
    for (child, below) in below {
        let part = rest.intersection(below);
        if !part.is_empty() {
            rest = rest.difference(&part);
            links.push(link(Some(*child), &part));
        }
    }
    if !rest.is_empty() {
        links.push(link(None, &rest));
    }
    links.sort_by(|a, b| b.targets.cmp(&a.targets).then_with(|| sets::natural_cmp(&a.via, &b.via)));
    links
}

impl Api {
    /// How the fleet stands now.
    fn scene(&self) -> Scene {
        let state = self.live.state();
        Scene {
            hosts: state.hosts.clone(),
            up: state.up.clone(),
            silent: state.silent.clone(),
            labels: state.labels.clone(),
            facts: state.facts.clone(),
            below: state.below.clone(),
            fleet: self.fleet.known(),
        }
    }

    /// The hosts that some targets mean, with everybody who is enrolled.
    pub(crate) async fn meant(&self, targets: Targets) -> Result<(Hosts, HostSet), Failure> {
        let (scene, groups, tables) = (self.scene(), self.groups.clone(), self.tables.clone());
        blocking(move || {
            let book = groups.open()?;
            let set = Namespace::new(&scene, &book, &tables).resolve(&targets)?;
            Ok((scene.hosts, set))
        })
        .await
    }
}
