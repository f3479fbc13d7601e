//! Counting what is sealed, before it is: a key may rotate after so many messages or bytes, and nothing that was sealed is
//! ever missing from its count.

use std::collections::HashMap;
use std::sync::Arc;

use fieldkeep_crypto::ciphertext::Handle;
use fieldkeep_keystore::key::Key;
use futures_util::{StreamExt, stream};

use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::perform::permit::Permit;

/// Counts of one batch that wait for the store at once, if it has so many keys.
const PARALLEL: usize = 64;

/// What a batch is about to seal under each of its keys and versions.
#[derive(Default)]
pub(super) struct Tally(HashMap<(Handle, u32), Sum>);

struct Sum {
    key: Arc<Key>,
    messages: u64,
    bytes: u64,
}

impl Tally {
    /// Adds `messages` items with `bytes` of plaintext under the primary version of `key`.
    pub(super) fn add(&mut self, key: &Arc<Key>, messages: u64, bytes: u64) {
        if messages == 0 {
            return;
        }
        let sum = self.0.entry(name(key)).or_insert_with(|| Sum {
            key: Arc::clone(key),
            messages: 0,
            bytes: 0,
        });
        sum.messages = sum.messages.saturating_add(messages);
        sum.bytes = sum.bytes.saturating_add(bytes);
    }

    /// Counts it all. Nothing may be sealed under a key that [`Uncounted`] has.
    pub(super) async fn count(self, core: &Core, permit: &Permit<'_>) -> Uncounted {
        let counts = self.0.into_iter().map(|(name, sum)| async move {
            let counted = core
                .vault
                .count(permit, &sum.key, sum.messages, sum.bytes)
                .await;
            counted.err().map(|failure| (name, failure))
        });
        let failed = stream::iter(counts)
            .buffer_unordered(PARALLEL)
            .filter_map(std::future::ready);
        Uncounted(failed.collect().await)
    }
}

/// The keys whose use could not be counted.
pub(super) struct Uncounted(HashMap<(Handle, u32), Failure>);

impl Uncounted {
    /// Whether something may be sealed under the primary version of `key`.
    pub(super) fn check(&self, key: &Key) -> Result<(), Failure> {
        match self.0.get(&name(key)) {
            None => Ok(()),
            Some(failure) => Err(failure.clone()),
        }
    }
}

fn name(key: &Key) -> (Handle, u32) {
    (key.handle(), key.primary().number())
}
