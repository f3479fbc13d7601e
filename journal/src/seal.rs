//! How the owner of a log vouches for each commit.

/// Makes the seals of a log; given with [`crate::Journal::set_seal`] and called on the journal's writer thread.
///
/// The journal writes what `seal` gives and does not look at its meaning: a hash chain, or a keyed hash over a Merkle
/// tree's size and root.
pub trait Seal: Send {
    /// The seal of the frames from sequence `first` on, whose leaf hashes ([`crate::Options::leaf`]) these are, in order. It is
    /// called once for each commit, in the order of the log and just before the commit is written. It must not block.
    fn seal(&mut self, first: u64, leaves: &[[u8; 32]]) -> [u8; 32];

    /// Everything up to sequence `through` is durable, and those who wait for it are woken when this returns. It must
    /// not block.
    fn committed(&mut self, through: u64);
}
