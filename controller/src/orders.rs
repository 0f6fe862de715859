//! Making orders: resolve, plan, sign, keep, submit.
//!
//! An order is in the tables before it leaves, so that an answer never meets an order that nobody
//! knows, and an accepted order survives the controller's death.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use certs::Authority;
use content::Store;
use mesh::{Gate, HostId, HostSet, Need, OrderId};
use protos::{Envelope, ORDER_KIND, OrderBody, Run, Variable, Work};
use relay::Running;

use crate::backup;
use crate::clock::to_ms;
use crate::fault::Failure;
use crate::given::Given;
use crate::ids::{Ids, new_id};
use crate::pace::paced;
use crate::stage::STAGE;
use crate::tables::{HostRow, LAPSE, Note, OrderRow, Tables, note_superseded};
use crate::types::{NewRun, PushInfo};

/// Orders that may be open at once; the nodes remember as many.
const OPEN_LIMIT: usize = 9_000;
/// Of those that end others, so many more.
const ENDS_LIMIT: usize = 900;
/// The kind of an order that takes another back.
pub(crate) const CANCEL: &str = "cancel";
/// What an order's validity allows on top of the times that it names, for the way and the fold.
pub const MARGIN: Duration = Duration::from_secs(60);
/// How long hosts that wait in vain have to confirm that they do no more.
const LAPSE_REACH: Duration = Duration::from_secs(15);
/// The shortest time to reach a host: what it may take until the next node has said that it has
/// the order. Less would make hosts seem out of reach that are not.
pub(crate) const LEAST_REACH: Duration = Duration::from_secs(2);
/// How much before its making an order is valid, for clocks that lag.
pub(crate) const BACKDATE: Duration = Duration::from_secs(300);

/// Makes orders.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) authority: Arc<Authority>,
    pub(crate) tables: Tables,
    pub(crate) store: Arc<Store>,
    pub(crate) node: Arc<Running>,
    /// The numbers of the orders that are given.
    pub(crate) ids: Ids,
    /// On whose behalf: each order names him.
    pub(crate) by: Arc<str>,
}

/// What an order is made of, beside its id and signature.
pub(crate) struct Draft {
    pub(crate) targets: HostSet,
    pub(crate) needs: Vec<Need>,
    pub(crate) reach: Duration,
    pub(crate) hold: Duration,
    /// How long carrying it out may take.
    pub(crate) longest: Duration,
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    /// When its validity ends, if that is fixed already; else it follows from its times.
    pub(crate) until: Option<SystemTime>,
    /// How its hosts are let begin.
    pub(crate) gate: Option<Gate>,
    /// What was asked for, if it can be given again.
    pub(crate) run: Option<NewRun>,
    /// The order that it repeats.
    pub(crate) retries: Option<OrderId>,
    pub(crate) work: Work,
    pub(crate) push: Option<PushInfo>,
}

impl Draft {
    /// How long it is good if it is made now.
    pub(crate) fn lasts(&self, now: SystemTime) -> Duration {
        match self.until {
            Some(until) => until.duration_since(now).unwrap_or_default(),
            None => self.hold.max(self.reach.max(LEAST_REACH)) + self.longest + MARGIN,
        }
    }
}

impl Desk {
    /// The same; the orders that it gives name this one, if it is known.
    pub(crate) fn on_behalf_of(&self, by: &str) -> Desk {
        match by {
            "" => self.clone(),
            by => Desk { by: by.into(), ..self.clone() },
        }
    }

    /// An order with its signed envelope, as it travels, and how long it is good.
    pub(crate) fn sealed(
        &self,
        draft: &Draft,
        now: SystemTime,
    ) -> Result<(OrderBody, Bytes, Duration), Failure> {
        self.seal(draft, (new_id(now), now), Vec::new())
    }

    /// The same, under this id, and in the place of older orders.
    fn seal(
        &self,
        draft: &Draft,
        (id, now): (OrderId, SystemTime),
        supersedes: Vec<(OrderId, HostSet)>,
    ) -> Result<(OrderBody, Bytes, Duration), Failure> {
        let reach = draft.reach.max(LEAST_REACH);
        let hold = draft.hold.max(reach);
        let ttl = draft.lasts(now);
        if ttl + BACKDATE > protos::LONGEST {
            let days = protos::LONGEST.as_secs() / (24 * 3600);
            let message = format!("an order can wait and run for less than {days} days in all");
            return Err(Failure::bad(message, "give it less time"));
        }
        let body = OrderBody {
            mesh: self.authority.mesh().0,
            id,
            targets: draft.targets.clone(),
            not_before_ms: to_ms(now - BACKDATE),
            not_after_ms: to_ms(now + ttl),
            reach,
            hold,
            issued_by: self.by.to_string(),
            needs: draft.needs.clone(),
            gate: draft.gate.clone(),
            rate: draft.push.as_ref().map_or(0, |push| push.rate),
            supersedes,
            epoch: self.tables.origin()?.epoch,
            work: draft.work.clone(),
        };
        let help = "split it: fewer targets, arguments or files in one order";
        body.check().map_err(|error| Failure::bad(error.to_string(), help))?;
        let bytes = body.encode();
        let signer = self.authority.order_signer();
        let envelope = Envelope {
            kind: ORDER_KIND.into(),
            signature: signer.sign(ORDER_KIND, &bytes),
            key: signer.key().id().into_bytes().into(),
            body: bytes.into(),
        };
        Ok((body, envelope.encode(), ttl))
    }

    /// Signs, keeps and submits an order.
    pub(crate) async fn give(&self, draft: Draft) -> Result<(OrderId, OrderRow), Failure> {
        self.give_noting(draft, None).await
    }

    /// The same, with something else to be written in the commit that keeps the order.
    pub(crate) async fn give_noting(
        &self,
        draft: Draft,
        note: Option<Note>,
    ) -> Result<(OrderId, OrderRow), Failure> {
        let superseded = *self.node.superseded().borrow();
        if let Some(epoch) = superseded {
            return Err(backup::superseded(epoch));
        }
        let ends = draft.kind == CANCEL || draft.kind == LAPSE;
        if let Some(message) = self.node.no_room()
            && !ends
        {
            return Err(Failure::no_room(format!("the controller has {message}")));
        }
        let now = SystemTime::now();
        let id = self.ids.next(now);
        let (draft, olders) = self.superseded(draft, (id, now)).await?;
        let (body, envelope, ttl) = self.seal(&draft, (id, now), olders)?;
        let row = OrderRow {
            kind: draft.kind.into(),
            what: draft.what,
            targets: body.targets.ranges().to_vec(),
            issued_ms: to_ms(now),
            closed_ms: 0,
            expires_ms: body.not_after_ms,
            cancels: match body.work {
                Work::Cancel(older) | Work::Recall(older) | Work::Lapse(older) => {
                    Some(older.to_string())
                }
                _ => None,
            },
            // What is staged is in place nowhere.
            push: draft.push.filter(|_| draft.kind != STAGE),
            run: draft.run.map(Box::new),
            stopped: None,
            retries: draft.retries.map(|older| older.to_string()),
            closer: None,
            given_by: None,
            by: body.issued_by.clone(),
            superseded: Vec::new(),
        };
        let kept_envelope = envelope.clone();
        let (tables, kept, olders) = (self.tables.clone(), row.clone(), body.supersedes.clone());
        let note: Note = Box::new(move |txn, id| {
            note_superseded(txn, &olders, id)?;
            note.map_or(Ok(()), |note| note(txn, id))
        });
        blocking(move || {
            // What ends others must always find room.
            let limit = if ends { OPEN_LIMIT + ENDS_LIMIT } else { OPEN_LIMIT };
            if tables.open_orders()? >= limit {
                let message = format!("{OPEN_LIMIT} orders are open already");
                return Err(Failure::conflict(message, "wait until some are closed"));
            }
            Ok(tables.add_order(id, &kept, &kept_envelope, Some(note))?)
        })
        .await?;
        let order = body.to_mesh(envelope, ttl);
        match self.node.submit(order).await {
            true => Ok((id, row)),
            false => Err(Failure::internal("the controller is stopping: the order did not leave")),
        }
    }

    /// The draft of a run. `given`: what it brings along.
    pub(crate) fn run(
        new: &NewRun,
        targets: HostSet,
        given: Given,
        hosts: &BTreeMap<HostId, HostRow>,
    ) -> Result<Draft, Failure> {
        let timeout = Duration::from_millis(new.timeout_ms);
        let reach = Duration::from_millis(new.reach_ms);
        let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
        let env = new.env.iter();
        let needs = given.needs(&targets);
        let times = (reach, timeout);
        let paced = paced(&new.pace, &targets, hosts, times, !needs.is_empty())?;
        let run = Run {
            argv: new.argv.iter().map(bytes).collect(),
            shell: new.shell,
            user: new.user.clone(),
            dir: bytes(&new.dir),
            env: env.map(|(k, v)| Variable { name: bytes(k), value: bytes(v) }).collect(),
            timeout,
            output_limit: output_limit(new),
            stdin: given.stdin,
            files: given.files,
            umask: new.umask,
        };
        if new.argv.iter().all(String::is_empty) {
            return Err(Failure::bad("there is no command", "barid run -w SET -- COMMAND"));
        }
        if new.shell && new.argv.len() != 1 {
            return Err(Failure::bad("a shell line is one argument", "quote the whole line"));
        }
        let wait = Duration::from_millis(new.hold_ms).max(reach);
        if paced.is_some() && wait > reach {
            let message = "a run with a pace does not wait for hosts that are away";
            return Err(Failure::bad(message, "leave out either --defer or -f, --batch, -k, ..."));
        }
        // From its validity the root knows when nobody may begin any more.
        let until = paced
            .as_ref()
            .map(|paced| SystemTime::now() + paced.lasts + paced.gate.begin + paced.gate.longest);
        Ok(Draft {
            targets,
            needs,
            reach,
            hold: paced.as_ref().map_or(wait, |paced| paced.lasts.max(reach)),
            longest: timeout,
            kind: "run",
            what: new.argv.join(" "),
            until,
            gate: paced.map(|paced| paced.gate),
            run: Some(new.clone()),
            retries: None,
            work: Work::Run(run),
            push: None,
        })
    }

    /// The draft of an order that takes another back, at all hosts that still owe their own word.
    /// It waits for those that are away for as long as the older one is valid.
    pub(crate) fn cancel(
        older: OrderId,
        row: &OrderRow,
        settled: &HostSet,
        reach: Duration,
    ) -> Result<Draft, Failure> {
        if row.kind == CANCEL || row.kind == LAPSE {
            let message = format!("{older} takes an order back already");
            return Err(Failure::conflict(message, "give that order again instead"));
        }
        let targets = row.targets().difference(settled);
        let until = UNIX_EPOCH + Duration::from_millis(row.expires_ms);
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        if targets.is_empty() || left.is_zero() {
            let why = if left.is_zero() { "has expired" } else { "has ended at every host" };
            let message = format!("the {} {why}: there is nothing to take back", row.kind);
            return Err(Failure::conflict(message, "barid runs show tells how it ended"));
        }
        Ok(Draft {
            targets,
            needs: Vec::new(),
            reach: reach.min(left),
            hold: left,
            longest: Duration::ZERO,
            kind: CANCEL,
            what: row.what.clone(),
            until: Some(until),
            gate: None,
            run: None,
            retries: None,
            work: Work::Cancel(older),
            push: None,
        })
    }
}

impl Desk {
    /// The same, but who has begun it brings it to its end.
    pub(crate) fn recall(
        &self,
        older: OrderId,
        row: &OrderRow,
        settled: &HostSet,
        reach: Duration,
    ) -> Result<Draft, Failure> {
        let draft = Desk::cancel(older, row, settled, reach)?;
        Ok(Draft { work: Work::Recall(older), ..draft })
    }

    /// Tells hosts that wait for a release of an order that none will come.
    pub(crate) async fn lapse(
        &self,
        older: OrderId,
        row: &OrderRow,
        targets: HostSet,
    ) -> Result<(), Failure> {
        let until = UNIX_EPOCH + Duration::from_millis(row.expires_ms);
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        let closer = match targets.is_empty() || left.is_zero() {
            true => None,
            false => {
                let draft = Draft {
                    targets,
                    needs: Vec::new(),
                    reach: LAPSE_REACH.min(left),
                    hold: left,
                    longest: Duration::ZERO,
                    kind: LAPSE,
                    what: row.what.clone(),
                    until: Some(until),
                    gate: None,
                    run: None,
                    retries: None,
                    work: Work::Lapse(older),
                    push: None,
                };
                Some(self.give(draft).await?.0)
            }
        };
        let tables = self.tables.clone();
        blocking(move || Ok(tables.note_closer(older, closer)?)).await
    }
}

/// How much of each stream the answers to a run have: no more than fits one.
pub(crate) fn output_limit(run: &NewRun) -> u32 {
    u32::try_from(run.output_limit).unwrap_or(u32::MAX).min(protos::OUTPUT_LIMIT)
}

/// Runs work that may block apart from the tasks that must not.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::internal(format!("a worker failed: {error}"))),
    }
}
