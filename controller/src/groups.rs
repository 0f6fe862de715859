//! The groups of `groups.toml`: sets with a name, and sources that are asked for more.
//!
//! ```toml
//! web = "web[01-20],web99"            # @web
//!
//! [sources.racks]                     # @racks:NAME
//! file = "racks.toml"                 # lines like those above
//!
//! [sources.slurm]                     # @slurm:NAME
//! map = ["sinfo", "-h", "-o", "%N", "-p", "$GROUP"]
//! list = ["sinfo", "-h", "-o", "%R"]
//! ```
//!
//! The file is read anew for each request. What programs have said is kept for `cache_s`; a program
//! that fails is an error and never "the old answer will do". What groups mean is not known here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::fault::Failure;
use crate::upcall;

/// How many answers of programs are kept, and how many bytes of them; beyond either all are
/// forgotten.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 32 << 20;
/// How long all programs together may take for one request.
const ALL: Duration = Duration::from_secs(120);
/// The longest time that a program may be given, in seconds.
const LONGEST_S: u64 = 60;
/// What a file of groups is made of.
const EXAMPLE: &str = "each line is NAME = \"SET\", for example web = \"web[1-9]\"";
/// The name of the table of sources, which no group can have.
const SOURCES: &str = "sources";
/// Names that the controller gives a meaning itself.
pub(crate) const BUILT_IN_SOURCES: [&str; 6] = ["site", "relay", "role", "run", "domain", "os"];
pub(crate) const BUILT_IN_GROUPS: [&str; 3] = ["up", "down", "stale"];

/// A source of groups as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Source {
    /// A file of groups, below the controller's state folder unless absolute.
    file: Option<PathBuf>,
    /// Says who is in `$GROUP`.
    map: Vec<String>,
    /// Says who is in any group.
    all: Vec<String>,
    /// Says which groups there are.
    list: Vec<String>,
    /// Says in which groups `$NODE` is.
    reverse: Vec<String>,
    /// How long an answer is good.
    cache_s: Option<u64>,
    /// How long a program may take.
    timeout_s: Option<u64>,
}

/// A question to a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ask {
    Map(String),
    All,
    List,
    Reverse(String),
}

/// What programs have said.
#[derive(Default)]
struct Cache {
    /// The sources that have said it.
    sources: BTreeMap<String, Source>,
    kept: HashMap<(String, Ask), (Instant, Arc<str>)>,
    bytes: usize,
}

/// Where groups come from.
#[derive(Clone)]
pub(crate) struct Groups {
    state: PathBuf,
    cache: Arc<Mutex<Cache>>,
}

/// The groups as they are written down now.
pub(crate) struct Book {
    groups: BTreeMap<String, String>,
    sources: BTreeMap<String, Source>,
    files: BTreeMap<String, BTreeMap<String, String>>,
    cache: Arc<Mutex<Cache>>,
    opened: Instant,
}

impl Groups {
    pub(crate) fn new(state: &Path) -> Groups {
        Groups { state: state.to_owned(), cache: Arc::default() }
    }

    /// Reads the files.
    pub(crate) fn open(&self) -> Result<Book, Failure> {
        let path = self.state.join("groups.toml");
        let mut table = read(&path)?.unwrap_or_default();
        let sources = match table.remove(SOURCES) {
            None => BTreeMap::new(),
            Some(sources) => {
                let sources: BTreeMap<String, Source> =
                    sources.try_into().map_err(|error| wrong(&path, &error))?;
                for (name, source) in &sources {
                    check_source(&path, name, source)?;
                }
                sources
            }
        };
        let own = self::groups(&path, table)?;
        if let Some(name) = BUILT_IN_GROUPS.iter().find(|name| own.contains_key(**name)) {
            let message = format!("{}: @{name} has a meaning already", path.display());
            return Err(Failure::bad(message, "give the group another name"));
        }
        let mut files = BTreeMap::new();
        for (name, source) in &sources {
            if let Some(file) = &source.file {
                let path = self.state.join(file);
                let table = read(&path)?.ok_or_else(|| {
                    let message = format!("{}: source {name}: no such file", path.display());
                    Failure::bad(message, "see groups.toml in the controller's state")
                })?;
                files.insert(name.clone(), self::groups(&path, table)?);
            }
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.sources != sources {
            *cache = Cache { sources: sources.clone(), ..Cache::default() };
        }
        drop(cache);
        Ok(Book { groups: own, sources, files, cache: self.cache.clone(), opened: Instant::now() })
    }
}

impl Book {
    /// The sources beside those that are built in.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// The groups of the file itself.
    pub(crate) fn own(&self) -> &BTreeMap<String, String> {
        &self.groups
    }

    /// The set that a group of a source is; none if it has no such group, or if nobody is in it and
    /// nobody says that there is one.
    pub(crate) fn map(&self, source: &str, group: &str) -> Result<Option<String>, Failure> {
        if let Some(file) = self.files.get(source) {
            return Ok(file.get(group).cloned());
        }
        // A name in a path, and one that looks like an option, are more than names.
        if group.starts_with('-') || group.contains('/') {
            return Ok(None);
        }
        let Some(set) = self.ask(source, Ask::Map(group.to_owned()))? else { return Ok(None) };
        let empty = set.trim().is_empty();
        if empty && !self.list(source)?.is_some_and(|list| list.iter().any(|name| name == group)) {
            return Ok(None);
        }
        Ok(Some(set.to_string()))
    }

    /// The groups of a source; none if it cannot say.
    pub(crate) fn list(&self, source: &str) -> Result<Option<Vec<String>>, Failure> {
        if let Some(file) = self.files.get(source) {
            return Ok(Some(file.keys().cloned().collect()));
        }
        Ok(self.ask(source, Ask::List)?.map(|text| words(&text)))
    }

    /// The set of everybody in a source; none if it cannot say.
    pub(crate) fn all(&self, source: &str) -> Result<Option<String>, Failure> {
        if let Some(file) = self.files.get(source) {
            let sets = file.values().map(|set| format!("({set})"));
            return Ok(Some(sets.collect::<Vec<_>>().join(",")));
        }
        Ok(self.ask(source, Ask::All)?.map(|text| text.to_string()))
    }

    /// The groups of a source in which a node is; none if it cannot say other than by its list.
    pub(crate) fn reverse(&self, source: &str, node: &str) -> Result<Option<Vec<String>>, Failure> {
        Ok(self.ask(source, Ask::Reverse(node.to_owned()))?.map(|text| words(&text)))
    }

    /// How long ago a program said who is in a group; nothing for what is known here.
    pub(crate) fn age(&self, source: &str, group: &str) -> Duration {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.to_owned(), Ask::Map(group.to_owned()));
        cache.kept.get(&key).map_or(Duration::ZERO, |(at, _)| at.elapsed())
    }

    /// Asks a program, unless its answer is known. None: there is no program for this question.
    fn ask(&self, name: &str, ask: Ask) -> Result<Option<Arc<str>>, Failure> {
        let Some(source) = self.sources.get(name) else { return Ok(None) };
        let (argv, names): (_, Vec<(&str, &str)>) = match &ask {
            Ask::Map(group) => (&source.map, vec![("$GROUP", group)]),
            Ask::All => (&source.all, Vec::new()),
            Ask::List => (&source.list, Vec::new()),
            Ask::Reverse(node) => (&source.reverse, vec![("$NODE", node)]),
        };
        if argv.is_empty() {
            return Ok(None);
        }
        let good = Duration::from_secs(source.cache_s.unwrap_or(300));
        let key = (name.to_owned(), ask.clone());
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = cache().kept.get(&key)
            && at.elapsed() < good
        {
            return Ok(Some(text.clone()));
        }
        if self.opened.elapsed() > ALL {
            let message = format!("groups of {name}: asking took more than {} s", ALL.as_secs());
            return Err(Failure::internal(message).with_help("ask about fewer groups at once"));
        }
        let names: Vec<_> = names.into_iter().chain([("$SOURCE", name)]).collect();
        let limit = Duration::from_secs(source.timeout_s.unwrap_or(5));
        let text: Arc<str> = upcall::ask(argv, &names, limit)
            .map_err(|error| {
                let message = format!("groups of {name}: {error}");
                Failure::internal(message).with_help("see [sources] of groups.toml")
            })?
            .into();
        let mut cache = cache();
        if cache.kept.len() >= KEPT || cache.bytes + text.len() > KEPT_BYTES {
            (cache.kept, cache.bytes) = (HashMap::new(), 0);
        }
        // Another request may have changed the sources meanwhile; then this is not to be kept.
        if cache.sources == self.sources {
            let old = cache.kept.insert(key, (Instant::now(), text.clone()));
            cache.bytes += text.len();
            cache.bytes -= old.map_or(0, |(_, old)| old.len());
        }
        Ok(Some(text))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn read(path: &Path) -> Result<Option<toml::Table>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let message = format!("{}: cannot be read: {error}", path.display());
            return Err(Failure::internal(message));
        }
    };
    text.parse().map(Some).map_err(|error| wrong(path, &error))
}

fn groups(path: &Path, table: toml::Table) -> Result<BTreeMap<String, String>, Failure> {
    let group = |(name, value): (String, toml::Value)| match value {
        toml::Value::String(set) => Ok((name, set)),
        _ => Err(Failure::bad(format!("{}: {name} is no set in quotes", path.display()), EXAMPLE)),
    };
    table.into_iter().map(group).collect()
}

fn wrong(path: &Path, error: &toml::de::Error) -> Failure {
    let message = format!("{}: {}", path.display(), error.message());
    Failure::bad(message, EXAMPLE)
}

fn check_source(path: &Path, name: &str, source: &Source) -> Result<(), Failure> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let what = if BUILT_IN_SOURCES.contains(&name) {
        "the name has a meaning already"
    } else if name.is_empty() || name.starts_with('-') || !name.chars().all(fine) {
        "a source's name has letters, digits, `.`, `_` and `-`"
    } else if source.file.is_some() != source.map.is_empty() {
        "a source has either a `file` or a `map` program"
    } else if !(1..=LONGEST_S).contains(&source.timeout_s.unwrap_or(5)) {
        "timeout_s is 1 to 60"
    } else {
        return Ok(());
    };
    let message = format!("{}: source {name}: {what}", path.display());
    Err(Failure::bad(message, "docs/sets.md tells what a source is made of"))
}
