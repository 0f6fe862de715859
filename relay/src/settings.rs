//! How a node is set up: one small TOML file, every key with a default, unknown keys refused.
//!
//! `barid join` writes it, a person may edit it, flags of `barid node` win over it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::calendar::{Calendar, CalendarError, Entry};
use crate::kind::LinkKind;

/// Outputs in answers have so much room, however small the spool.
const LEAST_BODIES: usize = 4 << 20;

/// The settings of a relay or a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Parents as `host:port`, in order of preference.
    pub parents: Vec<String>,
    /// What the way to the parents is like: `lan`, `wan` or `weak`.
    pub link: LinkKind,
    /// Where a relay listens for its children (UDP).
    pub listen: Option<SocketAddr>,
    /// The folder below which pushes install: `/` in production.
    pub install_root: PathBuf,
    /// How often this node beats on each link.
    pub beat_interval_ms: u64,
    /// The span of the first redial; it doubles from try to try.
    pub redial_base_ms: u64,
    /// The longest span between redials.
    pub redial_cap_ms: u64,
    /// After how long with a parent further down the list the better ones are tried again, at most;
    /// it doubles from round to round.
    pub return_base_ms: u64,
    /// The longest such wait.
    pub return_cap_ms: u64,
    /// How often parents are measured, so that one that serves clearly better goes before others;
    /// 0: they are taken in their order.
    pub measure_interval_ms: u64,
    /// How long answers wait for others to fold with.
    pub flush_ms: u64,
    /// Content down each child's link, at most, in kbit/s; 0: no limit.
    pub rate_limit_kbit: u64,
    /// How many children may be linked at once.
    pub max_children: usize,
    /// How many commands run at once at this host; more wait.
    pub max_runs: usize,
    /// How long events of children wait for others to fold with.
    pub event_flush_ms: u64,
    /// How often events that are alike are told the parent.
    pub event_repeat_ms: u64,
    /// How often this node looks whether what it says of itself has changed.
    pub facts_interval_ms: u64,
    /// How much of what commands write beyond what their answers keep stays here, in MiB; the
    /// oldest goes first. 0: nothing.
    pub spool_mib: u64,
    /// How much content is kept, in MiB; 0: at a relay half of its disk, elsewhere any amount.
    pub store_max_mib: u64,
    /// How much of the disk is kept free of content that nobody needs just now, in MiB; 0: at a
    /// relay a tenth, but no more than 4 GiB.
    pub store_keep_free_mib: u64,
    /// How much of the state disk is to stay free, in MiB: with less, pushes are refused, and with
    /// a quarter of it commands.
    pub min_free_mib: u64,
    /// Whether content from the parent gives way to whatever else is on the way.
    #[serde(rename = "yield")]
    pub yields: bool,
    /// How much content the link to the parent may carry at which time.
    pub cap: Vec<Entry>,
    /// Its metrics.
    pub metrics: MetricsSettings,
    /// The bus for programs of other users.
    pub bus: BusSettings,
    /// Children that fetch content from each other.
    pub siblings: SiblingSettings,
}

/// When children of one parent fetch content from each other. `serve` is for hosts, the rest for
/// their parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiblingSettings {
    /// Whether this host may be sent to siblings, and siblings to it.
    pub serve: bool,
    /// Children that one object is sent to at a time before others are sent to these, and that each
    /// of these is sent; 0: all are served here.
    pub fanout: usize,
    /// What the port of this node is taken to carry, in Mbit/s, unless less was measured.
    pub port_mbit: u64,
    /// Siblings help only with what would take the port so long, in milliseconds.
    pub worth_ms: u64,
    /// And only with objects of so many KiB.
    pub least_kib: u64,
    /// And only children that are so near, in milliseconds of round trip.
    pub near_ms: u64,
}

impl Default for SiblingSettings {
    fn default() -> SiblingSettings {
        SiblingSettings {
            serve: true,
            fanout: 8,
            port_mbit: 1_000,
            worth_ms: 1_000,
            least_kib: 1_024,
            near_ms: 5,
        }
    }
}

/// Where programs find the bus, beside the node's own socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSettings {
    /// A Unix socket that every user may open; what he may there says `bus.toml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// Where a node's metrics can be read, beside its own socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSettings {
    /// A TCP address, open to anybody who reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            parents: Vec::new(),
            link: LinkKind::Wan,
            listen: None,
            install_root: PathBuf::from("/"),
            beat_interval_ms: 5_000,
            redial_base_ms: 1_000,
            redial_cap_ms: 300_000,
            return_base_ms: 60_000,
            return_cap_ms: 1_800_000,
            measure_interval_ms: 0,
            flush_ms: 10,
            rate_limit_kbit: 0,
            max_children: 2_000,
            max_runs: 64,
            event_flush_ms: 1_000,
            event_repeat_ms: 10_000,
            facts_interval_ms: 60_000,
            spool_mib: 256,
            store_max_mib: 0,
            store_keep_free_mib: 0,
            min_free_mib: 64,
            metrics: MetricsSettings::default(),
            bus: BusSettings::default(),
            siblings: SiblingSettings::default(),
            yields: false,
            cap: Vec::new(),
        }
    }
}

/// Settings could not be read or written; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read or written.
    #[error("{}: {action} failed", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is not what it should be; the operator is at fault.
    #[error("{}: not a valid node configuration", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: alerts::SyntaxError,
    },
    /// A cap that says nothing; the operator is at fault.
    #[error("{}: not a valid node configuration", path.display())]
    Cap {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CalendarError,
    },
}

impl Settings {
    /// Reads the settings; a missing file means the defaults.
    pub fn load(path: &Path) -> Result<Settings, SettingsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(SettingsError::Io { path: path.into(), action: "reading", source });
            }
        };
        let settings: Settings = toml::from_str(&text).map_err(|error| SettingsError::Syntax {
            path: path.into(),
            source: alerts::SyntaxError::new(&text, error),
        })?;
        Calendar::new(&settings.cap)
            .map_err(|source| SettingsError::Cap { path: path.into(), source })?;
        Ok(settings)
    }

    /// Writes the settings beside the old file and puts them in its place.
    pub fn save(&self, path: &Path) -> Result<(), SettingsError> {
        let text = toml::to_string_pretty(self).expect("plain settings are valid TOML");
        certs::files::replace_secret(path, text.as_bytes()).map_err(|error| SettingsError::Io {
            path: path.into(),
            action: "writing",
            source: std::io::Error::other(error),
        })
    }

    /// How large the store of a node may become on a disk of this size. `caches`: it keeps what
    /// nobody needs just now.
    pub fn bounds(&self, caches: bool, disk: u64) -> content::Bounds {
        let mib = |setting: u64, usual: u64| match setting {
            0 => usual,
            mib => mib.saturating_mul(1 << 20),
        };
        let (max, keep) = match caches {
            true => (disk / 2, (disk / 10).min(4 << 30)),
            false => (0, 0),
        };
        let max = if max == 0 { u64::MAX } else { max };
        content::Bounds {
            max: mib(self.store_max_mib, max),
            keep_free: mib(self.store_keep_free_mib, keep),
            floor: self.min_free_mib.saturating_mul(1 << 20),
            price: self.link.price(),
        }
    }

    /// As [`Settings::bounds`], on a disk where so many bytes are needed already. Without a limit
    /// of its own a store must not refuse everything new because of what it has taken in before
    /// there was a usual one.
    pub fn bounds_around(&self, needed: u64, caches: bool, disk: u64) -> content::Bounds {
        let mut bounds = self.bounds(caches, disk);
        if caches && self.store_max_mib == 0 {
            bounds.max = bounds.max.max(needed.saturating_add(disk / 16));
        }
        bounds
    }

    /// The core's configuration for a node with these settings, and so many parents.
    pub fn mesh(&self, host: u32, serves: bool, parents: usize) -> mesh::Config {
        let mut config = mesh::Config::new(mesh::HostId(host), parents, serves);
        config.beat_interval = Duration::from_millis(self.beat_interval_ms.max(10));
        config.uplink_interval = self.link.beat(config.beat_interval);
        config.flush = Duration::from_millis(self.flush_ms);
        config.backoff.base = Duration::from_millis(self.redial_base_ms.max(1));
        config.backoff.cap = Duration::from_millis(self.redial_cap_ms.max(self.redial_base_ms));
        config.events.flush = Duration::from_millis(self.event_flush_ms);
        config.events.repeat = Duration::from_millis(self.event_repeat_ms);
        config.backoff.climb = Duration::from_millis(self.return_base_ms.max(1));
        config.backoff.climb_cap = Duration::from_millis(self.return_cap_ms);
        config.limits.children = self.max_children;
        config.limits.body_bytes = self.body_bytes();
        config
    }

    /// How much of the spool's quota outputs in answers may take. They have some room in any case:
    /// what nobody has heard yet is worth more than what may be fetched once more.
    fn body_bytes(&self) -> usize {
        let quota = usize::try_from(self.spool_mib.saturating_mul(1 << 20)).unwrap_or(usize::MAX);
        quota.clamp(LEAST_BODIES, mesh::Limits::default().body_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_spool_bounds_outputs_in_answers() {
        let of = |spool_mib| Settings { spool_mib, ..Settings::default() }.body_bytes();
        assert_eq!([0, 4, 16, 64, u64::MAX].map(of), [4, 4, 16, 64, 64].map(|mib| mib << 20));
    }

    #[test]
    fn the_example_is_valid() {
        let settings: Settings =
            toml::from_str(include_str!("../../examples/node.toml")).expect("valid");
        assert_eq!(settings.parents.len(), 2);
    }

    #[test]
    fn a_cache_is_bounded_by_its_disk_unless_somebody_says_otherwise() {
        let settings = Settings::default();
        let relay = settings.bounds(true, 20 << 30);
        assert_eq!((relay.max, relay.keep_free, relay.floor), (10 << 30, 2 << 30, 64 << 20));
        assert_eq!(settings.bounds(true, 1 << 40).keep_free, 4 << 30);
        let host = settings.bounds(false, 20 << 30);
        assert_eq!((host.max, host.keep_free), (u64::MAX, 0));
        let settings = Settings { store_max_mib: 3, store_keep_free_mib: 5, ..settings };
        for caches in [true, false] {
            let bounds = settings.bounds(caches, 20 << 30);
            assert_eq!((bounds.max, bounds.keep_free), (3 << 20, 5 << 20));
        }
    }

    #[test]
    fn a_cache_that_was_larger_before_takes_in_what_is_new() {
        let settings = Settings::default();
        let (usual, disk) = (settings.bounds(true, 16 << 30), 16 << 30);
        assert_eq!(settings.bounds_around(7 << 30, true, disk), usual);
        let around = settings.bounds_around(12 << 30, true, disk);
        assert_eq!(around, content::Bounds { max: 13 << 30, ..usual });
        assert_eq!(settings.bounds_around(12 << 30, false, disk).max, u64::MAX);
        let settings = Settings { store_max_mib: 3, ..settings };
        assert_eq!(settings.bounds_around(12 << 30, true, disk).max, 3 << 20);
    }

    #[test]
    fn reads_what_it_wrote_and_names_what_it_does_not_know() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("node.toml");
        assert_eq!(Settings::load(&path).expect("defaults"), Settings::default());
        let settings = Settings { parents: vec!["a:1".into()], ..Settings::default() };
        settings.save(&path).expect("it is written");
        assert_eq!(Settings::load(&path).expect("it is read"), settings);
        std::fs::write(&path, "beat_intervall_ms = 3\n").expect("written");
        let error = Settings::load(&path).expect_err("a misspelt key");
        let SettingsError::Syntax { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("beat_intervall_ms"), "{source}");
        std::fs::write(&path, "link = 'lan'\n[siblings]\nworth_ms = -1\n").expect("written");
        let told = crate::chain(&Settings::load(&path).expect_err("a negative time"));
        let expected = "line 3: siblings.worth_ms: invalid value: integer `-1`, expected a whole \
                        number of milliseconds, 0 or more";
        assert!(told.contains("node.toml") && told.ends_with(expected), "{told}");
    }
}
