//! What the kernel says of a process.

use std::{fs, time::Duration};

/// CPU time that a process has used, user and system. The kernel counts in ticks of 10 ms.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is alive");
    let after_name = stat
        .rsplit_once(')')
        .expect("the form of proc_pid_stat(5)")
        .1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|&i| fields[i].parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Resident memory and its peak, KiB.
pub(crate) fn memory_kib(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is alive");
    let field = |name: &str| -> u64 {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("the form of proc_pid_status(5)");
        line.split_whitespace()
            .nth(1)
            .expect("a value")
            .parse()
            .expect("a number")
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Resident memory, KiB; nothing once the process has ended.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
