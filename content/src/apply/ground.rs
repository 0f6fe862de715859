//! From the path an operator gave to a directory that is held open.
//!
//! The destination is an arbitrary path, and we are root: so each component is opened by itself
//! with `O_NOFOLLOW`. A link on the way is followed only if root (or we) own it and nobody else
//! may write to the directory that holds it; anybody else's link is an attack or an accident.
//! Links that are followed are resolved below the root of the installer, like in a chroot.
//!
//! It deliberately creates nothing: what is missing is listed, and made when all else is ready.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, readlinkat};

use super::Job;
use super::error::{ApplyError, Stage};
use crate::guards::{Guard, holds};
use crate::manifest::{Entry, Kind};
use crate::show::show;
use crate::tree;

/// As many as the kernel follows.
const HOPS: usize = 40;

/// The directory that entries are placed below.
pub(super) struct Ground {
    pub(super) dest: Vec<u8>,
    /// The deepest directory that exists, opened with `O_PATH`.
    pub(super) dir: OwnedFd,
    /// Directories to make below it before it is the right one.
    pub(super) missing: Vec<Vec<u8>>,
    /// The name to give to a single file; `None` for a tree.
    leaf: Option<Vec<u8>>,
}

impl Ground {
    /// Directory (relative to the ground) and name of an entry. The root of a tree has no name.
    pub(super) fn place<'a>(&'a self, entry: &'a Entry) -> (&'a [u8], &'a [u8]) {
        match &self.leaf {
            Some(leaf) => (&[], leaf),
            None => entry.split(),
        }
    }

    /// The name in the directory, unless the ground is that of a tree.
    pub(super) fn leaf(&self) -> &[u8] {
        self.leaf.as_deref().unwrap_or_default()
    }

    pub(super) fn is_tree(&self) -> bool {
        self.leaf.is_none()
    }

    /// The full path of an entry, printable.
    pub(super) fn shown(&self, path: &[u8]) -> String {
        match path {
            b"" => show(&self.dest),
            path => show(&[&self.dest, b"/".as_slice(), path].concat()),
        }
    }

    pub(super) fn failed<'a>(
        &'a self,
        stage: Stage,
        path: &'a [u8],
    ) -> impl FnOnce(io::Error) -> ApplyError + use<'a> {
        let io = move |path, source| ApplyError::Io { stage, path, partial: false, source };
        move |source| io(self.shown(path), source)
    }
}

/// Walks to the destination of a job.
pub(super) fn resolve(root: &Path, job: &Job<'_>) -> Result<Ground, ApplyError> {
    let is_tree = job.target.entries.first().is_some_and(|entry| entry.kind == Kind::Dir);
    walk(root, job.dest, is_tree)
}

/// Walks to the directory that a destination is in.
pub(super) fn resolve_parent(root: &Path, dest: &[u8]) -> Result<Ground, ApplyError> {
    walk(root, dest, false)
}

fn walk(root: &Path, dest: &[u8], is_tree: bool) -> Result<Ground, ApplyError> {
    let mut components = parse(dest)?;
    let leaf = if is_tree { None } else { components.pop_back() };
    let guarded = root == Path::new("/");
    let top = components.front().or(leaf.as_ref()).map(Vec::as_slice);
    if guarded && top.is_some_and(is_kernel) {
        return Err(refused(dest, "it is below /proc, /sys or /dev"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(root, flags, Mode::empty());
    let root = opened.map_err(|err| failed(dest, err.into()))?;
    let mut walk = Walk { dest, root, guarded, stack: Vec::new(), missing: Vec::new(), hops: 0 };
    walk.run(components)?;
    let Walk { root, mut stack, missing, .. } = walk;
    let dir = stack.pop().map_or(root, |(_, fd)| fd);
    Ok(Ground { dest: dest.to_vec(), dir, missing, leaf })
}

fn parse(dest: &[u8]) -> Result<VecDeque<Vec<u8>>, ApplyError> {
    let refuse = |reason| Err(refused(dest, reason));
    let Some(relative) = dest.strip_prefix(b"/") else { return refuse("it is not absolute") };
    if relative.is_empty() {
        return refuse("it is the root directory");
    }
    if dest.len() > 4095 {
        return refuse("it is longer than 4095 bytes");
    }
    if dest.contains(&0) {
        return refuse("it holds a NUL");
    }
    let components: VecDeque<_> =
        relative.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    for component in &components {
        match component.as_slice() {
            b"" => return refuse("it has an empty component"),
            b"." | b".." => return refuse("it has a . or .. component"),
            name if name.len() > 255 => return refuse("a name is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(components)
}

fn is_kernel(name: &[u8]) -> bool {
    matches!(name, b"proc" | b"sys" | b"dev")
}

fn refused(dest: &[u8], reason: &'static str) -> ApplyError {
    ApplyError::Destination { dest: show(dest), reason }
}

fn failed(path: &[u8], source: io::Error) -> ApplyError {
    ApplyError::Io { stage: Stage::Open, path: show(path), partial: false, source }
}

struct Walk<'a> {
    dest: &'a [u8],
    root: OwnedFd,
    /// Whether /proc, /sys and /dev are what they seem to be.
    guarded: bool,
    stack: Vec<(Vec<u8>, OwnedFd)>,
    missing: Vec<Vec<u8>>,
    hops: usize,
}

impl Walk<'_> {
    fn run(&mut self, components: VecDeque<Vec<u8>>) -> Result<(), ApplyError> {
        // The flag tells components that come from a link from those of the operator.
        let mut pending: VecDeque<_> = components.into_iter().map(|name| (name, false)).collect();
        while let Some((name, linked)) = pending.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    self.stack.pop();
                    continue;
                }
                _ if !self.missing.is_empty() => {
                    self.missing.push(name);
                    continue;
                }
                _ => {}
            }
            let path = self.path(&name);
            let looked = tree::look(self.top(), &name).map_err(|err| failed(&path, err))?;
            let kind = looked.as_ref().map(tree::kind);
            match (looked, kind) {
                (Some(_), Some(FileType::Directory)) => {
                    let fd = tree::open_dir(self.top(), &name).map_err(|err| failed(&path, err))?;
                    self.enter(name, fd)?;
                }
                (Some(stat), Some(FileType::Symlink)) => {
                    let target = self.follow(&name, &stat)?;
                    let parts = target.split(|byte| *byte == b'/').rev();
                    parts.for_each(|part| pending.push_front((part.to_vec(), true)));
                }
                (Some(_), _) => {
                    let (path, found) = (show(&path), "not a directory");
                    return Err(ApplyError::Conflict { path, found, wanted: "a directory" });
                }
                (None, _) if linked => return Err(self.link(&name, "it leads nowhere")),
                (None, _) => self.missing.push(name),
            }
        }
        Ok(())
    }

    fn top(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        let names = self.stack.iter().map(|(name, _)| name.as_slice()).chain([name]);
        names.flat_map(|name| [b"/", name].concat()).collect()
    }

    fn enter(&mut self, name: Vec<u8>, fd: OwnedFd) -> Result<(), ApplyError> {
        if self.guarded && self.stack.is_empty() && is_kernel(&name) {
            return Err(refused(self.dest, "a link leads below /proc, /sys or /dev"));
        }
        self.stack.push((name, fd));
        Ok(())
    }

    /// The target of a link that nobody but root and us can have made or can change.
    fn follow(&mut self, name: &[u8], stat: &Stat) -> Result<Vec<u8>, ApplyError> {
        let us = rustix::process::geteuid().as_raw();
        let trusted = |uid| uid == 0 || uid == us || !holds(Guard::TrustedLink);
        if !trusted(stat.st_uid) {
            return Err(self.link(name, "it is owned by another user"));
        }
        let dir = rustix::fs::fstat(self.top());
        let dir = dir.map_err(|err| failed(&self.path(b"."), err.into()))?;
        let open = tree::mode(&dir) & 0o022 != 0 && holds(Guard::TrustedLink);
        if !trusted(dir.st_uid) || open {
            return Err(self.link(name, "others may write to the directory it is in"));
        }
        self.hops += 1;
        if self.hops > HOPS {
            return Err(self.link(name, "there are too many links on the way"));
        }
        let target = readlinkat(self.top(), name, Vec::new());
        let target = target.map_err(|err| failed(&self.path(name), err.into()))?.into_bytes();
        if target.starts_with(b"/") {
            self.stack.clear();
        }
        Ok(target)
    }

    fn link(&self, name: &[u8], reason: &'static str) -> ApplyError {
        ApplyError::Link { path: show(&self.path(name)), dest: show(self.dest), reason }
    }
}
