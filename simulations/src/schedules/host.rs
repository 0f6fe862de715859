//! A host's side: it does what its parent says is due, one after the other, and nothing twice.

use std::time::Duration;

use mesh::LinkId;
use rand::RngExt;
use timing::Planted;

use super::{Job, host};
use crate::checks::Violation;
use crate::net::{Item, Side};
use crate::queue::Event;
use crate::sim::Sim;

/// How it was, if something is not right.
const FAILED: u64 = 2;
/// How long it takes to put things right, at most.
const TAKES: Duration = Duration::from_secs(2);

impl Sim {
    /// A parent says that something is due.
    pub(crate) fn told_due(
        &mut self,
        node: usize,
        link: LinkId,
        job: Job,
    ) -> Result<(), Violation> {
        self.take_job(node, Job { by: Some(link), ..job })
    }

    /// A node is to put something right, after all that it is to do already.
    pub(super) fn take_job(&mut self, node: usize, job: Job) -> Result<(), Violation> {
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        process.desk.jobs.push_back(job);
        if process.desk.jobs.len() == 1 {
            self.begin_job(node)?;
        }
        Ok(())
    }

    /// The first of its jobs: what it has done already takes no time. What it cannot begin any more
    /// it says it has not done.
    fn begin_job(&mut self, node: usize) -> Result<(), Violation> {
        loop {
            let seat = &self.seats[node];
            let Some(process) = &seat.process else { return Ok(()) };
            let Some(job) = process.desk.jobs.front().cloned() else { return Ok(()) };
            let planted = Planted { bug: self.plan.bug };
            let once = &seat.disk.image.notes.once;
            let (known, life) = (once.known(&job.frequency, job.due_ms, planted), seat.life);
            let takes = match known {
                Some(_) => Duration::ZERO,
                None if self.may_begin(node, &job.end)? => {
                    TAKES.mul_f64(self.rng.random_range(0.0..1.0))
                }
                None => {
                    if let Some(process) = &mut self.seats[node].process {
                        process.desk.jobs.pop_front();
                    }
                    self.answer_job(node, &job, FAILED);
                    continue;
                }
            };
            self.queue.push(self.now + takes, Event::Righted { node, life });
            return Ok(());
        }
    }

    /// Whoever has told a host to do something hears what has come of it.
    fn answer_job(&mut self, node: usize, job: &Job, how: u64) {
        match job.by {
            None => self.job_done(node, job.no, host(node), how),
            Some(link) => {
                let dice = (&mut self.rng, &mut self.queue);
                self.net.send(self.now, link, Side::Parent, Item::Did(job.no, how), dice);
            }
        }
    }

    /// A job is done.
    pub(crate) fn righted(&mut self, node: usize, life: u64) -> Result<(), Violation> {
        if !self.lives(node, life) {
            return Ok(());
        }
        let Some(process) = &mut self.seats[node].process else { return Ok(()) };
        let Some(job) = process.desk.jobs.pop_front() else { return Ok(()) };
        let Job { frequency, due_ms, .. } = &job;
        let planted = Planted { bug: self.plan.bug };
        let once = &self.seats[node].disk.image.notes.once;
        let how = match once.known(frequency, *due_ms, planted) {
            Some(how) => how,
            None => {
                let how = self.rng.random_range(0..3);
                if self.dies_here(node)? {
                    return Ok(());
                }
                let noted = self.keep_notes(node, |notes| notes.once.note(frequency, *due_ms, how));
                self.checks.timed.did(host(node), (frequency, *due_ms), noted)?;
                how
            }
        };
        self.answer_job(node, &job, how);
        self.begin_job(node)
    }

    /// A child says that it has done what it was told.
    pub(crate) fn told_done(&mut self, node: usize, link: LinkId, no: u64, how: u64) {
        let Some(path) = self.net.links.get(&link) else { return };
        let by = host(path.end(Side::Child).node);
        self.job_done(node, no, by, how);
    }
}
