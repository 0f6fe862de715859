//! Names of users and groups, each id asked for once.
//!
//! A lookup may go to a directory server, so answers are kept for as long as one ingest or one
//! apply lasts, and not longer: there is no cache to go stale.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::unistd::{Gid, Group, Uid, User};

use crate::manifest::Name;

/// Answers of one run. A failed lookup counts as "no such name".
#[derive(Default)]
pub(crate) struct Names {
    users: BTreeMap<u32, Name>,
    groups: BTreeMap<u32, Name>,
    uids: BTreeMap<Name, Option<u32>>,
    gids: BTreeMap<Name, Option<u32>>,
}

impl Names {
    /// The name of a user id, or an empty one.
    pub(crate) fn user(&mut self, uid: u32) -> Name {
        let ask = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        self.users.entry(uid).or_insert_with(|| name(ask())).clone()
    }

    /// The name of a group id, or an empty one.
    pub(crate) fn group(&mut self, gid: u32) -> Name {
        let ask = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
        self.groups.entry(gid).or_insert_with(|| name(ask())).clone()
    }

    /// The id this host gives to the user, or the number when the name is empty or unknown.
    pub(crate) fn uid(&mut self, name: &Name, number: u32) -> u32 {
        if name.is_empty() {
            return number;
        }
        let ask = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        self.uids.entry(name.clone()).or_insert_with(ask).unwrap_or(number)
    }

    /// The id this host gives to the group, or the number when the name is empty or unknown.
    pub(crate) fn gid(&mut self, name: &Name, number: u32) -> u32 {
        if name.is_empty() {
            return number;
        }
        let ask = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        self.gids.entry(name.clone()).or_insert_with(ask).unwrap_or(number)
    }
}

fn name(found: Option<String>) -> Name {
    Arc::from(found.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let mut names = Names::default();
        assert_eq!(&*names.user(0), "root");
        assert_eq!(names.uid(&Arc::from("root"), 7), 0);
        assert_eq!(names.uid(&Arc::from("no-such-user"), 7), 7);
        assert_eq!(names.gid(&Arc::from(""), 9), 9);
        assert_eq!(&*names.group(3_999_999_999), "");
    }
}
