//! What a node was started with and its commands must not get: descriptors and a terminal.
//!
//! All that a node opens itself closes when a command takes its place. What whoever started the
//! node left open (a lock, a socket, a log of a shell) would stay open in every command and in all
//! that commands leave behind; so it is marked once, at the start. And a node that was started at a
//! terminal must not lend it to commands that others order: they get a session of their own.

use std::fs;
use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use tracing::warn;

/// Marks every descriptor but the three standard ones to close when a command starts. Blocks.
pub(crate) fn keep_from_commands() {
    let entries = match fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries,
        Err(error) => return warn!(%error, "commands may inherit what this node was started with"),
    };
    let open = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for fd in open.filter(|fd: &i32| *fd > 2) {
        mark(fd);
    }
}

#[allow(unsafe_code, reason = "a descriptor is known by its number only")]
fn mark(fd: i32) {
    // SAFETY: it is borrowed for these two calls only, which change nothing but its mark; if it has
    // been closed meanwhile they fail, and if it is another's now that one is marked already.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    if let Ok(flags) = fcntl_getfd(fd) {
        fcntl_setfd(fd, flags | FdFlags::CLOEXEC).ok();
    }
}

/// Whether this process has a terminal that it would share with its commands.
pub(crate) fn has_terminal() -> bool {
    fs::OpenOptions::new().read(true).open("/dev/tty").is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_inherited_is_marked() {
        let file = fs::File::open("/proc/self/status").expect("it is there");
        fcntl_setfd(file.as_fd(), FdFlags::empty()).expect("it is open");
        keep_from_commands();
        let flags = fcntl_getfd(file.as_fd()).expect("it is open");
        assert!(flags.contains(FdFlags::CLOEXEC));
    }
}
