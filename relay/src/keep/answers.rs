//! What is answered about what is kept, and what readers and takers change.

use std::collections::BTreeSet;
use std::time::Instant;

use mesh::bus::Pattern;
use tracing::warn;

use super::change::Change;
use super::settings::{Keep, Policy};
use super::store::Found;
use super::words::{Ask, Begin, Reply};
use super::worker::Worker;
use crate::JournalError;

/// How many messages of a stream one answer has.
const RECORDS: usize = 256;
/// How many pages of a queue are looked through for one that can be taken.
const PAGES: u32 = 10;

impl Worker {
    /// What readers and takers want to be changed.
    pub(super) fn apply(
        &self,
        change: &Change,
        ask: &Ask,
        keeps: &[Keep],
        done: &mut BTreeSet<(String, u64)>,
    ) -> Result<Reply, JournalError> {
        let told = |keep: &Keep| Reply { name: keep.name.clone(), ..Reply::default() };
        Ok(match ask {
            Ask::Ack { subject, reader, seq } => match find(keeps, subject, Policy::Stream) {
                Ok((keep, _)) if change.ack(keep, reader, *seq)? => told(keep),
                Ok(_) => Reply::fault(
                    "unknown",
                    format!("there is no reader {reader:?} who could have had {seq}"),
                ),
                Err(fault) => *fault,
            },
            Ask::Forget { subject, reader } => match find(keeps, subject, Policy::Stream) {
                Ok((keep, _)) if change.forget(keep, reader)? => told(keep),
                Ok(_) => Reply::fault("unknown", format!("there is no reader {reader:?}")),
                Err(fault) => *fault,
            },
            Ask::Done { subject, seq, token } => match find(keeps, subject, Policy::Queue) {
                Ok((keep, _)) => {
                    let key = (keep.name.clone(), *seq);
                    let his = self.takers.is_his(&keep.name, *seq, *token);
                    // The same may have been said twice, to be done in one step.
                    if his && !done.contains(&key) && change.done(keep, *seq)? {
                        done.insert(key);
                        told(keep)
                    } else {
                        let text = format!("{seq} is not yours any more: it took longer than");
                        Reply::fault("over", format!("{text} {} s", keep.lease.as_secs()))
                    }
                }
                Err(fault) => *fault,
            },
            _ => Reply::fault("bad-request", "this changes nothing"),
        })
    }

    pub(super) fn answer(&mut self, ask: Ask) -> Result<Reply, JournalError> {
        match ask {
            Ask::List => self.list(),
            Ask::Latest { subject, after } => {
                let (keep, pattern) = match find(&self.keeps, &subject, Policy::Latest) {
                    Ok((keep, pattern)) => (keep.clone(), pattern),
                    Err(fault) => return Ok(*fault),
                };
                let found = self.store()?.read((&keep, &pattern), after, RECORDS, |_| false)?;
                Ok(reply(&keep, found))
            }
            Ask::Read { subject, reader, from, after, .. } => {
                self.read(&subject, &reader, from, after)
            }
            Ask::Take { subject, .. } => self.take(&subject),
            Ask::Ack { .. } | Ask::Forget { .. } | Ask::Done { .. } => {
                Ok(Reply::fault("bad-request", "this is a change"))
            }
        }
    }

    fn list(&mut self) -> Result<Reply, JournalError> {
        let (keeps, wrong) = (self.keeps.clone(), self.wrong.clone());
        let mut kept = Vec::new();
        for keep in &keeps {
            let mut one = self.store()?.kept(keep)?;
            one.taken = self.takers.taken(&keep.name);
            one.lost = self.losses.of(&keep.name);
            kept.push(one);
        }
        Ok(Reply { kept, wrong, ..Reply::default() })
    }

    fn read(
        &mut self,
        subject: &str,
        reader: &str,
        from: Begin,
        after: Option<u64>,
    ) -> Result<Reply, JournalError> {
        let (keep, pattern) = match find(&self.keeps, subject, Policy::Stream) {
            Ok((keep, pattern)) => (keep.clone(), pattern),
            Err(fault) => return Ok(*fault),
        };
        let store = self.store()?;
        let known = match store.reader((&keep, &pattern), reader)? {
            Some(known) => known,
            None => {
                let change = store.begin()?;
                let begun = change.begin_reader((&keep, &pattern), reader, from == Begin::New)?;
                change.commit()?;
                match begun {
                    Ok(begun) => begun,
                    Err(crowded) => {
                        let text = format!("{crowded}: forget one who stays away for good");
                        return Ok(Reply::fault("full", text));
                    }
                }
            }
        };
        let after = after.unwrap_or(known);
        let found = store.read((&keep, &pattern), after, RECORDS, |_| false)?;
        Ok(reply(&keep, found))
    }

    fn take(&mut self, subject: &str) -> Result<Reply, JournalError> {
        let (keep, pattern) = match find(&self.keeps, subject, Policy::Queue) {
            Ok((keep, pattern)) => (keep.clone(), pattern),
            Err(fault) => return Ok(*fault),
        };
        let now = Instant::now();
        let Some(mut after) = self.takers.begin(&keep.name, pattern.as_str(), now) else {
            // As if there were none: one will be done or given back.
            return Ok(Reply { name: keep.name, ..Reply::default() });
        };
        for _ in 0..PAGES {
            let found = self.look((&keep, &pattern), after)?;
            after = found.through;
            self.takers.note(&keep.name, pattern.as_str(), after);
            if let Some(record) = found.records.first() {
                let token = u64::from_le_bytes(certs::random::<8>());
                self.takers.take(&keep.name, record.seq, now + keep.lease, token);
                return Ok(Reply { token: Some(token), more: false, ..reply(&keep, found) });
            }
            if !found.more {
                break;
            }
        }
        // What was not looked at the next one will.
        Ok(Reply { name: keep.name, ..Reply::default() })
    }

    /// The next message of a queue that nobody has.
    fn look(
        &mut self,
        (keep, pattern): (&Keep, &Pattern),
        after: u64,
    ) -> Result<Found, JournalError> {
        self.store()?;
        let Some(store) = &self.store else { return Ok(Found::default()) };
        let is_taken = |seq| self.takers.has(&keep.name, seq);
        let found = store.read((keep, pattern), after, 1, is_taken)?;
        self.looked += found.looked;
        Ok(found)
    }
}

/// The first that keeps all that is asked for, in this way.
fn find<'a>(
    keeps: &'a [Keep],
    subject: &str,
    policy: Policy,
) -> Result<(&'a Keep, Pattern), Box<Reply>> {
    let fault = |code: &str, text: String| Box::new(Reply::fault(code, text));
    let wrong = |wrong| fault("bad-request", format!("{subject:?} is no pattern: {wrong}"));
    let pattern = Pattern::new(subject).map_err(wrong)?;
    let mut these = keeps.iter().filter(|keep| keep.policy == policy);
    match these.find(|keep| keep.pattern.covers(&pattern)) {
        Some(keep) => Ok((keep, pattern)),
        None => {
            let word = policy.word();
            Err(fault("unknown", format!("this node keeps no {word} of {subject}")))
        }
    }
}

/// What is kept here for such a question.
pub(super) fn keeps(keeps: &[Keep], subject: &str, policy: Policy) -> bool {
    find(keeps, subject, policy).is_ok()
}

fn reply(keep: &Keep, found: Found) -> Reply {
    let Found { records, through, missed, more, .. } = found;
    Reply { name: keep.name.clone(), records, through, missed, more, ..Reply::default() }
}

pub(super) fn failed(error: &JournalError) -> Reply {
    let text = crate::chain(error);
    warn!(error = text, "what is kept of the bus is not read");
    Reply::fault("disk", format!("what is kept cannot be read: {text}"))
}
