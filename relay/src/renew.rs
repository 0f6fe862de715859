//! Renewal: a node gets a new certificate in time, over the link that it has, and nobody visits it.
//!
//! The question is a certificate request signed by the node's key. The controller answers with a
//! certificate for the same node if the key is in its inventory, so the question needs no secret,
//! and whoever repeats it gets a certificate that only the holder of the key can use. Links that
//! stand are not touched; the next ones, in both directions, show the new certificate.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use certs::Credentials;
use protos::{Grant, GrantBody, JoinReply, JoinRequest};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::endpoint;
use crate::join::{self, JoinError};
use crate::kind::LinkKind;
use crate::links::Links;
use crate::metrics::Counts;
use crate::node::Setup;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest and shortest time between looks at what is left.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(6 * 3600)];

/// Something that the next connection uses, whatever it is by then.
pub(crate) struct Current<T>(Arc<RwLock<T>>);

impl<T: Clone> Current<T> {
    pub(crate) fn new(first: T) -> Current<T> {
        Current(Arc::new(RwLock::new(first)))
    }

    pub(crate) fn now(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, next: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Current<T> {
        Current(self.0.clone())
    }
}

/// Renews one node's certificate.
pub(crate) struct Renewer {
    credentials: Credentials,
    state: PathBuf,
    link: LinkKind,
    beat: Duration,
    links: Links,
    /// Where children dial in.
    endpoint: Option<Endpoint>,
    /// How this node dials.
    client: Current<ClientConfig>,
    /// How children are let in.
    server: Current<ServerConfig>,
    /// What newcomers see.
    join: Current<Arc<ServerConfig>>,
    /// What siblings are shown.
    shown: Current<Credentials>,
    counts: Arc<Counts>,
}

/// Why a certificate was not renewed. The old one is used on.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Asked(#[from] JoinError),
    #[error("the answer is about {0}")]
    Other(Box<certs::Identity>),
}

/// What newcomers see.
type Joining = Current<Arc<ServerConfig>>;

impl Renewer {
    pub(crate) fn new(
        setup: &Setup,
        beat: Duration,
        (links, endpoint): (Links, Option<Endpoint>),
        (client, server, join): (Current<ClientConfig>, Current<ServerConfig>, Joining),
        shown: Current<Credentials>,
        counts: Arc<Counts>,
    ) -> Renewer {
        let (credentials, state) = (setup.credentials.clone(), setup.state.clone());
        let link = setup.settings.link;
        Renewer {
            credentials,
            state,
            link,
            beat,
            links,
            endpoint,
            client,
            server,
            join,
            shown,
            counts,
        }
    }

    /// Renews whenever a third of the certificate's life is left, until the runtime ends.
    pub(crate) async fn run(mut self) {
        loop {
            let left = self.left();
            let pause = (left / 6).clamp(PAUSE[0], PAUSE[1]);
            // Not all nodes that joined in one hour at once.
            let [random] = certs::random::<1>();
            sleep(pause.mul_f64(0.5 + f64::from(random) / 510.0)).await;
            if self.is_due() {
                self.renew().await;
            }
        }
    }

    fn left(&self) -> Duration {
        self.credentials.not_after().duration_since(SystemTime::now()).unwrap_or_default()
    }

    fn is_due(&self) -> bool {
        let leaf = self.credentials.leaf();
        let life = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
        self.left() <= life / 3
    }

    async fn renew(&mut self) {
        match timeout(LIMIT, self.ask()).await {
            Ok(Ok(Some(renewed))) => self.put(renewed).await,
            // Without a link there is another look.
            Ok(Ok(None)) | Err(_) => debug!("the certificate is due, and nobody answers"),
            Ok(Err(error)) => {
                let days_left = self.left().as_secs() / (24 * 3600);
                warn!(days_left, error = %crate::chain(&error), "the certificate is not renewed");
            }
        }
    }

    async fn ask(&self) -> Result<Option<Credentials>, RenewError> {
        let Some(parent) = self.links.parent() else { return Ok(None) };
        let old = &self.credentials;
        let request = JoinRequest::renewal(old.identity().name.clone(), old.key().csr().into());
        let answer = join::ask_parent(&parent, &request.encode()).await;
        let answer = answer.map_err(|_| JoinError::Broken)?;
        let unreadable = |error: protos::JoinError| JoinError::Unreadable(error.to_string());
        let Grant { body, signature, authority } =
            match JoinReply::decode(answer).map_err(unreadable)? {
                JoinReply::Refusal(reason) => return Err(JoinError::Refused(reason).into()),
                JoinReply::Grant(grant) => grant,
            };
        certs::verify_grant(&authority, &old.pin(), &body, &signature)
            .map_err(JoinError::Forged)?;
        let grant = GrantBody::decode(body).map_err(unreadable)?;
        let renewed = old.renew(grant.certificate.to_vec()).map_err(JoinError::Unfit)?;
        match renewed.identity() == old.identity() {
            true => Ok(Some(renewed)),
            false => Err(RenewError::Other(Box::new(renewed.identity().clone()))),
        }
    }

    /// Keeps the new credentials and uses them from here on.
    async fn put(&mut self, renewed: Credentials) {
        let (credentials, state) = (renewed.clone(), self.state.clone());
        let saved = tokio::task::spawn_blocking(move || credentials.save(&state)).await;
        if let Err(error) = saved.expect("saving does not panic") {
            // After a restart the old one is renewed once more.
            warn!(error = %crate::chain(&error), "the new certificate is not kept");
        }
        self.client.set(endpoint::client(&renewed, self.link, self.beat));
        if let Some(endpoint) = &self.endpoint {
            let server = endpoint::server(&renewed, self.beat);
            endpoint.set_server_config(Some(server.clone()));
            self.server.set(server);
            self.join.set(endpoint::join_server(&renewed));
        }
        self.shown.set(renewed.clone());
        self.counts.certified(renewed.not_after());
        self.credentials = renewed;
        info!(days_left = self.left().as_secs() / (24 * 3600), "the certificate is renewed");
    }
}
