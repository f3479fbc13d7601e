//! How much who may use, and what the caller has used.

use fieldkeep_proto::v1;

use crate::admin::tenant_name;
use crate::{Client, Error, Pages, request_id::make_request_id};

/// Management of limits, from [`Client::limits`].
///
/// A limit is named `tenants/{tenant}/limits/{limit}`, `{limit}` in the caller's tenant, or `limits/{limit}` if it is one of the
/// whole service. The caller's identity needs the right to set limits, but to read its own usage.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a>(&'a Client);

impl Client {
    /// Management of limits.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let limits = client.limits().list("acme").collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn limits(&self) -> Limits<'_> {
        Limits(self)
    }
}

impl Limits<'_> {
    /// Sets a limit, in place of one of the same name. Without a `request_id` one is made.
    ///
    /// # Errors
    /// [`INVALID_REQUEST`](crate::reason::INVALID_REQUEST) and others of [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::SetLimitRequest;
    /// let budget = SetLimitRequest {
    ///     name: "tenants/acme/limits/daily".into(),
    ///     actions: vec!["decrypt".into()],
    ///     windows: vec!["10000 fields/day".into()],
    ///     ..SetLimitRequest::default()
    /// };
    /// client.limits().set(budget).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set(&self, mut request: v1::SetLimitRequest) -> Result<v1::Limit, Error> {
        if request.request_id.is_empty() {
            request.request_id = make_request_id()?;
        }
        let path = "/fieldkeep.v1.LimitService/SetLimit";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Lists the limits of `tenant`; all, and those of the whole service, if it is empty.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for limit in client.limits().list("acme").collect().await? {
    ///     println!("{} {:?}", limit.name, limit.windows);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, tenant: &str) -> Pages<v1::Limit> {
        let parent = tenant_name(tenant);
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListLimitsRequest {
                parent: parent.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.LimitService/ListLimits";
                let page: v1::ListLimitsResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.limits, page.next_page_token))
            }
        })
    }

    /// Removes a limit. No call that begins afterwards is refused by it.
    ///
    /// # Errors
    /// [`SETTING_NOT_FOUND`](crate::reason::SETTING_NOT_FOUND) and others of [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.limits().remove("tenants/acme/limits/daily").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let request = v1::RemoveLimitRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.LimitService/RemoveLimit";
        let _: v1::RemoveLimitResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(())
    }

    /// Tells what the caller itself has used of the limits that can be about it. It needs no right.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for one in client.limits().usage().await? {
    ///     println!("{} ({}): {} left", one.limit, one.window, one.remaining);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn usage(&self) -> Result<Vec<v1::LimitUsage>, Error> {
        let path = "/fieldkeep.v1.LimitService/GetUsage";
        let request = v1::GetUsageRequest {};
        let response: v1::GetUsageResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(response.usage)
    }
}
