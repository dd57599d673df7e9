//! What docs/SEMANTICS.md says of names and folders, on a mount: renames, spellings, depth, streams, who may remove.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use parsecfs_tests::mounted::{mounted, mounted_for_all, sh};
use rustix::{
    fs::{CWD, OFlags, RawDir, RenameFlags, renameat_with},
    io::Errno,
};

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, flags)
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// [S8]
#[test]
fn a_rename_refuses_a_name_that_is_taken_or_exchanges_the_two_when_asked() {
    let Some(mount) = mounted() else { return };
    let at = |name: &str| mount.path().join(name);
    fs::write(at("a"), "a").unwrap();
    fs::write(at("b"), "b").unwrap();
    fs::create_dir_all(at("folder/inner")).unwrap();
    assert_eq!(rename(&at("a"), &at("b"), RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename(&at("a"), &at("absent"), RenameFlags::EXCHANGE), Err(Errno::NOENT));
    rename(&at("a"), &at("b"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(at("a")).unwrap(), fs::read(at("b")).unwrap()), (b"b".to_vec(), b"a".to_vec()));
    // A file with a folder, across folders: the links of the folders follow.
    rename(&at("a"), &at("folder/inner"), RenameFlags::EXCHANGE).unwrap();
    assert!(at("a").is_dir() && at("folder/inner").is_file());
    assert_eq!((fs::metadata(at("")).unwrap().nlink(), fs::metadata(at("folder")).unwrap().nlink()), (4, 2));
    assert_eq!(rename(&at("folder"), &at("folder/inner/x"), RenameFlags::NOREPLACE), Err(Errno::NOTDIR));
    assert_eq!(rename(&at("b"), &at("c"), RenameFlags::WHITEOUT), Err(Errno::INVAL));
    rename(&at("b"), &at("c"), RenameFlags::NOREPLACE).unwrap();
    mount.remount();
    assert_eq!(names(&mount.path()), ["a", "c", "folder"].map(String::from).into());
    assert_eq!(fs::read(at("folder/inner")).unwrap(), b"b");
}

/// [S9]
#[test]
fn spellings_that_differ_in_normalization_are_one_name_whatever_the_kernel_remembers() {
    let Some(mount) = mounted() else { return };
    let (composed, decomposed) = (mount.path().join("caf\u{e9}"), mount.path().join("cafe\u{301}"));
    let other = mount.path().join("other");
    let both = || (composed.exists(), decomposed.exists());
    assert_eq!(both(), (false, false), "and now the kernel knows that");
    fs::write(&decomposed, "1").unwrap();
    assert_eq!(both(), (true, true));
    assert_eq!(names(&mount.path()), ["caf\u{e9}".to_owned()].into());
    assert!(fs::File::create_new(&composed).is_err());
    fs::remove_file(&composed).unwrap();
    assert_eq!(both(), (false, false));
    fs::write(&composed, "2").unwrap();
    assert_eq!(fs::read(&decomposed).unwrap(), b"2");
    // What the kernel knows of the other spelling goes a moment later.
    let soon = |fact: &dyn Fn() -> bool| while !fact() {};
    fs::rename(&decomposed, &other).unwrap();
    soon(&|| both() == (false, false));
    fs::create_dir(&decomposed).unwrap();
    soon(&|| composed.is_dir() && decomposed.is_dir());
    fs::remove_dir(&decomposed).unwrap();
    soon(&|| both() == (false, false));
    fs::write(&composed, "3").unwrap();
    fs::rename(&other, &decomposed).unwrap();
    soon(&|| fs::read(&composed).unwrap() == b"2");
    fs::rename(&composed, &decomposed).unwrap();
    assert_eq!(both(), (true, true));
}

/// [S10]
#[test]
fn paths_reach_to_path_max_and_folders_lie_deeper_than_that() {
    const PATH_BYTES_MAX: usize = 4095;
    let Some(mount) = mounted() else { return };
    let mut deep = mount.path();
    while deep.as_os_str().len() + 240 < PATH_BYTES_MAX {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    let rest = PATH_BYTES_MAX - deep.as_os_str().len() - 1;
    let (longest, longer) = (deep.join("f".repeat(rest)), deep.join("f".repeat(rest + 1)));
    fs::write(&longest, "deep").unwrap();
    assert_eq!(fs::write(&longer, "").unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    assert_eq!(fs::read(&longest).unwrap(), b"deep");
    // The shell's `cd` makes a path of it.
    let script = "python3 -c 'import os
for n in range(30): os.mkdir(\"e\" * 200); os.chdir(\"e\" * 200)
open(\"file\", \"w\").write(\"below\"); print(open(\"file\").read())'";
    assert_eq!(sh(&deep, script, &[]), "below\n");
    assert_eq!(sh(&mount.path(), "find . -type f | wc -l; rm -r ./d*; ls -A", &[]).trim(), "2");
}

/// What is left of a folder's stream.
fn rest<Fd: rustix::fd::AsFd>(stream: &mut RawDir<'_, Fd>, most: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < most
        && let Some(entry) = stream.next()
    {
        let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
        if name != "." && name != ".." {
            seen.push(name);
        }
    }
    seen
}

/// [S11]
#[test]
fn a_folder_that_changes_while_it_is_read_shows_every_other_entry_once() {
    let Some(mount) = mounted() else { return };
    let folder = mount.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let at = |name: &str| folder.join(name);
    let all: Vec<String> = (0..2_000).map(|n| format!("entry-{n}")).collect();
    all.iter().for_each(|name| fs::write(at(name), "").unwrap());
    let open = rustix::fs::open(&folder, OFlags::RDONLY | OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 1024];
    let mut stream = RawDir::new(&open, &mut buffer);
    let mut seen = rest(&mut stream, 500);
    let (mut staying, mut added) = (BTreeSet::new(), BTreeSet::new());
    for (number, name) in all.iter().enumerate() {
        match number % 4 {
            0 => fs::remove_file(at(name)).unwrap(),
            1 => {
                added.insert(format!("moved-{number}"));
                fs::rename(at(name), at(&format!("moved-{number}"))).unwrap();
            }
            2 => {
                added.insert(format!("new-{number}"));
                fs::write(at(&format!("new-{number}")), "").unwrap();
                staying.insert(name.clone());
            }
            _ => {
                staying.insert(name.clone());
            }
        }
    }
    seen.extend(rest(&mut stream, usize::MAX));
    let distinct: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(seen.len(), distinct.len(), "none twice");
    assert!(staying.is_subset(&distinct), "none left out");
    assert!(distinct.iter().all(|name| all.contains(name) || added.contains(name)), "none that never was");
    assert!(names(&folder) == staying.union(&added).cloned().collect());
}

/// [S12]
#[test]
fn entries_of_a_setgid_folder_take_its_group_and_folders_in_it_its_bit() {
    let Some(mount) = mounted_for_all() else { return };
    let script = "mkdir shared; chgrp daemon shared; chmod 2777 shared; umask 022
                  as='setpriv --reuid=nobody --regid=nogroup --clear-groups'
                  $as mkdir shared/folder; $as touch shared/file; $as mkdir shared/folder/deeper
                  mkdir plain; chmod 777 plain; $as touch plain/file
                  stat -c '%n %U %G %a' shared/folder shared/file shared/folder/deeper plain/file";
    let expected = "shared/folder nobody daemon 2755\nshared/file nobody daemon 644\n\
                    shared/folder/deeper nobody daemon 2755\nplain/file nobody nogroup 644\n";
    assert_eq!(sh(&mount.path(), script, &[]), expected);
}

/// [S13]
#[test]
fn only_its_owner_removes_an_entry_of_a_sticky_folder() {
    let Some(mount) = mounted_for_all() else { return };
    let script = "mkdir -m 1777 sticky; mkdir -m 777 open
                  first='setpriv --reuid=nobody --regid=nogroup --clear-groups'
                  second='setpriv --reuid=daemon --regid=daemon --clear-groups'
                  $first touch sticky/file open/file
                  ! $second rm -f sticky/file 2>/dev/null; ! $second mv sticky/file sticky/other 2>/dev/null
                  $second rm -f open/file; $first mv sticky/file sticky/other; $first rm sticky/other; ls sticky open";
    assert_eq!(sh(&mount.path(), script, &[]), "open:\n\nsticky:\n");
}

/// [S33]
#[test]
fn a_read_only_mount_refuses_every_kind_of_change() {
    let Some(mut mount) = mounted() else { return };
    sh(&mount.path(), "mkdir folder empty; echo kept >file; ln -s file link; mkfifo pipe", &[]);
    mount.remount_with("ro");
    let changes = "touch new
                   truncate -s 0 file
                   dd if=/dev/null of=file conv=notrunc
                   mkdir new
                   rmdir empty
                   rm file
                   mv file new
                   mv file folder/file
                   ln -s x new
                   ln file new
                   mkfifo new
                   chmod 600 file
                   chown -h 1 link
                   touch -d 2001-01-01 file
                   fallocate -l 10000 file
                   python3 -c 'import os; os.setxattr(\"file\", \"user.a\", b\"1\")'";
    for change in changes.lines() {
        let said = sh(&mount.path(), &format!("! {{ {change} 2>&1; }}"), &[]);
        assert!(said.contains("Read-only file system"), "{change}: {said}");
    }
    assert_eq!(sh(&mount.path(), "ls; cat file", &[]), "empty\nfile\nfolder\nlink\npipe\nkept\n");
}

/// [S14]
#[test]
fn the_umask_takes_bits_from_what_is_made_and_access_lists_are_refused() {
    let Some(mount) = mounted() else { return };
    let script = "umask 027; mkdir folder; touch file; mkfifo pipe; stat -c %a folder file pipe";
    assert_eq!(sh(&mount.path(), script, &[]), "750\n640\n640\n");
    let file: PathBuf = mount.path().join("file");
    // An access list that gives one more user the right to read.
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(bits.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        let set = rustix::fs::setxattr(mount.path().join("folder"), name, &list, rustix::fs::XattrFlags::empty());
        assert_eq!(set, Err(Errno::OPNOTSUPP));
    }
    // So the bits of the group mean the group.
    sh(&mount.path(), "chmod g+w file", &[]);
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o660);
}
