//! Enrolment: tokens that operators make, and newcomers who use them.
//!
//! A token is used up in the same transaction that enters the host. The same newcomer (the same
//! key) may ask again while the token lives and gets the same place, so a lost answer costs
//! nothing; anybody else who holds the token is refused and it is logged. A name that is taken is
//! given away only to a token that was made for exactly that name: so a host that was installed
//! anew returns under its old name and number, and nobody else can take it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{Authority, Identity, Leaf, MeshId, Role, Token, TokenCheck, TokenId};
use mesh::HostSet;
use protos::{
    Grant, GrantBody, JoinReply, JoinRequest, RecordReply, Removals, Schedule, SignedRecord,
    SignedRemovals,
};
use relay::Registrar;
use tracing::{info, warn};

use crate::archive::Archive;
use crate::clock::{now_ms, to_ms};
use crate::fault::Failure;
use crate::fleet::Fleet;
use crate::tables::{Accepted, Enrolment, HostRow, Tables, TokenRow};
use crate::types::{NewToken, TokenInfo};

/// How long a certificate is good, unless the operator says otherwise.
pub(crate) const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long after its end a removed certificate is still named, for clocks that lag.
const REMOVED_SLACK: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a token may be good.
const TOKEN_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Makes tokens and answers newcomers.
#[derive(Clone)]
pub(crate) struct Enroller {
    pub(crate) authority: Arc<Authority>,
    pub(crate) tables: Tables,
    /// Keeps what relays tell of their own orders.
    pub(crate) archive: Archive,
    /// How long certificates are good.
    pub(crate) certificate: Duration,
    /// The longest that any was ever made for: so long a removed key may still have one.
    pub(crate) longest: Duration,
    /// When this controller was restored; 0: never.
    pub(crate) epoch: u64,
    /// Has the schedule.
    pub(crate) fleet: Fleet,
    /// Told when the inventory has changed.
    pub(crate) changed: Arc<dyn Fn() + Send + Sync>,
    /// Told after that when a key may have been removed.
    pub(crate) removed: Arc<dyn Fn() + Send + Sync>,
}

impl Enroller {
    pub(crate) fn create(&self, new: &NewToken) -> Result<TokenInfo, Failure> {
        let role = match new.role.as_str() {
            "relay" | "host" => new.role.clone(),
            other => {
                let message = format!("`{other}` is not a role that can join");
                return Err(Failure::bad(message, "use relay or host"));
            }
        };
        let ttl = Duration::from_secs(new.ttl_s);
        if ttl.is_zero() || ttl > TOKEN_LIMIT {
            let message = format!("a token cannot be good for {} s", new.ttl_s);
            return Err(Failure::bad(message, "between 1 s and 24 h is allowed"));
        }
        // An unnamed token is checked with a name that stands for any.
        let name = if new.name.is_empty() { "any" } else { &new.name };
        let who = identity(self.authority.mesh(), 1, Role::Host, name, &new.site);
        who.check().map_err(|error| Failure::bad(error.to_string(), ""))?;
        let token = Token::new(self.authority.pin());
        let row = TokenRow {
            check: token.check().0,
            role,
            site: new.site.clone(),
            name: new.name.clone(),
            expires_ms: to_ms(SystemTime::now() + ttl),
            used_by: None,
        };
        self.tables.set_token(token.id().0, &row)?;
        info!(token = %token.id(), role = %row.role, site = %row.site, "made a join token");
        Ok(TokenInfo { token: Some(token.to_string()), ..describe(token.id(), &row, None) })
    }

    pub(crate) fn list(&self) -> Result<Vec<TokenInfo>, Failure> {
        let hosts = self.tables.hosts()?;
        let name = |row: &TokenRow| {
            let host = hosts.get(&mesh::HostId(row.used_by?))?;
            Some(host.name.clone())
        };
        let tokens = self.tables.tokens()?;
        Ok(tokens.iter().map(|(id, row)| describe(TokenId(*id), row, name(row))).collect())
    }

    pub(crate) fn revoke(&self, id: &str) -> Result<(), Failure> {
        let unknown = || Failure::unknown("unknown-token", format!("no token {id}"), "");
        let parsed: TokenId = id.parse().map_err(|_| unknown())?;
        if self.tables.remove_token(parsed.0)? { Ok(()) } else { Err(unknown()) }
    }

    /// Takes hosts out of the mesh: their keys are good for nothing from now on, and their numbers
    /// are never given again.
    pub(crate) fn remove(&self, hosts: &HostSet) -> Result<Vec<HostRow>, Failure> {
        let room = protos::REMOVED_KEYS.saturating_sub(self.removals()?.keys.len());
        if hosts.len() > room as u64 {
            let message = format!("the list of removed keys has room for {room} more");
            return Err(Failure::conflict(message, "it empties as their certificates end"));
        }
        let gone = self.tables.remove_hosts(hosts, now_ms())?;
        for host in &gone {
            info!(name = %host.name, role = %host.role, "removed from the mesh");
        }
        (self.changed)();
        (self.removed)();
        Ok(gone)
    }

    pub(crate) fn removals(&self) -> Result<Removals, relay::JournalError> {
        let (version, keys) = self.tables.removed(self.removed_since())?;
        let (mesh, schedule) = (self.authority.mesh().0, Schedule::default());
        Ok(Removals { mesh, version, keys, epoch: self.epoch, schedule })
    }

    /// Of a key that was removed before this no certificate is valid any more, in milliseconds.
    fn removed_since(&self) -> u64 {
        let past = CERTIFICATE_LIFETIME.max(self.longest) + REMOVED_SLACK;
        SystemTime::now().checked_sub(past).map_or(0, to_ms)
    }

    /// The list of removed keys and the schedule as the whole mesh is to know them, if there ever
    /// was any.
    pub(crate) fn signed_removals(&self) -> Result<Option<SignedRemovals>, relay::JournalError> {
        let mut schedule = self.fleet.known().schedule();
        let left_out = schedule.fit();
        if left_out > 0 {
            warn!(left_out, "not all of the schedule finds room: sites cannot go on with the rest");
        }
        self.tables.note_schedule(&schedule)?;
        let list = Removals { schedule, ..self.removals()? };
        let body = list.encode();
        let signature = self.authority.sign_removals(&body);
        Ok((list.version > 0).then_some(SignedRemovals { body, signature }))
    }

    /// Keys were removed that are not in the backup from which this controller was restored.
    fn try_recall(&self, keys: &BTreeSet<[u8; 32]>) -> Result<(), Failure> {
        let room = protos::REMOVED_KEYS.saturating_sub(self.removals()?.keys.len());
        let (hosts, new) = self.tables.recall_keys(keys, (now_ms(), room))?;
        if new == 0 {
            return Ok(());
        }
        info!(keys = new, hosts = hosts.len(), "a node knows of keys that were removed before");
        self.tables.remove_hosts(&hosts, now_ms())?;
        (self.changed)();
        (self.removed)();
        Ok(())
    }

    fn try_enrol(&self, request: &JoinRequest) -> Result<JoinReply, String> {
        protos::check_version(request.version).map_err(|error| error.to_string())?;
        if request.renewal {
            return self.try_renew(request);
        }
        let mesh = self.authority.mesh();
        let probe = identity(mesh, 1, Role::Host, &request.name, "");
        probe.check().map_err(|error| error.to_string())?;
        let failed = |error: &dyn std::error::Error| {
            warn!(error = %relay::chain(error), "an enrolment failed");
            "the controller failed: try again".to_string()
        };
        // Nothing is made or written for somebody who does not hold a token.
        let id = request.token_id;
        let token = self.tables.token(id).map_err(|error| failed(&error))?;
        let Some(token) = proven(request, token) else { return Err(UNPROVEN.into()) };
        // The key is in the request only; a trial certificate proves that it is held.
        let trial = self.issue(&request.csr, &probe).map_err(|error| error.to_string())?;
        let key = Leaf::parse(&trial).map_err(|error| failed(&error))?.public;
        if self.tables.is_removed(&key).map_err(|error| failed(&error))? {
            let text = "the key of this node was removed from the mesh: delete join.key and \
                        identity.pem in its state folder, and join anew";
            return Err(text.into());
        }
        let decide = |token, holder, next| decide(request, key, token, holder, next);
        let room = (self.removed_since(), || "the list of removed keys is full".to_string());
        let entered = self.tables.enrol(request.token_id, &request.name, room, decide);
        let (id, host) = entered.map_err(|error| failed(&error))??;
        let role: Role = host.role.parse().map_err(|_| "the token's role is gone".to_string())?;
        let who = identity(mesh, id, role, &host.name, &host.site);
        let certificate = self.issue(&request.csr, &who).map_err(|error| error.to_string())?;
        self.note(&who);
        info!(%who, "enrolled");
        (self.changed)();
        // Only with such a token a host may have come anew, with another key than before.
        if !token.name.is_empty() {
            (self.removed)();
        }
        Ok(self.grant(&who, certificate))
    }

    /// A new certificate for a node that is in the inventory with the key that asks. Whoever else
    /// sends the same request gets what only the holder of the key can use.
    fn try_renew(&self, request: &JoinRequest) -> Result<JoinReply, String> {
        let failed = |error: &dyn std::error::Error| {
            warn!(error = %relay::chain(error), "a renewal failed");
            "the controller failed: try again".to_string()
        };
        let mesh = self.authority.mesh();
        // The key is in the request only; a trial certificate proves that it is held.
        let probe = identity(mesh, 1, Role::Host, "renewal", "");
        let trial = self.issue(&request.csr, &probe).map_err(|error| error.to_string())?;
        let key = Leaf::parse(&trial).map_err(|error| failed(&error))?.public;
        let hosts = self.tables.hosts().map_err(|error| failed(&error))?;
        let known = hosts.into_iter().find(|(_, host)| host.key == key);
        let (id, host) = known.ok_or("this key is not in the inventory: join anew")?;
        let role: Role = host.role.parse().map_err(|_| "the role is gone".to_string())?;
        let who = identity(mesh, id.0, role, &host.name, &host.site);
        let certificate = self.issue(&request.csr, &who).map_err(|error| error.to_string())?;
        self.note(&who);
        info!(%who, "renewed a certificate");
        Ok(self.grant(&who, certificate))
    }

    /// Notes until when the certificate is good that a node has just been given.
    fn note(&self, who: &Identity) {
        let life = u64::try_from(self.certificate.as_millis()).unwrap_or(u64::MAX);
        let ends = now_ms().saturating_add(life);
        if let Err(error) = self.tables.note_certificate(who.id, ends, life) {
            warn!(%who, error = %relay::chain(&error), "the end of a certificate is not noted");
        }
    }

    fn grant(&self, who: &Identity, certificate: Vec<u8>) -> JoinReply {
        let body = GrantBody {
            mesh: who.mesh.0,
            id: mesh::HostId(who.id),
            role: who.role.to_string(),
            site: who.site.clone(),
            name: who.name.clone(),
            certificate: certificate.into(),
            order_key: self.authority.order_signer().key().0,
        };
        let body = body.encode();
        JoinReply::Grant(Grant {
            signature: self.authority.sign_grant(&body),
            body,
            authority: self.authority.certificate().to_vec().into(),
        })
    }

    fn issue(&self, csr: &[u8], who: &Identity) -> Result<Vec<u8>, certs::IssueError> {
        self.authority.issue(csr, who, self.certificate, SystemTime::now())
    }
}

impl Registrar for Enroller {
    fn enrol(&self, request: JoinRequest) -> JoinReply {
        self.try_enrol(&request).unwrap_or_else(|reason| {
            warn!(name = %request.name, %reason, "refused a newcomer");
            JoinReply::Refusal(reason)
        })
    }

    fn keep(&self, record: SignedRecord) -> RecordReply {
        self.archive.keep(record)
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn recall(&self, keys: &BTreeSet<[u8; 32]>) {
        if let Err(failure) = self.try_recall(keys) {
            // Whoever has told it tells it again on the next link.
            warn!(error = %failure.error.message, "removed keys of before are not entered");
        }
    }
}

/// What somebody hears who does not hold a token: only who does learns what is wrong with it.
const UNPROVEN: &str = "the token is unknown, or was revoked, or is not whole";

/// The token, if the request proves that its maker holds it.
fn proven(request: &JoinRequest, token: Option<TokenRow>) -> Option<TokenRow> {
    let id = TokenId(request.token_id);
    let holds = |row: &TokenRow| {
        TokenCheck(row.check).verify(id, &request.name, &request.csr, &request.proof)
    };
    token.filter(holds)
}

/// What becomes of a newcomer, given its token, who has its name now, and the next free number.
fn decide(
    request: &JoinRequest,
    key: [u8; 32],
    token: Option<TokenRow>,
    holder: Option<(u32, HostRow)>,
    next: u32,
) -> Enrolment<String> {
    let id = TokenId(request.token_id);
    let Some(token) = proven(request, token) else {
        return Enrolment::Refuse(UNPROVEN.into());
    };
    let now = now_ms();
    let again = |held: &(u32, HostRow)| {
        token.used_by == Some(held.0) && held.1.key == key && token.expires_ms > now
    };
    if let Some((id, host)) = holder.clone().filter(again) {
        return accept(id, host, token);
    }
    if token.used_by.is_some() {
        warn!(token = %id, name = %request.name, "a used token was shown by somebody else");
        let text = "the token was used already: make a new one with `barid token create`";
        return Enrolment::Refuse(text.into());
    }
    if token.expires_ms <= now {
        let ago = (now - token.expires_ms) / 1000;
        return Enrolment::Refuse(format!(
            "the token expired {ago} s ago: make a new one with `barid token create`"
        ));
    }
    if !token.name.is_empty() && token.name != request.name {
        return Enrolment::Refuse(format!(
            "the token is for {}, not for {}: join with `--name {}`",
            token.name, request.name, token.name
        ));
    }
    let id = match holder {
        None => next,
        Some((id, _)) if token.name == request.name => id,
        Some(_) => {
            return Enrolment::Refuse(format!(
                "the name {0} is taken: choose another with `--name`, or, if this is the same \
                 host installed anew, use a token made with `--name {0}`",
                request.name
            ));
        }
    };
    let host = HostRow {
        name: request.name.clone(),
        site: token.site.clone(),
        role: token.role.clone(),
        key,
        enrolled_ms: now,
    };
    accept(id, host, TokenRow { used_by: Some(id), ..token })
}

fn accept(id: u32, host: HostRow, token: TokenRow) -> Enrolment<String> {
    Enrolment::Accept(Box::new(Accepted { id, host, token }))
}

fn describe(id: TokenId, row: &TokenRow, used_by: Option<String>) -> TokenInfo {
    TokenInfo {
        id: id.to_string(),
        token: None,
        role: row.role.clone(),
        site: row.site.clone(),
        name: row.name.clone(),
        expires_ms: row.expires_ms,
        used_by,
    }
}

pub(crate) fn identity(mesh: MeshId, id: u32, role: Role, name: &str, site: &str) -> Identity {
    Identity { mesh, id, role, name: name.into(), site: site.into() }
}
