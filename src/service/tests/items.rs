//! Keyed hashes of items in records: whose, in what order, with what outcome, and how an auditor finds one.

use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::items::{ENTRY_BYTES, items};
use fieldkeep_keystore::info::AuditItems;
use fieldkeep_proto::v1::{AuditResource, Phase};

use super::*;
use crate::access::condition::Conditions;
use crate::service::audit::ListRecords;
use crate::service::batch::{BatchDecrypt, BatchEncrypt, DecryptItem, EncryptItem};
use crate::service::items::{SetAuditItems, Sought};
use crate::service::keys::Page;
use crate::service::reencrypt::{BatchReEncrypt, ReEncrypt};

/// What a resource of a record has of items: index, code and hash of each.
fn hashed(resource: &AuditResource) -> Vec<(u16, u8, [u8; 8])> {
    items(&resource.item_hashes)
        .map(|one| (one.item, one.code, *one.hash))
        .collect()
}

/// The resource of a key in a record.
fn of_key<'r>(record: &'r AuditRecord, key: &str) -> &'r AuditResource {
    let name = format!("tenants/acme/keys/{key}");
    let mut found = record.resources.iter().filter(|used| used.name == name);
    found.next().unwrap()
}

async fn set(f: &Fixture, key_name: &str, items: AuditItems) {
    let set = SetAuditItems {
        key: key(key_name),
        items,
        request: Repeatable::parse("", b"").unwrap(),
    };
    f.perform("acme/boss", set).await.unwrap();
}

/// A fixture whose key `pii` of `acme` asks for hashes, and with a key `new` that counts.
async fn hashing() -> Fixture {
    let f = Fixture::make().await;
    let (tenant, new) = (name("acme"), name("new"));
    f.keystore
        .create_key(&tenant, &new, Suite::KcXaes256Gcm.into(), operation(), NOW)
        .await
        .unwrap();
    set(&f, "pii", AuditItems::Hashes).await;
    f
}

fn sought(key_name: &str, id: &str) -> Sought {
    Sought {
        key: key(&format!("tenants/acme/keys/{key_name}")),
        field: field("email"),
        context: context(id),
    }
}

fn hash_of(f: &Fixture, key_name: &str, id: &str) -> [u8; 8] {
    let hasher = f
        .keystore
        .audit_key()
        .item_hasher("acme", key_name, "email");
    hasher.hash(&context(id))
}

/// The indexes of the records that an auditor finds for an item.
async fn found(f: &Fixture, key_name: &str, id: &str) -> Vec<(u64, AuditRecord)> {
    let list = ListRecords {
        page: Page {
            after: None,
            limit: 1_000,
        },
        filter: Filter {
            key: Some(format!("tenants/acme/keys/{key_name}")),
            field: Some(String::from("email")),
            ..Filter::default()
        },
        item: Some(sought(key_name, id)),
    };
    f.perform("acme/boss", list).await.unwrap().entries
}

fn opening(ciphertext: &Bytes, id: &str) -> Result<DecryptItem, Failure> {
    Ok(DecryptItem {
        field: 0,
        context: Some(context(id)),
        ciphertext: ciphertext.clone(),
    })
}

fn batch_decrypt(items: Vec<Result<DecryptItem, Failure>>) -> BatchDecrypt {
    BatchDecrypt {
        fields: vec![field("email")],
        shared: context("42"),
        items,
    }
}

/// Seals an item for each of `ids` under `key_name`, in one batch.
async fn seal(f: &Fixture, key_name: &str, ids: &[&str]) -> Vec<Bytes> {
    let item = |id: &&str| {
        Ok(EncryptItem {
            target: 0,
            context: Some(context(id)),
            plaintext: Bytes::from_static(b"x"),
        })
    };
    let batch = BatchEncrypt {
        targets: vec![(key(key_name), field("email"))],
        shared: context("42"),
        items: ids.iter().map(item).collect(),
    };
    let sealed = f.perform("acme/app", batch).await.unwrap();
    let ciphertext = |one: Result<Sealed, Failure>| one.unwrap().ciphertext;
    sealed.into_iter().map(ciphertext).collect()
}

#[tokio::test]
async fn a_key_counts_items_unless_it_is_told_to_hash_them() {
    let f = Fixture::make().await;
    let sealed = seal(&f, "pii", &["1", "2"]).await;
    let items = sealed.iter().map(|one| opening(one, "1")).collect();
    f.perform("acme/app", batch_decrypt(items)).await.unwrap();
    f.encrypt("acme/app", b"x").await.unwrap();
    let records = f.records();
    let used = records.iter().flat_map(|record| &record.resources);
    assert!(used.clone().count() > 2);
    assert!(used.clone().all(|used| used.item_hashes.is_empty()));
    assert_eq!(found(&f, "pii", "1").await, []);
}

#[tokio::test]
async fn the_setting_is_a_management_operation_that_counts_from_the_next_call_on() {
    let f = Fixture::make().await;
    // The key is in the cache by now.
    f.encrypt("acme/app", b"x").await.unwrap();
    set(&f, "pii", AuditItems::Hashes).await;
    let records = f.records();
    let [.., intent, outcome] = records.as_slice() else {
        panic!("two records");
    };
    assert_eq!(
        (intent.phase(), outcome.phase()),
        (Phase::Intent, Phase::Outcome)
    );
    for record in [intent, outcome] {
        assert_eq!(record.detail, "audit_items=hashes");
        assert_eq!(record.action, "manage");
    }
    assert_eq!((intent.changes.len(), outcome.changes.len()), (0, 1));
    f.encrypt("acme/app", b"x").await.unwrap();
    assert_eq!(hashed(&f.last_record().resources[0]).len(), 1);
    set(&f, "pii", AuditItems::Counts).await;
    f.encrypt("acme/app", b"x").await.unwrap();
    assert_eq!(hashed(&f.last_record().resources[0]).len(), 0);
    let set_by_app = SetAuditItems {
        key: key("pii"),
        items: AuditItems::Hashes,
        request: Repeatable::parse("", b"").unwrap(),
    };
    let refused = f.perform("acme/app", set_by_app).await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
}

#[tokio::test]
async fn a_unary_call_has_the_hash_and_the_outcome_of_its_item() {
    let f = hashing().await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    let of_42 = hash_of(&f, "pii", "42");
    assert_eq!(hashed(&f.last_record().resources[0]), [(0, 0, of_42)]);
    f.perform("acme/app", decrypt(&sealed)).await.unwrap();
    assert_eq!(hashed(&f.last_record().resources[0]), [(0, 0, of_42)]);
    // INVALID_ARGUMENT: it does not open in another context, which is the one that was tried.
    let tried = Decrypt {
        context: context("43"),
        ..decrypt(&sealed)
    };
    f.perform("acme/app", tried).await.unwrap_err();
    let of_43 = hash_of(&f, "pii", "43");
    assert_ne!(of_42, of_43);
    assert_eq!(hashed(&f.last_record().resources[0]), [(0, 3, of_43)]);
    let indexes: Vec<u64> = found(&f, "pii", "42")
        .await
        .iter()
        .map(|one| one.0)
        .collect();
    let len = f.audit.len();
    assert_eq!(
        indexes,
        [len - 3, len - 4],
        "the listing itself is the last"
    );
    // Whoever has no right to it leaves no hash.
    f.perform("acme/boss", decrypt(&sealed)).await.unwrap_err();
    let record = f.last_record();
    assert!(
        record
            .resources
            .iter()
            .all(|used| used.item_hashes.is_empty())
    );
}

#[tokio::test]
async fn a_batch_has_the_hash_and_the_outcome_of_each_item_of_keys_that_ask_for_it() {
    let f = hashing().await;
    let (mine, other) = (
        seal(&f, "pii", &["1", "2"]).await,
        seal(&f, "new", &["3"]).await,
    );
    let items = vec![
        opening(&mine[1], "2"),
        Err(Failure::invalid("field", "bad")),
        opening(&other[0], "3"),
        opening(&mine[0], "2"),
        opening(&Bytes::from_static(b"junk"), "1"),
        opening(&mine[0], "1"),
    ];
    f.perform("acme/app", batch_decrypt(items)).await.unwrap();
    let record = f.last_record();
    assert_eq!((record.items_ok, record.items_failed), (3, 3));
    let (of_1, of_2) = (hash_of(&f, "pii", "1"), hash_of(&f, "pii", "2"));
    assert_eq!(
        hashed(of_key(&record, "pii")),
        [(0, 0, of_2), (3, 3, of_2), (5, 0, of_1)]
    );
    assert_eq!(hashed(of_key(&record, "new")), []);
    let opened: Vec<String> = found(&f, "pii", "1")
        .await
        .into_iter()
        .map(|(_, record)| record.action)
        .collect();
    assert_eq!(opened, ["decrypt", "encrypt"]);
    assert_eq!(found(&f, "new", "3").await, []);
    assert_eq!(found(&f, "pii", "3").await, []);
}

#[tokio::test]
async fn an_item_that_moves_is_one_of_both_keys() {
    let f = hashing().await;
    set(&f, "new", AuditItems::Hashes).await;
    let sealed = seal(&f, "pii", &["1", "2"]).await;
    let operation = BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("new")],
        shared: context("42"),
        items: vec![
            opening(&sealed[0], "1").map(|item| (item, None)),
            opening(&sealed[1], "2").map(|item| (item, Some(0))),
            opening(&sealed[0], "2").map(|item| (item, Some(0))),
        ],
    };
    f.perform("acme/app", operation).await.unwrap();
    let record = f.last_record();
    let of = |key_name: &str, id: &str| hash_of(&f, key_name, id);
    assert_eq!(
        hashed(of_key(&record, "pii")),
        [
            (0, 0, of("pii", "1")),
            (1, 0, of("pii", "2")),
            (2, 3, of("pii", "2"))
        ]
    );
    assert_eq!(
        hashed(of_key(&record, "new")),
        [(1, 0, of("new", "2")), (2, 3, of("new", "2"))]
    );
    let one = ReEncrypt {
        field: field("email"),
        context: context("2"),
        ciphertext: sealed[1].clone(),
        destination: Some(key("new")),
    };
    f.perform("acme/app", one).await.unwrap();
    let record = f.last_record();
    assert_eq!(hashed(of_key(&record, "pii")), [(0, 0, of("pii", "2"))]);
    assert_eq!(hashed(of_key(&record, "new")), [(0, 0, of("new", "2"))]);
}

#[tokio::test]
async fn an_item_that_its_caller_had_no_right_to_has_no_hash() {
    let f = hashing().await;
    let sealed = seal(&f, "pii", &["1", "2"]).await;
    f.revoke_app().await;
    let only_1 = Wanted {
        conditions: Conditions {
            context: vec![(String::from("id"), String::from("1"))],
            ..Conditions::default()
        },
        ..wanted(Role::Data, "acme/app", &["pii"], &["email"])
    };
    f.grant(only_1).await;
    let items = vec![opening(&sealed[1], "2"), opening(&sealed[0], "1")];
    f.perform("acme/app", batch_decrypt(items)).await.unwrap();
    let record = f.last_record();
    assert_eq!((record.items_ok, record.items_failed), (1, 1));
    let of_1 = hash_of(&f, "pii", "1");
    assert_eq!(hashed(of_key(&record, "pii")), [(1, 0, of_1)]);
}

#[tokio::test]
async fn the_key_of_what_was_opened_is_named_although_another_item_may_not_move() {
    let f = hashing().await;
    let sealed = seal(&f, "pii", &["1"]).await;
    f.revoke_app().await;
    f.grant(wanted(Role::ReEncrypter, "acme/app", &["*"], &["*"]))
        .await;
    let operation = BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("new")],
        shared: context("42"),
        items: vec![
            opening(&sealed[0], "1").map(|item| (item, Some(0))),
            opening(&sealed[0], "1").map(|item| (item, None)),
        ],
    };
    let results = f.perform("acme/app", operation).await.unwrap();
    assert!(results[0].is_err() && results[1].is_ok());
    let record = f.last_record();
    let used = of_key(&record, "pii");
    assert_eq!(used.items, 2);
    assert_eq!(hashed(used), [(1, 0, hash_of(&f, "pii", "1"))]);
}

#[tokio::test]
async fn ten_thousand_items_are_hashed_in_parts_of_one_commit_that_are_each_found() {
    const ITEMS: usize = 10_000;
    let f = hashing().await;
    let names: Vec<String> = (0..ITEMS).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = f.records().len();
    seal(&f, "pii", &ids).await;
    let records = f.records();
    let parts = &records[before..];
    assert_eq!(parts.len(), 2, "110,000 bytes of hashes");
    let used = || parts.iter().flat_map(|part| &part.resources);
    let indexes: Vec<u16> = used()
        .flat_map(hashed)
        .map(|(item, code, _)| {
            assert_eq!(code, 0);
            item
        })
        .collect();
    assert!(indexes.into_iter().eq(0..ITEMS as u16));
    assert_eq!(used().map(|one| one.items).sum::<u32>(), ITEMS as u32);
    for resource in used() {
        let hashes = resource.item_hashes.len() / ENTRY_BYTES;
        assert_eq!(resource.items as usize, hashes, "the items of each piece");
        assert_eq!(resource.field, "email");
    }
    for (id, part) in [("0", 0), ("9999", 1)] {
        let of_part: Vec<u64> = found(&f, "pii", id).await.iter().map(|one| one.0).collect();
        assert_eq!(of_part, [(before + part) as u64], "{id}");
    }
}
