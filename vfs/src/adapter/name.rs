//! Names in another normalization form than they are kept in.
//!
//! The kernel knows names as bytes: what it believes about one form of a name says nothing about another. So it is not to
//! remember the forms that are not kept, nor that a name that could have several is absent; and a change under such a form
//! has it forget what it knows of the kept one.

use super::{
    fuse::LIFETIME,
    request::{Operation, Request},
};
use crate::{
    fs::{Volume, kept_form},
    notify::Notice,
};

/// How long the kernel may believe that a name leads somewhere.
pub(super) fn lifetime(name: &[u8]) -> u64 {
    if kept_form(name).is_some() { 0 } else { LIFETIME }
}

/// How long the kernel may believe that there is no such name.
pub(super) fn absent_lifetime(name: &[u8]) -> u64 {
    if name.is_ascii() { LIFETIME } else { 0 }
}

/// Announces what a request is about to change behind the kernel's back. It holds the folder until the request is
/// answered, so it forgets no earlier than that.
pub(super) fn forget_kept(volume: &Volume, request: &Request<'_>) {
    let forget = |folder: u64, name: &[u8]| {
        if let Some(name) = kept_form(name) {
            volume.notices().tell(Notice::Entry { folder, name });
        }
    };
    match request.operation {
        Operation::Symlink { name, .. }
        | Operation::MakeNode { name, .. }
        | Operation::MakeFolder { name, .. }
        | Operation::Unlink { name }
        | Operation::RemoveFolder { name }
        | Operation::Link { name, .. } => forget(request.ino, name),
        Operation::Rename { name, new_parent, new_name, .. } => {
            forget(request.ino, name);
            forget(new_parent, new_name);
        }
        _ => {}
    }
}
