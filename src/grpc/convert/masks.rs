//! The messages of masks.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;
use fieldkeep_proto::v1::{
    ListMasksRequest, ListMasksResponse, Mask as MaskMessage, RemoveMaskRequest, SetMaskRequest,
};

use super::admin::{repeatable, timestamp};
use super::{page, parent, tenant_name, token};
use crate::access::mask::FieldMask;
use crate::access::mask::kind::Mask;
use crate::service::failure::Failure;
use crate::service::keys::Listed;
use crate::service::masks::{ListMasks, LocalField, RemoveMask, SetMask};
use crate::service::resource::tenant_resource;

/// What a SetMask asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn set_mask(request: SetMaskRequest) -> Result<SetMask, Failure> {
    let mask: Mask = request
        .mask
        .parse()
        .map_err(|error| Failure::invalid("mask", format!("{error}")))?;
    Ok(SetMask {
        field: local_field(&request.tenant, &request.field)?,
        mask,
        request: repeatable(&request.request_id, &request)?,
    })
}

fn local_field(tenant: &str, field: &str) -> Result<LocalField, Failure> {
    let tenant = match tenant {
        "" => None,
        text => Some(tenant_name("tenant", text)?),
    };
    let field = Name::parse(field).map_err(|error| Failure::invalid("field", error.to_string()))?;
    Ok(LocalField { tenant, field })
}

/// What a RemoveMask asks for.
///
/// # Errors
/// As [`set_mask`].
pub fn remove_mask(request: RemoveMaskRequest) -> Result<RemoveMask, Failure> {
    Ok(RemoveMask {
        field: local_field(&request.tenant, &request.field)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What a ListMasks asks for.
///
/// # Errors
/// As [`set_mask`].
pub fn list_masks(request: ListMasksRequest) -> Result<ListMasks, Failure> {
    Ok(ListMasks {
        tenant: parent(&request.parent)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A mask.
#[must_use]
pub fn mask(mask: Arc<FieldMask>) -> MaskMessage {
    MaskMessage {
        tenant: tenant_resource(mask.tenant.as_str()),
        field: mask.field.to_string(),
        mask: mask.mask.to_string(),
        create_time: timestamp(mask.created),
        set_by: mask.set_by.to_string(),
    }
}

/// A page of masks.
#[must_use]
pub fn masks(listed: Listed<Arc<FieldMask>>) -> ListMasksResponse {
    ListMasksResponse {
        masks: listed.entries.into_iter().map(mask).collect(),
        next_page_token: token(listed.next),
    }
}
