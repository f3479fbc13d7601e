//! Derived field keys beside their DEK: read with one atomic load and a binary search.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use fieldkeep_crypto::{keys::FieldKey, names::Field};

/// The most field keys beside one version.
pub(crate) const MAX_FIELD_KEYS: usize = 64;

/// A field key on the heap, its reference counts, its name (24 bytes is typical) and its place in the list.
const FIELD_KEY_BYTES: usize = size_of::<FieldKey>() + 16 + (24 + 16) + size_of::<Cached>();

type Cached = (Arc<str>, Arc<FieldKey>);

/// A bounded map from field names to keys.
pub(crate) struct FieldKeys {
    /// By name. Replaced as a whole, so that a reader never waits for a writer.
    sorted: ArcSwap<Vec<Cached>>,
    /// Which one leaves next when the map is full. Fields are few; whoever uses more than fit pays one derivation
    /// (about a microsecond) for each that is not there.
    victim: AtomicUsize,
}

impl FieldKeys {
    pub(crate) fn new() -> Self {
        FieldKeys {
            sorted: ArcSwap::from_pointee(Vec::new()),
            victim: AtomicUsize::new(0),
        }
    }

    pub(crate) fn find(&self, field: Field<'_>) -> Option<Arc<FieldKey>> {
        let sorted = self.sorted.load();
        let at = position(&sorted, field).ok()?;
        sorted.get(at).map(|(_, key)| Arc::clone(key))
    }

    /// Adds a key, or finds that another thread did. Returns the one to use.
    pub(crate) fn insert(&self, field: Field<'_>, key: FieldKey) -> Arc<FieldKey> {
        let name: Arc<str> = Arc::from(field.as_str());
        let key = Arc::new(key);
        let victim = self.victim.load(Ordering::Relaxed);
        let mut full = false;
        self.sorted.rcu(|current| {
            if position(current, field).is_ok() {
                return Arc::clone(current);
            }
            let mut next = Vec::with_capacity((current.len() + 1).min(MAX_FIELD_KEYS));
            full = current.len() >= MAX_FIELD_KEYS;
            let leaves = full.then_some(victim % MAX_FIELD_KEYS);
            next.extend(
                current
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| Some(*at) != leaves)
                    .map(|(_, cached)| cached.clone()),
            );
            let at = position(&next, field).unwrap_or_else(|at| at);
            next.insert(at, (Arc::clone(&name), Arc::clone(&key)));
            Arc::new(next)
        });
        if full {
            // Any step works that is coprime to the size: neighbours by name are often used together.
            self.victim.fetch_add(37, Ordering::Relaxed);
        }
        self.find(field).unwrap_or(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.load().len()
    }

    /// Estimated bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * FIELD_KEY_BYTES
    }
}

fn position(sorted: &[Cached], field: Field<'_>) -> Result<usize, usize> {
    sorted.binary_search_by(|(name, _)| (**name).cmp(field.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldkeep_crypto::{
        ciphertext::{Handle, Suite},
        keys::Dek,
    };

    fn derive(dek: &Dek, field: &str) -> FieldKey {
        dek.derive_field_key(
            Suite::KcXaes256Gcm,
            "default",
            Handle::from_bytes([1; 8]),
            1,
            Field::parse(field).unwrap(),
        )
    }

    #[test]
    fn keeps_at_most_the_bound_and_finds_what_it_keeps() {
        let dek = Dek::make().unwrap();
        let keys = FieldKeys::new();
        for n in 0..1000 {
            let name = format!("field.{n}");
            let field = Field::parse(&name).unwrap();
            let inserted = keys.insert(field, derive(&dek, &name));
            assert!(Arc::ptr_eq(&inserted, &keys.find(field).unwrap()));
            assert!(keys.len() <= MAX_FIELD_KEYS);
        }
        assert_eq!(keys.len(), MAX_FIELD_KEYS);
        let sorted = keys.sorted.load();
        assert!(sorted.is_sorted_by(|one, next| one.0 < next.0));
    }

    #[test]
    fn a_second_insert_of_a_field_gives_the_first_key() {
        let dek = Dek::make().unwrap();
        let keys = FieldKeys::new();
        let field = Field::parse("email").unwrap();
        let first = keys.insert(field, derive(&dek, "email"));
        let second = keys.insert(field, derive(&dek, "email"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(keys.len(), 1);
    }
}
