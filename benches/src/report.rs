//! The head and the tables of a report, in Markdown.

use std::{fs, process::Command};

/// Date, machine shape and commit.
pub(crate) fn head() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    // Of the machine, also if this process is pinned to some of them.
    let cores = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default();
    format!(
        "Date: {}  \nCommit: {}  \nMachine: {cores} cores, {model}, {} GiB, {}; load generator on the same cores\n",
        output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        memory_kib >> 20,
        output("uname", &["-sr"]),
    )
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".into(),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}

/// The median of some figures, with the smallest and the largest.
pub(crate) fn spread(figures: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let (first, last) = (figures[0], figures[figures.len() - 1]);
    format!(
        "{:.digits$} ({first:.digits$} to {last:.digits$})",
        figures[figures.len() / 2]
    )
}
