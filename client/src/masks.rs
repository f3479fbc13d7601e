//! What is shown of fields to whoever may decrypt them only masked.
//!
//! The caller's identity needs the right to grant in the field's tenant, or to describe for what only reads.

use fieldkeep_proto::v1;

use crate::admin::tenant_name;
use crate::{Client, Error, Pages, request_id::make_request_id};

/// Management of masks, from [`Client::masks`].
///
/// A mask is written `last:N` (N from 1 to 4), `email-domain`, `year`, `fixed` or `fixed:TEXT`. `tenant` is a name.
#[derive(Clone, Copy, Debug)]
pub struct Masks<'a>(&'a Client);

impl Client {
    /// Management of masks.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let masks = client.masks().list("acme").collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn masks(&self) -> Masks<'_> {
        Masks(self)
    }
}

impl Masks<'_> {
    /// Sets the mask of a field of `tenant`, or of the caller's own if it is empty, in place of the one that it has.
    ///
    /// # Errors
    /// [`SELF_GRANT`](crate::reason::SELF_GRANT) if it would show the caller himself more,
    /// [`INVALID_REQUEST`](crate::reason::INVALID_REQUEST) for what is no mask, and others of [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.masks().set("acme", "customer.card", "last:4").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set(&self, tenant: &str, field: &str, mask: &str) -> Result<v1::Mask, Error> {
        let request = v1::SetMaskRequest {
            tenant: tenant_name(tenant),
            field: field.to_owned(),
            mask: mask.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.MaskService/SetMask";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Removes the mask of a field of `tenant`, or of the caller's own if it is empty. Who may decrypt it only masked is refused from then on.
    ///
    /// # Errors
    /// [`SETTING_NOT_FOUND`](crate::reason::SETTING_NOT_FOUND) and others of [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.masks().remove("acme", "customer.card").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, tenant: &str, field: &str) -> Result<(), Error> {
        let request = v1::RemoveMaskRequest {
            tenant: tenant_name(tenant),
            field: field.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.MaskService/RemoveMask";
        let _: v1::RemoveMaskResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(())
    }

    /// Lists the masks of `tenant`, or of all if it is empty.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for mask in client.masks().list("acme").collect().await? {
    ///     println!("{}: {}", mask.field, mask.mask);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, tenant: &str) -> Pages<v1::Mask> {
        let parent = tenant_name(tenant);
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListMasksRequest {
                parent: parent.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.MaskService/ListMasks";
                let page: v1::ListMasksResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.masks, page.next_page_token))
            }
        })
    }
}
