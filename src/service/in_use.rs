//! The keys that a batch works with while it waits and works: looked at again before its reply.

use std::collections::HashMap;
use std::sync::Arc;

use fieldkeep_keystore::key::Key;

use crate::service::Core;
use crate::service::batch::Results;
use crate::service::failure::Failure;
use crate::service::offload::Turns;
use crate::service::perform::permit::Permit;

/// The keys and versions of a batch, and which of them each item needs.
///
/// A batch holds snapshots of its keys, and may wait long for its place. Once the disabling of a key or a version is
/// acknowledged, no result that needs it leaves any more.
pub(super) struct InUse {
    keys: Vec<Option<(Arc<Key>, u32)>>,
    items: Vec<Option<usize>>,
}

impl InUse {
    /// `keys` has `None` for what cannot be used; `items` has the index of each item's key, or `None`.
    pub(super) fn new(
        keys: impl Iterator<Item = Option<(Arc<Key>, u32)>>,
        items: impl Iterator<Item = Option<usize>>,
    ) -> Self {
        Self {
            keys: keys.collect(),
            items: items.collect(),
        }
    }

    /// Takes back the results that need a key or a version that was disabled meanwhile.
    pub(super) async fn check_again<T>(
        &self,
        core: &Core,
        permit: &Permit<'_>,
        results: &mut Results<T>,
    ) {
        let mut refused: HashMap<usize, Failure> = HashMap::new();
        let mut turns = Turns::default();
        for (index, used) in self.keys.iter().enumerate() {
            let Some((key, version)) = used else { continue };
            turns.next().await;
            if let Err(failure) = core.vault.check_again(permit, key, *version).await {
                refused.insert(index, failure);
            }
        }
        if refused.is_empty() {
            return;
        }
        for (result, item) in results.iter_mut().zip(&self.items) {
            let failure = item.and_then(|index| refused.get(&index));
            if let (Ok(_), Some(failure)) = (&result, failure) {
                *result = Err(failure.clone());
            }
        }
    }
}
