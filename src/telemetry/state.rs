//! Metrics of the process and of what surrounds it: whether it serves, its certificate, its disks, its memory and time.

use std::fs;
use std::path::PathBuf;

use prometheus::{Counter, IntGaugeVec, Opts, Registry};
use rustix::time::{ClockId, clock_gettime};

use super::{UintGauge, UintGaugeVec};
use crate::disk::Space;
use crate::version::VERSION;

/// The gauges; [`StateMetrics::set`] brings them up to date.
pub struct StateMetrics {
    serving: UintGauge,
    certificate_expires: UintGauge,
    started: UintGauge,
    used: UintGaugeVec,
    free: UintGaugeVec,
    size: UintGaugeVec,
    warning: UintGaugeVec,
    resident: UintGauge,
    cpu: Counter,
}

/// What the server knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Whether calls are served.
    pub serving: bool,
    /// When the server's certificate ends, Unix seconds.
    pub certificate_expires_s: i64,
    /// When the process started, Unix seconds.
    pub started_s: u64,
    /// The directories that are written to, by name.
    pub directories: &'a [(&'static str, PathBuf)],
}

impl StateMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<UintGauge, prometheus::Error> {
            let metric = UintGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let disk = |name: &str, help: &str| -> Result<UintGaugeVec, prometheus::Error> {
            let metric = UintGaugeVec::new(Opts::new(name, help), &["directory"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let build = IntGaugeVec::new(
            Opts::new(
                "fieldkeep_build_info",
                "The version of the binary; always 1.",
            ),
            &["version"],
        )?;
        build.with_label_values(&[VERSION]).set(1);
        registry.register(Box::new(build))?;
        let cpu = Counter::new(
            "process_cpu_seconds_total",
            "Processor time of the process.",
        )?;
        registry.register(Box::new(cpu.clone()))?;
        Ok(Self {
            serving: gauge(
                "fieldkeep_serving",
                "1 while calls are served; 0 while the audit trail cannot be written, and at shutdown.",
            )?,
            certificate_expires: gauge(
                "fieldkeep_certificate_expire_timestamp_seconds",
                "When the server's certificate ends, Unix seconds.",
            )?,
            started: gauge(
                "process_start_time_seconds",
                "When the process started, Unix seconds.",
            )?,
            used: disk(
                "fieldkeep_disk_used_bytes",
                "Used space on the file system of a directory.",
            )?,
            free: disk(
                "fieldkeep_disk_free_bytes",
                "Free space on the file system of a directory.",
            )?,
            size: disk(
                "fieldkeep_disk_size_bytes",
                "Size of the file system of a directory.",
            )?,
            warning: disk(
                "fieldkeep_disk_warning",
                "1 while the file system of a directory is fuller than the configuration allows without a warning.",
            )?,
            resident: gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM.",
            )?,
            cpu,
        })
    }

    /// Says whether the disk of a directory, by its name, fills up.
    pub fn set_disk_warning(&self, directory: &str, fills_up: bool) {
        self.warning
            .with_label_values(&[directory])
            .set(fills_up.into());
    }

    /// Brings the gauges up to date. What the system does not tell stays as it was.
    pub fn set(&self, state: State<'_>) {
        self.serving.set(state.serving.into());
        self.certificate_expires
            .set(state.certificate_expires_s.try_into().unwrap_or(0));
        self.started.set(state.started_s);
        for (name, directory) in state.directories {
            if let Some(space) = Space::of(directory) {
                self.used.with_label_values(&[name]).set(space.used_bytes);
                self.free.with_label_values(&[name]).set(space.free_bytes);
                self.size.with_label_values(&[name]).set(space.size_bytes);
            }
        }
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = std::time::Duration::try_from(time).unwrap_or_default();
        self.cpu
            .inc_by((seconds.as_secs_f64() - self.cpu.get()).max(0.0));
    }
}

/// The second number of `/proc/self/statm`, in pages (proc_pid_statm(5)).
fn resident_bytes() -> Option<u64> {
    let figures = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = figures.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_shown() {
        let registry = Registry::new();
        let metrics = StateMetrics::register(&registry).unwrap();
        let directories = [("data", PathBuf::from("/"))];
        let state = |serving| State {
            serving,
            certificate_expires_s: 1_800_000_000,
            started_s: 1_700_000_000,
            directories: &directories,
        };
        metrics.set(state(true));
        assert_eq!(metrics.serving.get(), 1);
        assert_eq!(metrics.certificate_expires.get(), 1_800_000_000);
        let size = metrics.size.with_label_values(&["data"]).get();
        assert!(size > 0 && metrics.free.with_label_values(&["data"]).get() <= size);
        assert!(metrics.used.with_label_values(&["data"]).get() <= size);
        assert!(metrics.resident.get() > 1_000_000);
        let before = metrics.cpu.get();
        metrics.set(state(false));
        assert_eq!(metrics.serving.get(), 0);
        assert!(before > 0.0 && metrics.cpu.get() >= before);
    }
}
