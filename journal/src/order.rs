//! In which order frames may stand in a segment, and where its whole commits end.

use crate::frame::SegmentHeader;

/// Follows the frames of one segment from some frame on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    sealed: bool,
    /// The sequence that the next payload must have.
    pub(crate) next: u64,
    /// The sequence behind the last whole commit. In a segment without seals each frame is whole by itself.
    pub(crate) whole_next: u64,
}

impl Order {
    /// What may follow at the place where `sequence` begins, in the segment of `header`.
    pub(crate) fn from(header: &SegmentHeader, sequence: u64) -> Order {
        Order {
            sealed: header.sealed,
            next: sequence,
            whole_next: sequence,
        }
    }

    /// Takes the next frame; false if another one must stand here.
    pub(crate) fn take(&mut self, sequence: u64, is_seal: bool) -> bool {
        if is_seal {
            let fits = self.is_within_commit() && sequence.checked_add(1) == Some(self.next);
            if fits {
                self.whole_next = self.next;
            }
            return fits;
        }
        if sequence != self.next || sequence == u64::MAX {
            return false;
        }
        self.next += 1;
        if !self.sealed {
            self.whole_next = self.next;
        }
        true
    }

    /// Whether frames were taken that a seal must follow.
    pub(crate) fn is_within_commit(&self) -> bool {
        self.whole_next != self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sealed: bool) -> Order {
        let header = SegmentHeader {
            id: 1,
            first: 5,
            size: 0,
            salt: 0,
            log: [0; 16],
            copies: 1,
            sealed,
        };
        Order::from(&header, header.first)
    }

    #[test]
    fn a_seal_follows_at_least_one_frame_and_bears_the_sequence_of_the_last() {
        let mut order = order(true);
        assert!(!order.take(4, true), "nothing to seal");
        assert!(!order.take(6, false) && order.take(5, false) && order.take(6, false));
        assert_eq!((order.next, order.whole_next), (7, 5));
        assert!(!order.take(5, true) && !order.take(7, true) && order.take(6, true));
        assert_eq!((order.next, order.whole_next), (7, 7));
        assert!(!order.take(6, true), "sealed already");
    }

    #[test]
    fn without_seals_each_frame_is_whole() {
        let mut order = order(false);
        assert!(order.take(5, false) && !order.is_within_commit());
        assert!(!order.take(5, true));
    }
}
