//! Two devices that share a workspace, and may differ until they have settled.

use std::collections::BTreeSet;

use parsecfs_core::{id::RealmId, storage::Capabilities};

use crate::simulation::{Device, Party, TreeKind};

/// The devices and where they meet.
pub struct Pair {
    /// Everybody, and the storage.
    pub party: Party,
    /// The workspace.
    pub realm: RealmId,
    /// The first device.
    pub one: Device,
    /// The other.
    pub two: Device,
}

impl Pair {
    /// Two devices on a new workspace, of a party of so many.
    pub async fn new(members: usize, kind: TreeKind, capabilities: Capabilities) -> Self {
        let party = Party::new(members, capabilities).await;
        let realm = party.workspace().await;
        let (one, two) = (party.device(0, realm, kind), party.device(1, realm, kind));
        Self { party, realm, one, two }
    }

    /// Both of them.
    pub fn both(&self) -> [&Device; 2] {
        [&self.one, &self.two]
    }

    /// They sync until both have the same.
    pub async fn settle(&self) {
        settle(&self.both()).await;
    }
}

/// Devices sync by turns until all have the same.
///
/// # Panics
///
/// When they do not get there.
pub async fn settle(devices: &[&Device]) {
    for _ in 0..4 {
        for device in devices {
            device.sync().await;
        }
    }
    let first = devices[0].content().await;
    for device in devices {
        assert!(device.is_synced());
        let content = device.content().await;
        let differ = content.keys().chain(first.keys()).filter(|path| content.get(*path) != first.get(*path));
        let differ: BTreeSet<_> = differ.collect();
        assert!(differ.is_empty(), "devices differ at {differ:?}");
    }
}
