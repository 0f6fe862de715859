//! Distributions, as they are asked for and what becomes of them.

use mesh::HostSet;
use serde::{Deserialize, Serialize};

use crate::fleet::domain::DomainPath;
use crate::types::Waves;

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
    /// Change nothing: hosts only say which of the files are not as they should be, and lack those
    /// from then on. It goes to everybody at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// The waves in which it goes; without, those of the frequency, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// To everybody at once, whatever waves the frequency has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_at_once: bool,
    /// Of those who lack it only these: they have their turn.
    #[serde(skip)]
    pub only: Option<HostSet>,
    /// Who has not begun by then does not, in milliseconds since 1970; 0: whenever he can.
    #[serde(skip)]
    pub begin_by_ms: u64,
    /// Only these files, to hosts that are named and have asked for them.
    #[serde(skip)]
    pub wanted: Option<Vec<DomainPath>>,
    /// Who wants it; empty: whoever makes it.
    #[serde(skip)]
    pub by: String,
}

impl NewDist {
    /// A distribution to whoever lacks something.
    pub fn of(frequency: &str) -> NewDist {
        let frequency = frequency.to_owned();
        NewDist {
            frequency,
            hosts: Vec::new(),
            compare: false,
            verify: false,
            waves: None,
            all_at_once: false,
            only: None,
            begin_by_ms: 0,
            wanted: None,
            by: String::new(),
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
    /// How many hosts it left over, since it would have been too many orders.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u64,
    /// Whether it waits until the one of this frequency that goes on has ended.
    #[serde(default)]
    pub queued: bool,
    /// What there is to say of it, a line each.
    #[serde(default)]
    pub notes: Vec<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
