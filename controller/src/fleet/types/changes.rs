//! What may be changed.

use serde::{Deserialize, Serialize};

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
        /// Whether it goes only to hosts that subscribe.
        #[serde(default)]
        optional: bool,
    },
    /// Whether an entry goes only to hosts that subscribe.
    SetOptional {
        /// The entry.
        path: String,
        /// Not: to everybody in its domain, and nobody has to subscribe.
        optional: bool,
    },
    /// A host gets an optional entry from now on, wherever it belongs.
    Subscribe {
        /// The host, by name or alias.
        host: String,
        /// The entry.
        path: String,
    },
    /// A host gets no updates of an optional entry any more; what it has stays.
    Unsubscribe {
        /// The host, by name or alias.
        host: String,
        /// The entry.
        path: String,
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
    /// What makes the content of an entry from the host records from here on.
    SetGenerator {
        /// The entry.
        path: String,
        /// Nothing: people do.
        generator: Option<Generator>,
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

/// What makes content from the host records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generator {
    /// The hosts file; hosts with several addresses are complained about.
    #[serde(rename = "mkhost")]
    Mkhost,
    /// The hosts file; hosts may have several addresses.
    #[serde(rename = "mkhost -s")]
    MkhostSeveral,
    /// The ethers file.
    #[serde(rename = "mkether")]
    Mkether,
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
