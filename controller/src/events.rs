//! Events as operators read them: by subject, severity, site and time, in the sequence in which the
//! controller has heard of them, and on from wherever somebody stopped.
//!
//! Whoever follows reads the tables, woken by a number that moves when something was committed; so
//! a slow reader costs nothing and misses nothing, he only sees later counts.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Query, State, rejection::QueryRejection};
use axum::response::Response;
use mesh::{Class, Folded, HostId, Severity};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::api::{Api, Hosts};
use crate::fault::Failure;
use crate::lines::{Gone, line_stream};
use crate::orders::blocking;
use crate::sets;
use crate::tables::HostRow;
use crate::tables::events::{EventRow, key};
use crate::types::EventInfo;

/// Events that are read at once.
const AT_ONCE: usize = 256;

/// Which events.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Words between full stops; `*` is any word, and what comes below is meant too.
    subject: String,
    /// At least as bad as this.
    severity: String,
    site: String,
    /// Only those that have grown since.
    since_ms: u64,
    /// Only those behind this cursor; wins over the time.
    after: Option<u64>,
    /// And those to come.
    follow: bool,
}

impl Wanted {
    fn check(&self, hosts: &Hosts) -> Result<(), Failure> {
        if !self.severity.is_empty() && self.least().is_none() {
            let message = format!("{:?} is no severity", self.severity);
            return Err(Failure::bad(message, "info, warning or error"));
        }
        let words = self.subject.replace('*', "any");
        if !self.subject.is_empty() && !mesh::is_subject(&words) {
            let message = format!("{:?} is no subject", self.subject);
            return Err(Failure::bad(message, "for example run, run.failed, *.lost"));
        }
        if !self.site.is_empty() && !hosts.values().any(|row| row.site == self.site) {
            let message = format!("no node is at a site {:?}", self.site);
            return Err(Failure::unknown("unknown-group", message, ""));
        }
        Ok(())
    }

    fn least(&self) -> Option<Severity> {
        [Severity::Info, Severity::Warning, Severity::Error]
            .into_iter()
            .find(|known| severity(*known) == self.severity)
    }

    fn wants(&self, row: &EventRow, hosts: &BTreeMap<HostId, HostRow>) -> bool {
        let fact = &row.folded.fact;
        let at_site = |host: &HostId| hosts.get(host).is_some_and(|row| row.site == self.site);
        self.least().is_none_or(|least| fact.severity >= least)
            && is_below(&fact.subject, &self.subject)
            && (self.site.is_empty() || row.folded.counts.keys().any(at_site))
    }
}

/// Whether a subject is this one, or below it. `*` stands for any word.
pub(crate) fn is_below(subject: &str, pattern: &str) -> bool {
    let mut words = subject.split('.');
    pattern.is_empty()
        || pattern.split('.').all(|wanted| {
            words.next().is_some_and(|word| {
                let (begin, end) = wanted.split_once('*').unwrap_or((wanted, ""));
                match wanted.contains('*') {
                    true => {
                        word.len() >= begin.len() + end.len()
                            && word.starts_with(begin)
                            && word.ends_with(end)
                    }
                    false => word == wanted,
                }
            })
        })
}

/// `GET /v1/events`
pub(crate) async fn events(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(wanted) =
        wanted.map_err(|error| Failure::bad(error.body_text(), "see docs/api.md"))?;
    wanted.check(&api.live.state().hosts.clone())?;
    let tables = api.tables.clone();
    let (after, since_ms) = (wanted.after, wanted.since_ms);
    let after = blocking(move || match after {
        Some(after) => Ok(after),
        None => Ok(tables.cursor_at(since_ms)?),
    });
    let after = after.await?;
    let (lines, stream) = line_stream::<EventInfo>();
    tokio::spawn(async move {
        // Whoever listened has gone, or everything is said.
        tell(api, wanted, after, lines).await.ok();
    });
    Ok(stream)
}

async fn tell(
    api: Api,
    wanted: Wanted,
    mut after: u64,
    lines: mpsc::Sender<EventInfo>,
) -> Result<(), Gone> {
    let mut grown = api.live.events.subscribe();
    loop {
        grown.borrow_and_update();
        let tables = api.tables.clone();
        let rows = blocking(move || Ok(tables.events(after, AT_ONCE)?)).await?;
        let hosts = api.live.state().hosts.clone();
        let is_all = rows.len() < AT_ONCE;
        for row in rows {
            after = row.cursor;
            if wanted.wants(&row, &hosts) {
                lines.send(info(&row, &hosts)).await?;
            }
        }
        if is_all && !wanted.follow {
            return Ok(());
        }
        if is_all {
            tokio::select! {
                changed = grown.changed() => changed.map_err(|_| Gone)?,
                () = lines.closed() => return Err(Gone),
            }
        }
    }
}

pub(crate) fn info(row: &EventRow, hosts: &BTreeMap<HostId, HostRow>) -> EventInfo {
    let Folded { fact, sample, .. } = &row.folded;
    let names = names(hosts, &row.folded);
    let site = |host: &HostId| hosts.get(host).map(|row| row.site.clone());
    let sites: BTreeSet<String> = row.folded.counts.keys().filter_map(site).collect();
    let order = row.order.or(sample.order);
    EventInfo {
        cursor: row.cursor,
        id: hex(&key(&row.folded, row.order)),
        signature: hex(&fact.signature.0),
        subject: fact.subject.clone(),
        severity: severity(fact.severity).into(),
        class: class(fact.class).into(),
        line: sample.line.clone(),
        text: sample.text.clone(),
        node: name(hosts, sample.host),
        like: fact.like.clone(),
        order: order.map_or_else(String::new, |order| order.to_string()),
        count: row.folded.total(),
        hosts: names.len() as u64,
        set: sets::fold(&names),
        sites: sites.into_iter().filter(|site| !site.is_empty()).collect(),
        first_ms: row.folded.first_ms,
        last_ms: row.folded.last_ms,
        heard_ms: row.heard_ms,
        heard_last_ms: row.heard_last_ms,
    }
}

/// The names of all who have noticed something, in natural order.
pub(crate) fn names(hosts: &BTreeMap<HostId, HostRow>, folded: &Folded) -> Vec<String> {
    let mut names: Vec<_> = folded.counts.keys().map(|host| name(hosts, *host)).collect();
    names.sort_by(|a, b| sets::natural_cmp(a, b));
    names
}

/// What a node is called; one that was removed, by its number.
pub(crate) fn name(hosts: &BTreeMap<HostId, HostRow>, host: HostId) -> String {
    match hosts.get(&host) {
        _ if host == HostId::ROOT => "controller".into(),
        Some(row) => row.name.clone(),
        None => format!("#{host}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The word for a severity.
pub(crate) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// The word for a class.
pub(crate) fn class(class: Class) -> &'static str {
    match class {
        Class::Down => "down",
        Class::Space => "space",
        Class::Command => "command",
        Class::Client => "client",
        Class::Relay => "relay",
        Class::Controller => "controller",
    }
}

#[cfg(test)]
mod tests {
    use super::is_below;

    #[test]
    fn subjects_are_chosen_by_words() {
        let check = |subject, pattern, expected| {
            assert_eq!(is_below(subject, pattern), expected, "{subject} {pattern}");
        };
        for pattern in ["", "run", "run.failed", "*", "run.*", "*.failed", "r*", "run.f*d"] {
            check("run.failed", pattern, true);
        }
        for pattern in ["ru", "run.fail", "push", "run.failed.x", "*.*.*", "run.ok*"] {
            check("run.failed", pattern, false);
        }
    }
}
