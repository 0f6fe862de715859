//! Commands, as they are signed: what is run, as whom, with what, and for how long.
//!
//! What a command reads and the files that it is given are content like any other: here are only
//! their names and lengths.
//!
//! Not here: whether there is such a user, folder or program, which the host finds out.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::field::{
    at_most, at_most_bytes, ensure, millis, no_nul, not_empty, path, plain, within,
};
use crate::order::{CONTENT_LIMIT, LONGEST, NAME_LIMIT, PATH_LIMIT};
use crate::{FieldError, OUTPUT_LIMIT, Part, pb};

/// The most bytes that a command can be given to read.
pub const STDIN_LIMIT: u64 = 64 << 20;

/// The most bytes of all files that a command is given.
pub const FILES_LIMIT: u64 = 256 << 20;

/// The most files that a command is given.
pub const FILES: usize = 16;

const FILE_NAME_LIMIT: usize = 255;
const ARGV_LIMIT: usize = 4096;
const ARGV_BYTES: usize = 128 << 10;
const ENV_LIMIT: usize = 1024;
const ENV_BYTES: usize = 128 << 10;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments, 1 to 4,096 of them and 128 KiB together; the one line for
    /// the shell if `shell`.
    pub argv: Vec<Bytes>,
    /// Whether a shell reads the line.
    pub shell: bool,
    /// As whom. Empty: as whom the host's own process runs.
    pub user: String,
    /// Where, an absolute path. Empty: where the host sees fit.
    pub dir: Bytes,
    /// Variables on top of the host's own closed set; each name once, 1,024 of them and 128 KiB
    /// together.
    pub env: Vec<Variable>,
    /// How long it may run. Never zero.
    pub timeout: Duration,
    /// How many bytes are kept of each of stdout and stderr; at most [`OUTPUT_LIMIT`].
    pub output_limit: u32,
    /// What it reads from its standard input, put together: at most [`STDIN_LIMIT`] bytes. Without
    /// any it reads nothing.
    pub stdin: Vec<Part>,
    /// Files that it is given in a private folder, each name once: at most [`FILES`], and
    /// [`FILES_LIMIT`] bytes between them.
    pub files: Vec<File>,
    /// Which permissions its new files lack; at most 0o777. None: as the host's own process.
    pub umask: Option<u32>,
}

/// A file that a command is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without a path; at most 255 bytes.
    pub name: String,
    /// Its bytes, put together.
    pub parts: Vec<Part>,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name: not empty, without `=` and NUL.
    pub name: Bytes,
    /// Its value, without NUL.
    pub value: Bytes,
}

impl Run {
    /// A command of which nothing but this is said: it runs as whom and where the host's own
    /// process does, reads nothing, and nothing is kept of what it writes.
    pub fn new(argv: impl IntoIterator<Item = impl Into<Bytes>>, timeout: Duration) -> Run {
        Run {
            argv: argv.into_iter().map(Into::into).collect(),
            shell: false,
            user: String::new(),
            dir: Bytes::new(),
            env: Vec::new(),
            timeout,
            output_limit: 0,
            stdin: Vec::new(),
            files: Vec::new(),
            umask: None,
        }
    }

    pub(crate) fn to_pb(&self) -> pb::Run {
        let variable = |variable: &Variable| {
            let Variable { name, value } = variable.clone();
            pb::Variable { name, value }
        };
        let parts = |parts: &[Part]| parts.iter().copied().map(Part::to_pb).collect();
        let file = |file: &File| pb::File { name: file.name.clone(), parts: parts(&file.parts) };
        pb::Run {
            argv: self.argv.clone(),
            shell: self.shell,
            user: self.user.clone(),
            dir: self.dir.clone(),
            env: self.env.iter().map(variable).collect(),
            timeout_ms: millis(self.timeout),
            output_limit: self.output_limit,
            stdin: parts(&self.stdin),
            files: self.files.iter().map(file).collect(),
            umask: self.umask,
        }
    }

    pub(crate) fn read(run: pb::Run) -> Result<Run, FieldError> {
        let variable = |pb::Variable { name, value }| Variable { name, value };
        let parts = |field, parts: &[pb::Part]| {
            parts.iter().map(|part| Part::read(field, part)).collect::<Result<Vec<_>, _>>()
        };
        let file =
            |file: pb::File| Ok(File { parts: parts("run.files", &file.parts)?, name: file.name });
        Ok(Run {
            stdin: parts("run.stdin", &run.stdin)?,
            files: run.files.into_iter().map(file).collect::<Result<_, FieldError>>()?,
            umask: run.umask,
            argv: run.argv,
            shell: run.shell,
            user: run.user,
            dir: run.dir,
            env: run.env.into_iter().map(variable).collect(),
            timeout: Duration::from_millis(run.timeout_ms),
            output_limit: run.output_limit,
        })
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        not_empty("run.argv", self.argv.first().map_or(0, Bytes::len))?;
        at_most("run.argv", self.argv.len(), ARGV_LIMIT)?;
        at_most_bytes("run.argv", self.argv.iter().map(Bytes::len).sum(), ARGV_BYTES)?;
        self.argv.iter().try_for_each(|argument| no_nul("run.argv", argument))?;
        let line = !self.shell || self.argv.len() == 1;
        ensure(line, "run.argv", "has more than the one line that a shell reads")?;
        check_user(&self.user)?;
        if !self.dir.is_empty() {
            path("run.dir", &self.dir, PATH_LIMIT)?;
        }
        at_most("run.env", self.env.len(), ENV_LIMIT)?;
        let bytes =
            self.env.iter().map(|variable| variable.name.len() + variable.value.len()).sum();
        at_most_bytes("run.env", bytes, ENV_BYTES)?;
        for variable in &self.env {
            not_empty("variable.name", variable.name.len())?;
            no_nul("variable.name", &variable.name)?;
            ensure(!variable.name.contains(&b'='), "variable.name", "has a = in it")?;
            no_nul("variable.value", &variable.value)?;
        }
        let names: BTreeSet<_> = self.env.iter().map(|variable| &variable.name).collect();
        ensure(names.len() == self.env.len(), "run.env", "has a name twice")?;
        within("run.timeout_ms", millis(self.timeout), (1, millis(LONGEST)))?;
        within("run.output_limit", self.output_limit.into(), (0, OUTPUT_LIMIT.into()))?;
        within("run.umask", self.umask.unwrap_or_default().into(), (0, 0o777))?;
        let bytes = |parts: &[Part]| parts.iter().map(|part| u64::from(part.bytes)).sum::<u64>();
        let parts =
            self.stdin.len() + self.files.iter().map(|file| file.parts.len()).sum::<usize>();
        at_most("run.stdin and run.files", parts, CONTENT_LIMIT)?;
        within("run.stdin", bytes(&self.stdin), (0, STDIN_LIMIT))?;
        at_most("run.files", self.files.len(), FILES)?;
        let files = self.files.iter().map(|file| bytes(&file.parts)).sum();
        within("run.files", files, (0, FILES_LIMIT))?;
        self.files.iter().try_for_each(|file| check_file_name(&file.name))?;
        let names: BTreeSet<_> = self.files.iter().map(|file| &file.name).collect();
        ensure(names.len() == self.files.len(), "run.files", "has a name twice")
    }
}

fn check_file_name(name: &str) -> Result<(), FieldError> {
    not_empty("file.name", name.len())?;
    plain("file.name", name, FILE_NAME_LIMIT)?;
    ensure(!name.contains('/') && name != "." && name != "..", "file.name", "is a path")
}

fn check_user(user: &str) -> Result<(), FieldError> {
    plain("run.user", user, NAME_LIMIT)?;
    let foreign = |c: char| c.is_whitespace() || c == ':' || c == '/';
    let name = !user.starts_with('-') && !user.contains(foreign);
    ensure(name, "run.user", "is not the name of a user")
}
