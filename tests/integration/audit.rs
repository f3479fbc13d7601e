//! One record a call, and never a value in it.

use std::{fs, path::Path};

use fieldkeep_client::{BatchEncrypt, EncryptItem};
use fieldkeep_proto::v1::{AuditRecord, Decision};

use crate::fixture::Fixture;

async fn records(f: &Fixture) -> Vec<AuditRecord> {
    let entries = f.admin().audit().list().collect().await.unwrap();
    let mut indexes: Vec<u64> = entries.iter().map(|e| e.index).collect();
    indexes.reverse();
    assert_eq!(
        indexes,
        (0..entries.len() as u64).collect::<Vec<_>>(),
        "newest first, without gaps"
    );
    entries.into_iter().rev().filter_map(|e| e.record).collect()
}

#[tokio::test]
async fn every_call_has_one_record() {
    let f = Fixture::start();
    let before = records(&f).await.len();
    let app = f.app();
    let sealed = app
        .field("pii", "customer.email")
        .context("id", "1")
        .encrypt(b"x")
        .await
        .unwrap();
    app.field("pii", "customer.email")
        .context("id", "1")
        .decrypt(&sealed)
        .await
        .unwrap();
    app.field("pii", "customer.email")
        .context("id", "2")
        .decrypt(&sealed)
        .await
        .unwrap_err();
    f.admin()
        .field("pii", "customer.email")
        .encrypt(b"x")
        .await
        .unwrap_err();
    let mut items: Vec<EncryptItem> = (0..5).map(|_| EncryptItem::new(&b"x"[..])).collect();
    items[1].key = "none".into();
    app.encrypt_batch(BatchEncrypt {
        key: "pii".into(),
        field: "f".into(),
        items,
        ..BatchEncrypt::default()
    })
    .await
    .unwrap();
    f.admin().keys().rotate("pii").await.unwrap();

    let all = records(&f).await;
    // The listing before was itself a call.
    let new = &all[before + 1..];
    let rpcs: Vec<(&str, Decision, i32)> = new
        .iter()
        .map(|r| (r.rpc.rsplit('/').next().unwrap(), r.decision(), r.code))
        .collect();
    let allowed = Decision::Allowed;
    assert_eq!(
        rpcs,
        [
            ("Encrypt", allowed, 0),
            ("Decrypt", allowed, 0),
            ("Decrypt", allowed, 3),
            ("Encrypt", Decision::Refused, 7),
            ("BatchEncrypt", allowed, 0),
            // The intent, and what became of it.
            ("RotateKey", allowed, 2),
            ("RotateKey", allowed, 0),
        ]
    );
    let encrypt = &new[0];
    assert_eq!(encrypt.principal, "tenants/default/identities/app");
    assert_eq!(
        (encrypt.authentication.as_str(), &encrypt.rule[..8]),
        ("mtls", "grant:g-")
    );
    assert_eq!(encrypt.resources[0].name, "tenants/default/keys/pii");
    assert_eq!(
        (
            encrypt.resources[0].version,
            encrypt.resources[0].field.as_str()
        ),
        (1, "customer.email")
    );
    assert_eq!(encrypt.context_hash.len(), 16);
    assert_eq!(encrypt.context_hash, new[1].context_hash);
    assert_ne!(encrypt.context_hash, new[2].context_hash);
    assert!(
        !new[2].reason.is_empty(),
        "the detail that the caller did not see"
    );
    assert_eq!((new[4].items_ok, new[4].items_failed), (4, 1));
    assert!(new[5].changes.is_empty());
    assert_eq!(new[6].changes.len(), 2);
    assert!(
        new.iter().all(|r| r.time_us > 0
            && r.request_id.len() == 16
            && r.address.starts_with("127.0.0.1:"))
    );
}

#[tokio::test]
async fn no_value_is_ever_written_anywhere() {
    let f = Fixture::start();
    let canary = "CANARY-b7f3e1";
    let app = f.app();
    let sealed = app
        .field("pii", "f")
        .context("id", &format!("{canary}-context"))
        .encrypt(canary.as_bytes())
        .await
        .unwrap();
    app.field("pii", "f")
        .context("id", &format!("{canary}-context"))
        .decrypt(&sealed)
        .await
        .unwrap();
    app.field("pii", "f")
        .context("id", &format!("{canary}-context"))
        .reencrypt(&sealed)
        .await
        .unwrap();
    let _ = app.field("pii", "f").decrypt(canary.as_bytes()).await;
    let _ = app
        .field("pii", "f")
        .context("UPPER", canary)
        .encrypt(canary.as_bytes())
        .await;
    let _ = app
        .field("none", "f")
        .context("id", canary)
        .encrypt(canary.as_bytes())
        .await;
    let items = vec![
        EncryptItem::new(canary.as_bytes()).context("id", canary),
        EncryptItem::new(vec![b'C'; 70_000]),
    ];
    let _ = app
        .encrypt_batch(BatchEncrypt {
            key: "pii".into(),
            field: "f".into(),
            items,
            ..BatchEncrypt::default()
        })
        .await;
    let records = format!("{:?}", records(&f).await);
    assert!(!records.contains(canary));
    let log = f.server.stop();
    assert!(!log.contains(canary), "{log}");
    search(&f.home.path(), canary.as_bytes());
}

fn search(folder: &Path, needle: &[u8]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, needle);
        } else {
            let bytes = fs::read(&path).unwrap();
            assert!(
                !bytes.windows(needle.len()).any(|w| w == needle),
                "found in {}",
                path.display()
            );
        }
    }
}

#[tokio::test]
async fn the_trail_survives_a_restart_and_goes_on() {
    let f = Fixture::start();
    f.app().field("pii", "f").encrypt(b"x").await.unwrap();
    let before = records(&f).await;
    let f = f.restart();
    let after = records(&f).await;
    assert_eq!(after[..before.len()], before[..]);
}
