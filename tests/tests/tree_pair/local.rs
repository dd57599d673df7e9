//! What programs on this device do.

use parsecfs_tests::local_model::REALM;
use parsecfs_vfs::{
    fs::{Fetched, Maker, NewKind, RenameMode, SetAttributes, Times, WriteOutcome},
    tree::{LocalContent, LocalTree},
};
use rand::Rng;

use super::{Pair, Place};

impl Pair {
    /// One change by a program. It rings for sync in both.
    pub(super) fn change_here(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => self.create(),
            22..36 => self.overwrite(),
            36..52 => self.write(),
            52..62 => self.resize(),
            62..70 => self.chmod(),
            70..82 => self.remove(),
            _ => self.rename(),
        }
    }

    fn create(&mut self) {
        let (mut path, parent) = self.pick_folder();
        let (at, name, folder) = (self.ino(&path), self.pick_name(), self.rng.random_bool(0.3));
        path.push(name.clone());
        if self.fake.paths().contains_key(&path) {
            return;
        }
        let (kind, mode) = if folder { (NewKind::Folder, 0o755) } else { (NewKind::File, 0o644) };
        let maker = Maker { uid: 0, gid: 0 };
        let volume = self.volume();
        let made = volume.create(at, name.reveal().as_bytes(), kind, mode, maker);
        self.held.push(made.unwrap_or_else(|error| panic!("{self}: create {path:?}: {error:?}")).ino);
        let listed = volume.load(parent).expect("it loads").expect("it is known").content;
        let LocalContent::Folder { children } = listed else { panic!("not a folder") };
        let id = children[&name];
        self.known.insert(id);
        self.note(format!("create {path:?} folder {folder}: {id:?}"));
        self.fake.create(parent, &name, id, folder);
    }

    pub(super) fn some_bytes(&mut self, most: u64) -> Vec<u8> {
        let most = if self.rng.random_bool(0.2) { most } else { most.min(9000) };
        let length = usize::try_from(self.rng.random_range(0..=most)).expect("not much");
        vec![self.rng.random_range(1..=255); length]
    }

    /// The size and the block slot of a file.
    fn shape(&self, (_, id): &Place) -> (u64, u64) {
        match self.entry(*id).content {
            LocalContent::File { size, blocksize, .. } => (size, blocksize),
            LocalContent::Folder { .. } => panic!("not a file"),
        }
    }

    fn overwrite(&mut self) {
        let Some(file) = self.pick_file() else { return };
        let (_, blocksize) = self.shape(&file);
        let bytes = self.some_bytes(blocksize * 3);
        self.note(format!("overwrite {:?} {:?} with {}", file.0, file.1, bytes.len()));
        let ino = self.ino(&file.0);
        self.set_size(ino, 0);
        self.put_bytes(ino, 0, &bytes);
        self.fake.write(file.1, &bytes);
    }

    fn write(&mut self) {
        let Some(file) = self.pick_file() else { return };
        let (size, blocksize) = self.shape(&file);
        let (offset, bytes) = (self.rng.random_range(0..=size + blocksize), self.some_bytes(blocksize * 2));
        if bytes.is_empty() {
            return;
        }
        self.note(format!("write {:?} {:?} {} at {offset}", file.0, file.1, bytes.len()));
        let ino = self.ino(&file.0);
        self.put_bytes(ino, offset, &bytes);
        let write = self.fake.write_at(file.1, offset, &bytes, &*self.blocks);
        self.runtime.block_on(write).expect("the fake writes");
    }

    fn resize(&mut self) {
        let Some(file) = self.pick_file() else { return };
        let (size, blocksize) = self.shape(&file);
        let to = self.rng.random_range(0..=size + blocksize);
        self.note(format!("resize {:?} {:?} from {size} to {to}", file.0, file.1));
        let ino = self.ino(&file.0);
        self.set_size(ino, to);
        self.runtime.block_on(self.fake.resize(file.1, to, &*self.blocks)).expect("the fake resizes");
    }

    fn set_size(&self, ino: u64, size: u64) {
        let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
        self.volume().set_attributes(ino, set).unwrap_or_else(|error| panic!("{self}: resize: {error:?}"));
    }

    fn put_bytes(&self, ino: u64, offset: u64, bytes: &[u8]) {
        let volume = self.volume();
        let mut fetched = Fetched::new();
        loop {
            match volume
                .write(ino, offset, bytes, &fetched, Times::Now)
                .unwrap_or_else(|e| panic!("{self}: write: {e:?}"))
            {
                WriteOutcome::Done => return,
                WriteOutcome::Missing(blocks) => {
                    fetched.extend(self.runtime.block_on(volume.fetch(&blocks)).expect("blocks that are stored"));
                }
            }
        }
    }

    fn chmod(&mut self) {
        let Some((path, id)) = self.pick(|_, (path, _)| !path.is_empty()) else { return };
        let mode = [0o600, 0o644, 0o700, 0o755][self.rng.random_range(0..4)];
        self.note(format!("chmod {path:?} {id:?} to {mode:o}"));
        let ino = self.ino(&path);
        let set = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
        self.volume().set_attributes(ino, set).unwrap_or_else(|error| panic!("{self}: chmod: {error:?}"));
        let default = if self.fake.is_folder(id) { 0o755 } else { 0o644 };
        let mut extension = self.fake.extension(id);
        extension.mode = (mode != default).then_some(mode);
        self.fake.set_extension(id, extension);
    }

    fn is_empty(&self, path: &Place) -> bool {
        !self.fake.paths().keys().any(|other| other.len() > path.0.len() && other.starts_with(&path.0))
    }

    fn remove(&mut self) {
        let Some((path, id)) = self.pick(|pair, place| !place.0.is_empty() && pair.is_empty(place)) else { return };
        self.note(format!("remove {path:?} {id:?}"));
        let (name, folder) = path.split_last().expect("not the root");
        let at = self.ino(folder);
        let bytes = name.reveal().as_bytes();
        let volume = self.volume();
        let done = if self.fake.is_folder(id) { volume.rmdir(at, bytes) } else { volume.unlink(at, bytes) };
        done.unwrap_or_else(|error| panic!("{self}: remove: {error:?}"));
        let parent = self.entry(id).parent;
        self.fake.remove(parent, name);
    }

    fn rename(&mut self) {
        let Some((path, id)) = self.pick(|_, (path, _)| !path.is_empty()) else { return };
        let (mut new, to) = self.pick_folder();
        new.push(self.pick_name());
        let taken = self.fake.paths().get(&new).copied();
        let may_replace = taken.is_none_or(|taken| {
            let place = (new.clone(), taken);
            taken != id && self.fake.is_folder(taken) == self.fake.is_folder(id) && self.is_empty(&place)
        });
        if new.starts_with(&path) || !may_replace {
            return;
        }
        self.note(format!("rename {path:?} {id:?} to {new:?}, over {taken:?}"));
        let ((name, folder), (new_name, new_folder)) = (path.split_last().unwrap(), new.split_last().unwrap());
        let (at, new_at) = (self.ino(folder), self.ino(new_folder));
        let (bytes, new_bytes) = (name.reveal().as_bytes(), new_name.reveal().as_bytes());
        let done = self.volume().rename(at, bytes, new_at, new_bytes, RenameMode::Replace);
        done.unwrap_or_else(|error| panic!("{self}: rename: {error:?}"));
        let parent = if folder.is_empty() { REALM.root() } else { self.entry(id).parent };
        self.fake.rename(parent, name, to, new_name);
    }
}
