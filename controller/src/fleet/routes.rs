//! The fleet's part of the API.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mesh::HostId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::change::Refusal;
use super::desk::{Known, entry};
use super::domain::{Domain, DomainPath};
use super::types::{Changed, Distribution, NewChange, NewDist, Question, TableText};
use super::{ask, schedule};
use crate::api::{Answer, Api, body};
use crate::asker::Asked;
use crate::clock::now_ms;
use crate::fault::Failure;
use crate::orders::blocking;

/// `POST /v1/fleet/change`
pub(crate) async fn change(Asked(api): Asked, bytes: Bytes) -> Answer<Changed> {
    let mut new: NewChange = body(&bytes)?;
    // The history names who asks, and not whom he says that he is.
    new.by.user = api.desk.by.to_string();
    // What is read must not be cleaned away before it counts.
    let _held = api.pushes.read().await;
    let fleet = api.fleet.clone();
    blocking(move || fleet.change(new)).await.map(Json)
}

/// `POST /v1/fleet/ask`
pub(crate) async fn ask(State(api): State<Api>, bytes: Bytes) -> Answer<Value> {
    let question: Question = body(&bytes)?;
    blocking(move || answer(&api, question)).await.map(Json)
}

/// `POST /v1/fleet/dist`
pub(crate) async fn dist(Asked(api): Asked, bytes: Bytes) -> Answer<Distribution> {
    let new: NewDist = body(&bytes)?;
    let sets = match &new.waves {
        Some(waves) => api.sets_of(waves).await?,
        None => Vec::new(),
    };
    api.rollouts.distribute(new, sets).await.map(Json)
}

/// Which content.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    path: String,
    /// 0: the newest.
    #[serde(default)]
    revision: u32,
}

/// `GET /v1/fleet/content`: the bytes of a file, as they are.
pub(crate) async fn content(
    State(api): State<Api>,
    Query(which): Query<Which>,
) -> Result<Response, Failure> {
    let fleet = api.fleet.clone();
    let held = api.pushes.read().await;
    let manifest = blocking(move || {
        let path = entry(&which.path)?;
        let known = fleet.known();
        let source = known.book.entry(&path)?.source;
        let newest = &known.book.sources[&source].revision;
        let content = match which.revision {
            0 => newest.content.clone(),
            number => {
                let found = fleet.store.revisions(source)?;
                let found = found.into_iter().find(|revision| revision.number == number);
                found.ok_or(Refusal::NoRevision { path: path.clone(), number })?.content
            }
        };
        if content.files.is_some() {
            let what = "is a folder".into();
            return Err(Refusal::Entry { path, what }.into());
        }
        fleet.shelf.manifest(&content.root)
    })
    .await?;
    // A reader may take as long as it likes; a piece that goes meanwhile is an error to it.
    drop(held);
    let (pieces, queue) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let shelf = api.fleet.shelf.clone();
    tokio::task::spawn_blocking(move || {
        let mut take = |bytes: Vec<u8>| pieces.blocking_send(Ok(bytes.into())).is_ok();
        if let Err(failure) = shelf.pieces(&manifest, &mut take) {
            // A body that ends with an error is no body: the reader hears of it.
            let error = std::io::Error::other(failure.error.message);
            pieces.blocking_send(Err(error)).ok();
        }
    });
    let body = axum::body::Body::from_stream(crate::lines::byte_stream(queue));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

fn answer(api: &Api, question: Question) -> Result<Value, Failure> {
    let known = api.fleet.known();
    let reader = known.reader();
    match question {
        Question::Host { hosts } => {
            value(hosts.iter().map(|name| reader.host(name)).collect::<Vec<_>>())
        }
        Question::Members { domains } => {
            let mut members = mesh::HostSet::new();
            for domain in &domains {
                members = members.union(&reader.members(&name(domain)?)?);
            }
            let names = reader.host_names(&members);
            value(names.iter().map(|name| reader.host(name)).collect::<Vec<_>>())
        }
        Question::Unknown => {
            let hosts = api.live.state().hosts.clone();
            let hosts = hosts.values().filter(|row| row.role == "host");
            value(reader.unknown(&hosts.map(|row| row.name.clone()).collect::<Vec<_>>()))
        }
        Question::Domains { below } => {
            let below = below.as_deref().map(name).transpose()?;
            value(reader.domains(below.as_ref())?)
        }
        Question::List { domains } => {
            let list = |domain: &String| Ok(reader.list(&name(domain)?)?);
            value(domains.iter().map(list).collect::<Result<Vec<_>, Failure>>()?)
        }
        Question::Files { paths } => value(reader.files(&paths)?),
        Question::Compare { one, other } => value(reader.compare(&name(&one)?, &name(&other)?)?),
        Question::Status { paths } => status(api, &known, &paths),
        Question::Show { paths } => {
            let show = |path: &String| Ok(reader.entry(&entry(path)?)?);
            value(paths.iter().map(show).collect::<Result<Vec<_>, Failure>>()?)
        }
        Question::History { path } => {
            let source = known.book.entry(&entry(&path)?)?.source;
            let revisions = api.fleet.store.revisions(source)?;
            value(revisions.iter().map(ask::revision).collect::<Vec<_>>())
        }
        Question::Subscriptions { paths } => subscriptions(api, &known, &paths),
        Question::Build { frequency, domain } => {
            let domain = domain.as_deref().map(name).transpose()?;
            let text = reader.distfile(&frequency, domain.as_ref())?;
            value(TableText { text, complaints: Vec::new() })
        }
        Question::Network { relays } => value(reader.network(&relays)?),
        Question::Schedule { hosts } => {
            let (last, known) = (api.fleet.store.runs()?, &known);
            let asked = |name: &String| {
                let own = known.book.host(name).unwrap_or(name);
                let enrolled = known.book.enrolled.get(own);
                let found = enrolled.map(|enrolled| (HostId(enrolled.id), own.to_owned()));
                let unknown = || Refusal::UnknownHost(name.clone());
                Ok(found.ok_or_else(unknown)?)
            };
            let asked = hosts.iter().map(asked).collect::<Result<Vec<_>, Failure>>()?;
            value(schedule::scheduled(&api.distributor, &last, &asked, now_ms()))
        }
        Question::HostsTable { several } => value(ask::table(&known.book, false, several)),
        Question::EthersTable => value(ask::table(&known.book, true, false)),
        Question::MoveRelay { from, to } => value(reader.move_relay(&from, &to)?),
        Question::Export { what } => value(reader.export(&what)?),
    }
}

fn status(api: &Api, known: &Known, paths: &[String]) -> Result<Value, Failure> {
    let (reader, by_id) = (known.reader(), known.roll.by_id());
    let mut found = Vec::new();
    if paths.is_empty() {
        let standings = api.fleet.store.standings()?;
        for path in known.book.entries.keys() {
            let lacking = standings.get(path).map(super::missing::Standing::lacking);
            found.push(reader.status(path, &lacking.unwrap_or_default(), &by_id)?);
        }
    }
    for path in paths {
        let path: DomainPath = entry(path)?;
        known.book.entry(&path)?;
        let lacking = api.fleet.store.standing(&path)?.lacking();
        found.push(reader.status(&path, &lacking, &by_id)?);
    }
    found.retain(|status| !status.hosts.is_empty());
    value(found)
}

fn subscriptions(api: &Api, known: &Known, paths: &[String]) -> Result<Value, Failure> {
    let (reader, by_id) = (known.reader(), known.roll.by_id());
    let mut asked = paths.iter().map(|path| entry(path)).collect::<Result<Vec<_>, _>>()?;
    if asked.is_empty() {
        let entries = known.book.entries.iter();
        let optional = entries.filter(|(_, entry)| entry.subscribers.is_some());
        asked.extend(optional.map(|(path, _)| path.clone()));
    }
    let of = |path: &DomainPath| {
        let standing = api.fleet.store.standing(path)?;
        Ok(reader.subscriptions(path, &standing, &by_id)?)
    };
    value(asked.iter().map(of).collect::<Result<Vec<_>, Failure>>()?)
}

fn name(text: &str) -> Result<Domain, Failure> {
    Ok(text.parse::<Domain>().map_err(Refusal::Name)?)
}

fn value(answer: impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| Failure::internal(error.to_string()))
}
