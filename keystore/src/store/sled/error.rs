//! Why a store could not be opened; each message says what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use fieldkeep_journal as journal;

use super::{frame::FrameError, index::IndexError};

/// Why [`super::SledStore::open`] refused. Nothing that recovery could need was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreOpenError {
    /// Another process has the directory open.
    #[error("the data directory is in use by process {owner} (lock `{}`); stop that process first", lock.display())]
    InUse {
        /// The lock file.
        lock: PathBuf,
        /// The process id in it, or `unknown`.
        owner: String,
    },
    /// There is no store here and none was to be made.
    #[error(
        "there is no store in `{}`{}; check the path, or make one with `fieldkeep init`", path.display(),
        mirror.as_ref().map(|mirror| format!(" or in its mirror `{}`", mirror.display())).unwrap_or_default()
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// The mirror's directory, if one was named.
        mirror: Option<PathBuf>,
    },
    /// A new store was to be made over the mirror of another.
    #[error(
        "`{}` has the data of a store, and no new store is begun over it; to go on with that store, remove FORMAT from \
         the data directory, which is not finished, and name the mirror again; to make a new one, name an empty directory \
         as its mirror", mirror.display()
    )]
    MirrorInUse {
        /// The mirror's directory.
        mirror: PathBuf,
    },
    /// Parts of a store without FORMAT.
    #[error(
        "`{}` has parts of a store but no FORMAT file; restore that file from a backup of the directory", path.display()
    )]
    FormatMissing {
        /// The directory.
        path: PathBuf,
    },
    /// FORMAT is not readable.
    #[error("`{}` is damaged; restore that file from a backup of the directory", path.display())]
    FormatDamaged {
        /// The file.
        path: PathBuf,
    },
    /// A format of another version of the program.
    #[error(
        "`{}` says format `{found}`, and this program knows only format {known}; use the version of the program that \
         wrote it, or a newer one", path.display(), known = super::layout::FORMAT_VERSION
    )]
    FormatUnknown {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Another kind of store.
    #[error("`{}` says that this is a store of kind `{found}`, not `sled`; check the configuration", path.display())]
    KindUnknown {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The journal is gone, and with it the truth.
    #[error(
        "the journal `{}` is missing or empty although the store was in use; restore it from its mirror or a backup \
         (the index in `sled` alone may be older than what was acknowledged)", path.display()
    )]
    JournalMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The index has seen commits that the journal does not have.
    #[error(
        "the journal `{}` ends at revision {journal}, but revision {index} was committed: it is an older copy; restore \
         the newest one from its mirror or a backup", path.display()
    )]
    JournalBehind {
        /// The directory.
        path: PathBuf,
        /// The journal's newest revision.
        journal: u64,
        /// The index's.
        index: u64,
    },
    /// Segments of that size cannot hold every group of transactions.
    #[error(
        "a journal segment of {segment_bytes} bytes is too small; make it at least {least} bytes",
        least = super::MIN_SEGMENT_BYTES
    )]
    SegmentTooSmall {
        /// As given.
        segment_bytes: u64,
    },
    /// The journal refused to open.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// The journal could not be read.
    #[error(transparent)]
    JournalRead(#[from] journal::ReadError),
    /// The journal took no frame at open.
    #[error("the journal cannot be written")]
    JournalAppend(#[from] journal::AppendError),
    /// A frame whose checksum holds is not one of this store's.
    #[error(
        "frame {sequence} of the journal is not a frame of this store; it was written by another program or version"
    )]
    ForeignFrame {
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The index must be rebuilt, and what is left of journal and snapshots does not give all records.
    #[error(
        "the index must be rebuilt, but journal and snapshots do not add up to the last commit ({why}); restore the \
         data directory from its mirror or a backup, and keep a copy of this one"
    )]
    Unrecoverable {
        /// Why each way failed.
        why: String,
    },
    /// The index failed, and failed again right after it had been rebuilt.
    #[error(
        "the rebuilt index cannot be used: {why}; check the disk, its free space and its permissions"
    )]
    Index {
        /// What it said.
        why: String,
    },
    /// The disk has no room for the index.
    #[error(
        "there is no space in `{}` to open or rebuild the index; nothing is lost: free some space, so that \
         {needed_bytes} bytes are free there, and start again", path.display()
    )]
    NoSpace {
        /// The data directory.
        path: PathBuf,
        /// How much should be free there.
        needed_bytes: u64,
    },
    /// The system refused an operation on a file.
    #[error("cannot {action} `{}`; check that the directory exists, its permissions and the disk", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreOpenError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        StoreOpenError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether the cause is a full disk.
    pub(super) fn is_no_space(&self) -> bool {
        match self {
            StoreOpenError::NoSpace { .. }
            | StoreOpenError::JournalAppend(journal::AppendError::NoSpace) => true,
            StoreOpenError::Io { source, .. } => super::index::is_storage_full(source),
            _ => false,
        }
    }

    pub(super) fn index(error: &IndexError) -> Self {
        StoreOpenError::Index {
            why: error.to_string(),
        }
    }
}
