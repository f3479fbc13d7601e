//! The limits of every store, and the check of a transaction against them.

use std::collections::HashSet;

use bytes::Bytes;

use super::{CommitError, StoreError, Transaction};

/// The longest key, in bytes. The shortest is one byte.
pub const MAX_KEY_BYTES: usize = 512;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 4096;
/// The most puts and deletes of one transaction together, and the most expectations.
pub const MAX_CHANGES: usize = 1024;
/// The most bytes of keys and values in one transaction.
pub const MAX_TRANSACTION_BYTES: usize = 1 << 20;
/// The most records of one scan.
pub const MAX_SCAN: usize = 10_000;
/// The most watchers at once.
pub const MAX_WATCHERS: usize = 64;

/// Checks what can be checked without the store's contents.
pub fn check_transaction(transaction: &Transaction) -> Result<(), CommitError> {
    let changes = transaction.puts.len() + transaction.deletes.len();
    at_most("number of changes", changes, MAX_CHANGES)?;
    at_most(
        "number of expectations",
        transaction.expect.len(),
        MAX_CHANGES,
    )?;
    let mut total = 0;
    let mut changed: HashSet<&Bytes> = HashSet::with_capacity(changes);
    for (key, value) in &transaction.puts {
        check_key(key)?;
        at_most("value in bytes", value.len(), MAX_VALUE_BYTES)?;
        total += key.len() + value.len();
        if !changed.insert(key) {
            return Err(CommitError::Invalid("a key is changed twice"));
        }
    }
    for key in &transaction.deletes {
        check_key(key)?;
        total += key.len();
        if !changed.insert(key) {
            return Err(CommitError::Invalid("a key is changed twice"));
        }
    }
    at_most("size in bytes", total, MAX_TRANSACTION_BYTES)?;
    let mut expected: HashSet<&Bytes> = HashSet::with_capacity(transaction.expect.len());
    for (key, _) in &transaction.expect {
        check_key(key)?;
        if !expected.insert(key) {
            return Err(CommitError::Invalid("a key is expected twice"));
        }
    }
    Ok(())
}

/// Checks the limit of a scan.
pub fn check_scan(limit: usize) -> Result<(), StoreError> {
    if limit > MAX_SCAN {
        return Err(StoreError::ScanTooLarge {
            asked: limit,
            limit: MAX_SCAN,
        });
    }
    Ok(())
}

fn check_key(key: &Bytes) -> Result<(), CommitError> {
    if key.is_empty() {
        return Err(CommitError::Invalid("a key is empty"));
    }
    at_most("key in bytes", key.len(), MAX_KEY_BYTES)
}

fn at_most(what: &'static str, actual: usize, limit: usize) -> Result<(), CommitError> {
    if actual > limit {
        return Err(CommitError::TooLarge {
            what,
            actual,
            limit,
        });
    }
    Ok(())
}
