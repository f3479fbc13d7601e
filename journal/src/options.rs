//! What an operator or a test may choose about a journal.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::FatalError;
use crate::frame::SEAL_FRAME_BYTES;

/// The longest that a written frame may wait for its sync.
const LONGEST_WINDOW: Duration = Duration::from_millis(100);

/// Gives the leaf hash of a payload: RFC 6962, 2.1, SHA-256 over 0x00 and the payload, or whatever the owner's seals need.
pub type LeafHash = fn(&[u8]) -> [u8; 32];

/// How a journal is laid out and paced.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of a segment in bytes; default 16 MiB. Segments that exist keep their size.
    pub segment_bytes: u64,
    /// A second directory, best on another disk; an acknowledgement then means both.
    pub mirror: Option<PathBuf>,
    /// Least time from the start of a sync to the start of the next while one of the last eight groups had eight
    /// waiters or more. Default 1 ms.
    pub sync_spacing: Duration,
    /// Largest payload that [`crate::Journal::append`] takes, in bytes; default 1 MiB.
    pub max_payload_bytes: usize,
    /// Most bytes of frames that may wait for the writer; beyond it [`crate::AppendError::Busy`]. Default 16 MiB.
    pub max_pending_bytes: usize,
    /// Least time between two attempts to make the next segment after the disk was full; default 200 ms.
    pub no_space_retry: Duration,
    /// Makes the log a sealed one: each commit is atomic and ends with a seal ([`crate::Seal`]). The function runs in
    /// the thread of each caller. Default none. A log that was written without seals, or with
    /// them, goes on in its next segment as this says.
    pub leaf: Option<LeafHash>,
    /// Longest time from the write of a relaxed append ([`AppendOptions::relaxed`]) to the start of its sync. More than
    /// 100 ms is taken as 100 ms. Default 0: each write is synced at once, and relaxed appends are as durable as others.
    pub window: Duration,
    /// While the disk has no room for a segment after the current one, the last so many bytes of the current one are kept
    /// for appends that are [`AppendOptions::privileged`]. Much less than a segment; default 0.
    pub reserve_bytes: u64,
    /// What ends the process when a write or a sync has failed.
    pub on_fatal: FatalHook,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 16 << 20,
            mirror: None,
            sync_spacing: Duration::from_millis(1),
            max_payload_bytes: 1 << 20,
            max_pending_bytes: 16 << 20,
            no_space_retry: Duration::from_millis(200),
            leaf: None,
            window: Duration::ZERO,
            reserve_bytes: 0,
            on_fatal: FatalHook::default(),
        }
    }
}

impl Options {
    /// Bytes that each commit needs beyond its frames.
    pub(crate) fn seal_bytes(&self) -> usize {
        match self.leaf {
            Some(_) => SEAL_FRAME_BYTES,
            None => 0,
        }
    }

    pub(crate) fn bounded_window(&self) -> Duration {
        self.window.min(LONGEST_WINDOW)
    }
}

/// How one append is treated; see [`crate::Journal::append_with`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// Its caller waits only for the write ([`crate::Waiters::written`]), so that the sync may come up to
    /// [`Options::window`] later, or with the next append that is not relaxed. A loss of power before that loses it.
    pub relaxed: bool,
    /// It may use the bytes that [`Options::reserve_bytes`] keeps.
    pub privileged: bool,
}

/// Called once, from the journal's thread, when a write or sync has failed: what the disk holds is
/// then unknown and the page cache may lie about it, so that nothing may be served any more and
/// nothing is retried. The default prints the cause and exits with status 74 (`EX_IOERR`). If a hook
/// returns, which only a test's should, the journal is closed to every caller.
#[derive(Clone)]
pub struct FatalHook(Arc<dyn Fn(&FatalError) + Send + Sync>);

impl FatalHook {
    /// A hook that does what `hook` does.
    pub fn new(hook: impl Fn(&FatalError) + Send + Sync + 'static) -> Self {
        FatalHook(Arc::new(hook))
    }

    pub(crate) fn call(&self, error: &FatalError) {
        (self.0)(error);
    }
}

impl Default for FatalHook {
    fn default() -> Self {
        FatalHook::new(|error| {
            eprintln!(
                "fatal: {error}; ending the process, since what the disk holds is unknown; repair the disk and start again"
            );
            std::process::exit(74);
        })
    }
}

impl fmt::Debug for FatalHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FatalHook")
    }
}
