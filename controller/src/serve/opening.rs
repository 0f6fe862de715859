//! From a state folder to a node that runs: all is opened, and made at the first start.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use certs::{Authority, Credentials, MeshId, NodeKey, Role};
use content::Store;
use relay::{Journal, Settings, Setup};
use tracing::info;

use super::members::{Publisher, on_change, on_removal};
use super::{Options, RunError};
use crate::archive::Archive;
use crate::enrol::{self, Enroller, identity};
use crate::fleet::Fleet;
use crate::live::Live;
use crate::tables::Tables;

/// The UDP port of the mesh.
const PORT: u16 = 7400;
const CACHE: usize = 64 << 20;
/// The controller makes its own certificate at each start.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// What lies in the state folder.
pub(super) struct Opened {
    pub(super) state: PathBuf,
    pub(super) journal: Journal,
    pub(super) authority: Arc<Authority>,
    pub(super) tables: Tables,
    pub(super) store: Arc<Store>,
    pub(super) fleet: Fleet,
    pub(super) live: Live,
}

impl Opened {
    pub(super) fn new(state: &Path) -> Result<Opened, RunError> {
        let state = state.to_owned();
        let usable = certs::files::private_dir(&state);
        usable.map_err(|source| RunError::State { path: state.clone(), source })?;
        let journal = Journal::open(&state.join("controller.redb"), CACHE)?;
        let authority = Arc::new(authority(&state)?);
        let tables = Tables::open(journal.clone())?;
        let store = Arc::new(Store::open(state.join("store"))?);
        let fleet = Fleet::open(journal.clone(), store.clone())?;
        let live = Live::new();
        live.state().hosts = Arc::new(tables.hosts()?);
        live.state().labels = Arc::new(tables.labels()?);
        live.state().facts = Arc::new(tables.facts()?);
        live.state().origin = tables.origin()?;
        Ok(Opened { state, journal, authority, tables, store, fleet, live })
    }

    /// Starts the node, and what enrols others.
    pub(super) fn start(
        &self,
        options: &Options,
    ) -> Result<(Arc<relay::Running>, Enroller), RunError> {
        let published = Arc::new(OnceLock::new());
        let certificate = options.certificate.unwrap_or(enrol::CERTIFICATE_LIFETIME);
        let lifetime = u64::try_from(certificate.as_millis()).unwrap_or(u64::MAX);
        let longest = self.tables.note_lifetime(lifetime)?;
        let enroller = Enroller {
            authority: self.authority.clone(),
            tables: self.tables.clone(),
            archive: Archive {
                authority: self.authority.clone(),
                tables: self.tables.clone(),
                live: self.live.clone(),
            },
            certificate,
            longest: Duration::from_millis(longest),
            epoch: self.tables.origin()?.epoch,
            fleet: self.fleet.clone(),
            changed: on_change(self.live.clone(), self.tables.clone(), self.fleet.clone()),
            removed: on_removal(published.clone()),
        };
        let node = relay::start(Setup {
            credentials: credentials(&self.authority)?,
            settings: settings(options),
            state: self.state.clone(),
            journal: self.journal.clone(),
            store: self.store.clone(),
            witness: self.live.witness(),
            registrar: Some(Arc::new(enroller.clone())),
            obeys: false,
        })?;
        let node = Arc::new(node);
        let turn = Mutex::default();
        Publisher { enroller: enroller.clone(), node: node.clone(), turn }.begin(&published);
        Ok((node, enroller))
    }
}

fn settings(options: &Options) -> Settings {
    let defaults = Settings::default();
    Settings {
        listen: Some(options.listen.unwrap_or((Ipv4Addr::UNSPECIFIED, PORT).into())),
        beat_interval_ms: options.beat_interval_ms.unwrap_or(defaults.beat_interval_ms),
        flush_ms: options.flush_ms.unwrap_or(defaults.flush_ms),
        min_free_mib: options.min_free_mib.unwrap_or(defaults.min_free_mib),
        store_max_mib: options.store_max_mib.unwrap_or(defaults.store_max_mib),
        rate_limit_kbit: options.rate_limit_kbit.unwrap_or(defaults.rate_limit_kbit),
        ..defaults
    }
}

/// The authority of this state folder; made at the first start.
fn authority(state: &Path) -> Result<Authority, RunError> {
    let dir = state.join("authority");
    if dir.exists() {
        return Ok(Authority::open(&dir)?);
    }
    info!(state = %state.display(), "first start: making the authority's keys");
    Ok(Authority::create(&dir, MeshId::random(), SystemTime::now())?)
}

/// A new key and certificate for the controller's own links, at each start.
fn credentials(authority: &Authority) -> Result<Credentials, RunError> {
    let key = NodeKey::generate();
    let who = identity(authority.mesh(), 0, Role::Controller, "controller", "");
    let now = SystemTime::now();
    let certificate = authority.issue(&key.csr(), &who, CERTIFICATE_LIFETIME, now)?;
    let (ca, order_key) = (authority.certificate().to_vec(), authority.order_signer().key());
    Ok(Credentials::new(key, certificate, ca, order_key)?)
}
