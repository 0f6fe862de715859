//! Carrying out an order at this host: check it again, run it or install it, answer.
//!
//! Whatever happens becomes an answer: an order that cannot be carried out is refused or fails
//! with its reason, never with silence.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use content::ContentId;
use mesh::{Digest, Input, Order, Outcome, PullFault, State};
use protos::{Answer, Fault, Push, Work};
use tokio::sync::Semaphore;
use tracing::info;

use crate::dist;
use crate::drift;
use crate::given::Giver;
use crate::hash;
use crate::install::Installs;
use crate::jobs::{Job, Jobs};
use crate::live::Teller;
use crate::mandate::Mandates;
use crate::metrics::Counts;
use crate::run::{self, Host};
use crate::space::Space;
use crate::spool::Spool;
use crate::steer::Helm;
use crate::verify::{Refused, Verifier};

/// What carrying out needs.
#[derive(Clone)]
pub(crate) struct Executor {
    /// The node's name, for commands that ask who they run for.
    pub(crate) name: Arc<str>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) installs: Installs,
    pub(crate) giver: Giver,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) jobs: Jobs,
    pub(crate) space: Space,
    pub(crate) live: Teller,
    pub(crate) spool: Spool,
    pub(crate) helm: Helm,
    pub(crate) mandates: Mandates,
    pub(crate) counts: Arc<Counts>,
}

impl Executor {
    /// What this host has for its commands.
    pub(crate) fn host(&self) -> Host<'_> {
        let Executor { name, giver, live, spool, .. } = self;
        Host { name, giver, live, spool }
    }

    /// Carries out an order whose intent is durable. Returns what the core must know of its end.
    pub(crate) async fn carry_out(
        &self,
        job: &Job,
        order: &Order,
        missing: Vec<(Digest, PullFault)>,
    ) -> Input {
        let began = Instant::now();
        let first = self.verifier.check(&order.body, SystemTime::now()).map(|body| body.work);
        let kind = first.as_ref().map_or("other", kind);
        let ahead = self.installs.transfers.ahead.as_ref();
        let begin = async {
            if let Some(ahead) = ahead {
                ahead.begin(order.id).await;
            }
        };
        let (state, answer) = tokio::select! {
            biased;
            () = job.asked_to_stop() => (State::Cancelled, Answer::default()),
            () = begin => self.work(job, order, missing, first).await,
        };
        if let Some(ahead) = ahead {
            ahead.end(order.id);
        }
        info!(order = %order.id, ?state, "carried out");
        self.counts.job(kind, state.word(), began.elapsed());
        self.counts.installed.add(answer.push.as_ref().map_or(0, |pushed| pushed.bytes));
        let body = answer.encode();
        let silent = answer == Answer::default();
        let digest = (!silent).then(|| hash(&body));
        let outcome = Outcome { state, body: digest };
        Input::Ended { order: order.id, outcome, body: digest.map(|_| body) }
    }

    async fn work(
        &self,
        job: &Job,
        order: &Order,
        missing: Vec<(Digest, PullFault)>,
        first: Result<Work, Refused>,
    ) -> (State, Answer) {
        let check = || self.verifier.check(&order.body, SystemTime::now());
        // Pushes go one at a time, runs a few at a time, and what takes them back waits for nobody.
        // Whoever waits holds no thread, and is looked at again when it comes on: an order may
        // have expired meanwhile, or been taken back. Content has been waited for by now.
        let mut waited = !order.needs.is_empty();
        let turn = async {
            match first {
                Ok(Work::Push(_) | Work::Dist(_)) => (Some(self.installs.turn.lock().await), None),
                Ok(Work::Run(_)) => match self.slots.try_acquire() {
                    Ok(slot) => (None, Some(slot)),
                    Err(_) => {
                        waited = true;
                        (None, self.slots.acquire().await.ok())
                    }
                },
                Ok(Work::Cancel(_) | Work::Recall(_) | Work::Lapse(_) | Work::Steer(_))
                | Ok(Work::Stage(_) | Work::Delegate(_))
                | Err(_) => (None, None),
            }
        };
        let _turn = tokio::select! {
            biased;
            () = job.asked_to_stop() => return (State::Cancelled, Answer::default()),
            turn = turn => turn,
        };
        let body = match check() {
            Ok(body) => body,
            Err(refused) => return (refused.state(), refused.answer()),
        };
        if let Err(refused) = self.verifier.check_begin(&body, SystemTime::now()) {
            return (refused.state(), refused.answer());
        }
        if waited && let Err(refused) = self.verifier.check_end(&body, SystemTime::now()) {
            return (refused.state(), refused.answer());
        }
        if let Some(detail) = self.space.refusal(&body.work) {
            return (State::Refused, failed("store", "full", detail).1);
        }
        if let Some((content, fault)) = missing.first() {
            let detail = format!("{content}: {}", word(*fault));
            return failed("fetch", "content", detail);
        }
        match body.work {
            Work::Run(command) => {
                let host = self.host();
                run::run(command, &host, job).await
            }
            // It ends with either the old tree or the new one, never half way.
            Work::Push(push) => Box::pin(self.push(job, order.id, push)).await,
            Work::Dist(dist) if dist.verifies() => {
                drift::verify(&self.installs, order.id, dist).await
            }
            Work::Dist(dist) => {
                let host = self.host();
                Box::pin(dist::distribute(&self.installs, order.id, dist, &host, job)).await
            }
            Work::Stage(push) => self.stage(&push).await,
            Work::Cancel(older) => {
                self.jobs.stop(older).await;
                (State::Ok, Answer::default())
            }
            Work::Steer(steer) => self.helm.carry_out(steer).await,
            Work::Delegate(delegate) => self.mandates.carry_out(delegate).await,
            // The core has seen to it: who had not begun never does, and what runs goes on.
            Work::Recall(_) | Work::Lapse(_) => (State::Ok, Answer::default()),
        }
    }
}

impl Executor {
    /// Looks whether all that a push would take here is here. It came before this began.
    async fn stage(&self, push: &Push) -> (State, Answer) {
        let host = self.installs.host;
        let bundles = push.bundles.iter().filter(|bundle| bundle.hosts.contains(host));
        let parts = bundles.flat_map(|bundle| {
            [&bundle.manifest].into_iter().chain(&bundle.segments).chain(&bundle.deltas)
        });
        let inline: Vec<_> = push.inline.iter().map(|part| ContentId::of(part)).collect();
        let wanted: Vec<_> = parts.map(|part| ContentId(part.id.0)).collect();
        let lacks = self.installs.transfers.in_store(move |store| {
            let mut wanted = wanted.iter().filter(|id| !inline.contains(id));
            Ok(wanted.find(|id| !store.has(id).unwrap_or(false)).copied())
        });
        match lacks.await {
            Ok(None) => (State::Ok, Answer::default()),
            Ok(Some(id)) => failed("stage", "content", format!("{id} is not here any more")),
            Err(fault) => failed("stage", "content", word(fault).into()),
        }
    }
}

/// What kind of work it is, for metrics.
fn kind(work: &Work) -> &'static str {
    match work {
        Work::Run(_) => "run",
        Work::Push(_) => "push",
        Work::Dist(_) => "dist",
        Work::Stage(_) => "stage",
        Work::Cancel(_) | Work::Recall(_) | Work::Lapse(_) | Work::Steer(_) | Work::Delegate(_) => {
            "other"
        }
    }
}

/// The one-word kind of a fault of content.
pub(crate) fn word(fault: PullFault) -> &'static str {
    match fault {
        PullFault::Absent => "nobody has it",
        PullFault::Broken => "the link broke",
        PullFault::Corrupt => "the bytes are not what the order names",
        PullFault::Disk => {
            "no room, or a disk error, in the content store here or at a relay above"
        }
        PullFault::Busy => "too much is wanted at once",
    }
}

/// A failure of the host itself, as against the command's.
pub(crate) fn failed(stage: &str, kind: &str, detail: String) -> (State, Answer) {
    let fault = Fault { stage: stage.into(), kind: kind.into(), detail, path: Bytes::new() };
    (State::Failed(1), Answer { fault: Some(fault), ..Answer::default() })
}
