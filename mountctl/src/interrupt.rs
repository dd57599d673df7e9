//! Ctrl-C, for the commands that have something to do about it. All others end at once, and the agent finishes.

use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Result};

/// From now on an interrupt or a request to terminate calls this instead of ending the process.
pub(crate) fn on_interrupt(act: impl Fn() + Send + 'static) -> Result<()> {
    let failed = |error: std::io::Error| Failure::io("cannot watch for interrupts", &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let context = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    drop(context);
    thread::spawn(move || {
        while runtime.block_on(either(&mut interrupt, &mut terminate)) {
            act();
        }
    });
    Ok(())
}

async fn either(one: &mut Signal, other: &mut Signal) -> bool {
    tokio::select! {
        signal = one.recv() => signal.is_some(),
        signal = other.recv() => signal.is_some(),
    }
}
