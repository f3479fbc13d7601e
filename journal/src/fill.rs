//! The group that takes appends while the writer is busy with the one before.

use std::sync::Arc;

use crate::frame::{Kind, SEAL_FRAME_BYTES, push_frame};
use crate::segment::Segment;

/// Buffers above this size are not kept for reuse.
const SPARE_BYTES: usize = 1 << 20;

pub(crate) struct Fill {
    group: Group,
    pub(crate) next: u64,
    /// The segment that takes the next frame, and where.
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    /// Whether each chunk gets a seal when it is written.
    sealed: bool,
    /// The owner has not given the seal yet, without which nothing may be appended.
    pub(crate) needs_seal: bool,
    spare: Vec<(Vec<u8>, Vec<[u8; 32]>)>,
    pub(crate) upcoming: Upcoming,
    pub(crate) idle: bool,
    pub(crate) closing: bool,
}

/// What is written and acknowledged together.
#[derive(Default)]
pub(crate) struct Group {
    /// One, unless the group crosses segments.
    pub(crate) chunks: Vec<Chunk>,
    /// Appends in the group; each has somebody waiting.
    pub(crate) appends: u64,
    /// Those of them whose callers wait only for the write.
    pub(crate) relaxed: u64,
}

/// Frames for one write: consecutive, in one segment.
pub(crate) struct Chunk {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// The leaf hash of each frame, if the log is sealed.
    pub(crate) leaves: Vec<[u8; 32]>,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// The segment after the current one.
pub(crate) enum Upcoming {
    Ready(Segment),
    /// Being made; callers that need it wait, which is for the time of zero-filling one segment at most.
    Making,
    /// The disk was full. The next append that needs it asks for another attempt.
    Full,
    /// Being tried again; callers are refused meanwhile, so that nobody hangs on a full disk.
    Retrying,
}

impl Fill {
    /// Goes on in `segment` from byte `end` with sequence `next`.
    pub(crate) fn new(segment: Segment, end: u64, next: u64, sealed: bool) -> Fill {
        Fill {
            group: Group::default(),
            next,
            segment: Arc::new(segment),
            end,
            sealed,
            needs_seal: sealed,
            spare: Vec::new(),
            upcoming: Upcoming::Making,
            idle: false,
            closing: false,
        }
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.group.chunks.is_empty()
    }

    /// Bytes that wait to be written.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.group
            .chunks
            .iter()
            .map(|chunk| chunk.bytes.len())
            .sum()
    }

    /// Continues in the upcoming segment. Its header goes in front of its first frame, in the same write.
    pub(crate) fn roll(&mut self) {
        let Upcoming::Ready(segment) = std::mem::replace(&mut self.upcoming, Upcoming::Making)
        else {
            return;
        };
        self.segment = Arc::new(segment);
        self.end = 0;
        self.start_chunk();
        let header = self.segment.header(self.next).encode(Kind::Segment);
        self.end = header.len() as u64;
        if let Some(chunk) = self.group.chunks.last_mut() {
            chunk.bytes.extend_from_slice(&header);
        }
    }

    fn start_chunk(&mut self) {
        let (mut bytes, mut leaves) = self.spare.pop().unwrap_or_default();
        bytes.clear();
        leaves.clear();
        self.group.chunks.push(Chunk {
            segment: self.segment.clone(),
            offset: self.end,
            bytes,
            leaves,
            first: self.next,
            last: self.next,
        });
    }

    /// Adds one append, for which there must be room; its last sequence.
    pub(crate) fn push(&mut self, payloads: &[&[u8]], leaves: &[[u8; 32]], relaxed: bool) -> u64 {
        if self.group.chunks.is_empty() {
            self.start_chunk();
        }
        let id = self.segment.id;
        if let Some(chunk) = self.group.chunks.last_mut() {
            for payload in payloads {
                push_frame(&mut chunk.bytes, id, self.next, payload);
                chunk.last = self.next;
                self.next += 1;
            }
            chunk.leaves.extend_from_slice(leaves);
            self.end = chunk.offset + chunk.bytes.len() as u64;
        }
        self.group.appends += 1;
        self.group.relaxed += u64::from(relaxed);
        self.next - 1
    }

    /// Takes the group for writing. The room for the seal of its last chunk was kept free by each append.
    pub(crate) fn take_group(&mut self) -> Group {
        if self.sealed && !self.group.chunks.is_empty() {
            self.end += SEAL_FRAME_BYTES as u64;
        }
        std::mem::take(&mut self.group)
    }

    /// Keeps the buffers of written chunks for the next groups.
    pub(crate) fn recycle(&mut self, chunks: Vec<Chunk>) {
        let buffers = chunks.into_iter().map(|chunk| (chunk.bytes, chunk.leaves));
        self.spare.extend(
            buffers
                .filter(|(bytes, _)| bytes.capacity() <= SPARE_BYTES)
                .take(1),
        );
        self.spare.truncate(2);
    }
}
