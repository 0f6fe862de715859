//! Requests that only ask: who is meant, and which groups there are.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use mesh::HostSet;

use crate::api::{Answer, Api, Hosts, body};
use crate::fault::Failure;
use crate::orders::blocking;
use crate::sets;
use crate::targets::{Namespace, Scene, names};
use crate::types::{GroupInfo, GroupQuery, Resolved, Targets};

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

impl Api {
    /// How the fleet stands now.
    pub(crate) fn scene(&self) -> Scene {
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
