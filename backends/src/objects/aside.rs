//! Entries that a tool pushed aside: where one synchronizes a folder between machines, two of them write the same number,
//! and it keeps one under another name, such as `002.sync-conflict-…`. Somebody was told that it is stored.
//!
//! Such a file is never read. It is an alarm of its log alone, looked for at the end of the log, where it happens, once in
//! a session; a deep verify looks everywhere.

use parsecfs_core::storage::{ErrorKind, LogId, Result};

use super::{chain::broken, entry::Head, heads::name, key, verbs::Verbs};

/// Entries at the end of a log whose names are looked at: a page of a listing.
const LOOK_BACK: u64 = 1000;

/// `Rollback` when something that was an entry of this log lies beside it.
pub(super) async fn refuse(verbs: &dyn Verbs, log: LogId, head: Head) -> Result<()> {
    let Some(last) = head.seq.checked_sub(1) else { return Ok(()) };
    let from = key::entry(log, last.saturating_sub(LOOK_BACK));
    let listed = match verbs.list_after(&key::entry_folder(log, last), &from).await {
        // Who may read and not list learns of it from others.
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unsupported) => return Ok(()),
        listed => listed?,
    };
    match listed.iter().find(|listed| key::is_conflict_copy(&listed.key)) {
        Some(_) => Err(broken(&format!(
            "a tool that synchronizes folders renamed an entry of {}: what it holds was stored and is not any more",
            name(log)
        ))),
        None => Ok(()),
    }
}
