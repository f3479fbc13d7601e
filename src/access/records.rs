//! Reading the system records of one kind.

use fieldkeep_keystore::{error::KeystoreError, info::SystemRecord, keystore::Keystore};

/// Records read at once.
pub(super) const PAGE: usize = 1_000;

/// What `decode` keeps of all records whose keys begin with `prefix`. There is no bound here: to leave some out would be to
/// forget a right, or that one was taken back. Whoever writes them bounds their number.
pub(super) async fn read_all<T, E: From<KeystoreError>>(
    keystore: &Keystore,
    prefix: &str,
    mut decode: impl FnMut(&str, &SystemRecord) -> Result<Option<T>, E>,
) -> Result<Vec<T>, E> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = keystore
            .system_records(prefix, after.as_deref(), PAGE)
            .await?;
        for (key, record) in &page {
            all.extend(decode(key, record)?);
        }
        let full = page.len() == PAGE;
        after = page.into_iter().next_back().map(|(key, _)| key);
        if !full {
            return Ok(all);
        }
    }
}
