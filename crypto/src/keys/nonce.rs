//! Nonces of 24 random bytes. A caller never chooses one.

use std::fmt;

use crate::random::{self, RandomError};

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 24;

/// A nonce of 24 bytes, used for one message: it can be neither copied nor cloned.
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// Draws a nonce from the operating system.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives none.
    pub fn make() -> Result<Self, RandomError> {
        let mut bytes = [0; NONCE_BYTES];
        random::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A nonce that somebody chose. Only for test vectors: a nonce used twice gives the plaintexts away.
    pub fn dangerous_from_bytes(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// The nonces of one batch, drawn from the operating system with a single call.
///
/// They belong to the call that drew them; what is left over is dropped with this value.
pub struct Nonces {
    bytes: Vec<u8>,
    used: usize,
}

impl Nonces {
    /// Draws `count` nonces. The caller bounds `count`: it costs 24 bytes of memory a nonce.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives none.
    pub fn make(count: usize) -> Result<Self, RandomError> {
        let mut bytes = vec![0; count.checked_mul(NONCE_BYTES).ok_or(RandomError)?];
        random::fill(&mut bytes)?;
        Ok(Self { bytes, used: 0 })
    }

    /// The next nonce that was not given out yet, or `None` after the last.
    pub fn next_nonce(&mut self) -> Option<Nonce> {
        let nonce = self.bytes.get(self.used..)?.first_chunk::<NONCE_BYTES>()?;
        self.used += NONCE_BYTES;
        Some(Nonce(*nonce))
    }
}

impl Iterator for Nonces {
    type Item = Nonce;

    fn next(&mut self) -> Option<Nonce> {
        self.next_nonce()
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_batch_gives_each_nonce_once() {
        let nonces: HashSet<[u8; 24]> =
            Nonces::make(1000).unwrap().map(|n| *n.as_bytes()).collect();
        assert_eq!(nonces.len(), 1000);
        assert_eq!(Nonces::make(3).unwrap().count(), 3);
        assert!(Nonces::make(0).unwrap().next_nonce().is_none());
    }

    #[test]
    fn batches_never_overlap() {
        let first: HashSet<[u8; 24]> = Nonces::make(100).unwrap().map(|n| *n.as_bytes()).collect();
        assert!(
            Nonces::make(100)
                .unwrap()
                .all(|n| !first.contains(n.as_bytes()))
        );
        assert_ne!(
            Nonce::make().unwrap().as_bytes(),
            Nonce::make().unwrap().as_bytes()
        );
    }

    #[test]
    fn an_impossible_batch_is_refused() {
        assert!(Nonces::make(usize::MAX).is_err());
    }

    #[test]
    fn debug_shows_no_bytes() {
        assert_eq!(
            format!("{:?}", Nonce::dangerous_from_bytes([7; 24])),
            "Nonce(..)"
        );
        assert_eq!(format!("{:?}", Nonces::make(1).unwrap()), "Nonces(..)");
    }
}
