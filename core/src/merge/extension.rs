//! POSIX attributes, each merged by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::pick;
use crate::manifest::Extension;

/// Merges attribute by attribute; where both sides changed one, remote wins.
#[must_use]
pub fn merge(base: Option<&Extension>, local: &Extension, remote: &Extension) -> Extension {
    let Extension { kind, mode, mtime_ns, xattrs, link_group, unknown } = local;
    Extension {
        kind: pick(base.map(|base| &base.kind), *kind, remote.kind),
        mode: pick(base.map(|base| &base.mode), *mode, remote.mode),
        mtime_ns: pick(base.map(|base| &base.mtime_ns), *mtime_ns, remote.mtime_ns),
        xattrs: merge_xattrs(base.map(|base| &base.xattrs), xattrs, &remote.xattrs),
        link_group: pick(base.map(|base| &base.link_group), *link_group, remote.link_group),
        unknown: pick(base.map(|base| &base.unknown), unknown.clone(), remote.unknown.clone()),
    }
}

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

fn merge_xattrs(base: Option<&Xattrs>, local: &Xattrs, remote: &Xattrs) -> Xattrs {
    let Some(base) = base else {
        let mut both = local.clone();
        both.extend(remote.clone());
        return both;
    };
    let keys: BTreeSet<_> = local.keys().chain(remote.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let value = pick(Some(&base.get(key)), local.get(key), remote.get(key))?;
            Some((key.clone(), value.clone()))
        })
        .collect()
}
