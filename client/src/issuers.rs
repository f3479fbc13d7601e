//! Administration of the issuers whose tokens are taken.

use fieldkeep_proto::v1;

use crate::{Client, Error, request_id::make_request_id};

/// Management of issuers of tokens, from [`Client::issuers`].
#[derive(Clone, Copy, Debug)]
pub struct Issuers<'a>(&'a Client);

impl Client {
    /// Management of the issuers whose tokens are taken.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let issuers = client.issuers().list().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn issuers(&self) -> Issuers<'_> {
        Issuers(self)
    }
}

impl Issuers<'_> {
    /// Adds an issuer, or replaces the one of its name. When this returns, no call with a token of the one before is answered any
    /// more, unless this one vouches for it too.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::Issuer;
    /// let issuer = Issuer {
    ///     name: "login".into(),
    ///     url: "https://login.example.com".into(),
    ///     audiences: vec!["fieldkeep".into()],
    ///     algorithms: vec!["RS256".into()],
    ///     tenant: "tenants/acme".into(),
    ///     tenants: vec!["tenants/acme".into()],
    ///     ceiling: "data".into(),
    ///     ..Issuer::default()
    /// };
    /// client.issuers().set(issuer).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set(&self, issuer: v1::Issuer) -> Result<v1::Issuer, Error> {
        let request = v1::SetIssuerRequest {
            issuer: Some(issuer),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.IssuerService/SetIssuer";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// The issuer of this name.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let issuer = client.issuers().show("login").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn show(&self, name: &str) -> Result<v1::Issuer, Error> {
        let request = v1::GetIssuerRequest {
            name: name.to_owned(),
        };
        let path = "/fieldkeep.v1.IssuerService/GetIssuer";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// The issuers that the caller may see.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for issuer in client.issuers().list().await? {
    ///     println!("{} {}", issuer.name, issuer.url);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(&self) -> Result<Vec<v1::Issuer>, Error> {
        let path = "/fieldkeep.v1.IssuerService/ListIssuers";
        let reply: v1::ListIssuersResponse = self
            .0
            .unary(path, v1::ListIssuersRequest {}, self.0.plan())
            .await?;
        Ok(reply.issuers)
    }

    /// Takes the tokens of an issuer no longer. When this returns, every call with one is refused.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.issuers().remove("login").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let request = v1::RemoveIssuerRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.IssuerService/RemoveIssuer";
        let _: v1::RemoveIssuerResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(())
    }

    /// Whom `token` would name to the issuer of this name, or why it is refused. A token that is refused is no error.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let checked = client.issuers().check_token("login", "eyJhbGciOiJFUzI1NiIs…").await?;
    /// if !checked.accepted {
    ///     eprintln!("{}", checked.message);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn check_token(
        &self,
        issuer: &str,
        token: &str,
    ) -> Result<v1::CheckTokenResponse, Error> {
        let request = v1::CheckTokenRequest {
            issuer: issuer.to_owned(),
            token: token.to_owned(),
        };
        let path = "/fieldkeep.v1.IssuerService/CheckToken";
        self.0.unary(path, request, self.0.plan()).await
    }
}
