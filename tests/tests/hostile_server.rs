//! Answers of a server that are well formed and would do harm if they were followed.

use std::sync::Arc;

use parsecfs_backends::{
    conformance::World,
    parsec::{Limits, Options, ParsecStorage},
};
use parsecfs_core::{
    document::{Field, to_msgpack},
    id::{BlockId, RealmId, VlobId},
    name::OrganizationId,
    storage::{BlockStore, CertificateStore, Error, ErrorKind, VlobStore},
    time::Timestamp,
};
use parsecfs_tests::canned::Canned;
use rmpv::Value;

const REALM: RealmId = RealmId::from_bytes([7; 16]);
const NOW_US: i64 = 1_700_000_000_000_000;

fn at(us: i64) -> Timestamp {
    Timestamp::from_micros(us).expect("in range")
}

/// A device of a server that gives this answer to everything, five times.
fn answered(fields: &[(&str, Value)]) -> Arc<ParsecStorage> {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    let kind = vec![("content-type".to_owned(), "application/msgpack".to_owned())];
    let canned = Canned::new(vec![(200, kind, to_msgpack(&Value::Map(fields))); 5]);
    let options = Options {
        server: canned.address(),
        organization: OrganizationId::new("Org").expect("a name"),
        root: [0; 32],
        bootstrap_token: None,
        signer: Arc::new(World::founder()),
        clock: Arc::new(|| at(NOW_US)),
        limits: Limits::default(),
    };
    ParsecStorage::open(options).expect("a client")
}

fn refused<T>(answer: Result<T, Error>, words: &str) {
    let error = answer.err().expect("it is not followed");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// Signed once, it would stand in the way of every later statement of the organization.
#[tokio::test]
async fn nothing_is_signed_for_a_time_far_ahead() {
    let world = World::at(at(NOW_US));
    let founder = World::founder();
    let wants = |ahead_us: i64| {
        answered(&[
            ("status", "require_greater_timestamp".into()),
            ("strictly_greater_than", at(NOW_US + ahead_us).write()),
            ("items", Value::Array(vec![])),
            ("common_certificates", Value::Array(vec![])),
        ])
    };
    let year = 365 * 86_400 * 1_000_000;
    refused(wants(year).append(world.create_user(&founder, &World::person(&founder))).await, "365 days ahead");
    let near = wants(300_000_000).append(world.create_user(&founder, &World::person(&founder))).await;
    assert_ne!(near.expect_err("not taken").kind(), ErrorKind::Corrupt);
}

/// Believed, it would make the true number look like a server that went back.
#[tokio::test]
async fn a_number_of_changes_from_nowhere_is_not_believed() {
    let change = Value::Array(vec![VlobId::from_bytes([1; 16]).write(), 3.into()]);
    let says = |checkpoint: u64| {
        answered(&[
            ("status", "ok".into()),
            ("changes", Value::Array(vec![change.clone()])),
            ("current_checkpoint", checkpoint.into()),
        ])
    };
    refused(says(u64::MAX).changes(REALM, 0).await, "more changes");
    refused(says(14).changes(REALM, 10).await, "more changes");
    assert_eq!(says(13).changes(REALM, 10).await.expect("as many as it names").checkpoint, 13);
}

/// Many are on their way at once.
#[tokio::test]
async fn an_answer_with_a_block_is_no_larger_than_a_block_can_be() {
    let block = |bytes: usize| {
        answered(&[
            ("status", "ok".into()),
            ("block", Value::Binary(vec![0; bytes])),
            ("key_index", 1.into()),
            ("needed_realm_certificate_timestamp", at(NOW_US).write()),
        ])
    };
    let id = BlockId::from_bytes([1; 16]);
    refused(block(2 << 20).get(REALM, id).await, "more than was asked for");
    assert_eq!(block(1 << 20).get(REALM, id).await.expect("a block").bytes.len(), 1 << 20);
}
