use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tempfile::TempDir;

use super::*;
use crate::{
    access::{action::Action, principal::principal_from_certificate, snapshot::Asked},
    audit::trail::check_trail,
    config::Config,
};

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn options(dir: &Path) -> InitOptions {
    InitOptions::new(dir, NOW)
}

/// Every file and directory below `dir`, with its mode.
pub(super) fn modes(dir: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            found.insert(name, metadata.permissions().mode() & 0o777);
            if metadata.is_dir() {
                waiting.push(path);
            }
        }
    }
    found
}

/// What a server opens.
pub(super) struct Opened {
    pub(super) config: Config,
    pub(super) store: Arc<dyn Store>,
    pub(super) keystore: Keystore,
    pub(super) audit: AuditLog,
}

pub(super) async fn open(dir: &Path) -> Opened {
    let config = Config::load(&dir.join("fieldkeep.toml")).unwrap();
    let (store, report) = SledStore::open(
        &config.data_dir,
        SledOptions {
            create: false,
            ..SledOptions::default()
        },
    )
    .unwrap();
    assert!(!report.created);
    let store: Arc<dyn Store> = Arc::new(store);
    let root = config.root.provider().unwrap();
    let keystore = Keystore::open(Arc::clone(&store), root.as_ref(), config.cache)
        .await
        .unwrap();
    let audit_dir = config.data_dir.join(AUDIT_DIR);
    let audit = AuditLog::open(&audit_dir, &config.audit, &keystore, NOW)
        .await
        .unwrap();
    Opened {
        config,
        store,
        keystore,
        audit,
    }
}

pub(super) fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[tokio::test]
async fn everything_is_there_and_private() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("new/fk");
    let report = init(options(&dir)).await.unwrap();
    let modes = modes(&dir);
    for (name, mode) in [
        ("fieldkeep.toml", 0o600),
        ("root.key", 0o600),
        ("data", 0o700),
        ("data/FORMAT", modes["data/FORMAT"]),
        ("data/lock", modes["data/lock"]),
        ("data/journal", modes["data/journal"]),
        ("data/sled", modes["data/sled"]),
        ("data/audit", 0o700),
        ("tls", 0o700),
        ("tls/ca.pem", 0o644),
        ("tls/server.pem", 0o644),
        ("tls/server.key", 0o600),
        ("identities", 0o700),
        ("identities/admin.pem", 0o644),
        ("identities/admin.key", 0o600),
    ] {
        assert_eq!(modes.get(name), Some(&mode), "{name}");
    }
    let top: Vec<_> = modes.keys().filter(|name| !name.contains('/')).collect();
    assert_eq!(
        top,
        ["data", "fieldkeep.toml", "identities", "root.key", "tls"]
    );
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(report.config, dir.join("fieldkeep.toml"));
    assert_eq!(report.root_key, Some(dir.join("root.key")));
    assert_eq!(
        report.admin.resource().as_ref(),
        "tenants/default/identities/admin"
    );
}

#[tokio::test]
async fn a_server_can_open_it_and_the_admin_is_admin() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    let report = init(options(&dir)).await.unwrap();
    let opened = open(&dir).await;
    assert_eq!(opened.config.listen, report.listen);
    let ca = Ca::open(&opened.keystore).await.unwrap();
    ca.check_trust_domain(&opened.config.tls.trust_domain)
        .unwrap();
    assert_eq!(certificate(&opened.config.tls.ca), *ca.certificate());
    PrivateKeyDer::from_pem_file(&opened.config.tls.key).unwrap();
    let admin = certificate(&dir.join("identities/admin.pem"));
    let principal = principal_from_certificate(&admin, &opened.config.tls.trust_domain).unwrap();
    let access = Access::load(&opened.keystore).await.unwrap();
    let now = i64::try_from(NOW).unwrap();
    let decide = |action, tenant| {
        let asked = Asked {
            action,
            tenant,
            key: None,
            field: None,
            context: None,
            network: [127, 0, 0, 1].into(),
            now,
        };
        access.snapshot().authorize(&principal, &asked)
    };
    for tenant in ["default", "other", "*"] {
        assert!(decide(Action::Grant, tenant).is_ok());
        assert!(decide(Action::Decrypt, tenant).is_err());
    }
}

#[tokio::test]
async fn the_first_records_of_the_trail_hold_what_was_made() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    init(options(&dir)).await.unwrap();
    let opened = open(&dir).await;
    let report = check_trail(&opened.keystore, &opened.audit, NOW, false)
        .await
        .unwrap();
    // The first record is that of the log's own keys.
    assert_eq!((report.settled, report.records, report.changes), (0, 2, 3));
    let records = opened.audit.list(None, 10).unwrap();
    assert_eq!(records[1].1.rpc, "fieldkeep.internal/AuditLog");
    let (index, record) = records.into_iter().next().unwrap();
    assert_eq!(index, 1);
    assert_eq!(
        (record.rpc.as_str(), record.authentication.as_str()),
        ("fieldkeep init", "local")
    );
    assert_eq!(record.time_us, NOW * 1_000_000);
    let keys: Vec<_> = record
        .changes
        .iter()
        .map(|change| change.store_key.as_ref())
        .collect();
    assert_eq!((keys.len(), keys[0]), (2, &b"sys/ca"[..]));
    assert!(keys[1].starts_with(b"sys/grant/g-"));
    assert!(
        record
            .changes
            .iter()
            .all(|change| change.value_sha256.len() == 32)
    );
    opened.store.close().await.unwrap();
}

#[tokio::test]
async fn an_empty_directory_is_taken_and_made_private() {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    init(options(dir.path())).await.unwrap();
    assert_eq!(
        fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[tokio::test]
async fn what_is_not_empty_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("notes"), "mine").unwrap();
    let error = init(options(dir.path())).await.unwrap_err();
    assert!(matches!(error, InitError::NotEmpty { .. }));
    assert!(error.to_string().contains("empty directory"), "{error}");
    assert_eq!(fs::read(dir.path().join("notes")).unwrap(), b"mine");
    assert_eq!(modes(dir.path()).len(), 1);

    let file = dir.path().join("notes");
    let error = init(options(&file)).await.unwrap_err();
    assert!(matches!(error, InitError::NotADirectory { .. }), "{error}");
    let error = init(options(&file.join("below"))).await.unwrap_err();
    assert!(matches!(error, InitError::NotADirectory { .. }), "{error}");
}

#[tokio::test]
async fn a_directory_given_twice_is_refused_and_still_opens() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    init(options(&dir)).await.unwrap();
    let before = modes(&dir);
    let error = init(options(&dir)).await.unwrap_err();
    assert!(error.to_string().contains("initialised already"), "{error}");
    assert_eq!(modes(&dir), before);
    open(&dir).await;
    fs::remove_file(dir.join("fieldkeep.toml")).unwrap();
    let error = init(options(&dir)).await.unwrap_err();
    assert!(
        error.to_string().contains("not to have finished"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failure_leaves_nothing_behind() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    let wrong_name = InitOptions {
        names: vec!["not a name".to_owned()],
        ..options(&dir)
    };
    let error = init(wrong_name).await.unwrap_err();
    assert!(
        matches!(error, InitError::Ca(CaError::ServerName { .. })),
        "{error}"
    );
    assert!(!dir.exists());

    let existing = TempDir::new().unwrap();
    let source = PassphraseSource::File(parent.path().join("none"));
    let no_passphrase = InitOptions {
        root: RootChoice::Passphrase(source),
        ..options(existing.path())
    };
    let error = init(no_passphrase).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(modes(existing.path()).is_empty());

    let trust_domain = InitOptions {
        trust_domain: "No Domain".to_owned(),
        ..options(&dir)
    };
    assert!(matches!(
        init(trust_domain).await,
        Err(InitError::TrustDomain(_))
    ));
    assert!(!dir.exists());
    // And then it works.
    init(options(&dir)).await.unwrap();
}

#[tokio::test]
async fn a_place_that_cannot_be_written_says_so() {
    // The kernel's file system: not even the superuser makes directories there.
    let error = init(options(Path::new("/proc/fieldkeep-init-test")))
        .await
        .unwrap_err();
    assert!(matches!(error, InitError::File(_)), "{error}");
    assert!(
        error.to_string().contains("/proc/fieldkeep-init-test"),
        "{error}"
    );
}

#[tokio::test]
async fn with_a_passphrase_no_root_key_is_written() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    let file = parent.path().join("passphrase \"quoted\" \\");
    fs::write(&file, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let root = RootChoice::Passphrase(PassphraseSource::File(file.clone()));
    let report = init(InitOptions {
        root,
        ..options(&dir)
    })
    .await
    .unwrap();
    assert_eq!(report.root_key, None);
    assert!(!dir.join("root.key").exists());
    let opened = open(&dir).await;
    assert_eq!(
        opened.config.root,
        RootConfig::Passphrase {
            source: PassphraseSource::File(file.clone())
        }
    );
    assert_eq!(opened.keystore.root_provider(), "passphrase");
    opened.store.close().await.unwrap();
    drop(opened);

    fs::write(&file, "another passphrase entirely\n").unwrap();
    let config = Config::load(&dir.join("fieldkeep.toml")).unwrap();
    let (store, _) = SledStore::open(&config.data_dir, SledOptions::default()).unwrap();
    let root = config.root.provider().unwrap();
    let opened = Keystore::open(Arc::new(store), root.as_ref(), config.cache).await;
    assert!(matches!(opened, Err(KeystoreError::WrongRoot)));
}

#[test]
fn the_configuration_is_read_back_as_it_was_meant() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("fieldkeep.toml");
    let listen = Listen {
        data: "[::1]:1".parse().unwrap(),
        admin: "0.0.0.0:2".parse().unwrap(),
        metrics: "127.0.0.1:0".parse().unwrap(),
    };
    for (root, expected) in [
        (
            RootConfig::KeyFile {
                path: "root.key".into(),
            },
            RootConfig::KeyFile {
                path: dir.path().join("root.key"),
            },
        ),
        (
            RootConfig::Passphrase {
                source: PassphraseSource::Environment("FK_PASS".to_owned()),
            },
            RootConfig::Passphrase {
                source: PassphraseSource::Environment("FK_PASS".to_owned()),
            },
        ),
        (
            RootConfig::Passphrase {
                source: PassphraseSource::File("/a\"\n\\#'é".into()),
            },
            RootConfig::Passphrase {
                source: PassphraseSource::File("/a\"\n\\#'é".into()),
            },
        ),
    ] {
        fs::write(
            &path,
            configuration::compose(&root, &listen, "example.org").unwrap(),
        )
        .unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!(config.root, expected);
        assert_eq!(config.listen, listen);
        assert_eq!(config.tls.trust_domain, "example.org");
        assert_eq!(config.data_dir, dir.path().join("data"));
    }
}
