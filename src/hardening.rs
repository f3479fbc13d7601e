//! Keeps the memory of the process, and so its keys, off the disk and out of other processes.
//!
//! What the operating system does not allow is reported, not fatal: in a container without the rights the service
//! still runs, and the operator reads in the log what was not done.

use rustix::{
    fs::Mode,
    io,
    mm::{MlockAllFlags, mlockall},
    process::{
        DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
    },
};

/// What [`harden`] could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// No core dump is written: the limit is 0.
    pub core_dumps_off: Result<(), io::Errno>,
    /// Others of the same user can neither trace the process nor read its memory.
    pub not_dumpable: Result<(), io::Errno>,
    /// Pages are locked into memory as they are touched, so that none is swapped out.
    pub memory_locked: Result<(), LockError>,
}

/// Why memory is not locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// The limit on locked memory is finite: locking would make allocations fail beyond it.
    #[error(
        "the limit on locked memory is {limit_bytes} bytes; run with an unlimited one (`ulimit -l unlimited`, or `LimitMEMLOCK=infinity`)"
    )]
    Limit {
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// The system refused.
    #[error("the system refused: {0}")]
    Refused(io::Errno),
}

/// Hardens this process: no core dumps, not dumpable, memory locked where the limit allows it, umask 077.
///
/// It is called once, before threads are started and before any key is read.
pub fn harden() -> Report {
    umask(Mode::RWXG | Mode::RWXO);
    Report {
        core_dumps_off: setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(0),
                maximum: Some(0),
            },
        ),
        not_dumpable: set_dumpable_behavior(DumpableBehavior::NotDumpable),
        memory_locked: lock_memory(),
    }
}

impl Report {
    /// Writes to the log what could not be done.
    pub fn log(&self) {
        if let Err(error) = self.core_dumps_off {
            tracing::warn!(%error, "core dumps could not be switched off");
        }
        if let Err(error) = self.not_dumpable {
            tracing::warn!(%error, "the process could not be made undumpable");
        }
        match self.memory_locked {
            Ok(()) => tracing::debug!("memory is locked"),
            Err(error) => {
                tracing::warn!(%error, "memory is not locked, so keys may be swapped out: switch swap off or encrypt it")
            }
        }
    }
}

fn lock_memory() -> Result<(), LockError> {
    raise_lock_limit();
    match getrlimit(Resource::Memlock).current {
        Some(limit_bytes) => Err(LockError::Limit { limit_bytes }),
        None => mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
            .map_err(LockError::Refused),
    }
}

/// Lifts the soft limit as far as allowed: to nothing with the privilege, else to the hard limit.
fn raise_lock_limit() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        // If this fails the limit stays as it was, and the caller reads and reports it.
        let _ = setrlimit(Resource::Memlock, raised);
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn core_dumps_are_off_and_the_process_cannot_be_traced() {
        let report = harden();
        assert_eq!(report.core_dumps_off, Ok(()));
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }

    #[test]
    fn new_files_are_private() {
        harden();
        let mask = umask(Mode::RWXG | Mode::RWXO);
        assert_eq!(mask, Mode::RWXG | Mode::RWXO);
    }

    #[test]
    fn a_finite_limit_is_reported_and_not_locked_against() {
        let report = harden();
        match (getrlimit(Resource::Memlock).current, report.memory_locked) {
            (Some(limit), locked) => {
                assert_eq!(locked, Err(LockError::Limit { limit_bytes: limit }))
            }
            (None, locked) => assert!(!matches!(locked, Err(LockError::Limit { .. }))),
        }
    }
}
