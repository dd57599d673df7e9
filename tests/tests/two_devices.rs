//! Stories of two devices of one person on a directory: both look, and nothing is lost.

use anyhow::Result;
use parsecfs_core::{id::RealmId, manifest::Manifest};
use parsecfs_tests::world::{Device, Files as _, World, bytes_in, content};
use parsecfs_vfs::{
    Workspace,
    fs::{Times, Volume, WriteOutcome},
    tree::{ChangeNumber, LocalTree as _},
};
use std::sync::Arc;

struct Pair {
    _world: World,
    devices: (Device, Device),
    realm: RealmId,
    a: Arc<Workspace>,
    b: Arc<Workspace>,
}

async fn pair() -> Result<Pair> {
    let (world, laptop) = World::found().await?;
    let realm = laptop.create_workspace("notes").await?;
    let desktop = world.second_device(&laptop, "desktop").await?;
    let (a, b) = (laptop.workspace(realm).await?, desktop.workspace(realm).await?);
    Ok(Pair { _world: world, devices: (laptop, desktop), realm, a, b })
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_folders_reach_the_other_device() -> Result<()> {
    let pair = pair().await?;
    let big: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    pair.a.volume().make_folder("folder")?;
    pair.a.volume().put("folder/small", b"hello")?;
    pair.a.volume().put("big", &big)?;
    pair.a.sync().await?;
    pair.b.sync().await?;
    assert_eq!(pair.b.volume().names("")?, ["big", "folder"]);
    assert_eq!(content(pair.b.volume(), "folder/small").await?, b"hello");
    assert_eq!(content(pair.b.volume(), "big").await?, big);
    // And back.
    pair.b.volume().put("folder/small", b"changed there")?;
    pair.b.volume().unlink(1, b"big")?;
    pair.b.sync().await?;
    pair.a.sync().await?;
    assert_eq!(pair.a.volume().names("")?, ["folder"]);
    assert_eq!(content(pair.a.volume(), "folder/small").await?, b"changed there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_changed_on_both_sides_becomes_two_files() -> Result<()> {
    let pair = pair().await?;
    pair.a.volume().put("plan.txt", b"first")?;
    pair.a.sync().await?;
    pair.b.sync().await?;
    pair.a.volume().put("plan.txt", b"from the laptop")?;
    pair.b.volume().put("plan.txt", b"from the desktop")?;
    pair.a.sync().await?;
    pair.b.sync().await?;
    pair.a.sync().await?;
    for workspace in [&pair.a, &pair.b] {
        let names = workspace.volume().names("")?;
        assert_eq!(names, ["plan (Parsec sync conflict 2).txt", "plan.txt"]);
        let mut both = Vec::new();
        for name in names {
            both.push(content(workspace.volume(), &name).await?);
        }
        both.sort();
        assert_eq!(both, [&b"from the desktop"[..], b"from the laptop"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_byte_of_a_large_file_uploads_one_block() -> Result<()> {
    let pair = pair().await?;
    let big = vec![7u8; 4 << 20];
    pair.a.volume().put("big", &big)?;
    pair.a.sync().await?;
    pair.b.sync().await?;
    // The desktop has none of its content yet: a partial page needs one block of it.
    let ino = pair.b.volume().find("big")?;
    match pair.b.volume().write(ino, 1_000_001, b"X", &Vec::new(), Times::Now)? {
        WriteOutcome::Missing(blocks) => {
            assert_eq!(blocks.len(), 1);
            let change = |volume: &Volume, fetched: &_| volume.write(ino, 1_000_001, b"X", fetched, Times::Now);
            pair.b.volume().change_fetching(blocks, change).await?;
        }
        WriteOutcome::Done => panic!("the block cannot be there"),
    }
    let before = bytes_in(&pair._world.store())?;
    pair.b.sync().await?;
    let more = bytes_in(&pair._world.store())? - before;
    assert!((512 << 10..640 << 10).contains(&more), "{more} bytes went up");
    pair.a.sync().await?;
    let mut expected = big;
    expected[1_000_001] = b'X';
    assert_eq!(content(pair.a.volume(), "big").await?, expected);
    Ok(())
}

/// As sync does with a file that has grown, on a device that has none of its content.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_gets_larger_blocks_and_stays_what_it_is() -> Result<()> {
    let pair = pair().await?;
    // Data, a hole of two blocks, data up to the middle of a block.
    let mut expected: Vec<u8> = (0..2_700_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    expected[600_000..2_200_000].fill(0);
    pair.a.volume().put("big", &expected[..600_000])?;
    let ino = pair.a.volume().find("big")?;
    pair.a.volume().write(ino, 2_200_000, &expected[2_200_000..], &Vec::new(), Times::Now)?;
    pair.a.sync().await?;
    pair.b.sync().await?;
    let ino = pair.b.volume().find("big")?;
    pair.b.volume().write(ino, 4096, &[9; 4096], &Vec::new(), Times::Now)?;
    expected[4096..8192].fill(9);
    let entry = pair.b.volume().pending(1)?.remove(0);
    assert!(!pair.b.volume().set_blocksize(entry.id, ChangeNumber(0), 1020 << 10)?, "it has changed since");
    assert!(pair.b.volume().set_blocksize(entry.id, entry.change, 1020 << 10)?);
    pair.b.sync().await?;
    pair.a.sync().await?;
    for workspace in [&pair.a, &pair.b] {
        let Some(Manifest::File(base)) = workspace.volume().load(entry.id)?.and_then(|entry| entry.base) else {
            panic!("it is a file that the storage has");
        };
        assert_eq!((base.version, base.blocksize, base.blocks.len()), (2, 1020 << 10, 3));
        assert_eq!(content(workspace.volume(), "big").await?, expected);
    }
    // And goes on as before.
    let ino = pair.a.volume().find("big")?;
    pair.a.volume().write(ino, 2_250_000, &[8; 10], &Vec::new(), Times::Now)?;
    expected[2_250_000..2_250_010].fill(8);
    pair.a.sync().await?;
    pair.b.sync().await?;
    assert_eq!(content(pair.b.volume(), "big").await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_closing_and_opening() -> Result<()> {
    let mut pair = pair().await?;
    pair.a.volume().make_folder("d")?;
    for n in 0..300 {
        pair.a.volume().put(&format!("d/{n}"), format!("content {n}").as_bytes())?;
    }
    pair.a.close().await?;
    drop(pair.a);
    pair.a = pair.devices.0.workspace(pair.realm).await?;
    assert_eq!(pair.a.volume().names("d")?.len(), 300);
    assert_eq!(content(pair.a.volume(), "d/299").await?, b"content 299");
    pair.a.sync().await?;
    pair.b.sync().await?;
    assert_eq!(content(pair.b.volume(), "d/17").await?, b"content 17");
    assert_eq!(pair.b.volume().names("d")?.len(), 300);
    Ok(())
}

/// In kibibytes, of what is on both devices.
fn space_of(pair: &Pair, name: &str) -> Result<(u64, u64)> {
    let one = |workspace: &Workspace| -> Result<u64> {
        let volume = workspace.volume();
        Ok(volume.attributes(volume.find(name)?)?.blocks / 2)
    };
    Ok((one(&pair.a)?, one(&pair.b)?))
}

/// [S43]
#[tokio::test(flavor = "multi_thread")]
async fn holes_take_no_space_on_the_other_device_either() -> Result<()> {
    let pair = pair().await?;
    pair.a.volume().put("file", b"")?;
    let ino = pair.a.volume().find("file")?;
    let write = |offset, bytes: &[u8]| pair.a.volume().write(ino, offset, bytes, &Vec::new(), Times::Now);
    write(8 << 20, &[1; 4096])?;
    write(5 << 20, &[0; 700 << 10])?;
    assert_eq!(pair.a.volume().attributes(ino)?.blocks / 2, 704);
    pair.a.sync().await?;
    pair.b.sync().await?;
    // A whole block of zeros is a hole on the storage, and then here; a hole that shares a block with data is none.
    assert_eq!(space_of(&pair, "file")?, (4, 4));
    write((8 << 20) + (100 << 10), &[1; 4096])?;
    assert_eq!(space_of(&pair, "file")?, (8, 4));
    pair.a.sync().await?;
    pair.b.sync().await?;
    assert_eq!(space_of(&pair, "file")?, (104, 104));
    assert_eq!(content(pair.b.volume(), "file").await?.len(), (8 << 20) + (104 << 10));
    assert_eq!(space_of(&pair, "file")?, (104, 104), "fetching changes nothing");
    // Over what is on the storage only, whole pages and parts of them.
    let there = pair.b.volume().find("file")?;
    pair.b.volume().write(there, 0, &[2; 8192], &Vec::new(), Times::Now)?;
    assert_eq!(space_of(&pair, "file")?.1, 104 + 8);
    pair.b.sync().await?;
    pair.a.sync().await?;
    assert_eq!(space_of(&pair, "file")?, (104 + 512, 104 + 512));
    Ok(())
}

/// Bytes that cannot be pressed together, of three blocks and a part of one.
fn noise() -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..(3 << 19) + 100_001).map(next).collect()
}

/// [S44]
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_sends_only_what_differs_from_its_source_and_outlives_it() -> Result<()> {
    let pair = pair().await?;
    let bytes = noise();
    let volume = pair.a.volume();
    volume.put("source", &bytes)?;
    pair.a.sync().await?;
    volume.put("copy", b"")?;
    volume.note_copy(volume.find("source")?, volume.find("copy")?)?;
    volume.put("copy", &bytes)?;
    let before = bytes_in(&pair._world.store())?;
    pair.a.sync().await?;
    let more = bytes_in(&pair._world.store())? - before;
    assert!(more < 64 << 10, "{more} bytes went up");
    // One that was changed before it went up, of a source that has changed too.
    volume.put("changed", b"")?;
    volume.note_copy(volume.find("source")?, volume.find("changed")?)?;
    volume.put("changed", &bytes)?;
    volume.write(volume.find("changed")?, 600_000, b"X", &Vec::new(), Times::Now)?;
    volume.write(volume.find("source")?, 0, b"Y", &Vec::new(), Times::Now)?;
    let before = bytes_in(&pair._world.store())?;
    pair.a.sync().await?;
    let more = bytes_in(&pair._world.store())? - before;
    assert!((2 << 19..(2 << 19) + (64 << 10)).contains(&more), "{more} bytes went up");
    volume.unlink(1, b"source")?;
    pair.a.sync().await?;
    pair.b.sync().await?;
    assert!(content(pair.b.volume(), "copy").await? == bytes);
    let mut changed = bytes;
    changed[600_000] = b'X';
    assert!(content(pair.b.volume(), "changed").await? == changed);
    assert!(pair.b.check().await?.is_empty());
    Ok(())
}
