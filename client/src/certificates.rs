//! Administration of clients' certificates: join tokens, revocations, and the CAs beside the built-in one.

use std::time::Duration;

use fieldkeep_proto::v1::{self, revoke_certificate_request::What};

use crate::{Client, Error, Pages, request_id::make_request_id};

/// Management of clients' certificates, from [`Client::certificates`].
#[derive(Clone, Copy, Debug)]
pub struct Certificates<'a>(&'a Client);

impl Client {
    /// Management of clients' certificates.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let revocations = client.certificates().revocations("").collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn certificates(&self) -> Certificates<'_> {
        Certificates(self)
    }
}

impl Certificates<'_> {
    /// Makes a token with which a new workload becomes `identity`, once, within `ttl`; zero: an hour. The reply is the only
    /// place where it is ever shown.
    ///
    /// # Errors
    /// See [`Error`]. It is tried again only if it was never sent.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use std::time::Duration;
    /// let made = client.certificates().create_join_token("app", Duration::from_secs(600)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_join_token(
        &self,
        identity: &str,
        ttl: Duration,
    ) -> Result<v1::CreateJoinTokenResponse, Error> {
        let request = v1::CreateJoinTokenRequest {
            identity: identity.to_owned(),
            ttl_seconds: ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0),
        };
        let path = "/fieldkeep.v1.CertificateService/CreateJoinToken";
        self.0.unary(path, request, self.0.plan().once()).await
    }

    /// Revokes the certificate with this serial number, of `tenant` (`tenants/{tenant}`; empty: the caller's own).
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.certificates().revoke_serial("3fa9c1", "tenants/acme").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn revoke_serial(
        &self,
        serial: &str,
        tenant: &str,
    ) -> Result<v1::RevokeCertificateResponse, Error> {
        self.revoke(What::Serial(serial.to_owned()), tenant).await
    }

    /// Revokes every certificate that `identity` was issued until now: `{name}` in the caller's tenant, or
    /// `tenants/{tenant}/identities/{name}`.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.certificates().revoke_identity("app").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn revoke_identity(
        &self,
        identity: &str,
    ) -> Result<v1::RevokeCertificateResponse, Error> {
        self.revoke(What::Identity(identity.to_owned()), "").await
    }

    async fn revoke(
        &self,
        what: What,
        tenant: &str,
    ) -> Result<v1::RevokeCertificateResponse, Error> {
        let request = v1::RevokeCertificateRequest {
            what: Some(what),
            tenant: tenant.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.CertificateService/RevokeCertificate";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// The revocations of one tenant (`tenants/{tenant}`), or of all if it is empty.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for one in client.certificates().revocations("").collect().await? {
    ///     println!("{} {}", one.serial, one.identity);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn revocations(&self, parent: &str) -> Pages<v1::Revocation> {
        let parent = parent.to_owned();
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListRevocationsRequest {
                parent: parent.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.CertificateService/ListRevocations";
                let page: v1::ListRevocationsResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.revocations, page.next_page_token))
            }
        })
    }

    /// Accepts another CA. `request_id` is filled if it is empty.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::AddCaRequest;
    /// let ca = AddCaRequest {
    ///     name: "corp".into(),
    ///     certificate_pem: std::fs::read_to_string("corp.pem").unwrap_or_default(),
    ///     trust_domain: "corp.example".into(),
    ///     tenants: vec!["tenants/acme".into()],
    ///     ceiling: "data".into(),
    ///     ..AddCaRequest::default()
    /// };
    /// client.certificates().add_ca(ca).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add_ca(&self, mut ca: v1::AddCaRequest) -> Result<v1::CaRoot, Error> {
        if ca.request_id.is_empty() {
            ca.request_id = make_request_id()?;
        }
        let path = "/fieldkeep.v1.CertificateService/AddCa";
        self.0.unary(path, ca, self.0.plan()).await
    }

    /// The CAs that were added.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let cas = client.certificates().cas().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cas(&self) -> Result<Vec<v1::CaRoot>, Error> {
        let path = "/fieldkeep.v1.CertificateService/ListCas";
        let reply: v1::ListCasResponse = self
            .0
            .unary(path, v1::ListCasRequest {}, self.0.plan())
            .await?;
        Ok(reply.cas)
    }

    /// Accepts a CA no longer. Says how many open connections that ended.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.certificates().remove_ca("corp").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_ca(&self, name: &str) -> Result<u32, Error> {
        let request = v1::RemoveCaRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.CertificateService/RemoveCa";
        let reply: v1::RemoveCaResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(reply.connections_ended)
    }
}
