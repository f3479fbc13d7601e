//! The space of a file system.

use std::path::Path;

use rustix::fs::statvfs;

/// The space of a file system, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What may still be written. Some file systems keep a part for root, which is not in it.
    pub free_bytes: u64,
    /// All of it.
    pub size_bytes: u64,
}

impl Space {
    /// Of the file system that `path` is on, by `statvfs(3)`. `None` if the system does not tell.
    #[must_use]
    pub fn of(path: &Path) -> Option<Space> {
        let figures = statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(figures.f_frsize);
        Some(Space {
            free_bytes: bytes(figures.f_bavail),
            size_bytes: bytes(figures.f_blocks),
        })
    }

    /// How much of it is not free, in whole percent, rounded down. 0 of a file system without a size.
    #[must_use]
    pub fn used_percent(self) -> u8 {
        let used = self.size_bytes.saturating_sub(self.free_bytes);
        let percent = u128::from(used) * 100 / u128::from(self.size_bytes.max(1));
        u8::try_from(percent).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_what_is_not_free() {
        let percent = |free_bytes, size_bytes| {
            let space = Space {
                free_bytes,
                size_bytes,
            };
            space.used_percent()
        };
        assert_eq!(percent(100, 100), 0);
        assert_eq!(percent(0, 100), 100);
        assert_eq!(percent(201, 1000), 79);
        assert_eq!(percent(200, 1000), 80);
        assert_eq!(percent(u64::MAX / 2, u64::MAX), 50);
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(2, 1), 0);
    }

    #[test]
    fn the_system_is_asked() {
        let space = Space::of(Path::new("/")).unwrap();
        assert!(space.size_bytes > 0 && space.free_bytes <= space.size_bytes);
        assert_eq!(Space::of(Path::new("/nowhere/at/all")), None);
    }
}
