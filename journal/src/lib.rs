//! An append-only log that is durable, fast under load and honest after a crash. It knows nothing of
//! keys or audit records: a payload is bytes.
//!
//! - **Group commit.** [`Journal::append`] copies a payload into the group being filled; one writer
//!   thread takes the whole group, writes it with one `pwrite` and one `fdatasync`, and then wakes
//!   each runtime once ([`Waiters`]). Alone, a caller waits for nothing but its own sync.
//! - **Seals.** In a sealed log ([`Options::leaf`]) each commit ends with 32 bytes that its owner makes ([`Seal`]), and is
//!   there wholly or not at all after a crash.
//! - **A bounded window.** A relaxed append ([`AppendOptions`]) may be acknowledged once it is written, with its sync at
//!   most [`Options::window`] later. All others still mean the disk.
//! - **Recovery.** [`Journal::open`] tells a torn tail, which no caller was ever promised, from damage
//!   to what was acknowledged, and refuses to start on the latter ([`OpenError::Damaged`]).
//! - **Reading.** Of an open journal what is durable, by sequence or by [`Position`]; of any directory, without opening it,
//!   everything up to the first defect ([`Offline`]).
//! - **No space** for the next segment is a condition to recover from ([`AppendError::NoSpace`]); a
//!   failed write or sync is not, and ends the process ([`Options::on_fatal`]).
//!
//! # Files
//!
//! A directory holds `lock`, the mark `durable`, and segments named `<16 hex digits of the id>.seg`.
//! All numbers are big-endian. A segment has its full size, zero-filled, before it gets its name:
//!
//! ```text
//! segment header, 64 bytes
//!   "FKJS" | version u32 = 1, sealed 2 | segment id u64 | first sequence u64 | size in bytes u64 | salt u64
//!   | log id, 16 bytes | copies u32 | CRC-32
//! frame, a multiple of 8 bytes
//!   "FKJF" | payload length u32 | segment id u64 | sequence u64 | durable-through u64 | payload | zero padding | CRC-32
//! seal frame, 72 bytes
//!   "FKJC" | 32 u32 | segment id u64 | sequence u64 | durable-through u64 | seal | zero padding | CRC-32
//! ```
//!
//! A seal frame ends each write of frames to a sealed segment, and takes no sequence: it bears that of the last frame before
//! it. A segment is sealed throughout or not at all, as its version says; both kinds may be in one log.
//!
//! The frame's CRC covers the segment's salt and every byte of the frame before it. The salt is
//! random, so that no payload can contain bytes that pass for a frame. *Durable-through* is the last
//! sequence that had been synced when the frame was written, so that a frame testifies for all that
//! was synced before its own write.
//!
//! The log id is random and the same in all segments of a log, so that a mirror of another journal is
//! never taken for this one's. *Copies* says how many directories an acknowledgement meant.
//!
//! Sequences begin at 1 and have no gaps; 0 stands for "nothing yet".

mod disk;
mod durable;
mod error;
mod fill;
mod frame;
mod journal;
mod mirror;
mod offline;
mod options;
mod order;
mod reader;
mod recovery;
mod scan;
mod seal;
mod segment;
#[cfg(any(test, feature = "simulated-disk"))]
pub mod simulated;
mod snapshot;
mod state;
mod waiters;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskFile, SystemDisk};
pub use error::{
    AppendError, DamageCause, FatalError, Lost, OfflineError, OpenError, ReadError, SnapshotError,
};
pub use frame::{Frame, HeaderError, SegmentHeader, find_frames, parse_frame, parse_header};
pub use journal::{Journal, Recovered, Stats, Ticket};
pub use offline::Offline;
pub use options::{AppendOptions, FatalHook, LeafHash, Options};
pub use reader::{Frames, PlacedFrame, Position, Reader, Verified};
pub use seal::Seal;
pub use snapshot::{SnapshotReader, read_snapshot, write_snapshot};
pub use waiters::Waiters;
