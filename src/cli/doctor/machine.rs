//! The machine: clock, disk, limits.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rustix::fs::statfs;
use rustix::process::{Resource, getrlimit};

use super::super::output::rfc3339;
use super::Findings;
use crate::config::Config;
use crate::disk::Space;
use crate::hardening;

/// The years in which a clock can be right, Unix seconds: 2025 to 2099.
const SANE: std::ops::Range<i64> = 1_735_689_600..4_102_444_800;
/// A disk of which more is used is as good as full.
const NEARLY_FULL_PERCENT: u8 = 95;
/// A sync that takes longer makes every call slow.
const SLOW_SYNC: Duration = Duration::from_millis(20);
const SYNCS: usize = 5;
/// Files of the service beside its connections.
const OWN_FILES: u64 = 256;

/// The clock, by itself.
pub(super) fn clock(findings: &mut Findings, now: i64) {
    let shown = rfc3339(now);
    let shown = shown.as_str().unwrap_or("no time at all");
    if SANE.contains(&now) {
        findings.ok("clock", shown);
    } else {
        findings.fail(
            "clock",
            format_args!("it says {shown}"),
            "set the clock, and keep it right with NTP",
        );
    }
}

/// Space, kind of file system and speed of the disk of a directory. The service warns where `warning_percent` of it are used.
pub(super) fn disk(findings: &mut Findings, check: &'static str, path: &Path, warning_percent: u8) {
    // A directory that is not there has been found already.
    let (Some(space), Ok(system)) = (Space::of(path), statfs(path)) else {
        return;
    };
    judge_space(findings, check, path, space, warning_percent);
    if let Some((kind, problem)) = doubtful(system.f_type) {
        let remedy = "use a disk of this machine or a volume that outlives it";
        findings.warn("file system", format_args!("{kind}: {problem}"), remedy);
    }
    match sync_time(path) {
        Ok(took) if took > SLOW_SYNC => {
            let detail = format!("{:.1} ms a sync", took.as_secs_f64() * 1e3);
            findings.warn(
                "disk sync",
                detail,
                "every call waits for one: use a faster disk",
            );
        }
        Ok(took) => findings.ok(
            "disk sync",
            format_args!("{:.2} ms", took.as_secs_f64() * 1e3),
        ),
        Err(error) => {
            let detail = format!("cannot write to `{}`: {error}", path.display());
            findings.fail(
                "disk sync",
                detail,
                "run as the user who owns it, and make space",
            );
        }
    }
}

fn judge_space(
    findings: &mut Findings,
    check: &'static str,
    path: &Path,
    space: Space,
    warning_percent: u8,
) {
    let used = space.used_percent();
    let free = ByteSize(space.free_bytes);
    let detail = format!("{free} free, {used} % used, at `{}`", path.display());
    if used > NEARLY_FULL_PERCENT {
        let remedy = "make space: the service answers nothing when the disk is full";
        findings.fail(check, detail, remedy);
    } else if used >= warning_percent {
        let remedy = "make space soon, or raise `audit.disk_warning_percent`";
        findings.warn(check, detail, remedy);
    } else {
        findings.ok(check, detail);
    }
}

/// What speaks against a file system for data that must not be lost, by its magic number (`statfs(2)`).
fn doubtful(magic: i64) -> Option<(&'static str, &'static str)> {
    let network = "a disk over the network: a sync may be slow, or promise more than it does";
    match magic {
        0x0102_1994 => Some(("tmpfs", "memory: all of it is lost when the machine stops")),
        0x794c_7630 => Some((
            "overlayfs",
            "the layer of a container: it goes with the container",
        )),
        0x6969 => Some(("nfs", network)),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some(("smb", network)),
        0x0102_1997 => Some(("9p", network)),
        0x6573_5546 => Some(("fuse", network)),
        _ => None,
    }
}

/// The median time to write 4 KiB and sync them, in a file without a name.
fn sync_time(path: &Path) -> io::Result<Duration> {
    let mut file = tempfile::tempfile_in(path)?;
    let mut times = [Duration::ZERO; SYNCS];
    for time in &mut times {
        let started = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        *time = started.elapsed();
    }
    times.sort_unstable();
    Ok(times.get(SYNCS / 2).copied().unwrap_or_default())
}

/// The limits that a service started like this would have.
pub(super) fn limits(findings: &mut Findings, config: &Config) {
    let needed = config.limits.connections as u64 + OWN_FILES;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => {
            let detail = format!("{limit}, and `limits.connections` needs {needed}");
            findings.warn(
                "open files",
                detail,
                format_args!("`ulimit -n {needed}`, `LimitNOFILE={needed}`, or fewer connections"),
            );
        }
        Some(limit) => findings.ok("open files", limit),
        None => findings.ok("open files", "no limit"),
    }
    let hardened = hardening::harden();
    match hardened.core_dumps_off.and(hardened.not_dumpable) {
        Ok(()) => findings.ok("core dumps", "the service switches them off"),
        Err(error) => findings.warn("core dumps", error, "they would hold keys: `ulimit -c 0`"),
    }
    // The first line is the heading.
    let swaps =
        fs::read_to_string("/proc/swaps").map_or(0, |text| text.lines().count().saturating_sub(1));
    match hardened.memory_locked {
        Ok(()) => findings.ok("memory", "the service locks it"),
        Err(_) if swaps == 0 => findings.ok("memory", "it is not locked, and there is no swap"),
        Err(error) => findings.warn(
            "memory",
            format_args!("keys may be swapped out: {error}"),
            "switch swap off, or encrypt it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_disk_is_judged_by_the_threshold_of_the_service() {
        for (used, warning_percent, state) in [
            (79_u64, 80_u8, State::Ok),
            (80, 80, State::Warn),
            (95, 80, State::Warn),
            (96, 80, State::Fail),
            (96, 99, State::Fail),
            (40, 30, State::Warn),
        ] {
            let space = Space {
                used_bytes: used,
                free_bytes: 100 - used,
                size_bytes: 200,
            };
            let mut findings = Findings::default();
            judge_space(
                &mut findings,
                "disk",
                Path::new("/"),
                space,
                warning_percent,
            );
            let found = findings.0.iter().map(|finding| finding.state);
            assert_eq!(found.collect::<Vec<_>>(), [state], "{used}");
        }
    }
}
