//! Names of one inode, decided about together: they have one content and one set of attributes here, while each has a
//! version of its own on the storage.
//!
//! * Content that another device gave to one name is that of all. Names whose own vlobs do not have it yet wait for
//!   upload: the device that wrote may not get to them.
//! * What changed on both sides is kept once beside them, not once for each name.
//! * A name whose version says that it left (an official client changed it) takes that content; what was written here
//!   stays with the others. So does a name that others gave another content than the newest one.
//! * A name that was removed here does not come back for what others wrote, where another name has it too.
//! * Attributes that differ from those here are those of all.

use std::collections::BTreeSet;

use parsecfs_core::{
    id::VlobId,
    manifest::{Extension, FileManifest, Manifest},
    merge::{self, FileContent},
};

use super::{Content, Merging, Work};
use crate::error::Result;

impl Merging<'_> {
    pub(super) fn settle_links(&mut self) -> Result<()> {
        let wanted: Vec<_> = self.works.iter().filter(|(_, work)| work.wanted).map(|(id, _)| *id).collect();
        for id in wanted {
            if self.is_under_another_name(id)? {
                self.with_work(id, |work| work.wanted = false);
            }
        }
        let mut seen = BTreeSet::new();
        let linked: Vec<(VlobId, Vec<VlobId>)> =
            self.works.iter().filter_map(|(id, work)| Some((*id, work.other_names()?.to_vec()))).collect();
        for (id, others) in linked {
            if seen.insert(id) {
                seen.extend(others.iter().copied());
                let names: BTreeSet<_> = others.into_iter().chain([id]).collect();
                self.settle_names(&names)?;
            }
        }
        Ok(())
    }

    fn settle_names(&mut self, names: &BTreeSet<VlobId>) -> Result<()> {
        let Some(here) = names.iter().find_map(|id| self.works.get(id)?.local.clone()) else { return Ok(()) };
        let group = here.extension.link_group;
        let (told, silent): (Vec<_>, Vec<_>) = names.iter().copied().partition(|id| self.works.contains_key(id));
        let stays = |work: &Work| work.attributes.extension.link_group == group;
        let (staying, leaving): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|id| self.works.get(id).is_some_and(stays));
        // Somebody has to keep what was written here.
        let first_keeps = staying.is_empty() && silent.is_empty();
        for id in leaving.iter().skip(usize::from(first_keeps)) {
            self.with_work(*id, Work::take_content);
        }
        let newest = self.newest(&staying);
        if let Some(newest) = &newest {
            for id in staying.iter().filter(|id| **id != newest.id) {
                self.with_work(*id, |work| work.follow(newest));
            }
        }
        let shared = self.shared_extension(&here.extension, &staying);
        for id in &staying {
            self.with_work(*id, |work| work.share(&shared, group));
        }
        if newest.is_some() || shared != here.extension {
            for id in silent {
                if let Some(work) = self.work(id)? {
                    (work.touched, work.need_sync) = (true, true);
                    work.share(&shared, group);
                }
            }
        }
        Ok(())
    }

    /// Whether the content that a version brings to a name that was removed here is that of another name.
    fn is_under_another_name(&mut self, id: VlobId) -> Result<bool> {
        let Some(work) = self.works.get(&id) else { return Ok(false) };
        let (Some(local), Some(remote)) = (&work.local, work.remote_file().cloned()) else { return Ok(false) };
        if local.removed.is_none() {
            return Ok(false);
        }
        for other in local.links.clone() {
            let known = self.work(other)?.and_then(|other| other.base());
            if matches!(known, Some(Manifest::File(file)) if merge::same_content(file, &remote)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn with_work(&mut self, id: VlobId, change: impl FnOnce(&mut Work)) {
        if let Some(work) = self.works.get_mut(&id) {
            change(work);
        }
    }

    /// The version that brings content of others, the newest if there are several.
    fn newest(&self, names: &[VlobId]) -> Option<FileManifest> {
        let works = names.iter().filter_map(|id| self.works.get(id));
        let brings = works.filter(|work| {
            matches!(work.content, Content::File(FileContent::Remote | FileContent::Both)) && work.brings_content()
        });
        brings.filter_map(Work::remote_file).max_by_key(|file| (file.updated, file.id)).cloned()
    }

    /// What these versions make of the attributes here.
    fn shared_extension(&self, here: &Extension, names: &[VlobId]) -> Extension {
        let works = names.iter().filter_map(|id| self.works.get(id));
        works.fold(here.clone(), |shared, work| merge::extensions(Some(here), &shared, &work.attributes.extension))
    }
}

impl Work {
    /// The other names of its inode, while it is a name.
    fn other_names(&self) -> Option<&[VlobId]> {
        let local = self.local.as_ref()?;
        (local.removed.is_none() && !local.links.is_empty()).then_some(&local.links)
    }

    fn remote_file(&self) -> Option<&FileManifest> {
        match self.remote.as_ref()? {
            Manifest::File(file) => Some(file),
            Manifest::Folder(_) => None,
        }
    }

    /// Whether the new version has another content than the base.
    fn brings_content(&self) -> bool {
        let base = self.local.as_ref().and_then(|local| local.base.as_ref());
        match (self.remote_file(), base) {
            (Some(remote), Some(Manifest::File(base))) => !merge::same_content(base, remote),
            (remote, _) => remote.is_some(),
        }
    }

    /// Has the content of its vlob from now on.
    fn take_content(&mut self) {
        if self.remote.is_some() {
            self.content = Content::File(FileContent::Remote);
        }
    }

    /// Another name of the inode brings this content.
    fn follow(&mut self, newest: &FileManifest) {
        let has_it = self.remote_file().is_some_and(|remote| merge::same_content(remote, newest));
        if has_it {
            self.take_content();
        } else if self.brings_content() && self.content != Content::File(FileContent::Local) {
            self.take_content();
            self.attributes.extension.link_group = None;
            self.need_sync = true;
        } else {
            self.content = Content::File(FileContent::Local);
            self.need_sync = true;
        }
    }

    /// Has these attributes, if it stays in the group.
    fn share(&mut self, shared: &Extension, group: Option<[u8; 16]>) {
        if self.attributes.extension.link_group != group {
            return;
        }
        let mine =
            Extension { link_group: group, unknown: self.attributes.extension.unknown.clone(), ..shared.clone() };
        let stored = self.remote.as_ref().map(|remote| remote.extension().cloned().unwrap_or_default());
        self.need_sync |= stored.is_some_and(|stored| stored != mine);
        self.attributes.extension = mine;
    }
}
