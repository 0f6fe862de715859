//! The words of the API about the fleet: what may be changed and what may be asked.
//!
//! Two requests, each with a closed list of words: `POST /v1/fleet/change` changes one thing
//! whole or not at all, `POST /v1/fleet/ask` changes nothing.

use std::collections::BTreeMap;

use mesh::HostSet;
use serde::{Deserialize, Serialize};

use crate::types::Waves;

/// `POST /v1/fleet/change`; answered with [`Changed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewChange {
    /// Who wants it, for the history and for locks.
    pub by: Author,
    /// What is to change.
    pub change: Change,
}

/// Somebody who changes something, as they say themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Author {
    /// The account.
    pub user: String,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
}

/// What can be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// A new domain below an existing one, or a new view.
    CreateDomain {
        /// Its name.
        domain: String,
    },
    /// A domain goes.
    DeleteDomain {
        /// Its name.
        domain: String,
        /// With its files and sub-domains; its hosts get an unknown value.
        #[serde(default)]
        force: bool,
    },
    /// A new domain with the files and sub-domains of another, sharing their content.
    CloneDomain {
        /// The one that is there.
        from: String,
        /// The new one.
        to: String,
    },
    /// All host records anew, from their text form.
    ImportHosts {
        /// The text.
        text: String,
        /// Also if hosts are missing from it that are recorded now.
        #[serde(default)]
        force: bool,
    },
    /// Something about one host; what is not given stays.
    SetHost {
        /// Its name.
        name: String,
        /// Its address.
        #[serde(default)]
        ip: Option<String>,
        /// Its hardware address.
        #[serde(default)]
        ether: Option<String>,
        /// Its other names.
        #[serde(default)]
        aliases: Option<Vec<String>>,
        /// The relay that serves it.
        #[serde(default)]
        relay: Option<String>,
        /// Its domains, one for each view.
        #[serde(default)]
        domains: Option<Vec<String>>,
    },
    /// The records of a host go.
    RemoveHost {
        /// Its name.
        name: String,
    },
    /// Levels, domains and frequencies anew, from their text form.
    ImportConfig {
        /// The text.
        text: String,
    },
    /// All entries anew, from their text form.
    ImportFiles {
        /// The text.
        text: String,
        /// Also if entries are missing from it that are there now.
        #[serde(default)]
        force: bool,
    },
    /// A file or folder under control.
    Install {
        /// Where its content comes from.
        content: Origin,
        /// What it is called.
        path: String,
        /// How often it is distributed.
        frequency: String,
        /// What edits it; nothing: what fits the content.
        #[serde(default)]
        editor: Option<String>,
        /// What a host runs once it was updated there.
        #[serde(default)]
        command: String,
        /// Names and patterns to leave out of a folder, now and whenever it is read again.
        #[serde(default)]
        exclude: Vec<String>,
        /// Of a folder: whether what is not in it goes at the hosts.
        #[serde(default)]
        delete_extra: bool,
    },
    /// Other content for an entry, whose attributes and policy stay.
    Put {
        /// Where the content comes from.
        content: Origin,
        /// The entry.
        path: String,
        /// The lock that its holder was given; needed if there is one.
        #[serde(default)]
        lock: Option<String>,
        /// Why, for the history.
        #[serde(default)]
        note: String,
    },
    /// Other attributes.
    SetAttributes {
        /// The entries.
        paths: Vec<String>,
        /// Permissions, as `chmod` has them: octal, or words such as `u+x,go-w`.
        #[serde(default)]
        mode: Option<String>,
        /// The owner, by name or number.
        #[serde(default)]
        owner: Option<String>,
        /// The group, by name or number.
        #[serde(default)]
        group: Option<String>,
    },
    /// An earlier revision becomes the newest again.
    Rollback {
        /// The entry.
        path: String,
        /// Which revision; 0: the one before the newest.
        revision: u32,
    },
    /// One entry shares the content of another from now on.
    Merge {
        /// The entry with the content.
        from: String,
        /// The entry that takes it.
        to: String,
    },
    /// How often an entry is distributed.
    SetFrequency {
        /// The entry.
        path: String,
        /// The name of a frequency.
        frequency: String,
    },
    /// What a host runs once an entry was updated there.
    SetCommand {
        /// The entry.
        path: String,
        /// A line for the shell; empty: nothing.
        command: String,
    },
    /// What edits an entry.
    SetEditor {
        /// The entry.
        path: String,
        /// An absolute path, a command, `EDITOR` or `NONE`; nothing: what fits the content.
        editor: Option<String>,
    },
    /// Entries are not distributed any more; what is on hosts stays.
    Remove {
        /// The entries.
        paths: Vec<String>,
    },
    /// Nobody but the holder changes the content until it is unlocked.
    Lock {
        /// The entry.
        path: String,
    },
    /// The lock goes.
    Unlock {
        /// The entry.
        path: String,
        /// The lock that its holder was given; nothing: whoever holds it.
        #[serde(default)]
        lock: Option<String>,
    },
}

/// Where content comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A file or folder at the controller, absolute.
    File(String),
    /// What an entry has now.
    Entry(String),
}

/// What a change came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Whether anything is another than before.
    pub changed: bool,
    /// What there is to say of it, a line each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// For a lock: what its holder shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
}

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
    /// Who has locked it, if somebody has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
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

/// `POST /v1/fleet/dist`: distribute now. Answered with [`Distribution`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDist {
    /// Which files: those of a frequency, or `all`.
    pub frequency: String,
    /// Only to these hosts, and then also what they are known to have; none: to whoever lacks it.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Compare all files that are due, not only those that somebody lacks.
    #[serde(default)]
    pub compare: bool,
    /// The waves in which it goes; without, those of the frequency, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// To everybody at once, whatever waves the frequency has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_at_once: bool,
    /// Of those who lack it only these: they have their turn.
    #[serde(skip)]
    pub only: Option<HostSet>,
}

impl NewDist {
    /// A distribution to whoever lacks something.
    pub fn of(frequency: &str) -> NewDist {
        let frequency = frequency.to_owned();
        NewDist {
            frequency,
            hosts: Vec::new(),
            compare: false,
            waves: None,
            all_at_once: false,
            only: None,
        }
    }
}

/// A distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Its orders; none if nobody lacked anything.
    pub orders: Vec<String>,
    /// The rollout that it is; then its orders come with its waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// How many hosts it goes to.
    pub hosts: u64,
    /// How many files, each counted once.
    pub files: u64,
    /// Whether it waits until the one of this frequency that goes on has ended.
    #[serde(default)]
    pub queued: bool,
    /// What there is to say of it, a line each.
    #[serde(default)]
    pub notes: Vec<String>,
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

/// A site, in the text form of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// By whose clocks the windows of its hosts are.
    pub zone: String,
}

/// A frequency, in the text form of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frequency {
    /// When, as cron has it: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// By the clocks of which place; `UTC` if not given.
    #[serde(default = "Frequency::utc")]
    pub zone: String,
    /// Whether the controller starts it by itself.
    #[serde(default = "Frequency::on")]
    pub automatic: bool,
    /// The waves in which it goes, as numbers and percentages; empty: to everybody at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waves: String,
    /// The gate of the waves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gate: String,
    /// Over how long the hosts of each relay are spread, as `10m`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub splay: String,
    /// Days and times outside of which a host waits, as `mon-fri 22-06`; none: it never does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// Within how long it must have begun at a host, as `6h`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expires: String,
}

impl Frequency {
    fn utc() -> String {
        "UTC".into()
    }

    fn on() -> bool {
        true
    }

    /// By such a cron line, by the clocks of such a place.
    pub fn new(cron: &str, zone: &str) -> Frequency {
        let (cron, zone) = (cron.to_owned(), zone.to_owned());
        let (waves, gate, splay) = Default::default();
        let (windows, expires) = Default::default();
        Frequency { cron, zone, automatic: true, waves, gate, splay, windows, expires }
    }

    /// The waves in which it goes, if it does.
    pub fn rolled(&self) -> Option<Waves> {
        let (waves, gate) = (self.waves.clone(), self.gate.clone());
        (!waves.is_empty()).then_some(Waves { waves, gate })
    }

    /// The frequencies that there are from the beginning.
    pub fn usual() -> BTreeMap<String, Frequency> {
        let frequency = |(name, cron): (&str, &str)| (name.to_owned(), Frequency::new(cron, "UTC"));
        [("hour", "0 * * * *"), ("day", "0 3 * * *"), ("week", "0 4 * * 0")].map(frequency).into()
    }
}
