//! What may be asked, and the answers.

use serde::{Deserialize, Serialize};

use super::Generator;

/// `POST /v1/fleet/ask`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// A list of [`HostDomains`], in the given sequence. Names may be aliases.
    Host {
        /// The hosts.
        hosts: Vec<String>,
    },
    /// A list of [`HostDomains`]: the members of domains, sorted.
    Members {
        /// The domains.
        domains: Vec<String>,
    },
    /// A list of [`HostDomains`] of whom something is not known.
    Unknown,
    /// All domains below one, or all: a list of names.
    Domains {
        /// Below which; nothing: all.
        below: Option<String>,
    },
    /// A list of [`DomainFiles`]
    List {
        /// The domains.
        domains: Vec<String>,
    },
    /// A list of [`FileDomains`]: to whom files go, by paths or domainpaths.
    Files {
        /// The paths; none: all.
        paths: Vec<String>,
    },
    /// [`Compared`]
    Compare {
        /// One domain.
        one: String,
        /// The other.
        other: String,
    },
    /// A list of [`FileStatus`], those with outstanding hosts.
    Status {
        /// The entries; none: all.
        paths: Vec<String>,
    },
    /// A list of [`EntryInfo`], in the given sequence.
    Show {
        /// The entries.
        paths: Vec<String>,
    },
    /// A list of [`RevisionInfo`], newest first.
    History {
        /// The entry.
        path: String,
    },
    /// A list of [`Subscriptions`], those of optional entries.
    Subscriptions {
        /// The entries; none: all.
        paths: Vec<String>,
    },
    /// [`TableText`]: what a frequency brings to whom, as a Distfile.
    Build {
        /// The name of the frequency, or `all`.
        frequency: String,
        /// Only to the members of this domain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<String>,
    },
    /// A list of [`RelayClients`]
    Network {
        /// The relays; none: all.
        relays: Vec<String>,
    },
    /// A list of [`Scheduled`]
    Schedule {
        /// Hosts whose turns are wanted, too.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<String>,
    },
    /// [`TableText`]: the hosts file.
    HostsTable {
        /// Whether names may stand several times.
        #[serde(default)]
        several: bool,
    },
    /// [`TableText`]: the ethers file.
    EthersTable,
    /// [`TableText`]: host records with another relay. Nothing is stored.
    MoveRelay {
        /// A relay, or a network.
        from: String,
        /// The new relay.
        to: String,
    },
    /// [`TableText`]: the text form of `hosts`, `files` or `config`.
    Export {
        /// Which.
        what: String,
    },
}

/// A host, its domains and its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDomains {
    /// Its name; as it was asked for, if nobody knows it.
    pub name: String,
    /// Whether there is a record of it.
    pub known: bool,
    /// Whether it has enrolled.
    #[serde(default)]
    pub enrolled: bool,
    /// Its full domains.
    pub domains: Vec<String>,
    /// The files that it gets.
    pub files: Vec<FileOf>,
    /// Names of fields that are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// A file that somebody gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOf {
    /// How often.
    pub frequency: String,
    /// The entry, as it is stored.
    pub path: String,
    /// Whether it goes only to hosts that subscribe; of a host: that it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// An optional entry, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriptions {
    /// The entry.
    pub path: String,
    /// Its newest revision.
    pub revision: u32,
    /// Hosts that get it and its updates.
    pub subscribers: Vec<String>,
    /// Of them those that lack the newest version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
    /// Hosts that have subscribed themselves, and are not in its domain any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resting: Vec<String>,
    /// Hosts that have asked for it, and get no updates: the newest version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
    /// The same with an older version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outdated: Vec<String>,
}

/// A domain and its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainFiles {
    /// The domain.
    pub domain: String,
    /// Its files, sorted by path.
    pub files: Vec<FileOf>,
}

/// A file and those to whom it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDomains {
    /// The path, or the entry that was asked for.
    pub path: String,
    /// Groups of entries that share their content.
    pub shared: Vec<Vec<EntryInfo>>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    /// Its domainpath, as it is stored.
    pub path: String,
    /// Its content, as the text form names it.
    pub source: String,
    /// How often.
    pub frequency: String,
    /// What a host runs after an update.
    pub command: String,
    /// What edits it.
    pub editor: String,
    /// Its newest revision.
    pub revision: RevisionInfo,
    /// Of a folder: whether what is not in it goes at the hosts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_extra: bool,
    /// Of a folder: patterns of what is left out of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// What makes it from the host records, if people do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// Who has locked it, if somebody has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
    /// Whether it goes only to hosts that subscribe.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A revision of content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionInfo {
    /// Its number.
    pub number: u32,
    /// The hash of its manifest: content and attributes.
    pub root: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
    /// Bytes.
    pub size: u64,
    /// Files, if it is a folder; 0 for a file.
    pub files: u64,
    /// Whether it is text.
    pub text: bool,
    /// Whether it is a folder.
    pub folder: bool,
    /// When it was modified, in seconds.
    pub modified_s: i64,
    /// Who made it.
    pub by: String,
    /// When.
    pub at_ms: u64,
    /// Why.
    pub note: String,
}

/// What two domains have of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Paths of files that only the first gets.
    pub only_one: Vec<String>,
    /// Only the other.
    pub only_other: Vec<String>,
    /// Both, with different content.
    pub different: Vec<String>,
    /// Both, with the same content from separate sources.
    pub identical: Vec<String>,
    /// Both, from one source.
    pub shared: Vec<String>,
}

/// An entry and the hosts that still lack it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    /// The entry.
    pub path: String,
    /// Its newest revision.
    pub revision: u32,
    /// Names of hosts that have not said that they have it, in natural order.
    pub hosts: Vec<String>,
    /// The same, folded.
    pub set: String,
    /// Of them those that have not enrolled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_enrolled: Vec<String>,
}

/// A relay and the hosts that name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayClients {
    /// The relay.
    pub relay: String,
    /// Addresses and names, by address.
    pub clients: Vec<(String, String)>,
}

/// A text, and what is wrong with what it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableText {
    /// The text.
    pub text: String,
    /// A line each.
    #[serde(default)]
    pub complaints: Vec<String>,
}

/// When a frequency is due, in the answer to [`Question::Schedule`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// Its name.
    pub frequency: String,
    /// When, as cron has it.
    pub cron: String,
    /// By the clocks of which place.
    pub zone: String,
    /// Whether the controller starts it by itself.
    pub automatic: bool,
    /// When it was last begun by the schedule; 0: never.
    pub last_ms: u64,
    /// When it is due next; 0: never by itself.
    pub next_ms: u64,
    /// How often it was missed before it was last begun.
    pub missed: u64,
    /// Whether a distribution of it goes on.
    pub running: bool,
    /// The waves in which it goes; empty: to everybody at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waves: String,
    /// The rollout of it that is unfinished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// How many hosts have not had their turn since it was due.
    #[serde(default)]
    pub waiting: u64,
    /// The next turns of the hosts that were asked for and get files so often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<HostTurn>,
}

/// When a host has its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTurn {
    /// The host.
    pub host: String,
    /// When; 0: never by itself, or not within two weeks.
    pub at_ms: u64,
}
