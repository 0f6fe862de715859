//! What follows from answers: the hosts at which an order went wrong, folded by what they said.
//!
//! The answers are here already, so nothing of this crosses a link a second time. One event stands
//! for all hosts of an order that failed alike; they are counted once each, however often the
//! answers come in.

use std::collections::BTreeMap;

use mesh::{
    Class, Digest, Fact, Folded, HostId, HostSet, OrderId, Outcome, Report, Sample, Severity,
    State, one_line, template,
};
use redb::WriteTransaction;
use relay::JournalError;

use crate::cause;
use crate::tables::{self, HostRow, OrderRow, events};

/// How much of an output is looked at.
const LOOK: usize = 4_096;

/// Notes what went wrong by these answers.
pub(crate) fn note(
    txn: &WriteTransaction,
    report: &Report,
    hosts: &BTreeMap<HostId, HostRow>,
    now_ms: u64,
) -> Result<(), JournalError> {
    let lines = report.tally.lines().filter(|(outcome, _)| severity(outcome.state).is_some());
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() {
        return Ok(());
    }
    let Some(row) = tables::order_row(txn, report.order)?.filter(|row| row.kind != tables::LAPSE)
    else {
        return Ok(());
    };
    let mut found = Vec::new();
    for (outcome, set) in lines {
        let targets = row.targets();
        let set = set.intersection(&targets);
        let said = match outcome.body {
            Some(digest) => said(txn, report, digest)?,
            None => String::new(),
        };
        found.extend(folded((report.order, &row), outcome, &set, &said, hosts, now_ms));
    }
    events::note_events(txn, &found, Some(report.order), now_ms)
}

/// Notes that an order is over.
pub(crate) fn note_closed(
    txn: &WriteTransaction,
    id: OrderId,
    now_ms: u64,
) -> Result<(), JournalError> {
    let Some(row) = tables::order_row(txn, id)?.filter(|row| row.kind != tables::LAPSE) else {
        return Ok(());
    };
    let subject = format!("{}.closed", subject_of(&row));
    let like = format!("{} is over", row.kind);
    let fact = Fact::new(&subject, Severity::Info, Class::Controller, &like, relay::hash);
    note_own(txn, id, fact, &format!("{} is over: {}", row.kind, row.what), now_ms)
}

/// Notes that a rollout has stopped.
pub(crate) fn note_rollout(
    txn: &WriteTransaction,
    id: OrderId,
    what: &str,
    now_ms: u64,
) -> Result<(), JournalError> {
    let (line, _) = one_line(what);
    let class = Class::Controller;
    let fact = Fact::new("rollout.stopped", Severity::Error, class, &line, relay::hash);
    note_own(txn, id, fact, what, now_ms)
}

/// Notes something that the controller itself has to say of an order.
fn note_own(
    txn: &WriteTransaction,
    id: OrderId,
    fact: Fact,
    what: &str,
    now_ms: u64,
) -> Result<(), JournalError> {
    let (line, text) = one_line(what);
    let sample = Sample { at_ms: now_ms, host: HostId::ROOT, line, text, order: Some(id) };
    let folded = Folded {
        window: 0,
        fact: fact.into(),
        sample: sample.into(),
        first_ms: now_ms,
        last_ms: now_ms,
        counts: BTreeMap::from([(HostId::ROOT, 1)]),
    };
    events::note_events(txn, &[folded], Some(id), now_ms)
}

fn subject_of(row: &OrderRow) -> &'static str {
    if row.kind == "push" { "push" } else { "run" }
}

/// What the hosts have said: their fault, else what they printed as errors, else what they printed.
fn said(txn: &WriteTransaction, report: &Report, body: Digest) -> Result<String, JournalError> {
    let bytes = match report.bodies.get(&body) {
        Some(bytes) => Some(bytes.clone()),
        None => tables::body_in(txn, report.order, body)?,
    };
    let Some(Ok(answer)) = bytes.map(protos::Answer::decode) else { return Ok(String::new()) };
    if let Some(fault) = answer.fault {
        return Ok(format!("{}: {}: {}", fault.stage, fault.kind, fault.detail));
    }
    let output = if answer.stderr.is_empty() { answer.stdout } else { answer.stderr };
    Ok(String::from_utf8_lossy(&output[..output.len().min(LOOK)]).into_owned())
}

fn folded(
    (id, row): (OrderId, &OrderRow),
    outcome: &Outcome,
    set: &HostSet,
    said: &str,
    hosts: &BTreeMap<HostId, HostRow>,
    now_ms: u64,
) -> Option<Folded> {
    let first = set.iter().next()?;
    let begin = beginning(outcome.state);
    let all = if said.trim().is_empty() { begin } else { format!("{begin}: {}", said.trim()) };
    let (line, text) = one_line(&all);
    let name = hosts.get(&first).map_or("", |row| row.name.as_str());
    let class = match outcome.state {
        State::NotReached => Class::Down,
        State::RelayLost => Class::Relay,
        State::Refused => match cause::class(&all) {
            Class::Space => Class::Space,
            _ => Class::Client,
        },
        State::Interrupted | State::Expired => Class::Client,
        _ => cause::class(&all),
    };
    let word = crate::answers::word(outcome.state);
    let word = if outcome.state.is_provisional() { "missed" } else { word };
    let subject = format!("{}.{word}", subject_of(row));
    let like = template(&line, name);
    let severity = severity(outcome.state)?;
    let fact = Fact::new(&subject, severity, class, &like, relay::hash);
    let sample = Sample { at_ms: now_ms, host: first, line, text, order: Some(id) };
    Some(Folded {
        window: 0,
        fact: fact.into(),
        sample: sample.into(),
        first_ms: now_ms,
        last_ms: now_ms,
        counts: set.iter().map(|host| (host, 1)).collect(),
    })
}

/// How bad an outcome is, if it is.
fn severity(state: State) -> Option<Severity> {
    match state {
        State::Ok | State::Cancelled | State::Skipped => None,
        State::NotReached | State::RelayLost | State::Expired => Some(Severity::Warning),
        _ => Some(Severity::Error),
    }
}

fn beginning(state: State) -> String {
    match state {
        State::Failed(code) => format!("exit {code}"),
        State::Signalled(signal) => format!("killed by signal {signal}"),
        State::TimedOut => "timed out".into(),
        State::NotReached => "not reached".into(),
        State::RelayLost => "relay lost".into(),
        other => crate::answers::word(other).into(),
    }
}
