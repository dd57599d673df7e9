//! Names, labels, addresses, times, ids.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use parsecfs_core::{
    certificate::Certificate,
    id::{DeviceId, UserId, VlobId},
    manifest::{FolderManifest, Manifest},
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    time::Timestamp,
};
use serde_json::Value;

use super::{hex, hex_array, judge, text, tree};

/// Runs a case of one of the `scalars_*` files.
pub fn run(kind: &str, case: &Value) -> Result<()> {
    let input = || text(case, "input");
    let outcome = match kind {
        "entry name" => EntryName::new(input()?).map(|name| name.reveal().to_owned()),
        "organization id" => OrganizationId::new(input()?).map(|id| id.to_string()),
        "device label" => DeviceLabel::new(input()?).map(|label| label.to_string()),
        "email" => Email::new(input()?).map(|email| email.to_string()),
        "human handle" => return human_handle(case),
        "datetime" => return msgpack(case),
        _ => bail!("unknown kind {kind}"),
    };
    if let Some(value) = judge(case, outcome)? {
        ensure!(value == text(case, "value")?, "another value");
    }
    Ok(())
}

fn human_handle(case: &Value) -> Result<()> {
    if !case["uuid"].is_null() {
        return redacted(case);
    }
    let outcome = Email::new(text(case, "email")?).and_then(|email| HumanHandle::new(email, text_of(case, "label")));
    if let Some(handle) = judge(case, outcome)? {
        ensure!(handle.label() == text(case, "value_label")?, "another label");
        ensure!(handle.to_string() == text(case, "display")?, "displayed otherwise");
    }
    Ok(())
}

fn text_of<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_default()
}

fn redacted(case: &Value) -> Result<()> {
    let id = hex_array(case, "uuid")?;
    let handle = HumanHandle::redacted(UserId::from_bytes(id));
    ensure!(handle.email().as_str() == text(case, "email")?, "another address");
    ensure!(handle.label() == text(case, "label")?, "another label");
    let label = DeviceLabel::redacted(DeviceId::from_bytes(id));
    ensure!(label.as_str() == text(case, "device_label")?, "another device label");
    Ok(())
}

/// Times and ids exist in documents only, so one is written with them.
fn msgpack(case: &Value) -> Result<()> {
    let zero = Timestamp::from_micros(0).context("the epoch is a time")?;
    let mut folder = FolderManifest {
        author: DeviceId::from_bytes([1; 16]),
        timestamp: zero,
        id: VlobId::from_bytes([2; 16]),
        parent: VlobId::from_bytes([3; 16]),
        version: 1,
        created: zero,
        updated: zero,
        children: BTreeMap::new(),
        extension: None,
        unknown: Default::default(),
    };
    match case["micros"].as_i64() {
        Some(micros) => folder.timestamp = Timestamp::from_micros(micros).context("not a time")?,
        None => folder.id = VlobId::from_bytes(hex_array(case, "uuid")?),
    }
    let expected = hex(case, "msgpack")?;
    let written = Manifest::Folder(folder.clone()).to_bytes();
    ensure!(written.windows(expected.len()).any(|bytes| bytes == expected), "written otherwise");
    ensure!(Manifest::from_bytes(&written)? == Manifest::Folder(folder), "read otherwise");
    Ok(())
}

/// Runs a case of `serialization_frame`.
pub fn frame(case: &Value) -> Result<()> {
    let raw = hex(case, "raw")?;
    if judge(case, Certificate::from_sequester_payload(&raw))?.is_some() {
        ensure!(tree::of_frame(&raw)? == case["decoded"], "the vector itself decodes otherwise");
    }
    Ok(())
}
