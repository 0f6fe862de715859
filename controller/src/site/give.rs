//! An order of a relay's operator: made, held against the mandate, signed, kept, submitted.
//!
//! Every host holds it against the mandate again. Here it is done for the operator, who is told
//! what is wrong before anything leaves.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mesh::OrderId;
use protos::{
    DELEGATED_KIND, DELEGATED_LIMIT, Delegated, DelegatedError, Envelope, OrderBody, Work,
};
use relay::Mandate;
use tracing::info;

use super::Desk;
use crate::clock::to_ms;
use crate::fault::Failure;
use crate::ids::new_id;
use crate::orders::{BACKDATE, CANCEL, Draft, LEAST_REACH, MARGIN, blocking};
use crate::tables::OrderRow;

impl Desk {
    /// Signs, keeps and submits an order.
    pub(super) async fn give(
        &self,
        mandate: &Mandate,
        draft: Draft,
    ) -> Result<(OrderId, OrderRow), Failure> {
        if let Some(message) = self.node.no_room()
            && draft.kind != CANCEL
        {
            return Err(Failure::no_room(format!("the relay has {message}")));
        }
        let now = SystemTime::now();
        let body = self.body(mandate, &draft, now)?;
        let envelope = self.seal(mandate, &body)?;
        let ttl = Duration::from_millis(body.not_after_ms.saturating_sub(to_ms(now)));
        let row = OrderRow {
            kind: draft.kind.into(),
            what: draft.what,
            targets: body.targets.ranges().to_vec(),
            issued_ms: to_ms(now),
            closed_ms: 0,
            expires_ms: body.not_after_ms,
            cancels: match body.work {
                Work::Cancel(older) => Some(older.to_string()),
                _ => None,
            },
            push: None,
            run: draft.run.map(Box::new),
            stopped: None,
            retries: None,
            closer: None,
            superseded: Vec::new(),
            given_by: None,
            by: body.issued_by.clone(),
        };
        let (id, tables) = (body.id, self.tables.clone());
        let (kept, signed) = (row.clone(), envelope.clone());
        let entered = blocking(move || Ok(tables.add_given(id, &kept, &signed)?)).await?;
        if !entered {
            let message = "as many orders as this relay keeps wait to be handed to the controller";
            return Err(Failure::conflict(message, "they go when there is a link to it"));
        }
        info!(order = %id, what = %row.what, nodes = body.targets.len(), "given here");
        self.news.notify_one();
        match self.node.submit(body.to_mesh(envelope, ttl)).await {
            true => Ok((id, row)),
            false => Err(Failure::internal("the node is stopping: the order did not leave")),
        }
    }

    fn body(
        &self,
        mandate: &Mandate,
        draft: &Draft,
        now: SystemTime,
    ) -> Result<OrderBody, Failure> {
        let reach = draft.reach.max(LEAST_REACH);
        let hold = draft.hold.max(reach);
        let until = draft.until.unwrap_or(now + hold + draft.longest + MARGIN);
        let body = OrderBody {
            mesh: mandate.delegation.mesh,
            id: new_id(now).given_by(mandate.delegation.relay),
            targets: draft.targets.clone(),
            not_before_ms: to_ms(now - BACKDATE),
            not_after_ms: to_ms(until),
            reach,
            hold,
            issued_by: format!("operator at {}", self.credentials.identity().name),
            needs: draft.needs.clone(),
            gate: draft.gate.clone(),
            rate: 0,
            supersedes: Vec::new(),
            epoch: 0,
            work: draft.work.clone(),
        };
        let help = "split it: fewer targets or arguments in one order";
        body.check().map_err(|error| Failure::bad(error.to_string(), help))?;
        mandate.delegation.check_order(&body).map_err(|fault| match fault {
            DelegatedError::Time => {
                let until = mandate.delegation.until_ms.saturating_sub(to_ms(now)) / 1000;
                let message = format!(
                    "it could run longer than this relay may order anything: that ends in {until} s"
                );
                Failure::denied(message, "give it less time: -u, -t")
            }
            DelegatedError::Scope => {
                let message = "some of these nodes were not delegated to this relay";
                Failure::denied(message, "`barid hosts` lists those that were")
            }
            fault => {
                Failure::denied(format!("not delegated: {fault}"), "ask the controller for it")
            }
        })?;
        Ok(body)
    }

    fn seal(&self, mandate: &Mandate, body: &OrderBody) -> Result<Bytes, Failure> {
        let delegated =
            Delegated { delegation: mandate.envelope.clone(), order: body.encode().into() };
        let bytes = delegated.encode();
        let key = self.credentials.key();
        let envelope = Envelope {
            kind: DELEGATED_KIND.into(),
            signature: key.sign(DELEGATED_KIND, &bytes),
            key: certs::OrderKey(key.public()).id().into_bytes().into(),
            body: bytes.into(),
        };
        let sealed = envelope.encode();
        match sealed.len() <= DELEGATED_LIMIT {
            true => Ok(sealed),
            false => {
                let message =
                    format!("an order of a relay has at most {} KiB", DELEGATED_LIMIT >> 10);
                Err(Failure::bad(message, "split it: fewer targets or arguments in one order"))
            }
        }
    }
}
