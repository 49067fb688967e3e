//! Who is at the other end of a connection, and what he may do.
//!
//! - **FP1** The kernel says who connected (`SO_PEERCRED`): the user and group of the process at that moment. Nothing
//!   that the client sends counts.
//! - **FP2** May write: root, the daemon's own user, members of the daemon's own group, and the users and groups of
//!   the setting `access`. Asked with each request, so that a reload counts at once.
//! - **FP3** May read: whoever may read the snapshot file by its mode bits. Asked with each call. ACLs do not count.
//!
//! A user's groups are his connection's group and those that the user database lists, looked up when he connects.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};
use tonic::Status;

/// The process at the other end (FP1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) user: Option<String>,
    pub(super) groups: Vec<u32>,
}

impl Peer {
    /// Looks the user up. May wait for the user database.
    pub(super) fn look_up(uid: u32, gid: u32) -> Self {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let user = user.map(|user| user.name);
        let groups = user
            .as_deref()
            .and_then(|name| CString::new(name).ok())
            .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok())
            .unwrap_or_default();
        Self {
            uid,
            gid,
            user,
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        }
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// As people write it.
    pub(super) fn name(&self) -> String {
        match &self.user {
            Some(name) => format!("{name} (uid {}, gid {})", self.uid, self.gid),
            None => format!("uid {}, gid {}", self.uid, self.gid),
        }
    }
}

/// Who may write (FP2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    own_uid: u32,
    own_gid: u32,
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Access {
    /// This process's user and group, and these others, by name or number. The second value says which are not
    /// known here; they are left out.
    #[must_use]
    pub fn resolve(users: &[String], groups: &[String]) -> (Self, Vec<String>) {
        let mut unknown = Vec::new();
        let mut id = |kind: &str, name: &String, found: Option<u32>| {
            let id = name.parse().ok().or(found);
            if id.is_none() {
                unknown.push(format!(
                    "access.write_{kind}s names the {kind} {name:?}, which this host does not have; it is left out"
                ));
            }
            id
        };
        let user = |name: &str| {
            User::from_name(name)
                .ok()
                .flatten()
                .map(|user| user.uid.as_raw())
        };
        let group = |name: &str| {
            Group::from_name(name)
                .ok()
                .flatten()
                .map(|group| group.gid.as_raw())
        };
        let access = Self {
            own_uid: geteuid().as_raw(),
            own_gid: getegid().as_raw(),
            users: users
                .iter()
                .filter_map(|name| id("user", name, user(name)))
                .collect(),
            groups: groups
                .iter()
                .filter_map(|name| id("group", name, group(name)))
                .collect(),
        };
        (access, unknown)
    }

    /// Are there writers beside the daemon's own?
    pub(super) fn names_others(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }

    /// FP2.
    pub(super) fn may_write(&self, peer: &Peer) -> bool {
        peer.uid == 0
            || peer.uid == self.own_uid
            || peer.is_in(self.own_gid)
            || self.users.contains(&peer.uid)
            || self.groups.iter().any(|group| peer.is_in(*group))
    }

    /// FP2, of a user who is not connected: the owner of a file. May wait for the user database.
    #[must_use]
    pub fn may_write_as(&self, uid: u32) -> bool {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        match user {
            Some(user) => self.may_write(&Peer::look_up(uid, user.gid.as_raw())),
            None => uid == 0 || uid == self.own_uid || self.users.contains(&uid),
        }
    }

    /// FP2, with what to do about it.
    pub(super) fn check_write(&self, peer: &Peer) -> Result<(), Status> {
        if self.may_write(peer) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "{} may not write; the daemon's administrator can allow it with `write_users` or `write_groups` under [access] in its configuration",
            peer.name()
        )))
    }
}

/// FP3: may `peer` read the file at `snapshot`?
pub(super) fn check_read(peer: &Peer, snapshot: &Path) -> Result<(), Status> {
    let found = std::fs::symlink_metadata(snapshot).map_err(|error| {
        Status::unavailable(format!(
            "the snapshot {snapshot:?} cannot be looked at: {error}"
        ))
    })?;
    if reads(peer, found.uid(), found.gid(), found.mode()) {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "{} may not read: the snapshot {snapshot:?} has mode {:04o}; the daemon's administrator can change it with `snapshot_mode`",
        peer.name(),
        found.mode() & 0o7777
    )))
}

/// The first class that fits decides, as everywhere.
fn reads(peer: &Peer, owner: u32, group: u32, mode: u32) -> bool {
    let bit = if peer.uid == owner {
        0o400
    } else if peer.is_in(group) {
        0o040
    } else {
        0o004
    };
    peer.uid == 0 || mode & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            uid,
            gid,
            user: None,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn writers_are_root_the_daemons_own_and_those_who_are_named() {
        let access = Access {
            own_uid: 10,
            own_gid: 20,
            users: vec![11],
            groups: vec![21],
        };
        for (peer, may) in [
            (peer(0, 5, &[]), true),
            (peer(10, 5, &[]), true),
            (peer(9, 20, &[]), true),
            (peer(9, 5, &[6, 20]), true),
            (peer(11, 5, &[]), true),
            (peer(9, 21, &[]), true),
            (peer(9, 5, &[21]), true),
            (peer(9, 0, &[0, 10, 11]), false),
            (peer(20, 10, &[]), false),
        ] {
            assert_eq!(access.may_write(&peer), may, "{peer:?}");
            if let Err(refused) = access.check_write(&peer) {
                assert!(refused.message().contains("write_users"), "{refused}");
                assert!(
                    refused.message().contains(&format!("uid {}", peer.uid)),
                    "{refused}"
                );
            }
        }
    }

    #[test]
    fn reading_goes_by_the_first_class_that_fits() {
        for mode in 0..0o1000 {
            let may = |peer: Peer| reads(&peer, 1, 2, mode);
            assert!(may(peer(0, 0, &[])));
            assert_eq!(may(peer(1, 2, &[])), mode & 0o400 != 0, "{mode:o}");
            assert_eq!(may(peer(3, 2, &[])), mode & 0o040 != 0, "{mode:o}");
            assert_eq!(may(peer(3, 4, &[2])), mode & 0o040 != 0, "{mode:o}");
            assert_eq!(may(peer(3, 4, &[5])), mode & 0o004 != 0, "{mode:o}");
        }
    }

    #[test]
    fn names_are_looked_up_and_unknown_ones_are_told() {
        let (access, unknown) = Access::resolve(
            &[
                "root".to_owned(),
                "77".to_owned(),
                "no-such-user".to_owned(),
            ],
            &["root".to_owned(), "no-such-group".to_owned()],
        );
        assert_eq!((access.users, access.groups), (vec![0, 77], vec![0]));
        assert_eq!(unknown.len(), 2, "{unknown:?}");
        assert!(unknown[0].contains("no-such-user") && unknown[1].contains("write_groups"));
    }
}
