//! One record a call, and never a value in it.

use std::{fs, path::Path};

use fieldkeep_client::{BatchDecrypt, BatchEncrypt, DecryptItem, EncryptItem};
use fieldkeep_proto::v1::{AuditFilter, AuditItem, AuditItems, AuditRecord, ContextPair, Decision};
use serde_json::Value;

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

fn pair(name: &str, value: &str) -> ContextPair {
    ContextPair {
        name: name.into(),
        value: value.into(),
    }
}

/// Calls with `canary` in every input.
async fn call_with(f: &Fixture, canary: &'static str) {
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
}

#[tokio::test]
async fn no_value_is_ever_written_anywhere() {
    let f = Fixture::start();
    let canary = "CANARY-b7f3e1";
    for items in [AuditItems::Counts, AuditItems::Hashes] {
        f.admin()
            .keys()
            .set_audit_items("pii", items)
            .await
            .unwrap();
        call_with(&f, canary).await;
    }
    let filter = AuditFilter {
        key: "tenants/default/keys/pii".into(),
        field: "f".into(),
        item: Some(AuditItem {
            context: vec![pair("id", &format!("{canary}-context"))],
        }),
        ..AuditFilter::default()
    };
    let found = f.admin().audit().find(filter).collect().await.unwrap();
    assert_eq!(found.len(), 3, "those of the second time");
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

#[tokio::test]
async fn an_auditor_finds_who_decrypted_one_item() {
    let f = Fixture::start();
    let run = |arguments: &[&str]| f.server.run(&f.admin_identity, arguments);
    let created = run(&["key", "create", "patients", "--audit-items", "hashes"]);
    assert!(created.contains("audit items") && created.contains("hashes"));
    let app = f.app();
    let seal = async |key: &str| {
        let item = |id| EncryptItem::new(&b"x"[..]).context("id", id);
        let batch = BatchEncrypt {
            key: key.into(),
            field: "ssn".into(),
            items: ["4711", "4712", "4713"].map(item).into(),
            ..BatchEncrypt::default()
        };
        let sealed = app.encrypt_batch(batch).await.unwrap();
        let ciphertexts = sealed.into_iter().map(|one| one.unwrap().ciphertext);
        ciphertexts.collect::<Vec<_>>()
    };
    let (sealed, counted) = (seal("patients").await, seal("pii").await);
    let item = |of: usize, id: &str| DecryptItem::new(sealed[of].clone()).context("id", id);
    let batch = |items: Vec<DecryptItem>| BatchDecrypt {
        field: "ssn".into(),
        items,
        ..BatchDecrypt::default()
    };
    let all = vec![item(0, "4711"), item(1, "4712"), item(2, "4713")];
    app.decrypt_batch(batch(all)).await.unwrap();
    let without = vec![item(1, "4712"), item(2, "4713"), item(0, "4712")];
    let results = app.decrypt_batch(batch(without)).await.unwrap();
    assert!(results[2].is_err());
    let of_pii = DecryptItem::new(counted[0].clone()).context("id", "4711");
    app.decrypt_batch(batch(vec![of_pii])).await.unwrap();

    let list = |key: &str, id: &str| -> Vec<Value> {
        let item = format!("id={id}");
        let search = ["audit", "list", "--action", "decrypt", "--format", "json"];
        let about = ["--key", key, "--field", "ssn", "--item", &item];
        serde_json::from_str(&run(&[&search[..], &about].concat())).unwrap()
    };
    let found = list("patients", "4711");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["principal"], "tenants/default/identities/app");
    assert_eq!(found[0]["rpc"], "fieldkeep.v1.FieldService/BatchDecrypt");
    let hashes = &found[0]["resources"][0]["item_hashes"];
    let told = |at: usize| (hashes[at]["item"].as_u64(), hashes[at]["code"].as_u64());
    assert_eq!(hashes.as_array().unwrap().len(), 3);
    assert_eq!((told(0), told(2)), ((Some(0), Some(0)), (Some(2), Some(0))));
    assert_eq!(hashes[0]["hash"].as_str().unwrap().len(), 16);
    assert_eq!(list("patients", "4712").len(), 2);
    assert!(list("patients", "4714").is_empty());
    assert!(
        list("pii", "4711").is_empty(),
        "its items are counted alone"
    );

    let one = item(0, "4711");
    let template = batch(Vec::new());
    let mut opened = app.decrypt_stream(template, futures_util::stream::iter([one]));
    while let Some(value) = opened.next().await {
        value.unwrap().unwrap();
    }
    let newest = list("patients", "4711");
    assert_eq!(newest.len(), 2);
    assert_eq!(newest[0]["rpc"], "fieldkeep.v1.FieldService/DecryptStream");
    // An export finds the same, oldest first, with the call that encrypted it.
    let about = ["--key", "patients", "--field", "ssn", "--item", "id=4711"];
    let exported = run(&[&["audit", "export"][..], &about].concat());
    let exported: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let actions: Vec<&str> = exported
        .iter()
        .map(|record| record["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["encrypt", "decrypt", "decrypt"]);

    run(&["key", "set-audit-items", "patients", "counts"]);
    app.decrypt_batch(batch(vec![item(0, "4711")]))
        .await
        .unwrap();
    assert_eq!(list("patients", "4711").len(), 2);
}
