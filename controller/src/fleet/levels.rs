//! Which domains there are: the levels, the words of each, and what may stand below what.
//!
//! All of it is data. A word comes to be by `create`, below one parent; or it is a value of its
//! level, and stands below every parent there is, unless the level says below which only. A level
//! may have a default: a name that ends right above it means the default.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::domain::{COMMON, Domain, HOST, Wild, contained, same};

/// The most domains that a name with wildcards may stand for.
const FULL_LIMIT: usize = 100_000;

/// A level of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// What people call it.
    pub name: String,
    /// What a name means that ends right above it; nothing: everything beneath.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Words that stand below every parent.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub values: BTreeSet<String>,
    /// Below which words of the level above a word may stand, if not below all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, BTreeSet<String>>,
}

/// The levels, and the domains that were created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// The levels, the top one first.
    #[serde(rename = "level")]
    pub levels: Vec<Level>,
    /// What was created; each one's parent exists.
    #[serde(default)]
    pub domains: BTreeSet<Domain>,
}

/// What is wrong with a domain. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// More words than there are levels.
    #[error("{name}: more than {levels} levels: {words}")]
    TooDeep {
        /// The domain.
        name: Domain,
        /// How many levels there are.
        levels: usize,
        /// What they are called.
        words: String,
    },
    /// A word that does not exist below its parent.
    #[error("{name}: unknown {level} {word:?}{below}")]
    Unknown {
        /// The domain.
        name: Domain,
        /// The level of the word.
        level: String,
        /// The word.
        word: String,
        /// Below what it was looked for.
        below: String,
    },
    /// A word that may not stand below that parent.
    #[error("{name}: {what}")]
    Impossible {
        /// The domain.
        name: Domain,
        /// Which word, and with which it is possible.
        what: String,
    },
    /// It is there.
    #[error("{0}: exists already")]
    Exists(Domain),
    /// What it would stand below is not there.
    #[error("{name}: the parent {parent} is missing")]
    NoParent {
        /// The domain.
        name: Domain,
        /// Its parent.
        parent: Domain,
    },
    /// A word with a meaning of its own.
    #[error("{name}: the word {word} is reserved")]
    Reserved {
        /// The domain.
        name: Domain,
        /// The word.
        word: &'static str,
    },
    /// It was not created but follows from the values of its level.
    #[error("{name}: {word} is a value of level {level}: take it out of the configuration")]
    Value {
        /// The domain.
        name: Domain,
        /// The word.
        word: String,
        /// The level.
        level: String,
    },
    /// A name that stands for too many.
    #[error("{0}: stands for more than {FULL_LIMIT} domains")]
    TooMany(Domain),
    /// Levels that make no sense.
    #[error("levels: {0}")]
    Levels(String),
}

impl Default for Levels {
    /// The layout that most sites begin with.
    fn default() -> Levels {
        let level = |name: &str| Level { name: name.into(), ..Level::default() };
        let mut levels = ["view", "group", "os", "hardware", "disk"].map(level).to_vec();
        levels[4].default = Some("disked".into());
        levels[4].values = ["disked", "diskless"].map(String::from).into();
        Levels { levels, domains: BTreeSet::new() }
    }
}

impl Levels {
    /// Whether the levels make sense, and every domain in them has a parent.
    pub fn check(&self) -> Result<(), LevelError> {
        if self.levels.is_empty() {
            return Err(LevelError::Levels("there are none".into()));
        }
        for (n, level) in self.levels.iter().enumerate() {
            let words = level.values.iter().chain(&level.default).chain(level.only.keys());
            for word in words.chain(level.only.values().flatten()) {
                match word.parse::<Domain>() {
                    Ok(domain) if domain.depth() == 1 && word != COMMON => {}
                    _ => return Err(LevelError::Levels(format!("{word:?} is no word of a name"))),
                }
            }
            if n == 0 && (level.default.is_some() || level.values.contains(HOST)) {
                let what =
                    format!("level {}: the top level has no default and no `host`", level.name);
                return Err(LevelError::Levels(what));
            }
        }
        for domain in &self.domains {
            self.check_new(domain)?;
        }
        Ok(())
    }

    /// What rules about words say of words that are not there. They may come to be; or somebody
    /// has misspelt them, and the rule is none.
    pub fn idle_rules(&self) -> Vec<String> {
        let words = |n: usize| -> BTreeSet<&String> {
            let level = &self.levels[n];
            let created = self.domains.iter().filter_map(move |domain| domain.words().get(n));
            level.values.iter().chain(&level.default).chain(created).collect()
        };
        let mut notes = Vec::new();
        for (n, level) in self.levels.iter().enumerate().skip(1) {
            let (own, above) = (words(n), words(n - 1));
            for (word, parents) in &level.only {
                let of = |n: usize, word: &str| format!("{} {word}", self.levels[n].name);
                if !own.contains(word) {
                    notes.push(format!("a rule is about {}, which there is not", of(n, word)));
                }
                for parent in parents.difference(&above.iter().map(|w| (*w).clone()).collect()) {
                    let (word, parent) = (of(n, word), of(n - 1, parent));
                    notes.push(format!("{word} may stand below {parent}, which there is not"));
                }
            }
        }
        notes
    }

    /// The name with the defaults of levels that it ends right above.
    pub fn normal(&self, name: &Domain) -> Domain {
        let mut name = name.clone();
        if name.host().is_some() {
            return name;
        }
        while let Some(default) = self.levels.get(name.depth()).and_then(|l| l.default.as_ref()) {
            name = name.child(default);
        }
        name
    }

    /// Whether a name is well formed and exists; with wildcards, whether it stands for any.
    pub fn verify(&self, name: &Domain, wild: Wild) -> Result<(), LevelError> {
        self.check_depth(name)?;
        if name.host().is_some() {
            return Ok(());
        }
        let mut found = vec![Domain::of(Vec::new())];
        for (at, word) in name.words().iter().enumerate() {
            let next = found.iter().flat_map(|above| {
                let below = self.children(above).filter(|child| same(word, child, wild));
                below.map(|child| above.child(child)).collect::<Vec<_>>()
            });
            let next: Vec<Domain> = next.take(FULL_LIMIT + 1).collect();
            if next.len() > FULL_LIMIT {
                return Err(LevelError::TooMany(name.clone()));
            }
            if next.is_empty() {
                let above = Domain::of(name.words()[..at].to_vec());
                return Err(self.unknown(name, word, &above));
            }
            found = next;
        }
        Ok(())
    }

    /// All existing names that a name with wildcards stands for, sorted as they are written.
    pub fn full(&self, name: &Domain) -> Result<Vec<Domain>, LevelError> {
        self.check_depth(name)?;
        let mut found = vec![Domain::of(Vec::new())];
        for word in name.words() {
            let mut next = Vec::new();
            for above in &found {
                let below = self.children(above).filter(|child| same(word, child, Wild::On));
                next.extend(below.map(|child| above.child(child)));
                if next.len() > FULL_LIMIT {
                    return Err(LevelError::TooMany(name.clone()));
                }
            }
            found = next;
        }
        found.sort_by_cached_key(Domain::to_string);
        Ok(found)
    }

    /// Makes a domain.
    pub fn create(&mut self, name: &Domain) -> Result<(), LevelError> {
        self.check_new(name)?;
        if self.verify(name, Wild::Off).is_ok() {
            return Err(LevelError::Exists(name.clone()));
        }
        self.domains.insert(name.clone());
        Ok(())
    }

    /// Takes a domain away that was created, with all that were created beneath it.
    pub fn delete(&mut self, name: &Domain) -> Result<(), LevelError> {
        self.verify(name, Wild::Off)?;
        if !self.domains.contains(name) {
            let level = self.levels.get(name.depth() - 1);
            let word = name.words().last().cloned().unwrap_or_default();
            let level = level.map_or_else(String::new, |level| level.name.clone());
            return Err(LevelError::Value { name: name.clone(), word, level });
        }
        self.domains.retain(|domain| !contained(domain, name, Wild::Off));
        Ok(())
    }

    /// The created domains right and further below one.
    pub fn beneath(&self, name: &Domain) -> impl Iterator<Item = &Domain> {
        let name = name.clone();
        let below = move |d: &&Domain| d.depth() > name.depth() && contained(d, &name, Wild::Off);
        self.domains.iter().filter(below)
    }

    /// Whether a domain could be made: everything but whether it is there.
    fn check_new(&self, name: &Domain) -> Result<(), LevelError> {
        self.check_depth(name)?;
        for word in [COMMON, HOST] {
            let used = match word {
                COMMON => name.is_wild(),
                _ => name.words()[0] == word,
            };
            if used {
                return Err(LevelError::Reserved { name: name.clone(), word });
            }
        }
        let Some(parent) = name.parent() else { return Ok(()) };
        self.check_possible(name)?;
        let missing = |_| LevelError::NoParent { name: name.clone(), parent: parent.clone() };
        self.verify(&parent, Wild::Off).map_err(missing)
    }

    fn check_depth(&self, name: &Domain) -> Result<(), LevelError> {
        if name.depth() <= self.levels.len() {
            return Ok(());
        }
        let words = self.levels.iter().rev().map(|level| level.name.as_str());
        let words = words.collect::<Vec<_>>().join(".");
        Err(LevelError::TooDeep { name: name.clone(), levels: self.levels.len(), words })
    }

    fn check_possible(&self, name: &Domain) -> Result<(), LevelError> {
        for (at, pair) in name.words().windows(2).enumerate() {
            let level = &self.levels[at + 1];
            let only = level.only.get(&pair[1]);
            if let Some(only) = only.filter(|only| !only.contains(&pair[0])) {
                let (level, word) = (&level.name, &pair[1]);
                let (above_level, above) = (&self.levels[at].name, &pair[0]);
                let only = only.iter().cloned().collect::<Vec<_>>().join(", ");
                let with = format!("{above_level} {above}, only with {only}");
                let what = format!("{level} {word} is not possible with {with}");
                return Err(LevelError::Impossible { name: name.clone(), what });
            }
        }
        Ok(())
    }

    /// The words below a domain that exists; below nothing, the top level.
    fn children<'a>(&'a self, above: &Domain) -> impl Iterator<Item = &'a str> + use<'a> {
        let depth = above.depth();
        let level = self.levels.get(depth);
        let last = above.words().last().cloned();
        let possible = move |word: &&str| match (level.and_then(|l| l.only.get(*word)), &last) {
            (Some(only), Some(last)) => only.contains(last),
            _ => true,
        };
        let values = level.into_iter().flat_map(|level| &level.values).map(String::as_str);
        // Those beneath a domain follow it in the order of their words.
        let (first, within) = (above.clone(), above.clone());
        let made = self.domains.range(first..).take_while(move |domain| {
            domain.depth() >= within.depth() && domain.words()[..within.depth()] == *within.words()
        });
        let made = made.filter(move |domain| domain.depth() == depth + 1);
        let made = made.map(move |domain| domain.words()[depth].as_str());
        let is_new = move |word: &&str| level.is_none_or(|level| !level.values.contains(*word));
        values.filter(possible).chain(made.filter(is_new))
    }

    fn unknown(&self, name: &Domain, word: &str, above: &Domain) -> LevelError {
        if let Err(impossible) = self.check_possible(name) {
            return impossible;
        }
        let level = self.levels[above.depth()].name.clone();
        let below = match above.depth() {
            0 => String::new(),
            _ => format!(" below {above}"),
        };
        LevelError::Unknown { name: name.clone(), level, word: word.into(), below }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! The site of the specification's examples.

    use super::*;

    /// Views `adm` and `prt`, their groups, and hardware that fits one system only.
    pub(crate) fn levels() -> Levels {
        let mut levels = Levels::default();
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        levels.levels[2].values = set(&["sunos", "riscos"]);
        levels.levels[3].values = set(&["sun3", "sun4", "ws"]);
        for (hardware, os) in [("sun3", "sunos"), ("sun4", "sunos"), ("ws", "riscos")] {
            levels.levels[3].only.insert(hardware.into(), set(&[os]));
        }
        for name in ["adm", "prt", "cc.adm", "osgrp.adm", "lab1.prt"] {
            levels.create(&name.parse().expect("a name")).expect(name);
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::domain::testing::domain;

    fn d(text: &str) -> Domain {
        text.parse().expect(text)
    }

    #[test]
    fn a_wildcard_name_stands_for_what_exists() {
        let levels = testing::levels();
        let full = |name: &str| {
            let full = levels.full(&d(name)).expect(name);
            full.iter().map(Domain::to_string).collect::<Vec<_>>()
        };
        assert_eq!(full("sunos.common.adm"), ["sunos.cc.adm", "sunos.osgrp.adm"]);
        assert_eq!(full("common.riscos.cc.adm"), ["ws.riscos.cc.adm"]);
        assert_eq!(full("common.common"), ["cc.adm", "lab1.prt", "osgrp.adm"]);
        assert!(full("nosuch.adm").is_empty());
    }

    #[test]
    fn rules_about_words_that_there_are_not_are_said() {
        let mut levels = testing::levels();
        assert_eq!(levels.idle_rules(), Vec::<String>::new());
        let only = &mut levels.levels[3].only;
        only.insert("sun9".into(), BTreeSet::from(["sunos".to_owned()]));
        only.insert("sun4".into(), BTreeSet::from(["sunso".to_owned()]));
        assert_eq!(
            levels.idle_rules(),
            [
                "hardware sun4 may stand below os sunso, which there is not",
                "a rule is about hardware sun9, which there is not",
            ]
        );
    }

    #[test]
    fn what_cannot_be_created_is_said() {
        let mut levels = testing::levels();
        levels.create(&d("new.osgrp.adm")).expect("a new one");
        levels.create(&d("lab")).expect("a new view");
        let mut check = |name: &str, says: &str| {
            let error = levels.create(&d(name)).expect_err(name).to_string();
            assert!(error.contains(says), "{name}: {error}");
        };
        check("new.osgrp.adm", "exists already");
        check("sunos.cc.adm", "exists already");
        check("x.nogrp.adm", "the parent nogrp.adm is missing");
        check(
            "sun4.riscos.cc.adm",
            "hardware sun4 is not possible with os riscos, only with sunos",
        );
        check("common.adm", "reserved");
        check("x.host", "reserved");
        check("a.disked.sun4.sunos.cc.adm", "more than 5 levels: disk.hardware.os.group.view");
    }

    #[test]
    fn verify_names_what_is_unknown() {
        let levels = testing::levels();
        let check = |name: &str, wild| levels.verify(&d(name), wild);
        assert_eq!(check("disked.sun4.sunos.cc.adm", Wild::Off), Ok(()));
        assert_eq!(check("ws.common.common.adm", Wild::On), Ok(()));
        assert_eq!(check("h1.host", Wild::Off), Ok(()));
        let error = check("sunos.nosuch.adm", Wild::On).expect_err("no").to_string();
        assert_eq!(error, "sunos.nosuch.adm: unknown group \"nosuch\" below adm");
        assert!(check("common.adm", Wild::Off).is_err());
        assert!(check("sun4.riscos.cc.adm", Wild::On).is_err());
    }

    #[test]
    fn defaults_fill_the_level_below() {
        let mut levels = testing::levels();
        let normal = |levels: &Levels, name: &str| levels.normal(&d(name)).to_string();
        assert_eq!(normal(&levels, "sun4.sunos.cc.adm"), "disked.sun4.sunos.cc.adm");
        assert_eq!(normal(&levels, "diskless.sun4.sunos.cc.adm"), "diskless.sun4.sunos.cc.adm");
        assert_eq!(normal(&levels, "sunos.cc.adm"), "sunos.cc.adm");
        levels.levels[4].default = None;
        assert_eq!(normal(&levels, "sun4.sunos.cc.adm"), "sun4.sunos.cc.adm");
    }

    #[test]
    fn deleting_takes_what_is_beneath_along() {
        let mut levels = testing::levels();
        for name in ["new.osgrp.adm", "hp.new.osgrp.adm"] {
            levels.create(&d(name)).expect(name);
        }
        assert_eq!(levels.beneath(&d("osgrp.adm")).count(), 2);
        levels.delete(&d("osgrp.adm")).expect("it goes");
        assert!(levels.verify(&d("hp.new.osgrp.adm"), Wild::Off).is_err());
        assert!(levels.verify(&d("cc.adm"), Wild::Off).is_ok());
        let error = levels.delete(&d("sunos.cc.adm")).expect_err("a value").to_string();
        assert!(error.contains("value of level os"), "{error}");
        assert!(levels.delete(&d("osgrp.adm")).is_err());
    }

    proptest! {
        /// What `full` finds exists, matches and is all there is; and `verify` says the same.
        #[test]
        fn full_and_verify_agree(
            names in proptest::collection::vec(domain(4), 0..12), ask in domain(4),
        ) {
            let mut levels = Levels::default();
            levels.levels[1].values.insert("v".into());
            for name in &names {
                levels.create(name).ok();
            }
            prop_assert_eq!(levels.check(), Ok(()));
            let full = levels.full(&ask).expect("few");
            prop_assert_eq!(levels.verify(&ask, Wild::On).is_ok(), !full.is_empty());
            for name in &full {
                prop_assert!(crate::fleet::domain::compare(name, &ask, Wild::On));
                prop_assert_eq!(levels.verify(name, Wild::Off), Ok(()));
            }
            let matching = levels.domains.iter();
            let matching = matching.filter(|d| crate::fleet::domain::compare(d, &ask, Wild::On));
            prop_assert!(matching.into_iter().all(|d| full.contains(d)));
        }
    }
}
