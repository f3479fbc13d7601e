//! The space of a file system.

use std::path::Path;

use rustix::fs::statvfs;

/// The space of a file system, bytes. Some keep a part that none but root can use, so that what is used and what is free may be less than all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What is written.
    pub used_bytes: u64,
    /// What may still be written.
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
            used_bytes: bytes(figures.f_blocks.saturating_sub(figures.f_bfree)),
            free_bytes: bytes(figures.f_bavail),
            size_bytes: bytes(figures.f_blocks),
        })
    }

    /// How much is used of what can be, in whole percent, rounded down: as `df` has it, but for its rounding. 0 where nothing can be.
    #[must_use]
    pub fn used_percent(self) -> u8 {
        let used = u128::from(self.used_bytes);
        let usable = used + u128::from(self.free_bytes);
        let percent = (used * 100).checked_div(usable).unwrap_or(0);
        u8::try_from(percent).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_told_of_what_can_be() {
        let percent = |used_bytes, free_bytes| {
            let space = Space {
                used_bytes,
                free_bytes,
                size_bytes: u64::MAX,
            };
            space.used_percent()
        };
        assert_eq!(percent(0, 100), 0);
        assert_eq!(percent(100, 0), 100);
        assert_eq!(percent(799, 201), 79);
        assert_eq!(percent(800, 200), 80);
        assert_eq!(percent(u64::MAX, u64::MAX), 50);
        assert_eq!(percent(0, 0), 0);
    }

    #[test]
    fn the_system_is_asked() {
        let space = Space::of(Path::new("/")).unwrap();
        assert!(space.size_bytes > 0 && space.used_bytes <= space.size_bytes);
        assert_eq!(Space::of(Path::new("/nowhere/at/all")), None);
    }
}
