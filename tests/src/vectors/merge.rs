//! What merging decides that others must decide alike.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use parsecfs_core::{
    merge::names::{content_conflict, name_conflict},
    name::EntryName,
};
use serde_json::Value;

use super::text;

/// Runs a case of `conflict_names`.
pub fn conflict_name(case: &Value) -> Result<()> {
    let original = EntryName::new(text(case, "original")?)?;
    let taken = case["taken"].as_array().context("taken")?;
    let taken: BTreeSet<_> = taken.iter().filter_map(Value::as_str).collect();
    let is_taken = |name: &EntryName| taken.contains(name.reveal());
    let found = match text(case, "kind")? {
        "content" => content_conflict(&original, is_taken),
        "name" => name_conflict(&original, is_taken),
        other => bail!("unknown kind of conflict {other}"),
    };
    ensure!(found.reveal() == text(case, "result")?, "another name: {}", found.reveal());
    Ok(())
}
