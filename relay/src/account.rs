//! As whom a command runs: the account that an order names, if this node may become it.
//!
//! The way there is one way: supplementary groups, then the group, then the user, each checked, in
//! the new process just before the command takes its place. Nothing of the node's own rights is
//! left over, and a command whose account cannot be had is not started at all.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;

use nix::unistd::{self, Gid, Uid, User};
use protos::Run;
use rustix::fs::Mode;
use tokio::process::Command;

/// An account of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) home: OsString,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    groups: Vec<Gid>,
}

/// Why a command is not run as somebody. Nothing has been started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("this host has no user {0}")]
    Unknown(String),
    #[error("this node runs as user {mine} and not as root, so it cannot run commands as {wanted}")]
    NotRoot { mine: String, wanted: String },
    #[error("the users of this host cannot be read: {0}")]
    Unreadable(nix::Error),
}

impl Account {
    /// The account of a name. `None`: it is the one that this node has already. Blocks.
    pub(crate) fn find(name: &str) -> Result<Option<Account>, AccountError> {
        let user = User::from_name(name).map_err(AccountError::Unreadable)?;
        let user = user.ok_or_else(|| AccountError::Unknown(name.into()))?;
        let me = unistd::geteuid();
        if user.uid == me {
            return Ok(None);
        }
        if !me.is_root() {
            let mine = User::from_uid(me).ok().flatten();
            let mine = mine.map_or_else(|| me.to_string(), |user| user.name);
            return Err(AccountError::NotRoot { mine, wanted: name.into() });
        }
        let c_name = CString::new(name).map_err(|_| AccountError::Unknown(name.into()))?;
        let groups = unistd::getgrouplist(&c_name, user.gid).map_err(AccountError::Unreadable)?;
        Ok(Some(Account {
            name: user.name,
            home: user.dir.into_os_string(),
            uid: user.uid,
            gid: user.gid,
            groups,
        }))
    }

    /// Runs in the new process: from here on it is this account's.
    fn become_it(&self) -> io::Result<()> {
        unistd::setgroups(&self.groups)?;
        unistd::setgid(self.gid)?;
        unistd::setuid(self.uid)?;
        let ids = [unistd::getuid(), unistd::geteuid()];
        let gids = [unistd::getgid(), unistd::getegid()];
        let is_it = ids == [self.uid; 2] && gids == [self.gid; 2];
        // Whoever has got here must not find the way back.
        let back = !self.uid.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok();
        if is_it && !back { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// Makes a command run as an account and with the order's mask, in its folder.
pub(crate) fn dress(command: &mut Command, run: &Run, account: Option<Account>) {
    let mask = run.umask.map(Mode::from_raw_mode);
    let Some(account) = account else {
        if let Some(mask) = mask {
            in_child(command, move || {
                rustix::process::umask(mask);
                Ok(())
            });
        }
        return;
    };
    command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name);
    let dir = if run.dir.is_empty() { b"/".to_vec() } else { run.dir.to_vec() };
    let dir = CString::new(OsString::from_vec(dir).into_vec()).expect("a path has no NUL");
    in_child(command, move || {
        account.become_it()?;
        // Only what the account itself may enter.
        rustix::process::chdir(&dir)?;
        if let Some(mask) = mask {
            rustix::process::umask(mask);
        }
        Ok(())
    });
}

/// Gives a command a session of its own, without a terminal. It must not lead a group already.
pub(crate) fn apart(command: &mut Command) {
    in_child(command, || {
        rustix::process::setsid()?;
        Ok(())
    });
}

#[allow(unsafe_code, reason = "there is no other way to act between fork and exec")]
fn in_child(command: &mut Command, step: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: the steps above are plain system calls on values made before the fork; they neither
    // allocate nor take locks.
    unsafe {
        command.pre_exec(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_users_are_named() {
        let error = Account::find("nobody-of-that-name").expect_err("there is none");
        assert_eq!(error.to_string(), "this host has no user nobody-of-that-name");
    }

    #[test]
    fn the_own_account_needs_no_change_and_root_may_become_others() {
        let me = User::from_uid(unistd::geteuid()).expect("readable").expect("it has a name");
        assert_eq!(Account::find(&me.name).expect("it is there"), None);
        let other = Account::find("daemon");
        match unistd::geteuid().is_root() {
            true => {
                let other = other.expect("it is there").expect("it is another");
                assert!(!other.uid.is_root() && other.groups.contains(&other.gid));
            }
            false => {
                let text = other.expect_err("only root may").to_string();
                assert!(text.contains("not as root"), "{text}");
            }
        }
    }
}
