//! Changes of masks. Nobody who sees a field masked makes its mask show him more.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::{info::Changed, store::Operation};

use super::{FieldMask, kind::Mask, mask_key};
use crate::access::{
    Access, AccessError, By, action::Action, grant::Scope, snapshot::AccessSnapshot,
};

/// A mask that is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedMask {
    /// Whose field.
    pub tenant: Name,
    /// Which field.
    pub field: Name,
    /// How it is to be shown.
    pub mask: Mask,
}

impl Access {
    /// Sets the mask of a field, in place of the one that it has. The same operation again has its first outcome. `now` is in
    /// Unix seconds.
    ///
    /// # Errors
    /// [`AccessError::SelfMask`], [`AccessError::Full`]; the tenant does not exist; the keystore's errors.
    pub async fn set_mask(
        &self,
        wanted: WantedMask,
        by: By,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Arc<FieldMask>>, AccessError> {
        let access = self.clone();
        let key = mask_key(&wanted.tenant, &wanted.field);
        // No other change comes between this and the commit, so that the rights looked at are those that count.
        let make = move |present: Option<&FieldMask>| {
            let WantedMask {
                tenant,
                field,
                mask,
            } = wanted;
            let present = present.map(|present| &present.mask);
            if !mask.shows_no_more_than(present)
                && access.snapshot().sees_masked(&by, &tenant, &field)
            {
                return Err(AccessError::SelfMask);
            }
            Ok(FieldMask {
                tenant,
                field,
                mask,
                created: now,
                set_by: by.resource(),
            })
        };
        self.set(key, make, operation, now).await
    }
}

impl AccessSnapshot {
    /// Whether some grant lets `by` see a field masked, whatever the key and its conditions, which may hold another time.
    fn sees_masked(&self, by: &By, tenant: &Name, field: &Name) -> bool {
        let By::Caller(by) = by else { return false };
        let subjects = std::iter::once(&by.resource).chain(self.groups_of(by));
        let mut grants = subjects.flat_map(|subject| self.grants_of(subject));
        grants.any(|grant| {
            let what = &grant.what;
            let opens = match &what.scope {
                Scope::All => true,
                Scope::Tenant(opened) => opened == tenant,
            };
            opens
                && what.role.actions().has(Action::DecryptMasked)
                && what
                    .fields
                    .iter()
                    .any(|pattern| pattern.covers(Some(field.as_str())))
        })
    }
}
