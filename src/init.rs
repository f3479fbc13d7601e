//! `fieldkeep init`: makes everything that a server needs, once.
//!
//! ```text
//! DIR/fieldkeep.toml      the configuration; written last, so that a directory with it is complete
//! DIR/root.key            the root key, with provider key-file
//! DIR/data/               the store, and data/audit/ the audit trail
//! DIR/tls/                ca.pem, server.pem, server.key
//! DIR/identities/         admin.pem, admin.key
//! ```
//!
//! Directories have mode 0700, private files 0600. All of it is on the disk when `init` returns; after a failure
//! nothing of it is left, or the message says what to remove.

mod configuration;
mod files;
pub mod offline;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use fieldkeep_crypto::{names::Name, random::RandomError};
use fieldkeep_keystore::{
    error::KeystoreError,
    info::Change,
    keystore::Keystore,
    root::{RootError, RootProvider, key_file::KeyFile},
    store::{
        Operation, Store, StoreError,
        sled::{SledOptions, SledStore, StoreOpenError},
    },
};

use self::files::FileError;
use crate::{
    access::{
        Access, AccessError, By,
        ca::{Ca, CaError, KeyAndCertificate, MAX_TTL_S, OPERATOR_TTL_S},
        grant::{Scope, Wanted, Who},
        principal::Identity,
        role::Role,
    },
    audit::{
        AuditError, AuditLog,
        record::{LocalCall, local_record},
    },
    config::{
        AuditConfig, ConfigError, DEFAULT_TRUST_DOMAIN, Listen, PassphraseSource, RootConfig,
        is_trust_domain,
    },
};

/// The directory of the audit trail within the data directory.
pub const AUDIT_DIR: &str = "audit";
/// The tenant of the first admin, which exists from the start.
const FIRST_TENANT: &str = "default";
/// The first admin.
const FIRST_ADMIN: &str = "admin";
/// Names that the server's certificate always has.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What to make.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Where; absent, or an empty directory.
    pub dir: PathBuf,
    /// What protects the master key.
    pub root: RootChoice,
    /// The addresses that the configuration names.
    pub listen: Listen,
    /// Names of the server's certificate, beside those of this machine: DNS names and IP addresses.
    pub names: Vec<String>,
    /// The trust domain of identities.
    pub trust_domain: String,
    /// The present time, Unix seconds.
    pub now: u64,
}

/// What protects the master key.
#[derive(Clone, Debug)]
pub enum RootChoice {
    /// A new file `root.key` in the directory.
    KeyFile,
    /// A passphrase that the operator chose and put there. A relative path is relative to the working directory.
    Passphrase(PassphraseSource),
}

impl InitOptions {
    /// The default: a key file, ports 7420 to 7422 of this machine alone, trust domain `fieldkeep`. `now` is in Unix
    /// seconds.
    pub fn new(dir: impl Into<PathBuf>, now: u64) -> InitOptions {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        InitOptions {
            dir: dir.into(),
            root: RootChoice::KeyFile,
            listen: Listen {
                data: local(7420),
                admin: local(7421),
                metrics: local(7422),
            },
            names: Vec::new(),
            trust_domain: DEFAULT_TRUST_DOMAIN.to_owned(),
            now,
        }
    }
}

/// What was made.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// The configuration file.
    pub config: PathBuf,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The key file, with provider key-file. It must be kept safe and apart from backups of the data.
    pub root_key: Option<PathBuf>,
    /// The CA certificate that clients trust.
    pub ca: PathBuf,
    /// The first admin, `tenants/default/identities/admin`.
    pub admin: Identity,
    /// Its certificate.
    pub admin_certificate: PathBuf,
    /// Its private key.
    pub admin_key: PathBuf,
    /// When its certificate ends, Unix seconds.
    pub admin_not_after: i64,
    /// When the server's certificate ends, Unix seconds.
    pub server_not_after: i64,
    /// The addresses in the configuration.
    pub listen: Listen,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The directory has something in it.
    #[error("`{}` is not empty: {hint}", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What it seems to be, and what to do.
        hint: &'static str,
    },
    /// There is something else by that name.
    #[error("`{}` is not a directory: choose another name", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// A path cannot stand in a configuration file, which is UTF-8.
    #[error("the path `{}` is not UTF-8: choose another", path.display())]
    PathNotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// The trust domain is not one.
    #[error("`{0}` is not a trust domain: 1 to 255 of the letters `a-z`, digits, `.`, `-` and `_`")]
    TrustDomain(String),
    /// A file or directory could not be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The passphrase could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The root key could not be made.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The store could not be made.
    #[error("the store cannot be made: {0}")]
    Store(#[from] StoreOpenError),
    /// The store could not be closed, so that it may not be wholly on the disk.
    #[error("the store cannot be closed: {0}")]
    Close(#[from] StoreError),
    /// The key hierarchy could not be made.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The certificates could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The first admin could not be granted its role.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The audit trail could not be made.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// It failed, and what it had made could not be removed.
    #[error("{cause}; what was made so far could not be removed ({problem}): remove `{}` by hand, then run `fieldkeep init` again", dir.display())]
    Leftover {
        /// Why it failed.
        cause: Box<InitError>,
        /// Why the rest could not be removed.
        problem: io::Error,
        /// What to remove.
        dir: PathBuf,
    },
}

/// Makes a data directory with its master key, CA, server certificate, first admin and configuration.
///
/// It blocks on files; it runs within a tokio runtime.
///
/// # Errors
/// See [`InitError`]. What was made is removed again, or the message says that it must be.
pub async fn init(options: InitOptions) -> Result<InitReport, InitError> {
    if !is_trust_domain(&options.trust_domain) {
        return Err(InitError::TrustDomain(options.trust_domain));
    }
    let made_dir = files::claim_dir(&options.dir)?;
    match fill(&options).await {
        Ok(report) => Ok(report),
        Err(cause) => match files::empty_dir(&options.dir, made_dir) {
            Ok(()) => Err(cause),
            Err(problem) => Err(InitError::Leftover {
                cause: Box::new(cause),
                problem,
                dir: options.dir,
            }),
        },
    }
}

async fn fill(options: &InitOptions) -> Result<InitReport, InitError> {
    let dir = options.dir.as_path();
    let data_dir = dir.join("data");
    let tls_dir = dir.join("tls");
    let identities_dir = dir.join("identities");
    for part in [&data_dir, &tls_dir, &identities_dir] {
        files::make_dir(part)?;
    }
    let (root, provider) = make_root(dir, &options.root)?;
    let made = make_data(&data_dir, provider.as_ref(), options).await?;

    let ca = tls_dir.join("ca.pem");
    files::write_public(&ca, made.ca_pem.as_bytes())?;
    files::write_public(
        &tls_dir.join("server.pem"),
        made.server.certificate_pem.as_bytes(),
    )?;
    files::write_private(&tls_dir.join("server.key"), made.server.key_pem.as_bytes())?;
    let admin_certificate = identities_dir.join("admin.pem");
    let admin_key = identities_dir.join("admin.key");
    files::write_public(&admin_certificate, made.admin.certificate_pem.as_bytes())?;
    files::write_private(&admin_key, made.admin.key_pem.as_bytes())?;
    for part in [&tls_dir, &identities_dir, &data_dir] {
        files::sync_dir(part)?;
    }

    let config = dir.join("fieldkeep.toml");
    let text = configuration::compose(&root, &options.listen, &options.trust_domain)?;
    files::write_private(&config, text.as_bytes())?;
    files::sync_dir(dir)?;
    files::sync_dir(files::parent(dir))?;
    Ok(InitReport {
        config,
        data_dir,
        root_key: match root {
            RootConfig::KeyFile { .. } => Some(dir.join("root.key")),
            RootConfig::Passphrase { .. } => None,
        },
        ca,
        admin: made.identity,
        admin_certificate,
        admin_key,
        admin_not_after: made.admin.not_after,
        server_not_after: made.server.not_after,
        listen: options.listen,
    })
}

/// The root section of the configuration, with paths as they stand there, and the provider itself.
fn make_root(
    dir: &Path,
    choice: &RootChoice,
) -> Result<(RootConfig, Box<dyn RootProvider>), InitError> {
    match choice {
        RootChoice::KeyFile => {
            let provider = KeyFile::create(dir.join("root.key"))?;
            let root = RootConfig::KeyFile {
                path: PathBuf::from("root.key"),
            };
            Ok((root, Box::new(provider)))
        }
        RootChoice::Passphrase(source) => {
            let source = match source {
                PassphraseSource::File(path) => {
                    let absolute = std::path::absolute(path);
                    PassphraseSource::File(
                        absolute.map_err(|error| FileError::new("find", path, error))?,
                    )
                }
                PassphraseSource::Environment(variable) => {
                    PassphraseSource::Environment(variable.clone())
                }
            };
            let root = RootConfig::Passphrase { source };
            let provider = root.provider()?;
            Ok((root, provider))
        }
    }
}

/// What came out of the store, to be written to files.
struct MadeData {
    ca_pem: String,
    server: KeyAndCertificate,
    admin: KeyAndCertificate,
    identity: Identity,
}

/// Makes store and audit trail, and closes both.
async fn make_data(
    data_dir: &Path,
    provider: &dyn RootProvider,
    options: &InitOptions,
) -> Result<MadeData, InitError> {
    let audit_dir = data_dir.join(AUDIT_DIR);
    let (store, _) = SledStore::open(data_dir, SledOptions::default())?;
    let store: Arc<dyn Store> = Arc::new(store);
    files::make_dir(&audit_dir)?;
    let made = fill_store(&store, &audit_dir, provider, options).await;
    store.close().await?;
    files::sync_dir(&audit_dir)?;
    made
}

async fn fill_store(
    store: &Arc<dyn Store>,
    audit_dir: &Path,
    provider: &dyn RootProvider,
    options: &InitOptions,
) -> Result<MadeData, InitError> {
    let now = options.now;
    let keystore = Keystore::init(Arc::clone(store), provider, now).await?;
    let audit = AuditLog::open(audit_dir, &AuditConfig::default(), &keystore, now).await?;
    let ca = Ca::make(&keystore, &options.trust_domain, Operation::make()?, now).await?;
    let identity = first_admin()?;
    let access = Access::load(&keystore).await?;
    let wanted = Wanted::all_of(Role::Admin, Scope::All, Who::Identity(identity.clone()));
    let grant = access
        .grant(wanted, By::Init, Operation::make()?, now)
        .await?;
    let mut changes: Vec<Change> = ca.changes;
    changes.extend(grant.changes);
    let names = server_names(&options.names);
    let made = MadeData {
        ca_pem: ca.value.certificate_pem().to_owned(),
        server: ca.value.make_server_certificate(&names, MAX_TTL_S, now)?,
        admin: ca.value.make_identity(&identity, OPERATOR_TTL_S, now)?,
        identity,
    };
    let record = local_record(LocalCall {
        rpc: "fieldkeep init",
        action: "init",
        resource: made.identity.resource(),
        detail: &format!("role=admin tenant=* {}", made.admin.detail),
        changes: &changes,
        store_revision: grant.revision,
        request_id: Operation::make()?.id,
        now,
    });
    audit.append_blocking(&record)?;
    Ok(made)
}

/// The names of a server's certificate: those of this machine, and `more`.
fn server_names(more: &[String]) -> Vec<String> {
    let local = LOCAL_NAMES.iter().map(|name| (*name).to_owned());
    let mut names: Vec<String> = local.collect();
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn first_admin() -> Result<Identity, KeystoreError> {
    let name = |text: &str| {
        Name::parse(text).map_err(|_| KeystoreError::InvalidSystemKey(text.to_owned()))
    };
    Ok(Identity::new(name(FIRST_TENANT)?, name(FIRST_ADMIN)?))
}
