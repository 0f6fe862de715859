//! Enrolment: asking for a place in the mesh, and passing such questions on.
//!
//! A newcomer proves that it holds a token without sending it, and believes the answer only if the
//! authority whose key is pinned in the token has signed it. So any relay may carry the question
//! to the controller: it can lose it, but neither read the token nor alter the answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::{Credentials, NodeKey, OrderKey, Token};
use protos::{Grant, GrantBody, JoinReply, JoinRequest, RecordReply, SignedRecord, StreamKind};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::accept::open_stream;
use crate::link::{LinkError, STREAM_NO_UPLINK, read_framed_within, write_framed};
use crate::links::Links;

const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How often a newcomer asks before it gives up.
const TRIES: u32 = 4;

/// Who answers enrolments, and keeps records: the controller. Called on a blocking thread.
pub trait Registrar: Send + Sync {
    /// The answer to a newcomer: an encoded reply, be it a grant or a refusal.
    fn enrol(&self, request: JoinRequest) -> JoinReply;

    /// What becomes of a part of a record that a relay tells of its own operator's orders.
    fn keep(&self, _: SignedRecord) -> RecordReply {
        RecordReply::Refused("no records are kept here".into())
    }

    /// The epoch of this controller: when it was restored, in milliseconds since 1970; 0: never.
    fn epoch(&self) -> u64 {
        0
    }

    /// A node knows of keys that were removed from the mesh and that the list here may lack, since
    /// it is as old as a backup.
    fn recall(&self, _: &BTreeSet<[u8; 32]>) {}
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody without a certificate, who may be anybody.
    Stranger,
    /// A child on its link, for itself or for somebody below it.
    Child,
}

/// Answers enrolments, or passes them to the parent.
#[derive(Clone)]
pub(crate) struct JoinService {
    pub(crate) registrar: Option<Arc<dyn Registrar>>,
    pub(crate) links: Links,
    /// Questions on their way up at once: they share the uplink's streams with content.
    pub(crate) forwards: Arc<Semaphore>,
}

impl JoinService {
    /// One question, one answer.
    pub(crate) async fn serve(&self, who: Asker, mut send: SendStream, mut recv: RecvStream) {
        if let Err(error) = self.try_serve(who, &mut send, &mut recv).await {
            debug!(error = %crate::chain(&error), "an enrolment broke off");
        }
    }

    async fn try_serve(
        &self,
        who: Asker,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<(), LinkError> {
        let question = read_framed_within(recv, protos::JOIN_LIMIT).await?;
        let question = question.ok_or(LinkError::Ended)?;
        let answer = match (&self.registrar, self.links.parent()) {
            _ if who == Asker::Stranger && is_renewal(&question) => {
                refusal("a certificate is renewed on the link that it has opened: join anew")
            }
            (Some(registrar), _) => ask(registrar.clone(), &question).await,
            (None, Some(parent)) => {
                let _turn = self.forwards.acquire().await;
                ask_parent(&parent, &question).await?
            }
            (None, None) => {
                send.reset(STREAM_NO_UPLINK).ok();
                return Err(LinkError::NoUplink);
            }
        };
        write_framed(send, &answer).await?;
        send.finish().ok();
        // Waits until the newcomer has it all.
        send.stopped().await.ok();
        Ok(())
    }
}

/// Asks the controller by way of the parent.
pub(crate) async fn ask_parent(parent: &Connection, question: &[u8]) -> Result<Bytes, LinkError> {
    let (mut up, mut down) = open_stream(parent, StreamKind::Join).await?;
    write_framed(&mut up, question).await?;
    up.finish().ok();
    let answer = read_framed_within(&mut down, protos::JOIN_LIMIT).await?;
    answer.ok_or(LinkError::Ended)
}

/// Whether somebody wants a new certificate for a key that the mesh knows. Such a question needs no
/// token, so whoever may ask it costs the controller two signatures each time.
fn is_renewal(question: &Bytes) -> bool {
    JoinRequest::decode(question.clone()).is_ok_and(|request| request.renewal)
}

async fn ask(registrar: Arc<dyn Registrar>, question: &Bytes) -> Bytes {
    let request = match JoinRequest::decode(question.clone()) {
        Ok(request) => request,
        Err(error) => return refusal(&format!("the request is not readable: {error}")),
    };
    let enrol = move || registrar.enrol(request);
    let reply = tokio::task::spawn_blocking(enrol).await;
    match reply {
        Ok(reply) => reply.encode(),
        Err(_) => refusal("the controller failed: try again"),
    }
}

fn refusal(reason: &str) -> Bytes {
    JoinReply::Refusal(reason.into()).encode()
}

/// An enrolment failed. Nothing was written; the token is still good unless the reason says else.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Neither controller nor relay answers there.
    #[error("{addr}: no parent answers there")]
    Dial {
        /// What was dialled.
        addr: String,
        /// Why.
        source: crate::dial::DialError,
    },
    /// The link broke before the answer; trying again with the same token is safe.
    #[error("the link broke before the answer: try again with the same token")]
    Broken,
    /// A relay answers, and cannot pass the question on; trying again is safe.
    #[error("{addr}: that relay has no link to its own parent just now")]
    NoUplink {
        /// The relay.
        addr: String,
    },
    /// No answer in time.
    #[error("no answer within {} s: does that relay reach its parent?", JOIN_LIMIT.as_secs())]
    Timeout,
    /// The controller refuses.
    #[error("the controller refuses: {0}")]
    Refused(String),
    /// The answer is not by the authority that the token names.
    #[error("the answer is not from the controller that made this token")]
    Forged(#[source] certs::GrantError),
    /// The answer is not readable.
    #[error("the answer is not readable: {0}")]
    Unreadable(String),
    /// The granted certificate does not fit.
    #[error("the granted certificate does not fit this host's key")]
    Unfit(#[source] certs::CredentialsError),
}

impl JoinError {
    /// Whether nobody has decided anything: asking again with the same key may bring an answer.
    pub fn may_pass(&self) -> bool {
        match self {
            JoinError::Dial { .. } | JoinError::Broken => true,
            JoinError::NoUplink { .. } | JoinError::Timeout => true,
            JoinError::Refused(_) | JoinError::Forged(_) => false,
            JoinError::Unreadable(_) | JoinError::Unfit(_) => false,
        }
    }
}

/// Asks the parent at `addr` for a place in the mesh. Asking again with the same key, also at
/// another parent, gives the same place; with another key the token counts as used.
pub async fn join(
    addr: &str,
    token: &Token,
    name: &str,
    key: &NodeKey,
) -> Result<Credentials, JoinError> {
    let csr = key.csr();
    let proof = token.prove(name, &csr);
    let request = JoinRequest::new(token.id().0, name.to_string(), csr.into(), proof);
    let asked = timeout(JOIN_LIMIT, ask_again(addr, token, &request)).await;
    let reply = asked.map_err(|_| JoinError::Timeout)??;
    let Grant { body, signature, authority } = match reply {
        JoinReply::Refusal(reason) => return Err(JoinError::Refused(reason)),
        JoinReply::Grant(grant) => grant,
    };
    certs::verify_grant(&authority, &token.pin(), &body, &signature).map_err(JoinError::Forged)?;
    let unreadable = |error: &dyn std::fmt::Display| JoinError::Unreadable(error.to_string());
    let grant = GrantBody::decode(body).map_err(|error| unreadable(&error))?;
    let order_key = OrderKey(grant.order_key);
    let credentials =
        Credentials::new(key.clone(), grant.certificate.to_vec(), authority.to_vec(), order_key);
    let credentials = credentials.map_err(JoinError::Unfit)?;
    info!(identity = %credentials.identity(), "enrolled");
    Ok(credentials)
}

/// Asks until there is an answer, a few times: the parent may be busy or only just starting, and
/// asking twice with one key is harmless.
async fn ask_again(
    addr: &str,
    token: &Token,
    request: &JoinRequest,
) -> Result<JoinReply, JoinError> {
    let mut tries = 1;
    loop {
        match exchange(addr, token, request).await {
            Err(error) if error.may_pass() && tries < TRIES => {
                let [random] = certs::random::<1>();
                let span = Duration::from_millis(250 << tries);
                tokio::time::sleep(span.mul_f64(f64::from(random) / 255.0)).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

async fn exchange(
    addr: &str,
    token: &Token,
    request: &JoinRequest,
) -> Result<JoinReply, JoinError> {
    let config = crate::endpoint::join_client(&token.pin());
    let dialled = crate::dial::connect(addr, &config, certs::JOIN_NAME).await;
    let dialled = dialled.map_err(|source| JoinError::Dial { addr: addr.into(), source });
    let (endpoint, conn) = dialled?;
    let talk = async {
        let (mut send, mut recv) = open_stream(&conn, StreamKind::Join).await?;
        write_framed(&mut send, &request.encode()).await?;
        send.finish().ok();
        read_framed_within(&mut recv, protos::JOIN_LIMIT).await?.ok_or(LinkError::Ended)
    };
    let answer = talk.await.map_err(|error| match error {
        LinkError::NoUplink => JoinError::NoUplink { addr: addr.into() },
        _ => JoinError::Broken,
    })?;
    conn.close(crate::link::CLOSE_STOPPING, b"thank you");
    timeout(crate::node::FAREWELL, endpoint.wait_idle()).await.ok();
    JoinReply::decode(answer).map_err(|error| JoinError::Unreadable(error.to_string()))
}
