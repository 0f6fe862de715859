//! What a host asks of the controller about its files, and what it hears.
//!
//! The node on the same machine carries the question up by the bus, and brings the answers. What
//! the controller makes of it is its own to say: a host names what it wants, and gets what is for
//! it or a refusal.

use serde::{Deserialize, Serialize};

use crate::wire::{Fault, Why};

/// On which subject the controller is asked.
pub const SUBJECT: &str = "barid.files";
/// The most files that are asked for at once.
pub const FILES: usize = 64;

/// What a host asks. Files are paths or domainpaths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FileAsk {
    /// These files, as they are now.
    Request {
        /// Which.
        files: Vec<String>,
    },
    /// A file now, and whenever it is another one.
    Subscribe {
        /// Which.
        file: String,
    },
    /// No updates of it any more.
    Unsubscribe {
        /// Which.
        file: String,
    },
    /// What there is for this host that it need not have.
    List,
}

/// What is heard of it, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSaid {
    /// It is not done, and nothing has changed.
    Refused(Fault),
    /// They are on their way. What became of them follows.
    Given {
        /// The entries, as they are stored.
        files: Vec<String>,
        /// The orders that bring them.
        orders: Vec<String>,
    },
    /// What became of them here.
    Ended {
        /// `ok`, or how else the order has ended.
        state: String,
        /// Why, if it is not in place.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        fault: String,
    },
    /// It is done; `changed`: and was not so before.
    Done {
        /// The entry.
        file: String,
        /// Whether anything is another than before.
        changed: bool,
    },
    /// What is offered to this host.
    Offered(Vec<OfferedFile>),
    /// Nothing more will be heard.
    Nothing(Why),
}

impl FileSaid {
    /// Whether nothing follows it.
    pub fn is_last(&self) -> bool {
        !matches!(self, FileSaid::Given { .. })
    }
}

/// A file that a host may have and need not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedFile {
    /// The entry.
    pub path: String,
    /// How often it is distributed.
    pub frequency: String,
    /// Who has subscribed this host: `host` or `operator`; empty: nobody.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subscribed: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_as_they_cross() {
        let ask = FileAsk::Request { files: vec!["/etc/motd".into()] };
        let text = r#"{"ask":"request","files":["/etc/motd"]}"#;
        assert_eq!(serde_json::to_string(&ask).expect("it is JSON"), text);
        assert_eq!(serde_json::from_str::<FileAsk>(text).expect("it is read"), ask);
        let more = r#"{"ask":"request","files":[],"to":"/etc/shadow"}"#;
        assert!(serde_json::from_str::<FileAsk>(more).is_err());
        let said = FileSaid::Given { files: vec!["a:/b".into()], orders: vec!["1".into()] };
        let text = serde_json::to_string(&said).expect("it is JSON");
        assert_eq!(text, r#"{"given":{"files":["a:/b"],"orders":["1"]}}"#);
        assert!(!said.is_last() && FileSaid::Nothing(Why::Deadline).is_last());
    }
}
