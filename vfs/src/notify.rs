//! The one voice that tells the kernel to forget what it has cached. It has its own thread and queue: telling from a
//! request, or under a lock that a lookup needs, would deadlock the mount.

use std::sync::{
    Arc,
    mpsc::{Receiver, Sender, channel},
};

use parking_lot::Mutex;

/// Something the kernel has to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A name in a folder, whether it was there or not.
    Entry {
        /// The folder.
        folder: u64,
        /// The name.
        name: Arc<str>,
    },
    /// Attributes and content of an inode, and the stream of a folder.
    Inode {
        /// The inode.
        ino: u64,
    },
    /// Attributes of an inode. Also to learn whether the kernel knows it at all.
    Attributes {
        /// The inode.
        ino: u64,
    },
    /// Every name there is: it is looked up again when it is used.
    Names,
}

/// Where changes that did not come from the kernel are announced. Without a mount nobody listens.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Option<Sender<Notice>>>>);

impl Notices {
    /// Starts to listen; an earlier listener hears no more.
    pub(crate) fn listen(&self) -> Receiver<Notice> {
        let (sender, receiver) = channel();
        *self.0.lock() = Some(sender);
        receiver
    }

    /// Stops listening.
    pub(crate) fn silence(&self) {
        *self.0.lock() = None;
    }

    /// Announces; never waits.
    pub(crate) fn tell(&self, notice: Notice) {
        if let Some(listener) = &*self.0.lock() {
            // A listener that is gone has no kernel to tell.
            let _ = listener.send(notice);
        }
    }
}
