//! Which names a push leaves alone: it neither carries nor deletes them.
//!
//! The idea: a pattern is matched with the path below the root of the tree, and means a name
//! wherever it occurs unless it begins with a slash. The same patterns are used where a tree is
//! read and where it is put in place, so both sides mean the same entries.
//!
//! ```text
//! *.o       every name that ends in .o          /logs    logs at the top only
//! a/*.log   what is directly in any folder a    tmp/     folders called tmp, not files
//! ```
//!
//! `*` and `?` stop at a slash, and `**` between slashes stands for any folders; `[ab]` and
//! `{a,b}` are alternatives, and a backslash takes the meaning from the character behind it.
//! There is no pattern that takes something in again.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

/// No pattern is longer.
pub const PATTERN_LIMIT: usize = 1024;
/// No push has more of them.
pub const PATTERNS: usize = 256;

/// Patterns, ready to be matched.
#[derive(Debug, Clone)]
pub struct Patterns {
    texts: Vec<String>,
    /// One for each text.
    set: GlobSet,
}

/// A pattern that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern \"{pattern}\" {what}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub what: String,
}

impl Default for Patterns {
    fn default() -> Patterns {
        Patterns { texts: Vec::new(), set: GlobSet::empty() }
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Patterns) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Patterns {}

impl Patterns {
    /// Reads patterns as an operator writes them.
    pub fn new(texts: &[String]) -> Result<Patterns, PatternError> {
        let refuse = |pattern: &str, what: String| PatternError { pattern: pattern.into(), what };
        let mut set = GlobSetBuilder::new();
        if let Some(beyond) = texts.get(PATTERNS) {
            return Err(refuse(beyond, format!("is one too many: {PATTERNS} are allowed")));
        }
        for text in texts {
            if text.len() > PATTERN_LIMIT {
                return Err(refuse(text, format!("is longer than {PATTERN_LIMIT} bytes")));
            }
            let name = text.strip_suffix('/').unwrap_or(text);
            let glob = match name.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None => format!("**/{name}"),
            };
            if name.trim_matches('/').is_empty() {
                return Err(refuse(text, "names nothing".into()));
            }
            let glob =
                GlobBuilder::new(&glob).literal_separator(true).backslash_escape(true).build();
            let glob =
                glob.map_err(|error| refuse(text, format!("cannot be read: {}", error.kind())))?;
            set.add(glob);
        }
        let set = set.build();
        let set = set.map_err(|error| refuse("", format!("cannot be read: {}", error.kind())))?;
        Ok(Patterns { texts: texts.to_vec(), set })
    }

    /// Whether an entry is meant, by its path below the root. The root itself never is.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        self.first(path, is_dir).is_some()
    }

    /// The first pattern that means an entry.
    pub fn first(&self, path: &[u8], is_dir: bool) -> Option<usize> {
        if path.is_empty() || self.texts.is_empty() {
            return None;
        }
        let candidate = Candidate::new(Path::new(OsStr::from_bytes(path)));
        let found = self.set.matches_candidate(&candidate);
        found.into_iter().find(|n| is_dir || !self.texts[*n].ends_with('/'))
    }

    /// All patterns that mean an entry.
    pub fn all(&self, path: &[u8], is_dir: bool) -> Vec<usize> {
        if path.is_empty() || self.texts.is_empty() {
            return Vec::new();
        }
        let mut found = self.set.matches(Path::new(OsStr::from_bytes(path)));
        found.retain(|n| is_dir || !self.texts[*n].ends_with('/'));
        found
    }

    /// The patterns as they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str, is_dir: bool) -> bool {
        let patterns = Patterns::new(&[pattern.to_owned()]).expect("a pattern");
        patterns.matches(path.as_bytes(), is_dir)
    }

    #[test]
    fn names_anywhere_and_paths_from_the_top() {
        for (pattern, path, expected) in [
            (".git", ".git", true),
            (".git", "a/b/.git", true),
            (".git", "a/.github", false),
            ("*.o", "a/x.o", true),
            ("*.o", "x.o/y", false),
            ("/logs", "logs", true),
            ("/logs", "a/logs", false),
            ("/a*c", "a/c", false),
            ("/a/**/c", "a/b/d/c", true),
            ("a/*.log", "x/a/y.log", true),
            ("a/*.log", "xa/y.log", false),
            ("a/*.log", "a/b/y.log", false),
            ("{x,y}?", "d/y1", true),
            ("[!a]", "b", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
        ] {
            assert_eq!(matches(pattern, path, false), expected, "{pattern} {path}");
        }
        assert!(matches("tmp/", "a/tmp", true) && !matches("tmp/", "a/tmp", false));
        assert!(!matches("*", "", true), "the root is never left out");
        let patterns = Patterns::new(&["a/".into(), "?".into()]).expect("patterns");
        assert_eq!((patterns.first(b"a", true), patterns.first(b"a", false)), (Some(0), Some(1)));
        assert!(patterns.matches(b"x/\xff", false), "a name need not be UTF-8");
        let patterns = Patterns::new(&["*".into(), "/a".into(), "b".into()]).expect("patterns");
        assert_eq!(patterns.all(b"a", false), [0, 1]);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (pattern, what) in [("", "nothing"), ("/", "nothing"), ("[a", "']'"), ("{a", "'}'")] {
            let error = Patterns::new(&[pattern.to_owned()]).expect_err(pattern);
            assert_eq!(error.pattern, pattern);
            assert!(error.what.contains(what), "{error}");
        }
        Patterns::new(&["x".repeat(PATTERN_LIMIT + 1)]).expect_err("too long");
        Patterns::new(&vec!["x".to_owned(); PATTERNS + 1]).expect_err("too many");
    }
}
