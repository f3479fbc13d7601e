//! A page in the making: it goes from newest to oldest, while records are read from oldest to newest.

use std::collections::VecDeque;

/// The records of a page, found in runs: each run is older than the one before, and within it records come oldest first.
pub(super) struct Found {
    limit: usize,
    max_bytes: usize,
    /// Newest first.
    records: Vec<(u64, Vec<u8>)>,
    /// The newest of the run, oldest first.
    run: VecDeque<(u64, Vec<u8>)>,
    /// The bytes of both.
    bytes: usize,
    /// The newest record that found no room.
    left_out: Option<u64>,
}

impl Found {
    pub(super) fn new(limit: usize, max_bytes: usize) -> Found {
        Found {
            limit,
            max_bytes,
            records: Vec::new(),
            run: VecDeque::new(),
            bytes: 0,
            left_out: None,
        }
    }

    /// Whether no older record may be added.
    pub(super) fn is_full(&self) -> bool {
        self.left_out.is_some() || self.records.len() >= self.limit
    }

    /// Where the next page begins, if a record found no room.
    pub(super) fn next(&self) -> Option<u64> {
        self.left_out.map(|index| index + 1)
    }

    pub(super) fn into_records(self) -> Vec<(u64, Vec<u8>)> {
        self.records
    }

    /// Adds a record to the run. The oldest of the run give way to it.
    pub(super) fn push(&mut self, index: u64, record: &[u8]) {
        self.bytes += record.len();
        self.run.push_back((index, record.to_vec()));
        while self.is_over() {
            let Some((index, record)) = self.run.pop_front() else {
                return;
            };
            self.bytes -= record.len();
            self.left_out = Some(index);
        }
    }

    /// Ends the run.
    pub(super) fn finish(&mut self) {
        self.records.extend(self.run.drain(..).rev());
    }

    fn is_over(&self) -> bool {
        let count = self.records.len() + self.run.len();
        count > self.limit || (count > 1 && self.bytes > self.max_bytes)
    }
}
