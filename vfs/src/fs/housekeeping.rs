//! The background thread of a volume: brings the index up to date and frees space.

use std::{
    sync::{
        Arc, Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::Volume;
use crate::error::{Error, ErrorKind, Result};

/// The most that a crash of the machine costs of what was not synced.
const APPLY_EVERY: Duration = Duration::from_secs(2);

/// Keeps the background thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Housekeeper {
    /// Closed to stop the thread.
    stop: Option<SyncSender<()>>,
    ring: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Volume {
    /// Starts the background thread.
    pub fn keep_house(self: &Arc<Self>) -> Result<Housekeeper> {
        let (ring, rings) = sync_channel(1);
        self.store.set_kick(ring.clone());
        let (stop, stopped) = sync_channel::<()>(0);
        let volume = Arc::downgrade(self);
        let thread = std::thread::Builder::new()
            .name("parsecfs-store".into())
            .spawn(move || keep_house(&volume, &rings, &stopped))
            .map_err(|e| Error::new(ErrorKind::Internal, "start the store thread").caused_by(e))?;
        Ok(Housekeeper { stop: Some(stop), ring, thread: Some(thread) })
    }
}

fn keep_house(volume: &Weak<Volume>, rings: &Receiver<()>, stopped: &Receiver<()>) {
    let mut counted = false;
    loop {
        // Rung early when much waits; otherwise at its pace.
        if let Err(RecvTimeoutError::Disconnected) = rings.recv_timeout(APPLY_EVERY) {
            return;
        }
        if !matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            return;
        }
        let Some(volume) = volume.upgrade() else { return };
        let outcome = volume.store.apply().and_then(|()| {
            if !counted {
                volume.count_usage()?;
                counted = true;
            }
            volume.reclaim()
        });
        if let Err(error) = outcome {
            // Nothing is lost: the rows stay queued, and a full disk is told to who writes.
            tracing::warn!(?error, "cannot bring the local store up to date");
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A full channel means that the thread is awake already.
        let _ = self.ring.try_send(());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}
