use std::collections::BTreeMap;

use fieldkeep_crypto::names::Name;
use tempfile::TempDir;

use super::*;
use crate::init::{
    init,
    tests::{NOW, certificate, modes, open, options},
};

async fn issue(dir: &Path, who: &Identity, out: &Path) -> Result<OfflineReport, OfflineError> {
    let config = Config::load(&dir.join("fieldkeep.toml")).unwrap();
    issue_offline(&config, who, 3600, out, NOW + 100).await
}

fn identity(text: &str) -> Identity {
    Identity::parse(text, &Name::parse("default").unwrap()).unwrap()
}

#[tokio::test]
async fn an_expired_admin_gets_a_new_certificate_while_the_server_is_stopped() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    init(options(&dir)).await.unwrap();
    let identities = dir.join("identities");
    let old_key = fs::read(identities.join("admin.key")).unwrap();
    let report = issue(&dir, &identity("admin"), &identities).await.unwrap();
    assert_eq!(report.roles, [Role::Admin]);
    assert_eq!(report.not_after, i64::try_from(NOW + 3700).unwrap());
    assert_ne!(fs::read(&report.key).unwrap(), old_key);
    let modes = modes(&identities);
    assert_eq!(
        modes,
        BTreeMap::from([
            ("admin.key".to_owned(), 0o600),
            ("admin.pem".to_owned(), 0o644)
        ])
    );
    let principal =
        principal_from_certificate(&certificate(&report.certificate), "fieldkeep").unwrap();
    assert_eq!(principal.identity(), identity("admin"));

    let opened = open(&dir).await;
    let (index, record) = opened.audit.list(None, 1).unwrap().remove(0);
    assert_eq!((index, record.rpc.as_str()), (2, "fieldkeep cert issue"));
    assert_eq!(record.resources[0].name, "tenants/default/identities/admin");
    assert!(
        record
            .detail
            .starts_with(&format!("serial={} ", principal.credential)),
        "{}",
        record.detail
    );
}

#[tokio::test]
async fn the_servers_certificate_is_renewed_with_the_names_it_had() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    let mut options = options(&dir);
    options.names = vec!["keys.example.com".to_owned(), "2001:db8::7".to_owned()];
    init(options).await.unwrap();
    let config = Config::load(&dir.join("fieldkeep.toml")).unwrap();
    let old_key = fs::read(&config.tls.key).unwrap();
    let before = present_names(&config.tls.cert).unwrap();
    assert_eq!(
        before,
        [
            "localhost",
            "127.0.0.1",
            "::1",
            "keys.example.com",
            "2001:db8::7"
        ]
    );
    let more = ["new.example.com".to_owned(), "localhost".to_owned()];
    let ends = renew_server_offline(&config, &more, 3600, NOW + 100).await;
    assert_eq!(ends.unwrap(), i64::try_from(NOW + 3700).unwrap());
    let after = present_names(&config.tls.cert).unwrap();
    assert_eq!(after[..5], before);
    assert_eq!(after[5..], ["new.example.com"]);
    assert_ne!(fs::read(&config.tls.key).unwrap(), old_key);
    assert_eq!(modes(&dir.join("tls"))["server.key"], 0o600);
    let opened = open(&dir).await;
    let (_, record) = opened.audit.list(None, 1).unwrap().remove(0);
    assert_eq!(record.rpc, "fieldkeep cert server");

    drop(opened);
    fs::write(&config.tls.cert, "garbage").unwrap();
    let error = renew_server_offline(&config, &[], 3600, NOW).await;
    assert!(error.unwrap_err().to_string().contains("--name"));
}

#[tokio::test]
async fn certificates_of_others_are_not_overwritten() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    init(options(&dir)).await.unwrap();
    let out = TempDir::new().unwrap();
    let report = issue(&dir, &identity("app"), out.path()).await.unwrap();
    assert_eq!(report.roles, []);
    let key = fs::read(&report.key).unwrap();
    fs::copy(&report.certificate, out.path().join("other.pem")).unwrap();
    let error = issue(&dir, &identity("other"), out.path())
        .await
        .unwrap_err();
    assert!(matches!(error, OfflineError::Occupied { .. }), "{error}");
    fs::write(out.path().join("third.key"), "mine").unwrap();
    let error = issue(&dir, &identity("third"), out.path())
        .await
        .unwrap_err();
    assert!(matches!(error, OfflineError::Occupied { .. }), "{error}");
    assert_eq!(fs::read(&report.key).unwrap(), key);
    assert_eq!(fs::read(out.path().join("third.key")).unwrap(), b"mine");
}

#[tokio::test]
async fn while_a_server_runs_the_certificate_comes_from_it() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    init(options(&dir)).await.unwrap();
    let running = open(&dir).await;
    let out = TempDir::new().unwrap();
    let error = issue(&dir, &identity("app"), out.path()).await.unwrap_err();
    assert!(matches!(error, OfflineError::ServerRunning(_)), "{error}");
    assert!(modes(out.path()).is_empty());
    running.store.close().await.unwrap();
}

#[tokio::test]
async fn an_identity_of_no_tenant_gets_nothing() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("fk");
    init(options(&dir)).await.unwrap();
    let out = TempDir::new().unwrap();
    let error = issue(
        &dir,
        &identity("tenants/nowhere/identities/app"),
        out.path(),
    )
    .await
    .unwrap_err();
    assert!(
        matches!(
            error,
            OfflineError::Keystore(KeystoreError::TenantNotFound(_))
        ),
        "{error}"
    );
    assert!(modes(out.path()).is_empty());
}
