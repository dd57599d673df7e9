//! What goes up next, and which blocks a file needs for that. Pure.

use std::collections::{BTreeMap, BTreeSet};

use parsecfs_core::{
    id::{BlockId, VlobId},
    manifest::{BlockAccess, Manifest},
};

use crate::{
    blocksize::{Limits, Listed, larger},
    tree::{LocalContent, LocalEntry, PendingEntry, SlotState},
};

/// A file with more dirty bytes than this does not hold up the folder that lists it: others see the folder's other
/// entries meanwhile, and this one when it is there.
const LARGE_FILE_BYTES: u64 = 16 << 20;

/// Which pending entries may go up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// All of them.
    All,
    /// Those that did not change for a while, or wait for long.
    Quiet {
        /// Nanoseconds since the epoch.
        now_ns: i64,
        /// When sync began: what waited then counts as changed then. Whoever mounts is about to use the machine.
        began_ns: i64,
        /// How long an entry must not have changed.
        quiet_ns: i64,
        /// How long a change may wait.
        quiet_max_ns: i64,
    },
}

/// Entries that go up now, in this order: small files, folders, large files, folders that must come after one.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By dirty bytes.
    pub(super) small: Vec<PendingEntry>,
    pub(super) folders: Vec<PendingEntry>,
    pub(super) large: Vec<PendingEntry>,
    /// Nanoseconds until the next of the others is ready.
    pub(super) next_ns: Option<i64>,
}

/// Plans one outbound round. `since` says when each entry was first seen waiting.
pub(super) fn plan(pending: Vec<PendingEntry>, readiness: Readiness, since: &BTreeMap<VlobId, i64>) -> Plan {
    let mut plan = Plan::default();
    for entry in pending {
        let wait_ns = wait_ns(&entry, readiness, since);
        if wait_ns > 0 {
            plan.next_ns = Some(plan.next_ns.map_or(wait_ns, |next| next.min(wait_ns)));
        } else if entry.folder {
            plan.folders.push(entry);
        } else if entry.bytes > LARGE_FILE_BYTES {
            plan.large.push(entry);
        } else {
            plan.small.push(entry);
        }
    }
    plan.small.sort_by_key(|entry| entry.bytes);
    plan.large.sort_by_key(|entry| entry.bytes);
    plan
}

fn wait_ns(entry: &PendingEntry, readiness: Readiness, since: &BTreeMap<VlobId, i64>) -> i64 {
    match readiness {
        Readiness::All => 0,
        Readiness::Quiet { now_ns, began_ns, quiet_ns, quiet_max_ns } => {
            // A clock that was set back must not hold anything up: nothing changed in the future.
            let changed_ns = entry.changed_ns.max(began_ns).min(now_ns);
            let since_ns = since.get(&entry.id).copied().unwrap_or(now_ns).min(now_ns);
            (changed_ns + quiet_ns).min(since_ns + quiet_max_ns) - now_ns
        }
    }
}

/// Puts folders behind the folders in them.
pub(super) fn children_first(folders: &[(VlobId, VlobId)]) -> Vec<VlobId> {
    let parents: BTreeMap<VlobId, VlobId> = folders.iter().copied().collect();
    let depth = |id: &VlobId| {
        let (mut id, mut depth) = (*id, 0_usize);
        // Bounded, since two folders may name each other as parent.
        while let Some(parent) = parents.get(&id).filter(|parent| **parent != id && depth <= parents.len()) {
            id = *parent;
            depth += 1;
        }
        depth
    };
    let mut ids: Vec<_> = folders.iter().map(|(id, _)| (usize::MAX - depth(id), *id)).collect();
    ids.sort();
    ids.into_iter().map(|(_, id)| id).collect()
}

/// Files with at most so many slots have no holes on the storage. Longer ones do not fit on a storage that official
/// clients, whom holes stop, can read; a sparse file of terabytes would be a manifest of gigabytes.
const FILLED_SLOTS_MAX: u64 = 1 << 15;

/// What becomes of one slot of a file in its next version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotPlan {
    /// A block that is stored already.
    Reuse(BlockAccess),
    /// A new block with the bytes of this slot.
    Write(u64),
    /// The block of zeros, as nothing may be missing before the last block of a file that is not too long (formats.md 5.6).
    Zero(u64),
}

/// Decides about every slot that the next version lists. `gone` are blocks that the storage lost.
pub(super) fn plan_slots(entry: &LocalEntry, gone: &BTreeSet<BlockId>) -> Vec<SlotPlan> {
    let LocalContent::File { size, blocksize, slots } = &entry.content else { return Vec::new() };
    let (size, blocksize) = (*size, *blocksize);
    let in_file = |slot: u64| slot.checked_mul(blocksize).is_some_and(|start| start < size);
    let Some(last) = slots.keys().copied().filter(|slot| in_file(*slot)).max() else { return Vec::new() };
    let zeros = zero_block(entry, gone);
    let plan = |slot: u64| match slots.get(&slot) {
        Some(SlotState::Synced(block)) if reusable(block, slot, size, blocksize) && !gone.contains(&block.id) => {
            SlotPlan::Reuse(*block)
        }
        Some(_) => SlotPlan::Write(slot),
        None => match zeros {
            Some(block) => SlotPlan::Reuse(BlockAccess { offset: slot * blocksize, ..block }),
            None => SlotPlan::Zero(slot),
        },
    };
    if last >= FILLED_SLOTS_MAX {
        return slots.keys().copied().filter(|slot| in_file(*slot)).map(plan).collect();
    }
    (0..=last).map(plan).collect()
}

/// The block size that the file gets before it goes up, if it needs a larger one.
pub(super) fn larger_blocks(entry: &LocalEntry, limits: Limits) -> Option<u64> {
    let LocalContent::File { blocksize, slots, .. } = &entry.content else { return None };
    let mut listed = Listed { blocks: 0, kept: 0 };
    let mut last = None;
    for slot in slots.values() {
        let block = match slot {
            SlotState::Synced(block) => Some(block.id),
            SlotState::Dirty => None,
        };
        // The block of zeros, in one hole after the other.
        if block.is_none() || block != last {
            listed.blocks += 1;
            listed.kept += u64::from(block.is_some());
        }
        last = block;
    }
    larger(*blocksize, listed, limits)
}

fn reusable(block: &BlockAccess, slot: u64, size: u64, blocksize: u64) -> bool {
    let end = block.offset.checked_add(block.size);
    end.is_some_and(|end| end <= size && block.offset / blocksize == slot && (end - 1) / blocksize == slot)
}

/// The block that base repeats for holes, if it does: a hole here and one block there more than once can only be that.
fn zero_block(entry: &LocalEntry, gone: &BTreeSet<BlockId>) -> Option<BlockAccess> {
    let (Some(Manifest::File(base)), LocalContent::File { blocksize, slots, .. }) = (&entry.base, &entry.content)
    else {
        return None;
    };
    if base.blocksize != *blocksize || !base.blocks.iter().any(|block| !slots.contains_key(&(block.offset / blocksize)))
    {
        return None;
    }
    let bytes = usize::try_from(*blocksize).ok()?;
    let digest = *parsecfs_crypto::sha256(&vec![0; bytes]).as_bytes();
    base.blocks
        .iter()
        .find(|block| block.size == *blocksize && block.digest == digest && !gone.contains(&block.id))
        .copied()
}

#[cfg(test)]
mod tests {
    use parsecfs_core::{id::DeviceId, manifest::Extension, time::Timestamp};

    use super::*;
    use crate::tree::ChangeNumber;

    fn id(n: u8) -> VlobId {
        VlobId::from_bytes([n; 16])
    }

    fn pending(n: u8, changed_ns: i64, folder: bool, bytes: u64) -> PendingEntry {
        PendingEntry { id: id(n), change: ChangeNumber(1), changed_ns, folder, bytes }
    }

    fn block(n: u8, offset: u64, size: u64) -> BlockAccess {
        BlockAccess { id: BlockId::from_bytes([n; 16]), offset, size, digest: [n; 32] }
    }

    fn file(size: u64, slots: impl IntoIterator<Item = (u64, SlotState)>) -> LocalEntry {
        let time = Timestamp::from_micros(0).unwrap();
        LocalEntry {
            id: id(1),
            base: None,
            change: ChangeNumber(1),
            need_sync: true,
            parent: id(2),
            removed: None,
            created: time,
            updated: time,
            extension: Extension::default(),
            links: Vec::new(),
            content: LocalContent::File { size, blocksize: 16, slots: slots.into_iter().collect() },
        }
    }

    #[test]
    fn an_entry_waits_for_quiet_but_not_for_ever() {
        let quiet = |now_ns| Readiness::Quiet { now_ns, began_ns: 0, quiet_ns: 10, quiet_max_ns: 100 };
        let since = BTreeMap::from([(id(1), 0)]);
        assert_eq!(plan(vec![pending(1, 5, false, 0)], quiet(14), &since).next_ns, Some(1));
        assert_eq!(plan(vec![pending(1, 5, false, 0)], quiet(15), &since).small.len(), 1);
        assert_eq!(plan(vec![pending(1, 99, false, 0)], quiet(100), &since).small.len(), 1);
        assert_eq!(plan(vec![pending(1, 99, false, 0)], Readiness::All, &since).small.len(), 1);
    }

    #[test]
    fn what_waited_before_sync_began_lets_a_quiet_period_pass() {
        let quiet = |now_ns| Readiness::Quiet { now_ns, began_ns: 50, quiet_ns: 10, quiet_max_ns: 100 };
        let entry = || vec![pending(1, 5, false, 0)];
        assert_eq!(plan(entry(), quiet(50), &BTreeMap::new()).next_ns, Some(10));
        assert_eq!(plan(entry(), quiet(60), &BTreeMap::new()).small.len(), 1);
    }

    #[test]
    fn small_files_go_first() {
        let entries = vec![
            pending(1, 0, false, 20 << 20),
            pending(2, 0, false, 7),
            pending(3, 0, false, 3),
            pending(4, 0, true, 0),
        ];
        let plan = plan(entries, Readiness::All, &BTreeMap::new());
        assert_eq!(plan.small.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(3), id(2)]);
        assert_eq!((plan.folders.len(), plan.large.len()), (1, 1));
    }

    #[test]
    fn folders_follow_the_folders_in_them() {
        let order = children_first(&[(id(1), id(1)), (id(2), id(1)), (id(3), id(2)), (id(8), id(9)), (id(9), id(8))]);
        let place = |n| order.iter().position(|other| *other == id(n)).unwrap();
        assert!(place(3) < place(2) && place(2) < place(1));
        assert_eq!(order.len(), 5);
    }

    #[test]
    fn nothing_is_missing_before_the_last_block() {
        let entry = file(100, [(1, SlotState::Dirty), (3, SlotState::Synced(block(7, 48, 16)))]);
        let plan = plan_slots(&entry, &BTreeSet::new());
        assert_eq!(plan, [SlotPlan::Zero(0), SlotPlan::Write(1), SlotPlan::Zero(2), SlotPlan::Reuse(block(7, 48, 16))]);
        assert_eq!(plan_slots(&file(100, []), &BTreeSet::new()), []);
    }

    #[test]
    fn a_block_that_is_gone_or_does_not_fit_is_written_again() {
        let entry = file(20, [(0, SlotState::Synced(block(7, 0, 16))), (1, SlotState::Synced(block(8, 16, 16)))]);
        let gone = BTreeSet::from([BlockId::from_bytes([7; 16])]);
        assert_eq!(plan_slots(&entry, &gone), [SlotPlan::Write(0), SlotPlan::Write(1)]);
    }

    #[test]
    fn the_block_of_zeros_of_the_base_is_used_again() {
        let mut entry = file(48, [(2, SlotState::Dirty)]);
        let time = Timestamp::from_micros(0).unwrap();
        let zeros = BlockAccess { digest: *parsecfs_crypto::sha256(&[0; 16]).as_bytes(), ..block(7, 0, 16) };
        entry.base = Some(Manifest::File(parsecfs_core::manifest::FileManifest {
            author: DeviceId::from_bytes([1; 16]),
            timestamp: time,
            id: id(1),
            parent: id(2),
            version: 1,
            created: time,
            updated: time,
            size: 32,
            blocksize: 16,
            blocks: vec![zeros, BlockAccess { offset: 16, ..zeros }],
            extension: None,
            unknown: Default::default(),
        }));
        let plan = plan_slots(&entry, &BTreeSet::new());
        let second = BlockAccess { offset: 16, ..zeros };
        assert_eq!(plan, [SlotPlan::Reuse(zeros), SlotPlan::Reuse(second), SlotPlan::Write(2)]);
    }
}
