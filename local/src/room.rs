//! How many programs may hold a socket at once: in all, and of one user.
//!
//! Who comes when it is full is told so, by a few at once, and nobody waits: a place is free again
//! when its connection ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::geteuid;

/// The places of one socket.
#[derive(Clone)]
pub(crate) struct Room {
    taken: Arc<Mutex<Taken>>,
    limits: Limits,
}

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) all: usize,
    /// Of one user, unless it is root or the node's own.
    pub(crate) each: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_user: BTreeMap<u32, usize>,
}

/// There is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Crowded {
    /// For nobody.
    #[error("this socket has {0} connections, the most it takes")]
    All(usize),
    /// For this user.
    #[error("user {user} has {most} connections to this socket, the most of one user")]
    User { user: u32, most: usize },
}

/// A place of one connection, free again when it is dropped.
pub(crate) struct Place {
    room: Room,
    user: Option<u32>,
}

impl Room {
    pub(crate) fn new(limits: Limits) -> Room {
        Room { taken: Arc::default(), limits }
    }

    /// A place for a user, if the kernel says who it is.
    pub(crate) fn take(&self, user: Option<u32>) -> Result<Place, Crowded> {
        let mut taken = self.lock();
        let trusted = |user: u32| user == 0 || user == geteuid().as_raw();
        let user = user.filter(|user| !trusted(*user));
        let his = user.and_then(|user| taken.by_user.get(&user)).copied().unwrap_or_default();
        let Limits { all, each } = self.limits;
        if let Some(user) = user.filter(|_| his >= each) {
            return Err(Crowded::User { user, most: each });
        }
        if taken.all >= all {
            return Err(Crowded::All(all));
        }
        taken.all += 1;
        if let Some(user) = user {
            taken.by_user.insert(user, his + 1);
        }
        Ok(Place { room: self.clone(), user })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        taken.all -= 1;
        if let Some(user) = self.user {
            let his = taken.by_user.get_mut(&user).expect("whoever has a place is counted");
            *his -= 1;
            if *his == 0 {
                taken.by_user.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_takes_no_more_than_his_share_and_gives_it_back() {
        let room = Room::new(Limits { all: 4, each: 2 });
        let mine = geteuid().as_raw();
        let [one, other] = [mine.wrapping_add(1), mine.wrapping_add(2)];
        let first = room.take(Some(one)).expect("a place");
        let _second = room.take(Some(one)).expect("a place");
        let crowded = room.take(Some(one)).err().expect("his share is used up");
        let text = format!("user {one} has 2 connections to this socket, the most of one user");
        assert_eq!(crowded.to_string(), text);
        let _third = room.take(Some(other)).expect("another has his own");
        drop(first);
        assert_eq!(room.lock().by_user[&one], 1);
        let own: Vec<_> = (0..2).map_while(|_| room.take(Some(mine)).ok()).collect();
        assert_eq!(own.len(), 2);
        assert_eq!(room.take(None).err(), Some(Crowded::All(4)));
        drop(own);
        let unknown: Vec<_> = (0..9).map_while(|_| room.take(None).ok()).collect();
        assert_eq!(unknown.len(), 2);
        drop((unknown, _second, _third));
        assert!(room.lock().all == 0 && room.lock().by_user.is_empty());
    }
}
