//! CPU time of the calling thread, which does not depend on the load of the machine.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// Runs `work` and returns its CPU time on this thread.
pub fn cpu_timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = thread_cpu_time();
    let prepared = work();
    (prepared, thread_cpu_time() - started)
}
