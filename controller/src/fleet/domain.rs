//! Names of domains, and what they match.
//!
//! A name is a list of words joined by dots, the most specific first and the top level last:
//! `sun4.sunos.cc.adm`. The word `common` stands for any word at its level. A shorter name is
//! everything beneath it. `h1.host` is the one host of that name.
//!
//! Pure text and comparison: which names exist is said by [`Levels`](super::levels::Levels).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The word that matches any word at its level.
pub const COMMON: &str = "common";
/// The top level of the names of single hosts.
pub const HOST: &str = "host";
/// The longest word, and the most of them in a name.
const WORD_LIMIT: usize = 255;
const WORDS: usize = 32;
const PATH_LIMIT: usize = 4095;

/// Whether `common` is a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wild {
    /// It matches any word.
    On,
    /// It is a word like any other.
    Off,
}

/// The name of a domain; its words, the top level first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Vec<String>);

/// Why a text is no name of a domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing between two dots, or nothing at all.
    #[error("{0:?}: a domain is words with dots between them, as in sunos.cc.adm")]
    Empty(String),
    /// A character that no word has.
    #[error("{name}: {word:?} has more than letters, digits, `_` and `-` in it")]
    Word {
        /// The whole name.
        name: String,
        /// The word.
        word: String,
    },
    /// More than any name has.
    #[error("{name}: more than {WORDS} words, or one of more than {WORD_LIMIT} characters")]
    TooLong {
        /// The beginning of it.
        name: String,
    },
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Domain, DomainError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let mut words = Vec::new();
        for word in text.rsplit('.') {
            if word.len() > WORD_LIMIT || words.len() == WORDS {
                return Err(DomainError::TooLong { name: text.chars().take(64).collect() });
            }
            if word.is_empty() {
                return Err(DomainError::Empty(text.into()));
            }
            // The name of a single host may look like a host name.
            if !word.chars().all(fine) {
                return Err(DomainError::Word { name: text.into(), word: word.into() });
            }
            words.push(word.to_owned());
        }
        Ok(Domain(words))
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Domain, DomainError> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> String {
        domain.to_string()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, word) in self.0.iter().rev().enumerate() {
            f.write_str(if n == 0 { "" } else { "." })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl Domain {
    /// A name of these words, the top level first.
    pub(crate) fn of(words: Vec<String>) -> Domain {
        Domain(words)
    }

    /// Its words, the top level first.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// How many levels it names.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether one of its words is `common`.
    pub fn is_wild(&self) -> bool {
        self.0.iter().any(|word| word == COMMON)
    }

    /// How many of its words are `common`.
    pub fn commons(&self) -> usize {
        self.0.iter().filter(|word| *word == COMMON).count()
    }

    /// The name without its first word; none of a top level.
    pub fn parent(&self) -> Option<Domain> {
        let (_, above) = self.0.split_last()?;
        (!above.is_empty()).then(|| Domain(above.to_vec()))
    }

    /// The name with one more word in front.
    pub fn child(&self, word: &str) -> Domain {
        let mut words = self.0.clone();
        words.push(word.to_owned());
        Domain(words)
    }

    /// The host that is meant by a name like `h1.host`.
    pub fn host(&self) -> Option<&str> {
        match self.0.as_slice() {
            [top, host] if top == HOST => Some(host),
            _ => None,
        }
    }
}

/// Whether two words are the same, or one of them is a wildcard.
pub(crate) fn same(a: &str, b: &str, wild: Wild) -> bool {
    a == b || (wild == Wild::On && (a == COMMON || b == COMMON))
}

/// Whether two names have the same number of words and each pair is the same.
pub fn compare(a: &Domain, b: &Domain, wild: Wild) -> bool {
    a.depth() == b.depth() && contained(a, b, wild)
}

/// Whether `a` lies in `b`: `b` is no longer, and is the same as the tail of `a`.
pub fn contained(a: &Domain, b: &Domain, wild: Wild) -> bool {
    b.depth() <= a.depth() && a.0.iter().zip(&b.0).all(|(a, b)| same(a, b, wild))
}

/// A domain and a path: what a file is called here. `common.adm:/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainPath {
    /// Where it goes, first so that names sort by it.
    pub path: String,
    /// To whom.
    pub domain: Domain,
}

/// Why a text is no domainpath.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainPathError {
    /// There is no colon.
    #[error("{0:?}: a domainpath is DOMAIN:PATH, as in common.adm:/etc/hosts")]
    Form(String),
    /// What stands before the colon is no domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// What stands after it is no plain path.
    #[error("{path:?}: {what}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl FromStr for DomainPath {
    type Err = DomainPathError;

    fn from_str(text: &str) -> Result<DomainPath, DomainPathError> {
        let form = || DomainPathError::Form(text.chars().take(256).collect());
        let (domain, path) = text.split_once(':').ok_or_else(form)?;
        check_path(path)?;
        Ok(DomainPath { path: path.into(), domain: domain.parse()? })
    }
}

/// Whether a path is absolute and plain, so that there is one way to write it.
pub fn check_path(path: &str) -> Result<(), DomainPathError> {
    let what = if !path.starts_with('/') {
        "a path here is absolute"
    } else if path.len() > PATH_LIMIT {
        "the path is too long"
    } else if path.contains(['\0', '\n']) {
        "a path has no newline and no NUL"
    } else if path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        "a path has no `.`, no `..` and no empty part"
    } else {
        return Ok(());
    };
    Err(DomainPathError::Path { path: path.chars().take(256).collect(), what })
}

impl TryFrom<String> for DomainPath {
    type Error = DomainPathError;

    fn try_from(text: String) -> Result<DomainPath, DomainPathError> {
        text.parse()
    }
}

impl From<DomainPath> for String {
    fn from(path: DomainPath) -> String {
        path.to_string()
    }
}

impl fmt::Display for DomainPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.domain, self.path)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Names for property tests.

    use proptest::prelude::*;

    use super::*;

    /// Names of up to `depth` words from few letters, so that they often meet.
    pub(crate) fn domain(depth: usize) -> impl Strategy<Value = Domain> {
        let word = prop_oneof![Just("a"), Just("b"), Just("c"), Just(COMMON)];
        proptest::collection::vec(word.prop_map(String::from), 1..=depth).prop_map(Domain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn d(text: &str) -> Domain {
        text.parse().expect(text)
    }

    #[test]
    fn the_examples_of_the_specification() {
        let check = |a: &str, b: &str, wild, same| {
            assert_eq!(compare(&d(a), &d(b), wild), same, "{a} ~ {b} {wild:?}");
        };
        check("sysv.common.adm", "sysv.osgrp.adm", Wild::On, true);
        check("sysv.common.adm", "sysv.osgrp.adm", Wild::Off, false);
        check("bsd.common.adm", "sysv.osgrp.adm", Wild::On, false);
        check("osgrp.adm", "sysv.osgrp.adm", Wild::On, false);
        let check = |a: &str, b: &str, lies| {
            assert_eq!(contained(&d(a), &d(b), Wild::On), lies, "{a} in {b}");
        };
        check("sysv.osgrp.adm", "osgrp.adm", true);
        check("osgrp.adm", "sysv.osgrp.adm", false);
        check("osgrp.adm", "osgrp.adm", true);
        check("sysv.osgrp.adm", "common.adm", true);
        assert!(!contained(&d("sysv.osgrp.adm"), &d("common.adm"), Wild::Off));
    }

    #[test]
    fn what_is_no_name_is_said() {
        for text in ["", ".", "a..b", "a.", ".a", "a b", "ä", "a/b", "*.adm", "a:b"] {
            assert!(text.parse::<Domain>().is_err(), "{text}");
        }
        assert!(vec!["a"; 33].join(".").parse::<Domain>().is_err());
        let error = "x.b?d.adm".parse::<Domain>().expect_err("no").to_string();
        assert!(error.contains("b?d") && error.contains("x.b?d.adm"), "{error}");
    }

    #[test]
    fn domainpaths_split_at_the_first_colon() {
        let path: DomainPath = "common.adm:/etc/a:b".parse().expect("a domainpath");
        assert_eq!(
            (path.domain.to_string().as_str(), path.path.as_str()),
            ("common.adm", "/etc/a:b")
        );
        for text in [
            "/etc/motd",
            "adm:etc/motd",
            "adm:/etc/../x",
            "adm:/a//b",
            "adm:/a/",
            "adm:/a\nb",
            ":/a",
        ] {
            assert!(text.parse::<DomainPath>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn names_are_read_as_they_are_written(domain in testing::domain(6)) {
            prop_assert_eq!(domain.to_string().parse::<Domain>(), Ok(domain));
        }

        #[test]
        fn compare_is_symmetric_and_holds_with_oneself(
            a in testing::domain(5), b in testing::domain(5),
        ) {
            for wild in [Wild::On, Wild::Off] {
                prop_assert!(compare(&a, &a, wild));
                prop_assert_eq!(compare(&a, &b, wild), compare(&b, &a, wild));
            }
            prop_assert_eq!(compare(&a, &b, Wild::Off), a == b);
        }

        #[test]
        fn containment_is_an_order_of_plain_words(
            a in testing::domain(5), b in testing::domain(5), c in testing::domain(5),
        ) {
            let lies = |a: &Domain, b: &Domain| contained(a, b, Wild::Off);
            prop_assert!(lies(&a, &a));
            prop_assert!(!(lies(&a, &b) && lies(&b, &a)) || a == b);
            prop_assert!(!(lies(&a, &b) && lies(&b, &c)) || lies(&a, &c));
            // A wildcard only ever widens.
            prop_assert!(!lies(&a, &b) || contained(&a, &b, Wild::On));
            if let Some(parent) = a.parent() {
                prop_assert!(lies(&a, &parent) && !lies(&parent, &a));
            }
        }
    }
}
