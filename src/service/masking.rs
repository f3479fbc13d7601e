//! How an opened value may leave. Whoever may only decrypt masked never gets the value itself: this is the one place where
//! the mask of a field is applied, and until one is, such a call is refused.

use crate::access::snapshot::Allowed;
use crate::service::failure::{Failure, Refused};
use crate::service::perform::permit::Ask;
use crate::service::vault::{Opening, Purpose};

/// The rule of a value that may leave through its mask alone, and would leave without.
const RULE_MASKED: &str = "masked-alone";

/// Whether the value that `ask` is about may be used for what it is opened for, as it is. Asked before anything is opened.
///
/// # Errors
/// The caller may see it masked alone: no mask is there for the field, or it is to be moved to another key.
pub(super) fn may_be_used(
    allowed: Allowed,
    opening: &Opening<'_>,
    ask: &Ask<'_>,
) -> Result<(), Failure> {
    if !allowed.masked {
        return Ok(());
    }
    let (field, key) = (ask.field, ask.key);
    let message = match opening.purpose {
        Purpose::Reveal => format!(
            "the right to the field `{field}` under the key `{key}` is to see it masked, and no mask is set for it: ask an \
             access admin to set one"
        ),
        Purpose::Renew | Purpose::Move(_) => format!(
            "the right to the field `{field}` under the key `{key}` is to see it masked, and not to move it to another key"
        ),
    };
    Err(Failure::PermissionDenied(Refused {
        rule: RULE_MASKED,
        message: message.into(),
    }))
}
