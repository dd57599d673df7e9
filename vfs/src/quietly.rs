//! Heavy work that must not be felt: hashing and sealing what goes up, and bringing the index up to date, while programs
//! use the mount.

use rustix::process::setpriority_process;

/// Nice value of a thread that runs only when nothing else wants the processor.
const LOWEST: i32 = 19;

/// Does work on a thread of the lowest priority and waits for it. Whoever holds a lock at that priority makes
/// others wait for it: only for work that no request waits for.
pub(crate) fn quietly<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let outcome = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // On Linux a thread has a priority of its own. Without it the work is done all the same.
            if let Err(error) = setpriority_process(Some(rustix::thread::gettid()), LOWEST) {
                tracing::debug!(%error, "working at normal priority");
            }
            work()
        });
        thread.join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    #[test]
    fn quiet_work_gives_way_and_returns_its_answer() {
        let nice = super::quietly(|| rustix::process::getpriority_process(Some(rustix::thread::gettid())));
        assert_eq!(nice, Ok(super::LOWEST));
    }
}
