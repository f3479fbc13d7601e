//! Re-encryption that sends only what is behind.
//!
//! A ciphertext names its key and version. What it does not say is which version is primary now, so each chunk first asks:
//! the first value for each key goes to the service whatever it says, and the answer names the primary. Then everything that
//! names another key or version follows. So a rotation in the middle of a file is noticed one chunk later, and nothing is
//! remembered between chunks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{Ciphertext, Handle};

use super::super::failure::Failure;
use super::cipher::{Item, Operation, Outcome};
use super::transform::Work;

/// What seals a value again: a named key, or the key that the ciphertext names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Destination {
    Named(String),
    Own(Handle),
}

impl Work<'_> {
    /// Brings the chosen values under the primary version. `dry_run`: only counts those that are behind.
    pub(super) async fn reencrypt<C, F>(&mut self, cipher: &C, dry_run: bool) -> Result<(), Failure>
    where
        C: Fn(Operation, Vec<Item>) -> F,
        F: Future<Output = Outcome>,
    {
        let mut first = Vec::new();
        let mut rest = Vec::new();
        let mut primaries: HashMap<Destination, Option<(Handle, u32)>> = HashMap::new();
        for (index, ciphertext) in self.ciphertexts()? {
            let Some(destination) = self.destination(index, &ciphertext) else {
                continue;
            };
            match primaries.entry(destination.clone()) {
                Entry::Occupied(_) => rest.push((destination, index, ciphertext)),
                Entry::Vacant(entry) => {
                    entry.insert(None);
                    first.push((destination, (index, ciphertext)));
                }
            }
        }
        let (destinations, first): (Vec<_>, Vec<_>) = first.into_iter().unzip();
        let answers = self.send(cipher, first, dry_run).await?;
        primaries.extend(destinations.into_iter().zip(answers));
        let mut behind = Vec::new();
        for (destination, index, ciphertext) in rest {
            // A first value that does not open tells nothing; then all are sent.
            let primary = primaries.get(&destination).copied().flatten();
            if primary.is_none() {
                behind.push((index, ciphertext));
            } else if primary == seal_of(&ciphertext) {
                self.counts.already += 1;
            } else if dry_run {
                self.counts.values += 1;
            } else {
                behind.push((index, ciphertext));
            }
        }
        self.send(cipher, behind, dry_run).await?;
        Ok(())
    }

    fn destination(&self, index: usize, ciphertext: &[u8]) -> Option<Destination> {
        let cell = self.cells.get(index)?;
        match cell.value.column.key.as_str() {
            "" => seal_of(ciphertext).map(|(handle, _)| Destination::Own(handle)),
            key => Some(Destination::Named(key.to_owned())),
        }
    }

    /// Re-encrypts some values; what seals each now, if it opened.
    async fn send<C, F>(
        &mut self,
        cipher: &C,
        values: Vec<(usize, Bytes)>,
        dry_run: bool,
    ) -> Result<Vec<Option<(Handle, u32)>>, Failure>
    where
        C: Fn(Operation, Vec<Item>) -> F,
        F: Future<Output = Outcome>,
    {
        let mut seals = Vec::with_capacity(values.len());
        for (index, before, result) in self.call(cipher, Operation::ReEncrypt, values).await? {
            seals.push(match result {
                Ok(after) => {
                    match after == before {
                        true => self.counts.already += 1,
                        false if dry_run => self.counts.values += 1,
                        false => self.replace_ciphertext(index, &after),
                    }
                    seal_of(&after)
                }
                Err(refused) => {
                    self.leave_refused(index, &refused)?;
                    None
                }
            });
        }
        Ok(seals)
    }
}

/// The key and version that a ciphertext names.
fn seal_of(ciphertext: &[u8]) -> Option<(Handle, u32)> {
    let parsed = Ciphertext::parse(ciphertext).ok()?;
    Some((parsed.handle(), parsed.version()))
}
