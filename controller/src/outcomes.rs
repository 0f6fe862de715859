//! What follows from answers: the hosts at which an order went wrong, folded by what they said.
//!
//! The answers are here already, so nothing of this crosses a link a second time. One event stands
//! for all hosts of an order that failed alike; they are counted once each, however often the
//! answers come in. Of a distribution each file that went wrong is told by itself, under its
//! domainpath.

mod files;

use std::collections::BTreeMap;

use mesh::{
    Class, Digest, Fact, Folded, HostId, HostSet, OrderId, Report, Sample, Severity, State,
    one_line, template,
};
use protos::Answer;
use redb::WriteTransaction;
use relay::JournalError;

pub(crate) use self::files::{path_of, under};
use crate::cause;
use crate::fleet::{Drifted, plan_of};
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
    let plan = plan_of(txn, report.order)?;
    let mut found = Vec::new();
    for (outcome, set) in lines {
        let targets = row.targets();
        let set = set.intersection(&targets);
        let answer = match outcome.body {
            Some(digest) => answer(txn, report, digest)?,
            None => None,
        };
        let told = match &plan {
            Some(plan) => files::told(plan, outcome.state, answer),
            None => vec![Told::of_order(outcome.state, answer)],
        };
        let order = (report.order, &row);
        found.extend(
            told.iter()
                .filter_map(|told| folded(order, (outcome.state, told), &set, hosts, now_ms)),
        );
    }
    events::note_events(txn, &found, Some(report.order), now_ms)
}

/// Notes files that hosts have found not to be as they should be.
pub(crate) fn note_drifted(
    txn: &WriteTransaction,
    id: OrderId,
    drifted: &[Drifted],
    now_ms: u64,
) -> Result<(), JournalError> {
    let event = |Drifted { path, hosts, how }: &Drifted| {
        let path = path.to_string();
        let (line, text) = one_line(&files::under(&path, how));
        let (like, _) = one_line(&files::under(&path, &template(how, "")));
        let (severity, class) = (Severity::Warning, Class::Client);
        let fact = Fact::new("dist.drifted", severity, class, &like, relay::hash);
        once_each(id, fact, (line, text), hosts, now_ms)
    };
    let found: Vec<_> = drifted.iter().filter_map(event).collect();
    match found.is_empty() {
        true => Ok(()),
        false => events::note_events(txn, &found, Some(id), now_ms),
    }
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
    match row.kind.as_str() {
        "push" | "stage" => "push",
        "dist" => "dist",
        _ => "run",
    }
}

/// Something that went wrong.
struct Told {
    /// The file that it is about: its domainpath. Empty: it is about no file alone.
    path: String,
    text: String,
    class: Class,
}

impl Told {
    /// What hosts have said of an order as a whole: their fault, else what they printed as errors,
    /// else what they printed.
    fn of_order(state: State, answer: Option<Answer>) -> Told {
        let said = answer.map_or_else(String::new, |answer| match answer.fault {
            Some(fault) => format!("{}: {}: {}", fault.stage, fault.kind, fault.detail),
            None => {
                let output = if answer.stderr.is_empty() { answer.stdout } else { answer.stderr };
                String::from_utf8_lossy(&output[..output.len().min(LOOK)]).into_owned()
            }
        });
        let begin = beginning(state);
        let text = if said.trim().is_empty() { begin } else { format!("{begin}: {}", said.trim()) };
        let class = match state {
            State::NotReached => Class::Down,
            State::RelayLost => Class::Relay,
            State::Refused => match cause::class(&text) {
                Class::Space => Class::Space,
                _ => Class::Client,
            },
            State::Interrupted | State::Expired => Class::Client,
            _ => cause::class(&text),
        };
        Told { path: String::new(), text, class }
    }
}

fn answer(
    txn: &WriteTransaction,
    report: &Report,
    body: Digest,
) -> Result<Option<Answer>, JournalError> {
    let bytes = match report.bodies.get(&body) {
        Some(bytes) => Some(bytes.clone()),
        None => tables::body_in(txn, report.order, body)?,
    };
    Ok(bytes.and_then(|bytes| Answer::decode(bytes).ok()))
}

fn folded(
    (id, row): (OrderId, &OrderRow),
    (state, told): (State, &Told),
    set: &HostSet,
    hosts: &BTreeMap<HostId, HostRow>,
    now_ms: u64,
) -> Option<Folded> {
    let first = set.iter().next()?;
    let name = hosts.get(&first).map_or("", |row| row.name.as_str());
    let (line, text) = one_line(&files::under(&told.path, &told.text));
    // A domainpath stays as it is: its numbers tell files apart, not hosts.
    let like = template(&one_line(&told.text).0, name);
    let (like, _) = one_line(&files::under(&told.path, &like));
    let word = crate::answers::word(state);
    let word = if state.is_provisional() { "missed" } else { word };
    let subject = format!("{}.{word}", subject_of(row));
    let severity = severity(state)?;
    let fact = Fact::new(&subject, severity, told.class, &like, relay::hash);
    once_each(id, fact, (line, text), set, now_ms)
}

/// What has been found of each of these hosts, just now; the first is the sample.
fn once_each(
    id: OrderId,
    fact: Fact,
    (line, text): (String, String),
    hosts: &HostSet,
    now_ms: u64,
) -> Option<Folded> {
    let sample = Sample { at_ms: now_ms, host: hosts.iter().next()?, line, text, order: Some(id) };
    Some(Folded {
        window: 0,
        fact: fact.into(),
        sample: sample.into(),
        first_ms: now_ms,
        last_ms: now_ms,
        counts: hosts.iter().map(|host| (host, 1)).collect(),
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
