//! Administration: keys, tenants, the audit trail, certificates, status.
//!
//! The caller's identity needs a grant of a role for what it does, such as `key-admin` or `auditor`; `admin` has them all.

use std::time::Duration;

use bytes::Bytes;
use fieldkeep_proto::v1;

use crate::{Client, Error, Pages, request_id::make_request_id};

/// Management of keys, from [`Client::keys`].
///
/// A key is named `{key}` in the caller's tenant, or `tenants/{tenant}/keys/{key}`.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(&'a Client);

/// Management of tenants, from [`Client::tenants`].
#[derive(Clone, Copy, Debug)]
pub struct Tenants<'a>(&'a Client);

impl Client {
    /// Management of keys.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let key = client.keys().show("pii").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }

    /// Management of tenants.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let tenants = client.tenants().list().collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants(self)
    }

    /// The state of the service.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let status = client.status().await?;
    /// assert_eq!(status.store, "memory");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Result<v1::GetStatusResponse, Error> {
        let path = "/fieldkeep.v1.SystemService/GetStatus";
        self.unary(path, v1::GetStatusRequest {}, self.plan()).await
    }

    /// Signs a certificate for `identity`: `{name}` in the caller's tenant or `tenants/{tenant}/identities/{name}`.
    ///
    /// `csr_der` is a PKCS #10 request in DER, of which only the public key is used; the private key stays with the
    /// caller. `ttl` is the certificate's life, rounded up to seconds, at most 24 hours, which is what zero gives.
    ///
    /// # Errors
    /// See [`Error`]. It is tried again only if it was never sent, since each call that arrives signs a certificate.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use std::time::Duration;
    /// // A PKCS #10 request in DER, of a key that stays here.
    /// let csr = std::fs::read("app.csr").unwrap_or_default();
    /// let issued = client.issue_certificate(csr, "app", Duration::from_secs(8 * 3600)).await?;
    /// println!("{}", issued.certificate_pem);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn issue_certificate(
        &self,
        csr_der: impl Into<Bytes>,
        identity: &str,
        ttl: Duration,
    ) -> Result<v1::IssueCertificateResponse, Error> {
        let request = v1::IssueCertificateRequest {
            identity: identity.to_owned(),
            csr_der: csr_der.into(),
            ttl_seconds: ttl
                .as_secs()
                .saturating_add(u64::from(ttl.subsec_nanos() > 0)),
        };
        let path = "/fieldkeep.v1.AccessService/IssueCertificate";
        self.unary(path, request, self.plan().once()).await
    }
}

impl Keys<'_> {
    /// Creates a key of the default suite, with version 1 as its primary.
    ///
    /// # Errors
    /// [`ALREADY_EXISTS`](crate::reason::ALREADY_EXISTS), [`TENANT_NOT_FOUND`](crate::reason::TENANT_NOT_FOUND) and
    /// others of [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let key = client.keys().create("cards").await?;
    /// assert_eq!(key.name, "tenants/default/keys/cards");
    /// assert_eq!(key.primary_version, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(&self, name: &str) -> Result<v1::Key, Error> {
        self.create_with(name, None).await
    }

    /// Creates a key of the default suite that rotates by itself as `rotation` says; `None`: on demand alone.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`INVALID_REQUEST`](crate::reason::INVALID_REQUEST) for a part of `rotation`
    /// that is not valid.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().client().await?;
    /// use fieldkeep_proto::v1::KeyRotation;
    /// let every_monday = KeyRotation { cron: "0 3 * * 1".into(), ..KeyRotation::default() };
    /// let key = client.keys().create_with("cards", Some(every_monday)).await?;
    /// assert_eq!(key.rotation.unwrap_or_default().cron, "0 3 * * 1");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_with(
        &self,
        name: &str,
        rotation: Option<v1::KeyRotation>,
    ) -> Result<v1::Key, Error> {
        self.create_from(v1::CreateKeyRequest {
            name: name.to_owned(),
            rotation,
            ..v1::CreateKeyRequest::default()
        })
        .await
    }

    /// Creates a key with all that may be chosen for it. Without a `request_id` one is made.
    ///
    /// # Errors
    /// As [`create_with`](Self::create_with).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().client().await?;
    /// use fieldkeep_proto::v1::{AuditItems, CreateKeyRequest};
    /// let wanted = CreateKeyRequest {
    ///     name: "patients".into(),
    ///     audit_items: AuditItems::Hashes.into(),
    ///     ..CreateKeyRequest::default()
    /// };
    /// let key = client.keys().create_from(wanted).await?;
    /// assert_eq!(key.audit_items(), AuditItems::Hashes);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_from(&self, mut request: v1::CreateKeyRequest) -> Result<v1::Key, Error> {
        if request.request_id.is_empty() {
            request.request_id = make_request_id()?;
        }
        let path = "/fieldkeep.v1.KeyService/CreateKey";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Lists the keys of `tenant` by name, without their versions. Empty: the caller's tenant.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// for key in client.keys().list("default").collect().await? {
    ///     println!("{}", key.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, tenant: &str) -> Pages<v1::Key> {
        let parent = tenant_name(tenant);
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListKeysRequest {
                parent: parent.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.KeyService/ListKeys";
                let page: v1::ListKeysResponse = client.unary(path, request, client.plan()).await?;
                Ok((page.keys, page.next_page_token))
            }
        })
    }

    /// Describes a key and its newest 1,000 versions.
    ///
    /// # Errors
    /// [`KEY_NOT_FOUND`](crate::reason::KEY_NOT_FOUND) and others of [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let key = client.keys().show("pii").await?;
    /// assert_eq!(key.versions.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn show(&self, name: &str) -> Result<v1::Key, Error> {
        let request = v1::GetKeyRequest {
            name: name.to_owned(),
        };
        let path = "/fieldkeep.v1.KeyService/GetKey";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Adds a version and makes it primary. Older versions still decrypt.
    ///
    /// # Errors
    /// [`KEY_NOT_FOUND`](crate::reason::KEY_NOT_FOUND) and others of [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let key = client.keys().rotate("pii").await?;
    /// assert_eq!(key.primary_version, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rotate(&self, name: &str) -> Result<v1::Key, Error> {
        let request = v1::RotateKeyRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.KeyService/RotateKey";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Sets when a key rotates by itself, in place of what was set before; `None`: on demand alone.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate), and [`INVALID_REQUEST`](crate::reason::INVALID_REQUEST) for a part that is not valid.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_proto::v1::KeyRotation;
    /// let by_use = KeyRotation { max_messages: 1_000_000, ..KeyRotation::default() };
    /// let key = client.keys().set_rotation("pii", Some(by_use)).await?;
    /// assert_eq!(key.rotation.unwrap_or_default().max_messages, 1_000_000);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_rotation(
        &self,
        name: &str,
        rotation: Option<v1::KeyRotation>,
    ) -> Result<v1::Key, Error> {
        let request = v1::SetKeyRotationRequest {
            name: name.to_owned(),
            rotation,
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.KeyService/SetKeyRotation";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Sets what the audit trail has of the items of calls that use a key, from the next call on: how many there were, or a
    /// keyed hash of each too, by which an auditor finds who used one.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_proto::v1::AuditItems;
    /// let key = client.keys().set_audit_items("pii", AuditItems::Hashes).await?;
    /// assert_eq!(key.audit_items(), AuditItems::Hashes);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_audit_items(
        &self,
        name: &str,
        items: v1::AuditItems,
    ) -> Result<v1::Key, Error> {
        let request = v1::SetKeyAuditItemsRequest {
            name: name.to_owned(),
            audit_items: items.into(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.KeyService/SetKeyAuditItems";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Tells how much was encrypted under each version of a key: never less than the truth, and after a crash of the
    /// service a little more.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// client.field("pii", "customer.email").encrypt(b"ada@example.org").await?;
    /// let usage = client.keys().usage("pii").await?;
    /// assert!(usage.versions[0].messages >= 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn usage(&self, name: &str) -> Result<v1::KeyUsage, Error> {
        let request = v1::GetKeyUsageRequest {
            name: name.to_owned(),
        };
        let path = "/fieldkeep.v1.KeyService/GetKeyUsage";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Enables a disabled key.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// client.keys().disable("pii").await?;
    /// client.keys().enable("pii").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn enable(&self, name: &str) -> Result<v1::Key, Error> {
        let request = v1::EnableKeyRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.KeyService/EnableKey";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Disables a key: it neither encrypts nor decrypts until it is enabled again.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// client.keys().disable("pii").await?;
    /// let error = client.field("pii", "f").encrypt(b"x").await.unwrap_err();
    /// assert_eq!(error.reason(), Some(fieldkeep_client::reason::KEY_DISABLED));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn disable(&self, name: &str) -> Result<v1::Key, Error> {
        let request = v1::DisableKeyRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.KeyService/DisableKey";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Enables a disabled version of a key.
    ///
    /// # Errors
    /// [`VERSION_NOT_FOUND`](crate::reason::VERSION_NOT_FOUND) and others of [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// client.keys().rotate("pii").await?;
    /// client.keys().disable_version("pii", 1).await?;
    /// client.keys().enable_version("pii", 1).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn enable_version(&self, name: &str, version: u32) -> Result<v1::Key, Error> {
        let request = v1::EnableKeyVersionRequest {
            name: format!("{name}/versions/{version}"),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.KeyService/EnableKeyVersion";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Disables a version of a key other than the primary: it does not decrypt until it is enabled again.
    ///
    /// # Errors
    /// [`VERSION_NOT_FOUND`](crate::reason::VERSION_NOT_FOUND), [`PRIMARY_VERSION`](crate::reason::PRIMARY_VERSION) and
    /// others of [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// client.keys().rotate("pii").await?;
    /// client.keys().disable_version("pii", 1).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn disable_version(&self, name: &str, version: u32) -> Result<v1::Key, Error> {
        let request = v1::DisableKeyVersionRequest {
            name: format!("{name}/versions/{version}"),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.KeyService/DisableKeyVersion";
        self.0.unary(path, request, self.0.plan()).await
    }
}

impl Tenants<'_> {
    /// Creates a tenant with its own key-encryption key. Tenants are never deleted.
    ///
    /// # Errors
    /// [`ALREADY_EXISTS`](crate::reason::ALREADY_EXISTS) and others of [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let tenant = client.tenants().create("acme").await?;
    /// assert_eq!(tenant.name, "tenants/acme");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(&self, name: &str) -> Result<v1::Tenant, Error> {
        let request = v1::CreateTenantRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.TenantService/CreateTenant";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Lists the tenants by name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let tenants = client.tenants().list().collect().await?;
    /// assert_eq!(tenants[0].name, "tenants/default");
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self) -> Pages<v1::Tenant> {
        Pages::new(self.0, |client, page_size, page_token| async move {
            let request = v1::ListTenantsRequest {
                page_size,
                page_token,
            };
            let path = "/fieldkeep.v1.TenantService/ListTenants";
            let page: v1::ListTenantsResponse = client.unary(path, request, client.plan()).await?;
            Ok((page.tenants, page.next_page_token))
        })
    }
}

/// `tenants/{tenant}` of a bare name; other forms are the service's to judge.
pub(crate) fn tenant_name(tenant: &str) -> String {
    if tenant.is_empty() || tenant.contains('/') {
        tenant.to_owned()
    } else {
        format!("tenants/{tenant}")
    }
}
