//! What the modules of access share about the store's system records.

use fieldkeep_crypto::random::{self, RandomError};
use fieldkeep_keystore::{
    error::KeystoreError,
    info::{Changed, SystemRecord},
    keystore::Keystore,
    store::Operation,
};

/// Records read at once.
const PAGE: usize = 1_000;

/// All records whose keys begin with `prefix`, up to `limit`.
pub(super) async fn read_all(
    keystore: &Keystore,
    prefix: &str,
    limit: usize,
) -> Result<Vec<(String, SystemRecord)>, KeystoreError> {
    let mut all: Vec<(String, SystemRecord)> = Vec::new();
    while all.len() < limit {
        let after = all.last().map(|(key, _)| key.as_str());
        let wanted = PAGE.min(limit - all.len());
        let page = keystore.system_records(prefix, after, wanted).await?;
        let full = page.len() == wanted;
        all.extend(page);
        if !full {
            break;
        }
    }
    Ok(all)
}

/// A new operation that is never repeated.
pub(super) fn make_operation() -> Result<Operation, RandomError> {
    let mut id = [0; 16];
    random::fill(&mut id)?;
    Ok(Operation {
        id,
        fingerprint: [0; 32],
    })
}

/// The same change with another value.
pub(super) fn changed_to<T>(changed: Changed<()>, value: T) -> Changed<T> {
    let Changed {
        value: (),
        revision,
        repeated,
        changes,
    } = changed;
    Changed {
        value,
        revision,
        repeated,
        changes,
    }
}
