//! The parent's side of siblings that help each other: which children may, and what becomes of a
//! child that was sent to one.
//!
//! [`mesh::Fanout`] decides; here is what it does not know: sites, distances, caps, addresses. Only
//! hosts of one site that are near to this node are brought together, so that what one of them
//! fetches from another crosses no link that is thinner than the one to here; and nobody whose
//! content is held to a rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::{Ask, Digest, FanoutLimits, HostId, LinkId, Lost, Time, Way};
use protos::{PullReply, PullRequest};
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use crate::congestion;
use crate::link::{LinkError, read_framed, write_framed};
use crate::settings::SiblingSettings;
use crate::transfer::Source;

/// How long a child that was called back may take to say so.
const WORD: Duration = Duration::from_secs(30);

/// The children of one node, and who fetches from whom.
#[derive(Clone)]
pub(crate) struct Fan(Arc<Inner>);

struct Inner {
    began: Instant,
    limits: FanoutLimits,
    near: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mates: BTreeMap<HostId, Mate>,
    /// By site.
    sites: BTreeMap<String, mesh::Fanout>,
}

/// A host that is linked.
struct Mate {
    link: LinkId,
    conn: Connection,
    key: [u8; 32],
    site: String,
}

/// A child gets an object, until this is dropped.
pub(crate) struct Getting {
    fan: Fan,
    child: HostId,
    content: Digest,
    /// Whether the child may be sent siblings.
    pub(crate) promoted: bool,
    whole: bool,
}

/// What becomes of a request.
pub(crate) enum Turned {
    /// It is served here.
    Here(PullRequest, Getting),
    /// A sibling has done so.
    Elsewhere,
}

impl Fan {
    pub(crate) fn new(settings: &SiblingSettings) -> Fan {
        let limits = FanoutLimits {
            width: settings.fanout,
            port: settings.port_mbit.saturating_mul(125_000),
            worth: Duration::from_millis(settings.worth_ms),
            least: settings.least_kib.saturating_mul(1 << 10),
        };
        let (near, state) = (Duration::from_millis(settings.near_ms), Mutex::default());
        Fan(Arc::new(Inner { began: Instant::now(), limits, near, state }))
    }

    /// A host is linked.
    pub(crate) fn meet(
        &self,
        (host, site): (HostId, &str),
        (link, conn): (LinkId, &Connection),
        key: [u8; 32],
    ) {
        let mut state = self.lock();
        let mate = Mate { link, conn: conn.clone(), key, site: site.to_owned() };
        state.mates.insert(host, mate);
        state.site(site, &self.0.limits).meet(host);
    }

    /// A link has ended.
    pub(crate) fn part(&self, host: HostId, link: LinkId) {
        let mut state = self.lock();
        let Some(mate) = state.mates.get(&host).filter(|mate| mate.link == link) else { return };
        let site = mate.site.clone();
        state.mates.remove(&host);
        state.site(&site, &self.0.limits).part(host);
    }

    /// Some of an object that is here as a whole was written.
    pub(crate) fn sent(&self, child: HostId, bytes: usize) {
        let now = self.now();
        self.with(child, |fanout| fanout.sent(now, bytes));
    }

    /// Has a child get an object from a sibling, if that is better. Comes back when it has it, or
    /// when it is to be served here after all. `capped`: its content is held to a rate.
    pub(crate) async fn turn(
        &self,
        (child, request): (HostId, PullRequest),
        source: &Source,
        capped: bool,
        (send, recv): (&mut SendStream, &mut RecvStream),
    ) -> Result<Turned, LinkError> {
        let content = request.content;
        let getting =
            |promoted| Getting { fan: self.clone(), child, content, promoted, whole: false };
        let (way, sibling) = self.ask(child, &request, source, capped);
        let (within, sibling) = match (way, sibling) {
            (Way::Sibling { within, .. }, Some(sibling)) => (within, sibling),
            (Way::Sibling { .. }, None) => return Ok(Turned::Here(request, getting(false))),
            (Way::Here { promoted }, _) => return Ok(Turned::Here(request, getting(promoted))),
        };
        let mut getting = getting(false);
        let (address, key) = sibling;
        debug!(%child, %content, %address, "sending a child to a sibling");
        write_framed(send, &PullReply::Sibling { address, key }.encode()).await?;
        let mut word = std::pin::pin!(read_framed(recv));
        let word = tokio::select! {
            word = &mut word => word,
            () = overdue(source, within) => {
                write_framed(send, &PullReply::Recall.encode()).await?;
                timeout(WORD, word).await.map_err(|_| LinkError::Timeout(WORD))?
            }
        };
        let Some(again) = word? else {
            getting.end();
            return Ok(Turned::Elsewhere);
        };
        let again = PullRequest::decode(&again)
            .ok()
            .filter(|again| again.content == content)
            .ok_or(LinkError::Protocol("a request for the rest is not readable"))?;
        let why = again.lost.unwrap_or(Lost::Broken);
        info!(%child, %content, %address, ?why, "a sibling did not help: serving the rest here");
        let now = self.now();
        self.with(child, |fanout| fanout.lost(now, child, content, why, is_whole(source)));
        Ok(Turned::Here(again, getting))
    }

    fn ask(
        &self,
        child: HostId,
        request: &PullRequest,
        source: &Source,
        capped: bool,
    ) -> (Way, Option<(SocketAddr, [u8; 32])>) {
        let now = self.now();
        let mut state = self.lock();
        let Some(mate) = state.mates.get(&child) else {
            return (Way::Here { promoted: false }, None);
        };
        let free = !capped && !congestion::yields(&mate.conn);
        let willing = request.willing && free && mate.conn.rtt() <= self.0.near;
        let (content, bytes) = (request.content, outline(source).len() as u64);
        let site = mate.site.clone();
        let ask = Ask { child, content, bytes, willing };
        let way = state.site(&site, &self.0.limits).ask(now, &ask);
        let sibling = match way {
            Way::Sibling { host, .. } => state.mates.get(&host),
            Way::Here { .. } => None,
        };
        (way, sibling.map(|mate| (mate.conn.remote_address(), mate.key)))
    }

    fn with(&self, child: HostId, change: impl FnOnce(&mut mesh::Fanout)) {
        let mut state = self.lock();
        let site = state.mates.get(&child).map(|mate| mate.site.clone());
        if let Some(fanout) = site.and_then(|site| state.sites.get_mut(&site)) {
            change(fanout);
        }
    }

    fn now(&self) -> Time {
        Time(self.0.began.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn site(&mut self, site: &str, limits: &FanoutLimits) -> &mut mesh::Fanout {
        self.sites.entry(site.to_owned()).or_insert_with(|| mesh::Fanout::new(*limits))
    }
}

impl Getting {
    /// The child has all of it.
    pub(crate) fn end(&mut self) {
        let (child, content) = (self.child, self.content);
        self.fan.with(child, |fanout| fanout.got(child, content));
        self.whole = true;
    }
}

impl Drop for Getting {
    fn drop(&mut self) {
        if !self.whole {
            let (child, content) = (self.child, self.content);
            self.fan.with(child, |fanout| fanout.left(child, content));
        }
    }
}

fn outline(source: &Source) -> &content::Outline {
    match source {
        Source::Object(object) => object.outline(),
        Source::Front(front) => front.outline(),
    }
}

fn is_whole(source: &Source) -> bool {
    match source {
        Source::Object(_) => true,
        Source::Front(front) => front.reach().groups == front.outline().groups(),
    }
}

/// Until a sibling has had its time since all of the object is here, or no more of it comes.
async fn overdue(source: &Source, within: Duration) {
    if let Source::Front(front) = source {
        let (mut reach, groups) = (front.watch(), front.outline().groups());
        let come = reach.wait_for(|reach| reach.groups >= groups || reach.abandoned).await;
        if come.is_ok_and(|reach| reach.abandoned && reach.groups < groups) {
            return;
        }
    }
    sleep(within).await;
}
