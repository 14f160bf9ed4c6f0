//! What a running program takes of the machine, as the kernel counts it.

use std::fs;

/// CPU time of a program since its start, all threads together, in nanoseconds.
///
/// The scheduler's own counter: `utime` and `stime` come in ticks of 10 ms, which is too coarse for
/// a run of less than a second. A thread that ends takes its time with it; the programs measured
/// here keep theirs. `None` where the kernel does not count.
pub fn cpu_ns(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let counters = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        sum += counters.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    (sum > 0).then_some(sum)
}

/// Resident memory of a program, in megabytes.
pub fn rss_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
