//! Which hosts: `-w -a -g --hostfile -x -X --limit --pick`, the same on every verb that takes
//! hosts.

use std::hash::{BuildHasher, Hasher, RandomState};

use controller::sets::Pick;
use controller::types::{Resolved, Targets};

use crate::client::Client;
use crate::fail::Failure;
use crate::hostfile;
use crate::screen::Screen;

/// Seeds that are made here are below this, so that they can be read aloud.
const SEEDS: u64 = 1_000_000;

/// The options that name hosts.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TargetArgs {
    /// Hosts: names, ranges, groups, with operators, as in 'web[1-9]!web3,@lyon'; may be given
    /// several times
    #[arg(short = 'w', long = "where", value_name = "SET", help_heading = "Targets")]
    pub(crate) sets: Vec<String>,
    /// Every host
    #[arg(short = 'a', long, help_heading = "Targets")]
    pub(crate) all: bool,
    /// A group: a site, or one of groups.toml; several with commas or several -g
    #[arg(short, long = "group", value_name = "GROUP", help_heading = "Targets")]
    #[arg(value_delimiter = ',')]
    pub(crate) groups: Vec<String>,
    /// The hosts in a file, a set a line; `-` is standard input. The same as -w ^FILE
    #[arg(long, value_name = "FILE", help_heading = "Targets")]
    pub(crate) hostfile: Vec<String>,
    /// Hosts to leave out; wins over all others
    #[arg(short = 'x', value_name = "SET", help_heading = "Targets")]
    pub(crate) except: Vec<String>,
    /// A group to leave out; wins over all others
    #[arg(short = 'X', value_name = "GROUP", value_delimiter = ',', help_heading = "Targets")]
    pub(crate) except_groups: Vec<String>,
    /// Nobody outside of this set, whatever else is given
    #[arg(long, value_name = "SET", help_heading = "Targets")]
    pub(crate) limit: Vec<String>,
    /// So many of them, chosen at random: 5, 10%, 1/site, 10%/site
    #[arg(long, value_name = "N", help_heading = "Targets")]
    pub(crate) pick: Option<String>,
    /// What decides --pick: the same seed chooses the same hosts [default: a new one, printed]
    #[arg(long, value_name = "N", requires = "pick", help_heading = "Targets")]
    pub(crate) seed: Option<u64>,
}

impl TargetArgs {
    /// Whether nobody is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty() && !self.all && self.groups.is_empty() && self.hostfile.is_empty()
    }

    /// Whether somebody is left out, whoever is named.
    pub(crate) fn narrows(&self) -> bool {
        let lists = [&self.except, &self.except_groups, &self.limit];
        lists.iter().any(|list| !list.is_empty()) || self.pick.is_some()
    }

    /// As the API wants it. Files are read here, and a seed is made and told.
    pub(crate) fn targets(&self, screen: &mut Screen) -> Result<Targets, Failure> {
        let whole = |texts: &[String]| -> Result<Vec<String>, Failure> {
            texts.iter().map(|text| hostfile::put_in(text).map(String::from)).collect()
        };
        let mut sets = whole(&self.sets)?;
        for path in &self.hostfile {
            sets.push(format!("({})", hostfile::read(path)?));
        }
        self.limit.iter().try_for_each(|text| check_limit(text))?;
        let mut seed = 0;
        if let Some(pick) = &self.pick {
            pick.parse::<Pick>().map_err(|error| {
                Failure::usage(error.to_string(), "--pick 5% chooses every twentieth host")
            })?;
            seed = self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() % SEEDS);
            if self.seed.is_none() && !screen.json {
                screen.say(&format!(
                    "picked at random; the same again: --pick {pick} --seed {seed}"
                ))?;
            }
        }
        Ok(Targets {
            sets,
            all: self.all,
            groups: self.groups.clone(),
            exclude: whole(&self.except)?,
            exclude_groups: self.except_groups.clone(),
            limit: whole(&self.limit)?,
            pick: self.pick.clone().unwrap_or_default(),
            seed,
        })
    }

    /// The same; nobody at all is a mistake.
    pub(crate) fn required(&self, screen: &mut Screen) -> Result<Targets, Failure> {
        if self.is_empty() {
            return Err(Failure::usage(
                "no targets are given",
                "say where: -w SET, -g GROUP, or -a for every host",
            ));
        }
        self.targets(screen)
    }
}

/// Elsewhere `--limit` is a number; here it is a set, and a number is not one by accident.
fn check_limit(text: &str) -> Result<(), Failure> {
    let digits = text.trim().trim_end_matches('%');
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("--limit {text}: a limit is a set of hosts, outside of which nobody is meant"),
        format!("for a part of them, chosen at random: --pick {text}"),
    ))
}

/// Asks the controller who is meant.
pub(crate) async fn resolve(client: &Client, targets: &Targets) -> Result<Resolved, Failure> {
    client.post("/v1/resolve", targets).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::testing;

    #[test]
    fn a_number_is_no_limit() {
        for text in ["5", "5%", " 10 "] {
            let failure = check_limit(text).expect_err(text);
            assert!(failure.error.help.contains("--pick"), "{failure:?}");
        }
        for text in ["n5", "@lyon", "5[1-2]", "%", ""] {
            assert!(check_limit(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_seed_is_made_and_told_unless_it_is_given() {
        let (mut screen, _, err) = testing::screen(false);
        let pick = |seed| TargetArgs { pick: Some("5%".into()), seed, ..TargetArgs::default() };
        let targets = pick(None).targets(&mut screen).expect("targets");
        assert!(
            err.text().contains(&format!("--pick 5% --seed {}\n", targets.seed)),
            "{}",
            err.text()
        );
        let before = err.text();
        assert_eq!(pick(Some(7)).targets(&mut screen).map(|targets| targets.seed), Ok(7));
        assert_eq!(err.text(), before);
        let wrong = TargetArgs { pick: Some("half".into()), ..TargetArgs::default() };
        assert!(wrong.targets(&mut screen).is_err());
    }
}
