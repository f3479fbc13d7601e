//! The disks that the service writes to, and the warning before one of them is full.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::disk::Space;
use crate::init::AUDIT_DIR;
use crate::telemetry::Metrics;

/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A warning ends when so many percent less are used than where it began, so that a disk at the threshold does not warn again and
/// again.
const ENDS_BELOW: u8 = 5;

/// The directories that are written to, with the names that metrics and the log have for them. That of the audit trail has its own
/// if it is on another file system than the rest of the data.
pub(super) fn directories(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let audit = config.data_dir.join(AUDIT_DIR);
    let audit = is_elsewhere(&audit, &config.data_dir).then_some(audit);
    let directories = [
        ("data", Some(config.data_dir.clone())),
        ("audit", audit),
        ("store_mirror", config.store.mirror_dir.clone()),
        ("audit_mirror", config.audit.mirror_dir.clone()),
    ];
    directories
        .into_iter()
        .filter_map(|(name, directory)| Some((name, directory?)))
        .collect()
}

/// Whether a directory is on another file system than `data` is.
fn is_elsewhere(directory: &Path, data: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    device(directory) != device(data)
}

/// Watches the disks, and warns once each time that one passes the threshold.
pub(super) struct Disks {
    watched: Vec<Watched>,
    warning_percent: u8,
    metrics: Arc<Metrics>,
}

struct Watched {
    name: &'static str,
    path: PathBuf,
    /// Whether it is beyond the threshold, as far as was said.
    warned: bool,
}

/// A disk has passed the threshold, or has space again.
#[derive(Debug, PartialEq, Eq)]
struct Crossing {
    directory: &'static str,
    path: PathBuf,
    fills_up: bool,
    space: Space,
}

impl Disks {
    /// Watches `directories`. Their metrics are there from now on.
    pub(super) fn new(
        directories: Vec<(&'static str, PathBuf)>,
        warning_percent: u8,
        metrics: Arc<Metrics>,
    ) -> Self {
        let watch = |(name, path)| {
            metrics.state.set_disk_warning(name, false);
            Watched {
                name,
                path,
                warned: false,
            }
        };
        let watched = directories.into_iter().map(watch).collect();
        Self {
            watched,
            warning_percent,
            metrics,
        }
    }

    /// Looks at the disks until it is dropped.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            for crossing in self.look(Space::of) {
                crossing.tell();
            }
        }
    }

    /// Looks at each disk, of which `space` tells the space, once. What it does not tell stays as it was.
    fn look(&mut self, space: impl Fn(&Path) -> Option<Space>) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        for disk in &mut self.watched {
            let Some(space) = space(&disk.path) else {
                continue;
            };
            let threshold = match disk.warned {
                false => self.warning_percent,
                true => self.warning_percent.saturating_sub(ENDS_BELOW),
            };
            let fills_up = space.used_percent() >= threshold;
            if fills_up != disk.warned {
                disk.warned = fills_up;
                self.metrics.state.set_disk_warning(disk.name, fills_up);
                crossings.push(Crossing {
                    directory: disk.name,
                    path: disk.path.clone(),
                    fills_up,
                    space,
                });
            }
        }
        crossings
    }
}

impl Crossing {
    fn tell(&self) {
        let Self {
            directory,
            path,
            fills_up,
            space,
        } = self;
        let (used_percent, free_bytes) = (space.used_percent(), space.free_bytes);
        if *fills_up {
            tracing::warn!(directory, path = %path.display(), used_percent, free_bytes, "a disk fills up; without space no call is answered");
        } else {
            tracing::info!(directory, path = %path.display(), used_percent, free_bytes, "a disk that filled up has space again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(metrics: &Arc<Metrics>) -> Disks {
        let directories = vec![
            ("data", PathBuf::from("/a")),
            ("audit_mirror", PathBuf::from("/b")),
        ];
        Disks::new(directories, 80, Arc::clone(metrics))
    }

    fn used(percent: u64) -> Option<Space> {
        Some(Space {
            used_bytes: percent,
            free_bytes: 100 - percent,
            size_bytes: 200,
        })
    }

    #[test]
    fn each_crossing_is_told_once_and_the_next_only_after_there_was_space() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut disks = disks(&metrics);
        let shown = |warns: u8| {
            let line = format!("fieldkeep_disk_warning{{directory=\"data\"}} {warns}\n");
            metrics.render().unwrap().contains(&line)
        };
        assert!(shown(0), "before the first look");
        // What is used, what is told of it, and the gauge behind.
        for (percent, told, warns) in [
            (79, None, 0),
            (80, Some(true), 1),
            (99, None, 1),
            (79, None, 1),
            (75, None, 1),
            (74, Some(false), 0),
            (79, None, 0),
            (80, Some(true), 1),
            (0, Some(false), 0),
        ] {
            let crossings = disks.look(|path| match path == Path::new("/a") {
                true => used(percent),
                false => used(10),
            });
            let found: Vec<_> = crossings
                .iter()
                .map(|crossing| (crossing.directory, crossing.fills_up))
                .collect();
            let expected: Vec<_> = told
                .map(|fills_up| ("data", fills_up))
                .into_iter()
                .collect();
            assert_eq!(found, expected, "{percent}");
            assert!(shown(warns), "{percent}");
        }
    }

    #[test]
    fn disks_are_told_apart_and_one_that_cannot_be_asked_stays_as_it_was() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut disks = disks(&metrics);
        let full = disks.look(|_| used(100));
        assert_eq!(full.len(), 2);
        assert!(disks.look(|_| None).is_empty());
        let is_mirror = |path: &Path| path == Path::new("/b");
        let space_again = disks.look(|path| if is_mirror(path) { used(0) } else { None });
        assert_eq!(space_again.len(), 1);
        assert_eq!(space_again[0].directory, "audit_mirror");
    }

    #[test]
    fn a_directory_is_elsewhere_on_another_file_system_alone() {
        let dir = tempfile::tempdir().unwrap();
        let within = dir.path().join(AUDIT_DIR);
        fs::create_dir(&within).unwrap();
        assert!(!is_elsewhere(&within, dir.path()));
        assert!(is_elsewhere(Path::new("/proc"), dir.path()));
    }
}
