//! Receipts: where the record of each call is in the service's audit log, and what it is.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use fieldkeep_tlog::receipt::Receipt;

/// The metadata with the receipt of a call, and that asks for it.
pub(crate) const METADATA: &str = "fieldkeep-receipt";

/// Collects the receipts of calls. A clone collects into the same place.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fieldkeep_client::Error> {
/// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
/// use fieldkeep_client::Receipts;
///
/// let receipts = Receipts::up_to(1_000);
/// let recorded = client.with_receipts(&receipts);
/// recorded.field("pii", "customer.email").encrypt(b"ada@example.com").await?;
/// for receipt in receipts.take() {
///     println!("record {}: {receipt}", receipt.index);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Receipts {
    capacity: usize,
    kept: Arc<Mutex<VecDeque<Receipt>>>,
}

impl Receipts {
    /// Keeps the newest `capacity` receipts.
    ///
    /// ```
    /// let receipts = fieldkeep_client::Receipts::up_to(100);
    /// assert!(receipts.take().is_empty());
    /// ```
    #[must_use]
    pub fn up_to(capacity: usize) -> Self {
        Self {
            capacity,
            kept: Arc::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Receipt>> {
        // A poisoned lock still guards whole receipts.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The receipts that came since the last time, oldest first.
    ///
    /// ```
    /// # let receipts = fieldkeep_client::Receipts::up_to(100);
    /// let durable = receipts.take().iter().all(|receipt| receipt.durable);
    /// # assert!(durable);
    /// ```
    #[must_use]
    pub fn take(&self) -> Vec<Receipt> {
        self.kept().drain(..).collect()
    }

    /// Adds a receipt, if it is one: what a newer service sends may not be.
    pub(crate) fn add(&self, receipt: Option<Receipt>) {
        let Some(receipt) = receipt else {
            return;
        };
        let mut kept = self.kept();
        if kept.len() >= self.capacity {
            kept.pop_front();
        }
        if self.capacity > 0 {
            kept.push_back(receipt);
        }
    }
}

#[cfg(test)]
mod tests {
    use fieldkeep_tlog::{hash::Hash, log_id::LogId};

    use super::*;

    #[test]
    fn the_oldest_receipts_go_first() {
        let receipts = Receipts::up_to(2);
        for index in 0..3 {
            receipts.add(Some(Receipt {
                log: LogId::from_bytes([1; 16]),
                index,
                leaf: Hash::EMPTY_ROOT,
                durable: true,
            }));
        }
        receipts.add(None);
        let kept: Vec<u64> = receipts
            .take()
            .iter()
            .map(|receipt| receipt.index)
            .collect();
        assert_eq!(kept, [1, 2]);
        assert!(receipts.take().is_empty());
        let none = Receipts::up_to(0);
        none.add("no receipt".parse().ok());
        assert!(none.take().is_empty());
    }
}
