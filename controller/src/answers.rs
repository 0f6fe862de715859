//! Answers as operators read them: outcomes with their bodies, by names instead of numbers.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh::{Digest, HostId, HostSet, OrderId, Outcome, Said, State, Stream, Tally};

use crate::fault::Failure;
use crate::orders::output_limit;
use crate::sets;
use crate::stage::STAGE;
use crate::tables::{HostRow, OrderRow, Tables};
use crate::targets::names;
use crate::types::{Answer, KeptOutput, OrderDetail, OrderEvent, OrderInfo, Pace, Superseded};

/// Reads the answers to orders.
pub(crate) struct Reader<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) hosts: &'a BTreeMap<HostId, HostRow>,
    /// Who may begin, of the runs that let hosts begin a few at a time.
    pub(crate) released: &'a BTreeMap<OrderId, HostSet>,
}

impl Reader<'_> {
    /// An order as it stands.
    pub(crate) fn info(&self, id: OrderId, row: &OrderRow) -> Result<OrderInfo, Failure> {
        let (tally, _) = self.tables.tally(id)?;
        self.describe(id, row, &tally)
    }

    fn describe(&self, id: OrderId, row: &OrderRow, tally: &Tally) -> Result<OrderInfo, Failure> {
        let stage = match row.kind.as_str() {
            STAGE => self.tables.stage(id)?.map(|stage| stage.info),
            _ => None,
        };
        let targets = row.targets();
        let mut states = BTreeMap::new();
        for (outcome, hosts) in tally.lines() {
            let count = hosts.intersection(&targets).len();
            if count > 0 {
                *states.entry(word(outcome.state).to_string()).or_default() += count;
            }
        }
        let silent = targets.difference(tally.hosts());
        let paced = row.run.as_ref().is_some_and(|run| run.pace != Pace::default());
        let pending = match (paced, self.released.get(&id)) {
            (true, Some(released)) => silent.intersection(released).len(),
            (true, None) => 0,
            (false, _) => silent.len(),
        };
        for (word, count) in [("pending", pending), ("waiting", silent.len() - pending)] {
            if count > 0 {
                states.insert(word.into(), count);
            }
        }
        let text = id.to_string();
        Ok(OrderInfo {
            short: text[text.len() - 6..].into(),
            id: text,
            kind: row.kind.clone(),
            what: row.what.clone(),
            targets: sets::fold(names(self.hosts, &targets)),
            count: targets.len(),
            issued_ms: row.issued_ms,
            closed_ms: row.closed_ms,
            states,
            cancels: row.cancels.clone(),
            stopped: row.stopped.clone(),
            retries: row.retries.clone(),
            push: row.push.clone(),
            output_limit: row.run.as_ref().map(|run| output_limit(run).into()),
            given_by: row.given_by.clone(),
            by: row.by.clone(),
            superseded: self.superseded(row, tally),
            stays_until_ms: if stage.is_some() { row.expires_ms } else { 0 },
            stage,
        })
    }

    /// By which orders its place was taken, where it has not been begun.
    fn superseded(&self, row: &OrderRow, tally: &Tally) -> Vec<Superseded> {
        let gone = row.not_begun(tally);
        let one = |(by, hosts): (&str, HostSet)| {
            let hosts = hosts.intersection(&gone);
            let set = sets::fold(names(self.hosts, &hosts));
            Superseded { by: short(by), set, count: hosts.len() }
        };
        row.superseded().map(one).filter(|one| one.count > 0).collect()
    }

    /// An order with everything that was answered.
    pub(crate) fn detail(&self, id: OrderId, row: &OrderRow) -> Result<OrderDetail, Failure> {
        let (tally, _) = self.tables.tally(id)?;
        let targets = row.targets();
        let mut answers = self.answers(id, &tally, &targets, &BTreeMap::new())?;
        answers.sort_by_key(|answer| std::cmp::Reverse(answer.hosts.len()));
        let pending = names(self.hosts, &targets.difference(tally.hosts()));
        Ok(OrderDetail { order: self.describe(id, row, &tally)?, answers, pending })
    }

    /// The lines of a tally, as far as they concern the targets.
    pub(crate) fn answers(
        &self,
        id: OrderId,
        tally: &Tally,
        targets: &HostSet,
        fresh: &BTreeMap<Digest, Bytes>,
    ) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::new();
        for (outcome, hosts) in tally.lines() {
            let mut hosts = hosts.intersection(targets);
            if *outcome == Outcome::bare(State::Skipped) {
                hosts = self.taken(id, hosts, &mut answers)?;
            }
            if !hosts.is_empty() {
                answers.push(self.answer(id, outcome, &hosts, fresh)?);
            }
        }
        Ok(answers)
    }

    /// Says of hosts that were skipped which order has taken the place of this one. Returns the
    /// others.
    fn taken(
        &self,
        id: OrderId,
        mut hosts: HostSet,
        answers: &mut Vec<Answer>,
    ) -> Result<HostSet, Failure> {
        let Some(row) = self.tables.order(id)? else { return Ok(hosts) };
        for (by, taken) in row.superseded() {
            let taken = taken.intersection(&hosts);
            if !taken.is_empty() {
                hosts = hosts.difference(&taken);
                let outcome = Outcome::bare(State::Skipped);
                let mut answer = self.answer(id, &outcome, &taken, &BTreeMap::new())?;
                answer.fault = format!("{}: superseded: by {}", row.kind, short(by));
                answers.push(answer);
            }
        }
        Ok(hosts)
    }

    fn answer(
        &self,
        id: OrderId,
        outcome: &Outcome,
        hosts: &HostSet,
        fresh: &BTreeMap<Digest, Bytes>,
    ) -> Result<Answer, Failure> {
        let hosts = names(self.hosts, hosts);
        let code = match outcome.state {
            State::Failed(code) | State::Signalled(code) => Some(code),
            _ => None,
        };
        let mut answer = Answer {
            set: sets::fold(&hosts),
            hosts,
            state: word(outcome.state).into(),
            code,
            ..Answer::default()
        };
        let Some(digest) = outcome.body else { return Ok(answer) };
        let body = match fresh.get(&digest) {
            Some(body) => Some(body.clone()),
            None => self.tables.body(id, digest)?,
        };
        match body.map(protos::Answer::decode) {
            Some(Ok(body)) => fill(&mut answer, body),
            _ => answer.body_lost = true,
        }
        Ok(answer)
    }
}

/// The end of an id, by which people know it.
fn short(id: &str) -> String {
    id[id.len().saturating_sub(6)..].into()
}

fn fill(answer: &mut Answer, body: protos::Answer) {
    let texts = (std::str::from_utf8(&body.stdout), std::str::from_utf8(&body.stderr));
    (answer.stdout, answer.stderr) = match texts {
        (Ok(stdout), Ok(stderr)) => (stdout.into(), stderr.into()),
        _ => {
            answer.binary = true;
            let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
            (base64(&body.stdout), base64(&body.stderr))
        }
    };
    (answer.stdout_size, answer.stderr_size) = (body.stdout_size, body.stderr_size);
    let kept = |kept: protos::Kept| KeptOutput { bytes: kept.bytes, hash: kept.hash.to_string() };
    (answer.stdout_kept, answer.stderr_kept) =
        (body.stdout_kept.map(kept), body.stderr_kept.map(kept));
    if let Some(fault) = body.fault {
        answer.fault = format!("{}: {}: {}", fault.stage, fault.kind, fault.detail);
    }
    if let Some(push) = body.push {
        (answer.written, answer.unchanged) = (push.written, push.unchanged);
        (answer.deleted, answer.drift) = (push.deleted, push.drift);
        answer.warnings = push.warnings;
    }
}

/// A preview of what a host has written.
pub(crate) fn preview(hosts: &BTreeMap<HostId, HostRow>, said: &Said) -> OrderEvent {
    let stream = match said.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let text = std::str::from_utf8(&said.bytes);
    OrderEvent::Output {
        host: names(hosts, &HostSet::one(said.host)).concat(),
        stream: stream.into(),
        offset: said.offset,
        data: text.map_or_else(|_| data_encoding::BASE64.encode(&said.bytes), String::from),
        binary: text.is_err(),
    }
}

/// The word for a state, as everybody prints it.
pub(crate) fn word(state: State) -> &'static str {
    state.word()
}
