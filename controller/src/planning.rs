//! What an order would do and cost, asked before it is given. Nothing is done.
//!
//! What is pushed or distributed is packed as if it were to be given: packs are kept for a while,
//! so that giving it costs no second time. What would be refused is refused here, by the same
//! words.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use mesh::{HostId, HostSet};
use tokio::sync::mpsc;

use crate::api::{Answer, Api, Hosts, body};
use crate::costs::Cost;
use crate::fault::Failure;
use crate::fleet::types::NewDist;
use crate::orders::blocking;
use crate::rollout::make::Cut;
use crate::rooms;
use crate::sets;
use crate::tables::HostRow;
use crate::targets::{Scene, names};
use crate::types::{
    DistPlan, NewPush, NewRun, Plan, PlanLink, PlanQuery, PlanWave, PushPlan, WavesPlan,
};

/// What is told of an order beside whom it is for.
#[derive(Default)]
struct Weighed {
    /// The order itself, in bytes.
    order: Option<u64>,
    /// What goes over the link to each of the controller's children.
    over: BTreeMap<String, u64>,
    push: Option<PushPlan>,
    dist: Option<DistPlan>,
    cut: Option<Cut>,
    /// What relays are to take in, if they are to be asked whether they can.
    rooms: BTreeMap<HostId, u64>,
}

/// `POST /v1/plan`
pub(crate) async fn plan(State(api): State<Api>, bytes: Bytes) -> Answer<Plan> {
    let query: PlanQuery = body(&bytes)?;
    let (hosts, set, weighed) = match query {
        PlanQuery::Run(new) => {
            let (hosts, set) = api.meant(new.targets.clone()).await?;
            let order = match new.argv.iter().all(String::is_empty) {
                true => None,
                false => Some(weigh(&api, &new, &set)?),
            };
            (hosts, set, Weighed { order, ..Weighed::default() })
        }
        PlanQuery::Push(new) => {
            let (hosts, set) = api.meant(new.targets.clone()).await?;
            let cut = api.waves_of(&new, &set).await?;
            let _making = api.pushes.read().await;
            let (maker, targets, known) = (api.clone(), set.clone(), hosts.clone());
            let in_waves = cut.is_some();
            let weighed = blocking(move || weigh_push(&maker, (&*new, in_waves), &targets, &known));
            (hosts, set, Weighed { cut, ..weighed.await? })
        }
        PlanQuery::Dist(new) => {
            let waves = api.rollouts.waves_of_dist(&new)?;
            let sets = match &waves {
                Some(waves) => api.sets_of(waves).await?,
                None => Vec::new(),
            };
            let _making = api.pushes.read().await;
            let (maker, hosts) = (api.clone(), api.live.state().hosts.clone());
            let known = hosts.clone();
            let weighed = blocking(move || weigh_dist(&maker, &new, &known));
            let (set, mut weighed) = weighed.await?;
            if let Some(waves) = waves.filter(|_| !set.is_empty()) {
                weighed.cut = Some(api.rollouts.cut(&waves, &set, &sets)?);
            }
            (hosts, set, weighed)
        }
    };
    let mut weighed = weighed;
    let rooms = rooms::ask(&api, std::mem::take(&mut weighed.rooms)).await;
    Ok(Json(Plan { rooms, ..told(&api, &hosts, &set, weighed) }))
}

fn told(api: &Api, hosts: &Hosts, set: &HostSet, weighed: Weighed) -> Plan {
    let scene = api.scene();
    let mut links = links(api, &scene, set);
    if weighed.push.is_some() || weighed.dist.is_some() {
        for link in links.iter_mut().filter(|link| !link.via.is_empty()) {
            link.bytes = weighed.over.get(&link.via).copied();
        }
    }
    let folded = |set: &HostSet| sets::fold(names(hosts, set));
    let wave = |wave: &HostSet| {
        let down = wave.difference(&scene.up);
        let (count, down_count) = (wave.len(), down.len());
        PlanWave { set: folded(wave), count, down: folded(&down), down_count }
    };
    let waves = weighed
        .cut
        .map(|cut| WavesPlan { waves: cut.waves.iter().map(wave).collect(), gate: cut.gate });
    let down = set.difference(&scene.up);
    let relays = hosts.iter().filter(|(id, row)| row.role == "relay" && set.contains(**id));
    let relays = folded(&relays.map(|(id, _)| *id).collect());
    let names = names(hosts, set);
    Plan {
        set: sets::fold(&names),
        hosts: names,
        down: folded(&down),
        down_count: down.len(),
        relays,
        links,
        order_bytes: weighed.order,
        push: weighed.push,
        dist: weighed.dist,
        waves,
        rooms: Vec::new(),
    }
}

/// What a push has as an order, over each of the controller's links, and what it changes. Blocks.
fn weigh_push(
    api: &Api,
    (new, in_waves): (&NewPush, bool),
    targets: &HostSet,
    hosts: &BTreeMap<HostId, HostRow>,
) -> Result<Weighed, Failure> {
    // Nobody listens to how far it is.
    let tell = mpsc::channel(1).0;
    let packed = api.packer.pack(new, targets.clone(), &tell)?;
    if let Some(info) = packed.draft.push.as_ref().filter(|_| in_waves) {
        api.check_same_place(&info.dest, targets)?;
    }
    let cost = Cost::of(api, &packed.draft)?;
    let mut over = BTreeMap::new();
    add_over(api, &cost, targets, hosts, &mut over);
    let push = Some(api.push_plan(&packed, hosts)?);
    let rooms = match new.preflight {
        true => rooms::needs(api, &cost, targets),
        false => BTreeMap::new(),
    };
    Ok(Weighed { order: Some(cost.order), over, push, rooms, ..Weighed::default() })
}

/// Who would get a distribution, and the bytes of its orders. Blocks.
fn weigh_dist(
    api: &Api,
    new: &NewDist,
    hosts: &BTreeMap<HostId, HostRow>,
) -> Result<(HostSet, Weighed), Failure> {
    let survey = api.distributor.planner.survey(new)?;
    if new.hosts.is_empty() {
        api.distributor.check_rolled(&new.frequency)?;
    }
    let (mut order, mut over) = (0, BTreeMap::new());
    let drafts = match survey.part.hosts.is_empty() {
        true => Vec::new(),
        false => api.distributor.planner.orders(new, &survey.part)?,
    };
    for (draft, _) in &drafts {
        let cost = Cost::of(api, draft)?;
        order += cost.order;
        add_over(api, &cost, &draft.targets, hosts, &mut over);
    }
    let files = survey.part.files.into_keys().collect();
    let dist = DistPlan { files, orders: drafts.len() as u64, notes: survey.notes };
    let weighed = Weighed { order: Some(order), over, dist: Some(dist), ..Weighed::default() };
    Ok((survey.part.hosts, weighed))
}

/// Adds what an order puts on each of the controller's links behind which a target is.
fn add_over(
    api: &Api,
    cost: &Cost<'_>,
    targets: &HostSet,
    hosts: &BTreeMap<HostId, HostRow>,
    over: &mut BTreeMap<String, u64>,
) {
    for (child, below) in &api.scene().below {
        let there = targets.intersection(below);
        if let Some(row) = hosts.get(child).filter(|_| !there.is_empty()) {
            *over.entry(row.name.clone()).or_default() += cost.over(&there);
        }
    }
}

/// What an order like this has on a link, in bytes.
fn weigh(api: &Api, new: &NewRun, targets: &HostSet) -> Result<u64, Failure> {
    let given = api.pieces.find(new)?;
    let draft =
        crate::orders::Desk::run(new, targets.clone(), given, &api.live.state().hosts.clone())?;
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
