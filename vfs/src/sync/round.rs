//! One round of merging: newer remote versions in, one batch of tree updates out.
//!
//! `core::merge` decides about single entries; here is what follows for the tree:
//!
//! * A file that changed on both sides gets a copy beside it.
//! * A child that was removed on the storage stays while something in it is not stored yet.
//! * An entry that was removed here and whose content another device changed meanwhile comes back, with the folders
//!   above it. The device that removed it does this, because it knows what it had not seen.
//! * An entry stands in one folder: a listing that lost to a move elsewhere goes away.
//! * Two folders moved into each other are separated: a move that is not stored yet yields; between stored ones the
//!   folder with the smallest id goes to the root.
//! * Entries that are names of one inode here are decided about together ([`links`]).
//! * An unknown entry that no folder lists is left out; inbound reads it when a folder lists it.
//!
//! Runs on the blocking pool; no clock, no storage.

mod links;

use std::collections::{BTreeMap, BTreeSet};

use parsecfs_core::{
    id::{DeviceId, VlobId},
    manifest::{Extension, FileManifest, FolderManifest, Manifest},
    merge::{self, Attributes, FileContent, LocalFile, LocalSlot, Origin, names},
    name::EntryName,
};

use crate::{
    error::{Error, ErrorKind, Result},
    tree::{LocalContent, LocalEntry, LocalTree, Merged, MergedContent, SlotState, TreeUpdate},
};

/// Name of what has lost its name.
const NAMELESS: &str = "lost+found";

/// What a round needs to know beside the manifests.
pub(super) struct RoundContext<'a> {
    pub(super) tree: &'a dyn LocalTree,
    pub(super) device: DeviceId,
    pub(super) root: VlobId,
    /// Makes ids.
    pub(super) random: &'a dyn Fn() -> [u8; 16],
}

/// The decisions of a round.
pub(super) struct Round {
    pub(super) updates: Vec<TreeUpdate>,
    /// Copies made.
    pub(super) conflicts: usize,
    /// Entries that are a file on one side and a folder on the other: left alone.
    pub(super) contradictory: Vec<VlobId>,
}

/// Merges these versions, each of another entry, into the tree as it is now.
pub(super) fn merge_round(context: &RoundContext<'_>, remotes: &[Manifest]) -> Result<Round> {
    let mut merging = Merging::new(context);
    merging.take_files(remotes)?;
    merging.settle_links()?;
    merging.take_folders(remotes)?;
    merging.follow_listings()?;
    merging.bring_back()?;
    merging.drop_lost_listings()?;
    merging.break_cycles()?;
    merging.fork()?;
    merging.finish()
}

type Children = BTreeMap<EntryName, VlobId>;

/// Content of an entry in the making.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Folder(Children),
    File(FileContent),
}

/// An entry in the making.
struct Work {
    local: Option<LocalEntry>,
    /// The new base.
    remote: Option<Manifest>,
    attributes: Attributes,
    content: Content,
    need_sync: bool,
    /// Has to be put.
    touched: bool,
    /// Others put something in it: should it be removed here, it comes back.
    wanted: bool,
}

impl Work {
    fn children(&self) -> Option<&Children> {
        match &self.content {
            Content::Folder(children) => Some(children),
            Content::File(_) => None,
        }
    }

    /// The children, to be changed by this round: then the folder needs an upload.
    fn edit(&mut self) -> Option<&mut Children> {
        let Content::Folder(children) = &mut self.content else { return None };
        self.touched = true;
        self.need_sync = true;
        Some(children)
    }

    /// What is on the storage.
    fn base(&self) -> Option<&Manifest> {
        self.remote.as_ref().or_else(|| self.local.as_ref()?.base.as_ref())
    }
}

struct Merging<'a> {
    context: &'a RoundContext<'a>,
    works: BTreeMap<VlobId, Work>,
    /// What each folder that was asked about lists.
    listed: BTreeMap<VlobId, BTreeSet<VlobId>>,
    updates: Vec<TreeUpdate>,
    conflicts: usize,
    contradictory: Vec<VlobId>,
}

impl<'a> Merging<'a> {
    fn new(context: &'a RoundContext<'a>) -> Self {
        Self {
            context,
            works: BTreeMap::new(),
            listed: BTreeMap::new(),
            updates: Vec::new(),
            conflicts: 0,
            contradictory: Vec::new(),
        }
    }

    /// The local state of an entry with a newer version; `None` when the version is old news.
    fn outdated(&self, remote: &Manifest) -> Result<Option<Option<LocalEntry>>> {
        let local = self.context.tree.load(remote.id())?;
        let base = local.as_ref().and_then(|entry| entry.base.as_ref());
        let news = base.is_none_or(|base| base.version() < remote.version());
        Ok(news.then_some(local))
    }

    fn origin(&self, base: Option<&Manifest>, remote: &Manifest) -> Origin {
        let next = base.map_or(0, Manifest::version) + 1 == remote.version();
        if next && remote.author() == self.context.device { Origin::Own } else { Origin::Other }
    }

    fn take_files(&mut self, remotes: &[Manifest]) -> Result<()> {
        for manifest in remotes {
            let Manifest::File(remote) = manifest else { continue };
            let Some(local) = self.outdated(manifest)? else { continue };
            let work = match local {
                None => Some(unknown(manifest)),
                Some(local) => self.merge_file(local, remote)?,
            };
            self.keep_work(remote.id, work);
        }
        Ok(())
    }

    fn keep_work(&mut self, id: VlobId, work: Option<Work>) {
        match work {
            Some(work) => drop(self.works.insert(id, work)),
            None => self.contradictory.push(id),
        }
    }

    fn merge_file(&self, local: LocalEntry, remote: &FileManifest) -> Result<Option<Work>> {
        let manifest = Manifest::File(remote.clone());
        let base = match &local.base {
            Some(Manifest::File(base)) => Some(base),
            Some(Manifest::Folder(_)) => return Ok(None),
            None => None,
        };
        let LocalContent::File { .. } = &local.content else { return Ok(None) };
        let origin = self.origin(local.base.as_ref(), &manifest);
        let attributes = attributes(&local);
        let content = self.local_file(&local, remote)?;
        let merged = merge::file(base, &attributes, &content, remote, origin);
        let changed = base.is_none_or(|base| !merge::same_content(base, remote));
        let remote = with_extension(manifest, &merged.remote_extension);
        let mut work = Work {
            attributes: merged.attributes,
            content: Content::File(merged.content),
            need_sync: merged.need_sync,
            touched: true,
            wanted: changed && remote.author() != self.context.device,
            local: Some(local),
            remote: Some(remote),
        };
        if work.local.as_ref().is_some_and(|local| local.removed.is_some()) {
            work.take_remote();
        }
        Ok(Some(work))
    }

    /// Content on this device, with the digests that decide whether both sides hold the same.
    fn local_file(&self, local: &LocalEntry, remote: &FileManifest) -> Result<LocalFile> {
        let LocalContent::File { size, blocksize, slots } = &local.content else {
            return Err(Error::new(ErrorKind::Internal, "a file was expected"));
        };
        let local_slots = slots.iter().map(|(slot, state)| match state {
            SlotState::Synced(block) => (*slot, LocalSlot::Synced(*block)),
            SlotState::Dirty => (*slot, LocalSlot::Dirty(None)),
        });
        let mut file = LocalFile { size: *size, blocksize: *blocksize, slots: local_slots.collect() };
        if file.may_equal(remote) {
            for (slot, state) in &mut file.slots {
                let LocalSlot::Dirty(digest) = state else { continue };
                let bytes = self.context.tree.slot(local.id, local.change, *slot)?.ok_or(ErrorKind::Stale)?;
                *digest = Some(*parsecfs_crypto::sha256(&bytes).as_bytes());
            }
        }
        Ok(file)
    }

    /// Folders come after files: whether a child stays depends on where it went.
    fn take_folders(&mut self, remotes: &[Manifest]) -> Result<()> {
        let mut folders = Vec::new();
        for manifest in remotes {
            let Manifest::Folder(remote) = manifest else { continue };
            let Some(local) = self.outdated(manifest)? else { continue };
            match local {
                None => self.keep_work(remote.id, Some(unknown(manifest))),
                Some(local) => {
                    let work = self.merge_folder(local, remote, &BTreeMap::new());
                    if work.is_some() {
                        folders.push(remote);
                    }
                    self.keep_work(remote.id, work);
                }
            }
        }
        // Now it is known where everything is. What is not stored keeps its place, unless it has moved.
        if !folders.iter().any(|folder| self.removes_something(folder)) {
            return Ok(());
        }
        let unsynced = self.unsynced()?;
        for remote in folders {
            let work = self.works.remove(&remote.id).and_then(|work| work.local);
            if let Some(local) = work {
                let work = self.merge_folder(local, remote, &unsynced);
                self.keep_work(remote.id, work);
            }
        }
        Ok(())
    }

    fn merge_folder(
        &self,
        local: LocalEntry,
        remote: &FolderManifest,
        unsynced: &BTreeMap<VlobId, VlobId>,
    ) -> Option<Work> {
        let manifest = Manifest::Folder(remote.clone());
        let base = match &local.base {
            Some(Manifest::Folder(base)) => Some(base),
            Some(Manifest::File(_)) => return None,
            None => None,
        };
        let LocalContent::Folder { children } = &local.content else { return None };
        let origin = self.origin(local.base.as_ref(), &manifest);
        let stays = |child: VlobId| {
            let parent = self.works.get(&child).map(|work| work.attributes.parent);
            let parent = unsynced.get(&child).map(|local| parent.unwrap_or(*local));
            parent == Some(remote.id)
        };
        let merged = merge::folder(base, &attributes(&local), children, remote, origin, stays);
        let others = manifest.author() != self.context.device;
        Some(Work {
            wanted: others && !merged.children.is_empty() && base.is_none_or(|base| base.children != remote.children),
            local: Some(local),
            remote: Some(with_extension(manifest, &merged.remote_extension)),
            attributes: merged.attributes,
            content: Content::Folder(merged.children),
            need_sync: merged.need_sync,
            touched: true,
        })
    }

    fn removes_something(&self, remote: &FolderManifest) -> bool {
        let local = self.works.get(&remote.id).and_then(|work| work.local.as_ref());
        let Some(LocalContent::Folder { children }) = local.map(|local| &local.content) else { return false };
        let stored: BTreeSet<_> = remote.children.values().collect();
        children.values().any(|child| !stored.contains(child))
    }

    /// Entries that are not stored yet and the folders above them, each with its parent here.
    fn unsynced(&self) -> Result<BTreeMap<VlobId, VlobId>> {
        let mut found = BTreeMap::new();
        for pending in self.context.tree.pending(usize::MAX)? {
            let mut id = pending.id;
            while !found.contains_key(&id) {
                let Some(entry) = self.context.tree.load(id)? else { break };
                found.insert(id, entry.parent);
                id = entry.parent;
            }
        }
        Ok(found)
    }

    /// The entry in the making, from the tree if this round has not met it yet.
    fn work(&mut self, id: VlobId) -> Result<Option<&mut Work>> {
        if !self.works.contains_key(&id) {
            let Some(local) = self.context.tree.load(id)? else { return Ok(None) };
            self.works.insert(id, untouched(local));
        }
        Ok(self.works.get_mut(&id))
    }

    fn lists(&mut self, folder: VlobId, child: VlobId) -> Result<bool> {
        if !self.listed.contains_key(&folder) {
            let children = self.work(folder)?.and_then(|work| work.children());
            let children = children.map(|children| children.values().copied().collect()).unwrap_or_default();
            self.listed.insert(folder, children);
        }
        Ok(self.listed.get(&folder).is_some_and(|children| children.contains(&child)))
    }

    fn is_listed(&mut self, id: VlobId) -> Result<bool> {
        let Some(parent) = self.work(id)?.map(|work| work.attributes.parent) else { return Ok(false) };
        Ok(id == self.context.root || self.lists(parent, id)?)
    }

    /// Whether the tree knows the entry, or learns in this round where it is.
    fn has_place(&mut self, id: VlobId) -> Result<bool> {
        let mut id = id;
        let mut seen = BTreeSet::new();
        while id != self.context.root && seen.insert(id) {
            let Some(work) = self.work(id)? else { return Ok(false) };
            let parent = work.attributes.parent;
            if work.local.is_some() {
                return Ok(true);
            }
            if !self.lists(parent, id)? {
                return Ok(false);
            }
            id = parent;
        }
        Ok(id == self.context.root)
    }

    /// What was moved and then removed here, and is still listed where the storage has it, is back there: the move is
    /// as void as the removal.
    fn follow_listings(&mut self) -> Result<()> {
        let mut again = Vec::new();
        for (folder, work) in &self.works {
            let (Some(local), Some(children)) = (&work.local, work.children()) else { continue };
            let LocalContent::Folder { children: before } = &local.content else { continue };
            let before: BTreeSet<_> = before.values().collect();
            let new = children.values().filter(|id| !before.contains(id) && !self.works.contains_key(id));
            again.extend(new.map(|id| (*id, *folder)));
        }
        for (id, folder) in again {
            let Some(work) = self.work(id)? else { continue };
            if work.local.as_ref().is_some_and(|local| local.removed.is_some()) && work.attributes.parent != folder {
                self.move_to(id, folder)?;
            }
        }
        Ok(())
    }

    fn bring_back(&mut self) -> Result<()> {
        let wanted: Vec<_> = self.works.iter().filter(|(_, work)| work.wanted).map(|(id, _)| *id).collect();
        for id in wanted {
            if self.was_removed_here(id)? {
                self.list_again(id)?;
            }
        }
        // Whatever else happened to folders: what is not stored yet stays where it can be found.
        let only_here = |work: &Work| {
            matches!(work.content, Content::File(FileContent::Local | FileContent::Both))
                && work.remote.is_some()
                && work.local.as_ref().is_some_and(|local| local.removed.is_none())
        };
        let dirty: Vec<_> = self.works.iter().filter(|(_, work)| only_here(work)).map(|(id, _)| *id).collect();
        for id in dirty {
            self.list_again(id)?;
        }
        Ok(())
    }

    /// Whether the way to the root breaks at something that was removed here, before this round.
    fn was_removed_here(&mut self, id: VlobId) -> Result<bool> {
        let mut id = id;
        let mut seen = BTreeSet::new();
        while id != self.context.root && seen.insert(id) {
            let listed = self.is_listed(id)?;
            let Some(work) = self.work(id)? else { return Ok(false) };
            if !listed {
                return Ok(work.local.as_ref().is_some_and(|local| local.removed.is_some()));
            }
            id = work.attributes.parent;
        }
        Ok(false)
    }

    /// Lists an entry in its folder, and the folder in its own, up to the root.
    fn list_again(&mut self, id: VlobId) -> Result<()> {
        let mut id = id;
        let mut seen = BTreeSet::new();
        while id != self.context.root && seen.insert(id) {
            if self.is_listed(id)? {
                let Some(work) = self.work(id)? else { return Ok(()) };
                id = work.attributes.parent;
                continue;
            }
            let name = self.name_of(id)?;
            let Some(work) = self.work(id)? else { return Ok(()) };
            let mut parent = work.attributes.parent;
            let is_folder = self.work(parent)?.is_some_and(|work| work.children().is_some());
            if !is_folder {
                parent = self.place_for(id)?;
                self.move_to(id, parent)?;
            }
            self.list(parent, id, name)?;
            id = parent;
        }
        Ok(())
    }

    /// Where an entry goes whose folder is not known: where it was, or the root.
    fn place_for(&mut self, id: VlobId) -> Result<VlobId> {
        let here = self.work(id)?.and_then(|work| work.local.as_ref()).map(|local| local.parent);
        if let Some(here) = here
            && self.work(here)?.is_some_and(|work| work.children().is_some())
        {
            return Ok(here);
        }
        Ok(self.context.root)
    }

    /// Adds a child under this name, or under a free one made from it.
    fn list(&mut self, folder: VlobId, id: VlobId, name: EntryName) -> Result<()> {
        let Some(children) = self.work(folder)?.and_then(Work::edit) else { return Ok(()) };
        let name = match children.get(&name) {
            Some(other) if *other != id => names::name_conflict(&name, |name| children.contains_key(name)),
            _ => name,
        };
        children.insert(name, id);
        self.listed.remove(&folder);
        Ok(())
    }

    fn unlist(&mut self, folder: VlobId, id: VlobId) -> Result<()> {
        if self.lists(folder, id)? {
            if let Some(children) = self.work(folder)?.and_then(Work::edit) {
                children.retain(|_, child| *child != id);
            }
            self.listed.remove(&folder);
        }
        Ok(())
    }

    fn move_to(&mut self, id: VlobId, parent: VlobId) -> Result<()> {
        if let Some(work) = self.work(id)? {
            work.attributes.parent = parent;
            work.touched = true;
            work.need_sync |= work.base().is_none_or(|base| base.parent() != parent);
        }
        Ok(())
    }

    /// The name of an entry: where it is listed, where it was listed here, or none.
    fn name_of(&mut self, id: VlobId) -> Result<EntryName> {
        let Some(work) = self.work(id)? else { return Ok(nameless()) };
        let removed = work.local.as_ref().and_then(|local| local.removed.clone());
        let mut folders = vec![work.attributes.parent];
        folders.extend(work.local.as_ref().map(|local| local.parent));
        folders.extend(work.base().map(Manifest::parent));
        for folder in folders {
            if let Some(name) = self.work(folder)?.and_then(|folder| name_in(folder, id)) {
                return Ok(name);
            }
        }
        Ok(removed.unwrap_or_else(nameless))
    }

    /// Where the parent changed, the folder that this device alone listed the entry in lets go of it.
    fn drop_lost_listings(&mut self) -> Result<()> {
        let moved: Vec<_> = self
            .works
            .iter()
            .filter_map(|(id, work)| {
                let here = work.local.as_ref()?.parent;
                (here != work.attributes.parent).then_some((*id, here))
            })
            .collect();
        for (id, folder) in moved {
            let stored = self.work(folder)?.and_then(|work| match work.base()? {
                Manifest::Folder(base) => Some(base.children.values().any(|child| *child == id)),
                Manifest::File(_) => None,
            });
            if stored != Some(true) {
                self.unlist(folder, id)?;
            }
        }
        Ok(())
    }

    fn break_cycles(&mut self) -> Result<()> {
        let folders: Vec<_> =
            self.works.iter().filter(|(_, work)| work.children().is_some()).map(|(id, _)| *id).collect();
        for folder in folders {
            while let Some(cycle) = self.cycle_through(folder)? {
                self.break_cycle(&cycle)?;
            }
        }
        Ok(())
    }

    /// The folders from this one upwards, if the way leads back.
    fn cycle_through(&mut self, folder: VlobId) -> Result<Option<Vec<VlobId>>> {
        let mut way = Vec::new();
        let mut id = folder;
        while id != self.context.root {
            if let Some(start) = way.iter().position(|seen| *seen == id) {
                return Ok(Some(way.split_off(start)));
            }
            way.push(id);
            let Some(work) = self.work(id)? else { return Ok(None) };
            id = work.attributes.parent;
        }
        Ok(None)
    }

    fn break_cycle(&mut self, cycle: &[VlobId]) -> Result<()> {
        let mut chosen = None;
        for id in cycle {
            let Some(work) = self.work(*id)? else { continue };
            let stored = work.base().map(Manifest::parent);
            let yields = stored.filter(|stored| *stored != work.attributes.parent && !cycle.contains(stored));
            if let Some(parent) = yields {
                chosen = Some((*id, parent));
                break;
            }
        }
        let smallest = cycle.iter().min().copied().map(|id| (id, self.context.root));
        let Some((id, parent)) = chosen.or(smallest) else { return Ok(()) };
        let name = self.name_of(id)?;
        let Some(from) = self.work(id)?.map(|work| work.attributes.parent) else { return Ok(()) };
        self.unlist(from, id)?;
        self.move_to(id, parent)?;
        if self.lists(parent, id)? { Ok(()) } else { self.list(parent, id, name) }
    }

    /// Gives the local content of files that changed on both sides a place of its own.
    fn fork(&mut self) -> Result<()> {
        let both = Content::File(FileContent::Both);
        let forked: Vec<_> = self.works.iter().filter(|(_, work)| work.content == both).map(|(id, _)| *id).collect();
        for id in forked {
            self.list_again(id)?;
            let name = self.name_of(id)?;
            let Some(work) = self.works.get(&id) else { continue };
            let (Some(local), parent) = (&work.local, work.attributes.parent) else { continue };
            let seen = local.change;
            let copy = VlobId::from_bytes((self.context.random)());
            let Some(children) = self.work(parent)?.and_then(Work::edit) else { continue };
            let name = names::content_conflict(&name, |name| children.contains_key(name));
            children.insert(name.clone(), copy);
            self.listed.remove(&parent);
            self.updates.push(TreeUpdate::Fork { id, seen, copy, parent, name });
            self.conflicts += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Round> {
        let ids: Vec<_> = self.works.iter().filter(|(_, work)| work.touched).map(|(id, _)| *id).collect();
        let mut placed = BTreeSet::new();
        for id in ids {
            if self.has_place(id)? {
                placed.insert(id);
            }
        }
        let works = std::mem::take(&mut self.works).into_iter().filter(|(id, _)| placed.contains(id));
        self.updates.extend(works.map(|(id, work)| update(id, work)));
        Ok(Round { updates: self.updates, conflicts: self.conflicts, contradictory: self.contradictory })
    }
}

impl Work {
    /// A removed file has no local side.
    fn take_remote(&mut self) {
        let Some(remote) = &self.remote else { return };
        self.attributes = Attributes {
            parent: remote.parent(),
            created: remote.created(),
            updated: remote.updated(),
            extension: remote.extension().cloned().unwrap_or_default(),
        };
        self.content = Content::File(FileContent::Remote);
        self.need_sync = false;
    }

    /// Whether the entry here is what the remote version says, so that only its base changes.
    fn already_here(&self) -> bool {
        let Some(local) = &self.local else { return false };
        self.content == Content::File(FileContent::Equal)
            && !self.need_sync
            && local.removed.is_none()
            && local.parent == self.attributes.parent
            && local.extension == self.attributes.extension
    }
}

fn update(id: VlobId, work: Work) -> TreeUpdate {
    let seen = work.local.as_ref().map(|local| local.change);
    if work.already_here()
        && let (Some(seen), Some(manifest)) = (seen, &work.remote)
    {
        return TreeUpdate::Uploaded { seen, manifest: manifest.clone() };
    }
    let Attributes { parent, created, updated, extension } = work.attributes;
    let content = match work.content {
        Content::Folder(children) => MergedContent::Folder(children),
        Content::File(FileContent::Local) => MergedContent::LocalFile,
        Content::File(FileContent::Equal) if work.need_sync => MergedContent::LocalFile,
        Content::File(_) if work.remote.is_none() => MergedContent::LocalFile,
        Content::File(_) => MergedContent::RemoteFile,
    };
    let local = Merged { parent, created, updated, extension, content, need_sync: work.need_sync };
    TreeUpdate::Put { id, seen, base: work.remote, local }
}

fn attributes(local: &LocalEntry) -> Attributes {
    Attributes {
        parent: local.parent,
        created: local.created,
        updated: local.updated,
        extension: local.extension.clone(),
    }
}

/// An entry that only the tree knows.
fn untouched(local: LocalEntry) -> Work {
    let content = match &local.content {
        LocalContent::Folder { children } => Content::Folder(children.clone()),
        LocalContent::File { .. } => Content::File(FileContent::Local),
    };
    Work {
        attributes: attributes(&local),
        content,
        need_sync: local.need_sync,
        touched: false,
        wanted: false,
        local: Some(local),
        remote: None,
    }
}

/// An entry that only the storage knows.
fn unknown(remote: &Manifest) -> Work {
    let content = match remote {
        Manifest::File(_) => Content::File(FileContent::Remote),
        Manifest::Folder(folder) => Content::Folder(folder.children.clone()),
    };
    Work {
        attributes: Attributes {
            parent: remote.parent(),
            created: remote.created(),
            updated: remote.updated(),
            extension: remote.extension().cloned().unwrap_or_default(),
        },
        content,
        need_sync: false,
        touched: true,
        wanted: false,
        local: None,
        remote: Some(remote.clone()),
    }
}

/// The base remembers attributes that its author's client did not know.
fn with_extension(mut manifest: Manifest, extension: &Extension) -> Manifest {
    if manifest.extension().is_none() && *extension != Extension::default() {
        *manifest.extension_mut() = Some(extension.clone());
    }
    manifest
}

fn name_in(folder: &Work, id: VlobId) -> Option<EntryName> {
    let find = |children: &Children| children.iter().find(|(_, child)| **child == id).map(|(name, _)| name.clone());
    folder.children().and_then(find).or_else(|| match folder.local.as_ref()?.base.as_ref()? {
        Manifest::Folder(base) => find(&base.children),
        Manifest::File(_) => None,
    })
}

fn nameless() -> EntryName {
    EntryName::new(NAMELESS).expect("a plain word is a name")
}
