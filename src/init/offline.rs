//! `fieldkeep cert issue --config` and `fieldkeep cert server`: certificates while the server is stopped.
//!
//! Whoever has the root key can open the store; so an admin whose certificate has expired gets back in, and the server's own
//! certificate is renewed.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use fieldkeep_crypto::random::RandomError;
use fieldkeep_keystore::{
    error::KeystoreError,
    keystore::Keystore,
    store::{
        Operation, Store, StoreError,
        sled::{SledOptions, SledStore, StoreOpenError},
    },
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{
    AUDIT_DIR,
    files::{self, FileError},
    server_names,
};
use crate::{
    access::{
        Access, AccessError,
        ca::{Ca, CaError, KeyAndCertificate},
        principal::{Identity, principal_from_certificate},
        role::Role,
    },
    audit::{
        AuditError, AuditLog,
        record::{LocalCall, local_record},
        trail::{TrailError, check_trail},
    },
    config::{Config, ConfigError},
};

/// What was written.
#[derive(Clone, Debug)]
pub struct OfflineReport {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM, mode 0600.
    pub key: PathBuf,
    /// When the certificate ends, Unix seconds.
    pub not_after: i64,
    /// The roles that the identity itself is granted; without one, and without a group, it may do nothing.
    pub roles: Vec<Role>,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A server has the directory open.
    #[error(
        "a server is running on this data directory: stop it first; a client's certificate can also be issued through it (`fieldkeep cert issue` without `--config`)"
    )]
    ServerRunning(#[source] StoreOpenError),
    /// There is another file in the place.
    #[error("`{}` exists and is not a certificate of `{identity}`: choose another directory", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// For whom the certificate is.
        identity: Identity,
    },
    /// The file of the server's certificate is none.
    #[error("`{}` is no certificate, so its names cannot be kept: move it away, and give them with `--name`", path.display())]
    ServerCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The root key could not be had.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(StoreOpenError),
    /// The store could not be closed.
    #[error("the store cannot be closed: {0}")]
    Close(#[from] StoreError),
    /// The keystore could not be opened.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The audit trail and the store do not agree.
    #[error(transparent)]
    Trail(#[from] TrailError),
    /// The certificate could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The grants could not be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The audit trail could not be written, so that nothing was issued.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Issues a certificate and a private key for `identity` from the data directory itself, while no server runs on it. They are
/// written to `{out_dir}/{name}.pem` and `{name}.key`; those of the same identity are replaced. The record of it is in
/// the audit trail before. `ttl_s` is in seconds, 0 for the default; `now` in Unix seconds.
///
/// # Errors
/// See [`OfflineError`].
pub async fn issue_offline(
    config: &Config,
    identity: &Identity,
    ttl_s: u64,
    out_dir: &Path,
    now: u64,
) -> Result<OfflineReport, OfflineError> {
    let certificate = out_dir.join(format!("{}.pem", identity.name()));
    let key = out_dir.join(format!("{}.key", identity.name()));
    refuse_occupied(&certificate, &key, identity, &config.tls.trust_domain)?;
    let store = open_store(config)?;
    let made = make(&store, config, identity, ttl_s, now).await;
    store.close().await?;
    let (made, roles) = made?;
    // The key first: a certificate without its key helps nobody.
    files::replace(&key, made.key_pem.as_bytes(), true)?;
    files::replace(&certificate, made.certificate_pem.as_bytes(), false)?;
    Ok(OfflineReport {
        certificate,
        key,
        not_after: made.not_after,
        roles,
    })
}

/// Renews the server's certificate with a new private key, while no server runs, and replaces the files that `config` names.
/// The names are those of the certificate that is there, and `more`. Returns when it ends, Unix seconds. The record of it
/// is in the audit trail before. `ttl_s` is in seconds; `now` in Unix seconds.
///
/// # Errors
/// See [`OfflineError`].
pub async fn renew_server_offline(
    config: &Config,
    more: &[String],
    ttl_s: u64,
    now: u64,
) -> Result<i64, OfflineError> {
    let mut names = present_names(&config.tls.cert)?;
    names.extend_from_slice(more);
    let names = server_names(&names);
    let store = open_store(config)?;
    let made = make_server(&store, config, &names, ttl_s, now).await;
    store.close().await?;
    let made = made?;
    files::replace(&config.tls.key, made.key_pem.as_bytes(), true)?;
    files::replace(&config.tls.cert, made.certificate_pem.as_bytes(), false)?;
    Ok(made.not_after)
}

fn open_store(config: &Config) -> Result<Arc<dyn Store>, OfflineError> {
    let options = SledOptions {
        mirror: config.store.mirror_dir.clone(),
        create: false,
        ..SledOptions::default()
    };
    let (store, _) = SledStore::open(&config.data_dir, options).map_err(|error| match error {
        error @ StoreOpenError::InUse { .. } => OfflineError::ServerRunning(error),
        error => OfflineError::Store(error),
    })?;
    Ok(Arc::new(store))
}

/// Opens and checks what signs and what records.
async fn open_parts(
    store: &Arc<dyn Store>,
    config: &Config,
    now: u64,
) -> Result<(Keystore, AuditLog, Ca), OfflineError> {
    let provider = config.root.provider()?;
    let keystore = Keystore::open(Arc::clone(store), provider.as_ref(), config.cache).await?;
    let audit_dir = config.data_dir.join(AUDIT_DIR);
    let audit = AuditLog::open(&audit_dir, &config.audit, &keystore, now).await?;
    check_trail(&keystore, &audit, now, false).await?;
    let ca = Ca::open(&keystore).await?;
    ca.check_trust_domain(&config.tls.trust_domain)?;
    Ok((keystore, audit, ca))
}

async fn make_server(
    store: &Arc<dyn Store>,
    config: &Config,
    names: &[String],
    ttl_s: u64,
    now: u64,
) -> Result<KeyAndCertificate, OfflineError> {
    let (_keystore, audit, ca) = open_parts(store, config, now).await?;
    let made = ca.make_server_certificate(names, ttl_s, now)?;
    let record = local_record(LocalCall {
        rpc: "fieldkeep cert server",
        action: "certificate",
        resource: "server",
        detail: &made.detail,
        changes: &[],
        store_revision: 0,
        request_id: Operation::make()?.id,
        now,
    });
    audit.append_blocking(&record)?;
    Ok(made)
}

/// The DNS names and IP addresses of the certificate at `path`; none if there is no certificate.
fn present_names(path: &Path) -> Result<Vec<String>, OfflineError> {
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::new("read", path, error).into()),
    };
    let unreadable = || OfflineError::ServerCertificate {
        path: path.to_owned(),
    };
    let der = CertificateDer::from_pem_slice(&pem).map_err(|_| unreadable())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| unreadable())?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    Ok(names.iter().filter_map(name_text).collect())
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|address| address.to_string()),
        _ => None,
    }
}

async fn make(
    store: &Arc<dyn Store>,
    config: &Config,
    identity: &Identity,
    ttl_s: u64,
    now: u64,
) -> Result<(KeyAndCertificate, Vec<Role>), OfflineError> {
    let (keystore, audit, ca) = open_parts(store, config, now).await?;
    keystore.tenant(identity.tenant()).await?;
    let access = Access::load(&keystore).await?;
    let snapshot = access.snapshot();
    let grants = snapshot.grants_of(identity.resource());
    let roles = grants.iter().map(|grant| grant.what.role).collect();
    let made = ca.make_identity(identity, ttl_s, now)?;
    let record = local_record(LocalCall {
        rpc: "fieldkeep cert issue",
        action: "certificate",
        resource: identity.resource(),
        detail: &made.detail,
        changes: &[],
        store_revision: 0,
        request_id: Operation::make()?.id,
        now,
    });
    audit.append_blocking(&record)?;
    Ok((made, roles))
}

/// Only what belongs to the same identity is replaced: another's key must not be lost.
fn refuse_occupied(
    certificate: &Path,
    key: &Path,
    identity: &Identity,
    trust_domain: &str,
) -> Result<(), OfflineError> {
    let occupied = |path: &Path| OfflineError::Occupied {
        path: path.to_owned(),
        identity: identity.clone(),
    };
    match fs::read(certificate) {
        Ok(pem) => {
            let der = CertificateDer::from_pem_slice(&pem).map_err(|_| occupied(certificate))?;
            let owner = principal_from_certificate(&der, trust_domain)
                .map_err(|_| occupied(certificate))?;
            if owner.identity() != *identity {
                return Err(occupied(certificate));
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !key.exists() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(occupied(key)),
        Err(error) => Err(FileError::new("read", certificate, error).into()),
    }
}

#[cfg(test)]
mod tests;
