//! Administration of API keys.

use std::time::Duration;

use fieldkeep_proto::v1;

use crate::{Client, Error, Pages, request_id::make_request_id};

/// Management of API keys, from [`Client::api_keys`].
#[derive(Clone, Copy, Debug)]
pub struct ApiKeys<'a>(&'a Client);

impl Client {
    /// Management of API keys.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let keys = client.api_keys().list("tenants/acme").collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn api_keys(&self) -> ApiKeys<'_> {
        ApiKeys(self)
    }
}

impl ApiKeys<'_> {
    /// Makes an API key of an identity. The reply is the only place where its secret is ever shown.
    ///
    /// # Errors
    /// See [`Error`]. It is tried again only if it was never sent.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::CreateApiKeyRequest;
    /// let made = client
    ///     .api_keys()
    ///     .create(CreateApiKeyRequest {
    ///         identity: "tenants/acme/identities/report".into(),
    ///         networks: vec!["10.0.0.0/8".into()],
    ///         ..CreateApiKeyRequest::default()
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(
        &self,
        request: v1::CreateApiKeyRequest,
    ) -> Result<v1::CreateApiKeyResponse, Error> {
        let path = "/fieldkeep.v1.ApiKeyService/CreateApiKey";
        self.0.unary(path, request, self.0.plan().once()).await
    }

    /// Makes a new secret of the API key `id`, which lives for `ttl` (zero: 90 days). The present one is taken for `overlap` more.
    ///
    /// # Errors
    /// See [`Error`]. It is tried again only if it was never sent.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use std::time::Duration;
    /// let day = Duration::from_secs(86_400);
    /// let rotated = client.api_keys().rotate("4p1c8q0zk2m7x9ab", 90 * day, day).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rotate(
        &self,
        id: &str,
        ttl: Duration,
        overlap: Duration,
    ) -> Result<v1::RotateApiKeyResponse, Error> {
        let request = v1::RotateApiKeyRequest {
            id: id.to_owned(),
            ttl_seconds: ttl.as_secs(),
            overlap_seconds: overlap.as_secs(),
        };
        let path = "/fieldkeep.v1.ApiKeyService/RotateApiKey";
        self.0.unary(path, request, self.0.plan().once()).await
    }

    /// Revokes the API key `id`. After that no call with one of its secrets succeeds.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.api_keys().revoke("4p1c8q0zk2m7x9ab").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn revoke(&self, id: &str) -> Result<(), Error> {
        let request = v1::RevokeApiKeyRequest {
            id: id.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.ApiKeyService/RevokeApiKey";
        let _: v1::RevokeApiKeyResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(())
    }

    /// The API keys of one tenant (`tenants/{tenant}`), or of all if it is empty.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for key in client.api_keys().list("").collect().await? {
    ///     println!("{} {}", key.id, key.identity);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, parent: &str) -> Pages<v1::ApiKey> {
        let parent = parent.to_owned();
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListApiKeysRequest {
                parent: parent.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.ApiKeyService/ListApiKeys";
                let page: v1::ListApiKeysResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.api_keys, page.next_page_token))
            }
        })
    }
}
