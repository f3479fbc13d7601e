//! What whoever may decrypt a field only masked sees of it.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;

use crate::access::By;
use crate::access::action::Action;
use crate::access::grant::Scope;
use crate::access::mask::kind::Mask;
use crate::access::mask::write::WantedMask;
use crate::access::mask::{self, FieldMask, mask_key, masks_of};
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::access::listed_of;
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;
use crate::service::resource::tenant_resource;

/// A field as a call names it: its tenant is the caller's if it names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalField {
    /// The tenant, if named.
    pub tenant: Option<Name>,
    /// The field.
    pub field: Name,
}

impl LocalField {
    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a Name {
        self.tenant.as_ref().unwrap_or(&caller.tenant)
    }

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant(caller).as_str(),
            key: None,
        }
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        let tenant = tenant_resource(self.tenant(caller).as_str());
        account.used(tenant, 0, self.field.as_str(), 0);
    }
}

/// Set the mask of a field.
pub struct SetMask {
    /// The field.
    pub field: LocalField,
    /// How it is to be shown.
    pub mask: Mask,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for SetMask {
    const ACTION: Action = Action::Grant;
    const CHANGES: bool = true;
    /// A mask says who sees what, so that no reply may leave through another one once it is acknowledged.
    const CHANGES_RIGHTS: bool = true;
    type Output = Arc<FieldMask>;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.field.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        self.field.about(caller, account);
        account.detail(format!("mask={}", self.mask));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Arc<FieldMask>, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let wanted = WantedMask {
            tenant: self.field.tenant(caller).clone(),
            field: self.field.field,
            mask: self.mask,
        };
        let key = mask_key(&wanted.tenant, &wanted.field);
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let by = By::Caller(Box::new(caller.clone()));
        let set = core.access.set_mask(wanted, by, operation, permit.now_s());
        let changed = set.await?;
        core.record_change(account, &changed, &key).await?;
        Ok(changed.value)
    }
}

/// Remove the mask of a field.
pub struct RemoveMask {
    /// The field.
    pub field: LocalField,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RemoveMask {
    const ACTION: Action = Action::Grant;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = ();

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.field.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        self.field.about(caller, account);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<(), Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let key = mask_key(self.field.tenant(caller), &self.field.field);
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let removed = core
            .access
            .unset::<FieldMask>(key.clone(), operation, permit.now_s());
        core.record_change(account, &removed.await?, &key).await
    }
}

/// List masks.
pub struct ListMasks {
    /// Those of this tenant; without one, all.
    pub tenant: Option<Name>,
    /// Which page: masks after the one of this `tenant/field`.
    pub page: Page,
}

impl Operation for ListMasks {
    const ACTION: Action = Action::Describe;
    type Output = Listed<Arc<FieldMask>>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant.as_ref().map_or(Scope::ALL, Name::as_str),
            key: None,
        }
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(listed_of(self.tenant.as_ref()), 0, "", 0);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<Arc<FieldMask>>, Failure> {
        self.about(permit.principal(), account);
        let prefix = self.tenant.as_ref().map_or(mask::PREFIX.into(), masks_of);
        let after = self.page.after.as_ref();
        let after = after.map(|after| format!("{}{after}", mask::PREFIX));
        let snapshot = permit.snapshot();
        let masks = snapshot
            .settings()
            .list::<FieldMask>(&prefix, after.as_deref())
            .map(|(_, mask)| Arc::clone(mask))
            .take(self.page.limit)
            .collect();
        Ok(Listed::new(masks, &self.page, |mask| {
            format!("{}/{}", mask.tenant, mask.field)
        }))
    }
}
