//! Which hosts: `-w -a -g -x`, the same on every verb that takes hosts.

use controller::types::Targets;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::fail::Failure;

/// The options that name hosts.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TargetArgs {
    /// Hosts: names, ranges, groups, as in web[1-9],db1,@lyon; may be given several times
    #[arg(short = 'w', long = "where", value_name = "SET", help_heading = "Targets")]
    pub(crate) sets: Vec<String>,
    /// Every host
    #[arg(short = 'a', long, help_heading = "Targets")]
    pub(crate) all: bool,
    /// A group: a site, or one of groups.toml; several with commas or several -g
    #[arg(short, long = "group", value_name = "GROUP", help_heading = "Targets")]
    #[arg(value_delimiter = ',')]
    pub(crate) groups: Vec<String>,
    /// Hosts to leave out; wins over all others
    #[arg(short = 'x', value_name = "SET", help_heading = "Targets")]
    pub(crate) except: Vec<String>,
}

impl TargetArgs {
    /// Whether nobody is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty() && !self.all && self.groups.is_empty()
    }

    /// As the API wants it.
    pub(crate) fn targets(&self) -> Targets {
        let TargetArgs { sets, all, groups, except: exclude } = self.clone();
        Targets { sets, all, groups, exclude }
    }

    /// The same; nobody at all is a mistake.
    pub(crate) fn required(&self) -> Result<Targets, Failure> {
        if self.is_empty() {
            return Err(Failure::usage(
                "no targets are given",
                "say where: -w SET, -g GROUP, or -a for every host",
            ));
        }
        Ok(self.targets())
    }
}

/// The answer to `POST /v1/resolve`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// The names, in natural order.
    pub(crate) hosts: Vec<String>,
    /// The same, folded.
    pub(crate) set: String,
}

/// Asks the controller who is meant.
pub(crate) async fn resolve(client: &Client, targets: &Targets) -> Result<Resolved, Failure> {
    client.post("/v1/resolve", targets).await
}
