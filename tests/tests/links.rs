//! Hard links: one inode under several names, on every device of ours, while each name is a file of its own to the
//! storage and to official clients.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use parsecfs_core::{
    id::BlockId,
    manifest::Manifest,
    storage::{VlobWrite, WriteOutcome},
};
use parsecfs_tests::{
    pair::Pair,
    simulation::{Device, TreeKind, capabilities},
};

/// Two devices that share a file with content `base` under the names `a` and `b`.
async fn linked() -> Pair {
    let pair = Pair::new(3, TreeKind::Real, capabilities(true)).await;
    pair.one.create("a", b"base");
    pair.one.link("a", "b");
    pair.settle().await;
    pair
}

/// What an official client makes of `a`: it knows nothing of links, and empties the file.
async fn change_as_official_client(pair: &Pair) {
    let Some(Manifest::File(mut file)) = pair.two.entry("a").base else { panic!("a file") };
    let organization = pair.party.organization(2);
    (file.version, file.author) = (file.version + 1, organization.device_id());
    file.timestamp = organization.next_timestamp(pair.realm);
    (file.size, file.blocks, file.extension, file.updated) = (0, Vec::new(), None, file.timestamp);
    let sealed = organization.seal_manifest(pair.realm, &Manifest::File(file.clone())).unwrap();
    let write = VlobWrite {
        id: file.id,
        version: file.version,
        key_index: sealed.key_index,
        timestamp: file.timestamp,
        blob: sealed.bytes,
        new_blocks: Vec::new(),
    };
    let stored = pair.party.storage(2).commit(pair.realm, vec![write]).await.unwrap();
    assert_eq!(stored, [WriteOutcome::Stored]);
}

/// One inode with this many names.
#[track_caller]
fn assert_linked(device: &Device, paths: &[&str]) {
    let inodes: BTreeMap<_, _> = paths.iter().map(|path| (device.inode(path), *path)).collect();
    assert_eq!(inodes.len(), 1, "{inodes:?}");
    assert_eq!(device.inode(paths[0]).1 as usize, paths.len());
}

fn blocks(device: &Device, path: &str) -> Vec<BlockId> {
    let Some(Manifest::File(file)) = device.entry(path).base else { panic!("a stored file") };
    file.blocks.iter().map(|block| block.id).collect()
}

#[tokio::test]
async fn a_link_made_here_is_one_inode_there() {
    let pair = linked().await;
    for device in pair.both() {
        assert_linked(device, &["a", "b"]);
        assert_eq!(device.at("b").await.unwrap(), b"base");
    }
}

#[tokio::test]
async fn names_of_one_inode_list_the_same_blocks() {
    let pair = linked().await;
    assert_eq!(blocks(&pair.one, "a"), blocks(&pair.one, "b"));
    pair.two.write("b", &[7; 5000]);
    pair.settle().await;
    for device in pair.both() {
        assert_eq!(blocks(device, "a"), blocks(device, "b"));
        assert_ne!(device.entry("a").id, device.entry("b").id);
    }
}

#[tokio::test]
async fn a_change_through_one_name_is_seen_through_all_on_both_devices() {
    let pair = linked().await;
    pair.two.write("b", b"changed there");
    pair.two.set_mode("a", 0o600);
    pair.settle().await;
    for device in pair.both() {
        assert_linked(device, &["a", "b"]);
        assert_eq!(device.at("a").await.unwrap(), b"changed there");
        assert_eq!(device.extension("b").mode, Some(0o600));
    }
}

#[tokio::test]
async fn a_name_may_be_added_and_removed_anywhere() {
    let pair = linked().await;
    pair.two.create_folder("d");
    pair.two.link("a", "d/c");
    pair.settle().await;
    assert_linked(&pair.one, &["a", "b", "d/c"]);
    pair.one.remove("a");
    pair.two.rename("b", "d/moved");
    pair.settle().await;
    for device in pair.both() {
        assert_linked(device, &["d/c", "d/moved"]);
        assert_eq!(device.at("d/c").await.unwrap(), b"base");
    }
}

#[tokio::test]
async fn a_file_that_is_linked_on_one_device_and_changed_on_the_other_stays_one() {
    let pair = linked().await;
    pair.one.create("x", b"x");
    pair.settle().await;
    pair.one.link("x", "y");
    pair.two.write("x", b"written meanwhile");
    pair.settle().await;
    for device in pair.both() {
        assert_linked(device, &["x", "y"]);
        assert_eq!(device.at("y").await.unwrap(), b"written meanwhile");
    }
}

#[tokio::test]
async fn changes_on_both_sides_make_one_copy_and_leave_the_link() {
    let pair = linked().await;
    pair.one.write("a", b"one");
    pair.two.write("b", b"two");
    pair.settle().await;
    for device in pair.both() {
        assert_linked(device, &["a", "b"]);
        let copies: Vec<_> = device.paths().into_keys().filter(|path| path.contains("conflict")).collect();
        assert_eq!((device.at("a").await.unwrap(), copies.len()), (b"one".to_vec(), 1), "{copies:?}");
        assert_eq!((device.at(&copies[0]).await.unwrap(), device.inode(&copies[0]).1), (b"two".to_vec(), 1));
    }
}

#[tokio::test]
async fn a_name_that_an_official_client_changed_leaves_the_link() {
    let pair = linked().await;
    change_as_official_client(&pair).await;
    pair.settle().await;
    for device in pair.both() {
        assert_eq!((device.at("a").await.unwrap(), device.inode("a").1), (Vec::new(), 1));
        assert_eq!((device.at("b").await.unwrap(), device.inode("b").1), (b"base".to_vec(), 1));
    }
    pair.one.write("b", b"by itself");
    pair.settle().await;
    assert_eq!(pair.two.at("a").await.unwrap(), b"");
}

#[tokio::test]
async fn what_was_written_meanwhile_stays_with_the_names_that_are_left() {
    let pair = linked().await;
    pair.one.write("a", b"mine");
    change_as_official_client(&pair).await;
    pair.settle().await;
    for device in pair.both() {
        assert_eq!(device.at("a").await.unwrap(), b"");
        assert_eq!(device.at("b").await.unwrap(), b"mine");
        assert_eq!(device.paths().len(), 2, "no copy is needed");
    }
}

#[tokio::test]
async fn a_removed_name_does_not_come_back_for_what_was_written_through_another() {
    let pair = linked().await;
    pair.one.remove("b");
    pair.two.write("a", b"written through the other name");
    pair.two.sync().await;
    pair.settle().await;
    assert_eq!(pair.one.paths().into_keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(pair.two.at("a").await.unwrap(), b"written through the other name");
}

#[tokio::test]
async fn links_are_there_after_the_store_was_opened_again() {
    let pair = linked().await;
    pair.one.write("a", b"not synced yet");
    pair.one.link("b", "c");
    let again = pair.party.device_with(0, pair.realm, pair.one.snapshot());
    assert_linked(&again, &["a", "b", "c"]);
    assert_eq!(again.at("c").await.unwrap(), b"not synced yet");
    for _ in 0..3 {
        again.sync().await;
        pair.two.sync().await;
    }
    assert_linked(&pair.two, &["a", "b", "c"]);
    assert_eq!(pair.two.at("b").await.unwrap(), b"not synced yet");
}
