//! How an opened value may leave: whole, or through the mask of its field. This is the one place where a mask is applied.

use std::sync::Arc;

use fieldkeep_crypto::ciphertext::{Ciphertext, OVERHEAD_KC_XAES};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::FieldKey;

use crate::access::mask::FieldMask;
use crate::access::mask::kind::MAX_MASKED_BYTES;
use crate::access::snapshot::{AccessSnapshot, Allowed, Asked};
use crate::service::failure::{Failure, Refused};
use crate::service::field;
use crate::service::perform::permit::Ask;
use crate::service::vault::{Opening, Purpose};

/// The rule of a value that may leave through its mask alone, where it has none or is to leave otherwise.
pub(super) const RULE_MASKED: &str = "masked-alone";
/// The rule of a call whose mask was changed while it ran.
pub(super) const RULE_MASK_CHANGED: &str = "mask-changed";

/// What the caller may see of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All of it.
    Whole,
    /// What this mask shows of it.
    Masked(Arc<FieldMask>),
    /// Nothing: he may see it through a mask alone, and its field has none.
    Hidden,
}

impl Sight {
    /// What `allowed`, which `snapshot` decided, lets the caller see: the mask is the one of the same snapshot.
    pub(super) fn of(allowed: Allowed, snapshot: &AccessSnapshot, asked: &Asked<'_>) -> Sight {
        if !allowed.masked {
            return Sight::Whole;
        }
        let mask = asked
            .field
            .and_then(|field| snapshot.settings().mask(asked.tenant, field));
        mask.map_or(Sight::Hidden, |mask| Sight::Masked(Arc::clone(mask)))
    }

    /// Whether what leaves is masked.
    pub(super) fn is_masked(&self) -> bool {
        !matches!(self, Sight::Whole)
    }

    /// Room for what leaves of the value of a ciphertext of so many bytes, without the 16 bytes that stand behind a value
    /// while it is opened.
    pub(super) fn room(&self, ciphertext_bytes: usize) -> usize {
        match self {
            Sight::Whole => ciphertext_bytes.saturating_sub(OVERHEAD_KC_XAES),
            Sight::Masked(_) | Sight::Hidden => MAX_MASKED_BYTES,
        }
    }

    /// Opens `ciphertext`, and appends to `out` what leaves of its value.
    ///
    /// What is masked is opened into a buffer of its own that is wiped, so that no more than the mask shows ever comes into
    /// `out`. A whole value is opened where it leaves.
    pub(super) fn open(
        &self,
        field_key: &FieldKey,
        ciphertext: &Ciphertext<'_>,
        context: &EncodedContext,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        match self {
            Sight::Whole => field::open(field_key, ciphertext, context, out),
            Sight::Masked(mask) => {
                let mut plaintext = field::scratch(field::opened_capacity(ciphertext));
                field::open(field_key, ciphertext, context, &mut plaintext)?;
                mask.mask.apply(&plaintext, out);
                Ok(())
            }
            Sight::Hidden => Err(Failure::internal("a value that nobody may see")),
        }
    }
}

/// Whether the value that `ask` is about may be used for what it is opened for. Asked before anything is opened.
///
/// # Errors
/// The caller may see it masked alone, and no mask is set for the field, or it is to be moved to another key.
pub(super) fn may_be_used(
    sight: &Sight,
    opening: &Opening<'_>,
    ask: &Ask<'_>,
) -> Result<(), Failure> {
    let message = match (sight, opening.purpose) {
        (Sight::Whole, _) | (Sight::Masked(_), Purpose::Reveal) => return Ok(()),
        (Sight::Hidden, Purpose::Reveal) => no_mask(ask.tenant, Some(ask.key), ask.field),
        (Sight::Masked(_) | Sight::Hidden, Purpose::Renew | Purpose::Move(_)) => format!(
            "the right to the field `{}` under the key `{}` is to see it masked, and not to move it to another key",
            ask.field, ask.key
        ),
    };
    Err(Failure::PermissionDenied(Refused {
        rule: RULE_MASKED,
        message: message.into(),
    }))
}

/// What a caller is told who may see a field masked alone, and the field has no mask.
pub(super) fn no_mask(tenant: &str, key: Option<&str>, field: &str) -> String {
    let under = key.map_or_else(String::new, |key| format!(" under the key `{key}`"));
    format!(
        "the right to the field `{field}`{under} is to see it masked, and no mask is set for it: an access admin sets one with \
         `fieldkeep mask set {field} MASK --tenant {tenant}`"
    )
}
