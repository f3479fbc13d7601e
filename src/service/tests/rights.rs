//! Rights down to the key and the field: each call, and each item, uses what is granted and nothing else.

use std::sync::atomic::{AtomicBool, AtomicU32};

use bytes::Bytes;
use fieldkeep_proto::v1::Decision;

use super::*;
use crate::access::condition::Conditions;
use crate::access::group::Group;
use crate::service::access::{IssueCertificate, LocalName, RevokeGrant};
use crate::service::batch::{BatchDecrypt, BatchEncrypt, DecryptItem, EncryptItem};
use crate::service::failure::Opaque;
use crate::service::groups::AddMember;
use crate::service::keys::{DescribeKey, ListKeys, Page, RotateKey};
use crate::service::reencrypt::{BatchReEncrypt, ReEncrypt};

async fn create_key(f: &Fixture, tenant: &str, text: &str) {
    f.keystore
        .create_key(
            &name(tenant),
            &name(text),
            Suite::KcXaes256Gcm.into(),
            operation(),
            NOW,
        )
        .await
        .unwrap();
}

fn seal(key_name: &str, field_name: &str) -> Encrypt {
    Encrypt {
        key: key(key_name),
        field: field(field_name),
        context: context("42"),
        plaintext: Bytes::from_static(b"value"),
    }
}

fn open(field_name: &str, ciphertext: &Bytes) -> Decrypt {
    Decrypt {
        field: field(field_name),
        context: context("42"),
        ciphertext: ciphertext.clone(),
    }
}

fn reencrypt(ciphertext: &Bytes, destination: Option<&str>) -> ReEncrypt {
    ReEncrypt {
        field: field("email"),
        context: context("42"),
        ciphertext: ciphertext.clone(),
        destination: destination.map(key),
    }
}

/// A ciphertext of `email` under the key `pii` of `acme`.
async fn sealed(f: &Fixture) -> Bytes {
    f.perform("acme/app", seal("pii", "email"))
        .await
        .unwrap()
        .ciphertext
}

#[tokio::test]
async fn a_call_uses_the_keys_and_fields_that_are_granted_and_no_others() {
    let f = Fixture::make().await;
    create_key(&f, "acme", "cards").await;
    f.grant(wanted(Role::Data, "acme/narrow", &["pii"], &["customer.*"]))
        .await;
    let own = f
        .perform("acme/narrow", seal("pii", "customer.ssn"))
        .await
        .unwrap();
    let opened = f
        .perform("acme/narrow", open("customer.ssn", &own.ciphertext))
        .await;
    assert_eq!(opened, Ok(whole(b"value")));
    assert_eq!(f.last_record().rule, f.rule_of("acme/narrow"));
    for (key_name, field_name) in [
        ("pii", "email"),
        ("cards", "customer.ssn"),
        ("nothing", "email"),
    ] {
        let refused = f
            .perform("acme/narrow", seal(key_name, field_name))
            .await
            .unwrap_err();
        assert_eq!(refused_by(&refused), "no-grant", "{key_name} {field_name}");
        let told = refused.to_string();
        assert!(
            told.contains(&format!("--key {key_name} --field {field_name}")),
            "{told}"
        );
        let record = f.last_record();
        assert_eq!(
            (record.decision(), record.rule.as_str()),
            (Decision::Refused, "no-grant")
        );
        assert_eq!(record.resources[0].field, field_name);
    }
    // A ciphertext of its own tenant that it has no right to: the key is named.
    let refused = f
        .perform("acme/narrow", open("email", &sealed(&f).await))
        .await
        .unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    assert!(
        refused
            .to_string()
            .contains("the field `email` under the key `pii`")
    );
    // Of another tenant's, nothing is.
    let foreign = f
        .perform("other/app", seal("pii", "email"))
        .await
        .unwrap()
        .ciphertext;
    let refused = f
        .perform("acme/narrow", open("email", &foreign))
        .await
        .unwrap_err();
    assert_eq!(refused, Failure::DecryptionFailed(Opaque::ForeignTenant));
}

#[tokio::test]
async fn to_encrypt_is_not_to_decrypt() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::Encrypter, "acme/writer", &["*"], &["*"]))
        .await;
    f.grant(wanted(Role::Decrypter, "acme/reader", &["*"], &["*"]))
        .await;
    let ciphertext = f.encrypt("acme/writer", b"x").await.unwrap().ciphertext;
    assert!(f.perform("acme/reader", decrypt(&ciphertext)).await.is_ok());
    let refused = f
        .perform("acme/writer", decrypt(&ciphertext))
        .await
        .unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    let refused = f.encrypt("acme/reader", b"x").await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
}

#[tokio::test]
async fn who_may_only_see_masks_gets_no_value() {
    let f = Fixture::make().await;
    f.grant(wanted(
        Role::MaskedReader,
        "acme/support",
        &["pii"],
        &["email"],
    ))
    .await;
    let ciphertext = sealed(&f).await;
    let refused = f
        .perform("acme/support", decrypt(&ciphertext))
        .await
        .unwrap_err();
    assert_eq!(refused_by(&refused), "masked-alone");
    assert!(refused.to_string().contains("no mask is set"));
    let batch = open_batch(&["email"], &[(0, "42", &ciphertext)]);
    let results = f.perform("acme/support", batch).await.unwrap();
    assert_eq!(refused_by(results[0].as_ref().unwrap_err()), "masked-alone");
    let moved = reencrypt(&ciphertext, Some("tenants/acme/keys/pii"));
    assert_eq!(
        refused_by(&f.perform("acme/support", moved).await.unwrap_err()),
        "no-grant"
    );
    // Nor does moving the value to a key of his own show it.
    create_key(&f, "acme", "own").await;
    f.grant(wanted(Role::Data, "acme/support", &["own"], &["*"]))
        .await;
    let moved = reencrypt(&ciphertext, Some("own"));
    assert_eq!(
        refused_by(&f.perform("acme/support", moved).await.unwrap_err()),
        "masked-alone"
    );
    let item = DecryptItem {
        field: 0,
        context: Some(context("42")),
        ciphertext: ciphertext.clone(),
    };
    let batch = BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("own")],
        shared: context("none"),
        items: vec![Ok((item, Some(0)))],
    };
    let results = f.perform("acme/support", batch).await.unwrap();
    assert_eq!(refused_by(results[0].as_ref().unwrap_err()), "masked-alone");
    // A whole right beside it wins.
    f.grant(wanted(Role::Decrypter, "acme/support", &["*"], &["*"]))
        .await;
    assert!(
        f.perform("acme/support", decrypt(&ciphertext))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn reencryption_launders_no_right() {
    let f = Fixture::make().await;
    create_key(&f, "acme", "own").await;
    let ciphertext = sealed(&f).await;
    // May move within a key, and has every right to another.
    f.grant(wanted(Role::ReEncrypter, "acme/mover", &["pii"], &["*"]))
        .await;
    f.grant(wanted(Role::Data, "acme/mover", &["own"], &["*"]))
        .await;
    assert!(
        f.perform("acme/mover", reencrypt(&ciphertext, None))
            .await
            .is_ok()
    );
    let same = reencrypt(&ciphertext, Some("tenants/acme/keys/pii"));
    assert!(f.perform("acme/mover", same).await.is_ok());
    let laundered = f
        .perform("acme/mover", reencrypt(&ciphertext, Some("own")))
        .await;
    let refused = laundered.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    assert!(
        refused
            .to_string()
            .contains("decrypt the field `email` under the key `pii`")
    );
    let items = || BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("own"), key("pii")],
        shared: context("42"),
        items: [None, Some(0), Some(1)]
            .into_iter()
            .map(|destination| {
                let item = DecryptItem {
                    field: 0,
                    context: None,
                    ciphertext: ciphertext.clone(),
                };
                Ok((item, destination))
            })
            .collect(),
    };
    let results = f.perform("acme/mover", items()).await.unwrap();
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(refused_by(results[1].as_ref().unwrap_err()), "no-grant");
    // With the right to decrypt the source, and without the one to encrypt there.
    f.grant(wanted(Role::Decrypter, "acme/taker", &["pii"], &["*"]))
        .await;
    let refused = f
        .perform("acme/taker", reencrypt(&ciphertext, Some("own")))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("encrypt the field `email` under the key `own`"),
        "{refused}"
    );
    f.grant(wanted(Role::Encrypter, "acme/taker", &["own"], &["*"]))
        .await;
    let moved = f
        .perform("acme/taker", reencrypt(&ciphertext, Some("own")))
        .await
        .unwrap();
    assert!(moved.changed);
    // It may not re-encrypt within a key, which is a right of its own.
    let refused = f
        .perform("acme/taker", reencrypt(&ciphertext, None))
        .await
        .unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
}

fn open_batch(fields: &[&str], items: &[(usize, &str, &Bytes)]) -> BatchDecrypt {
    BatchDecrypt {
        fields: fields.iter().map(|text| field(text)).collect(),
        shared: context("none"),
        items: items
            .iter()
            .map(|(index, id, ciphertext)| {
                Ok(DecryptItem {
                    field: *index,
                    context: Some(context(id)),
                    ciphertext: Bytes::clone(ciphertext),
                })
            })
            .collect(),
    }
}

#[tokio::test]
async fn each_item_of_a_batch_needs_the_right_to_its_key_and_field() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::Data, "acme/narrow", &["pii"], &["email"]))
        .await;
    let (email, phone) = (
        sealed(&f).await,
        f.perform("acme/app", seal("pii", "phone"))
            .await
            .unwrap()
            .ciphertext,
    );
    let batch = open_batch(
        &["email", "phone"],
        &[(0, "42", &email), (1, "42", &phone), (0, "42", &email)],
    );
    let results = f.perform("acme/narrow", batch).await.unwrap();
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    let record = f.last_record();
    assert_eq!(
        (record.decision(), record.rule),
        (Decision::Allowed, f.rule_of("acme/narrow"))
    );
    let batch = BatchEncrypt {
        targets: vec![(key("pii"), field("email")), (key("pii"), field("phone"))],
        shared: context("42"),
        items: (0..2)
            .map(|target| {
                Ok(EncryptItem {
                    target,
                    context: None,
                    plaintext: Bytes::from_static(b"x"),
                })
            })
            .collect(),
    };
    let results = f.perform("acme/narrow", batch).await.unwrap();
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false]
    );
}

#[tokio::test]
async fn a_condition_on_the_context_is_asked_of_each_item() {
    let f = Fixture::make().await;
    let conditions = Conditions {
        context: vec![("id".into(), "42".into())],
        ..Conditions::default()
    };
    f.grant(Wanted {
        conditions,
        ..wanted(Role::Data, "acme/one", &["*"], &["*"])
    })
    .await;
    let ciphertext = f.encrypt("acme/one", b"x").await.unwrap().ciphertext;
    assert!(f.perform("acme/one", decrypt(&ciphertext)).await.is_ok());
    let other = Encrypt {
        context: context("43"),
        ..seal("pii", "email")
    };
    let refused = f.perform("acme/one", other).await.unwrap_err();
    assert_eq!(refused_by(&refused), "condition-context");
    let other = f
        .perform(
            "acme/app",
            Encrypt {
                context: context("43"),
                ..seal("pii", "email")
            },
        )
        .await
        .unwrap()
        .ciphertext;
    let batch = open_batch(&["email"], &[(0, "42", &ciphertext), (0, "43", &other)]);
    let results = f.perform("acme/one", batch).await.unwrap();
    assert!(results[0].is_ok());
    assert_eq!(
        refused_by(results[1].as_ref().unwrap_err()),
        "condition-context"
    );
    let batch = BatchEncrypt {
        targets: vec![(key("pii"), field("email"))],
        shared: context("43"),
        items: [None, Some(context("42"))]
            .into_iter()
            .map(|context| {
                Ok(EncryptItem {
                    target: 0,
                    context,
                    plaintext: Bytes::from_static(b"x"),
                })
            })
            .collect(),
    };
    let results = f.perform("acme/one", batch).await.unwrap();
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [false, true]
    );
}

#[tokio::test]
async fn whoever_lacks_the_right_is_not_told_that_a_key_is_disabled() {
    let f = Fixture::make().await;
    let conditions = Conditions {
        context: vec![("id".into(), "43".into())],
        ..Conditions::default()
    };
    f.grant(Wanted {
        conditions: conditions.clone(),
        ..wanted(Role::Data, "acme/one", &["*"], &["*"])
    })
    .await;
    f.grant(Wanted {
        conditions,
        cross_tenant: true,
        scope: Scope::Tenant(name("acme")),
        ..wanted(Role::Data, "other/guest", &["*"], &["*"])
    })
    .await;
    let ciphertext = sealed(&f).await;
    f.disable_pii().await;
    for (caller, rule) in [
        ("acme/one", "condition-context"),
        ("other/guest", "foreign-tenant"),
    ] {
        let alone = f.perform(caller, decrypt(&ciphertext)).await.unwrap_err();
        assert_eq!(alone.refused_by(), Some(rule), "{caller}");
        let batch = open_batch(&["email"], &[(0, "42", &ciphertext)]);
        let results = f.perform(caller, batch).await.unwrap();
        let item = results[0].as_ref().unwrap_err();
        assert_eq!(item.to_string(), alone.to_string(), "{caller}");
    }
    // Whoever has it is told.
    let batch = open_batch(&["email"], &[(0, "42", &ciphertext)]);
    let results = f.perform("acme/app", batch).await.unwrap();
    assert_eq!(results[0], Err(Failure::KeyDisabled));
}

#[tokio::test]
async fn a_malformed_item_makes_a_refused_batch_no_allowed_one() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::Decrypter, "acme/narrow", &["*"], &["phone"]))
        .await;
    let (ciphertext, malformed) = (sealed(&f).await, Bytes::from_static(b"none"));
    let batch = open_batch(&["email"], &[(0, "42", &ciphertext), (0, "42", &malformed)]);
    let results = f.perform("acme/narrow", batch).await.unwrap();
    assert!(results.iter().all(Result::is_err));
    let record = f.last_record();
    assert_eq!(
        (record.decision(), record.rule.as_str()),
        (Decision::Refused, "no-grant")
    );
}

#[tokio::test]
async fn keys_are_managed_as_they_are_granted() {
    let f = Fixture::make().await;
    create_key(&f, "acme", "cards").await;
    f.grant(wanted(Role::KeyOperator, "acme/op", &["card*"], &["*"]))
        .await;
    let rotate = |text: &str| RotateKey {
        key: key(text),
        request: Repeatable::parse("", b"").unwrap(),
    };
    assert_eq!(
        f.perform("acme/op", rotate("cards")).await.unwrap().primary,
        2
    );
    assert!(
        f.perform("acme/op", DescribeKey { key: key("cards") })
            .await
            .is_ok()
    );
    let refused = f.perform("acme/op", rotate("pii")).await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    let foreign = f
        .perform("acme/op", rotate("tenants/other/keys/cards"))
        .await;
    assert_eq!(refused_by(&foreign.unwrap_err()), "foreign-tenant");
    // A list of all keys needs the right to all.
    let page = Page {
        after: None,
        limit: 9,
    };
    let list = ListKeys { tenant: None, page };
    assert_eq!(
        refused_by(&f.perform("acme/op", list).await.unwrap_err()),
        "no-grant"
    );
}

#[tokio::test]
async fn a_group_gives_its_members_what_it_has() {
    let f = Fixture::make().await;
    let support = Group::new(name("acme"), name("support"));
    f.grant(Wanted {
        who: Who::Group(support.clone()),
        ..wanted(Role::Decrypter, "acme/x", &["pii"], &["email"])
    })
    .await;
    let ciphertext = sealed(&f).await;
    let alice = || Identity::new(name("acme"), name("alice"));
    assert!(f.perform("acme/alice", decrypt(&ciphertext)).await.is_err());
    f.access
        .join(support.clone(), alice(), By::Init, operation(), NOW)
        .await
        .unwrap();
    assert!(f.perform("acme/alice", decrypt(&ciphertext)).await.is_ok());
    f.access
        .leave(support, alice(), operation(), NOW)
        .await
        .unwrap();
    assert!(f.perform("acme/alice", decrypt(&ciphertext)).await.is_err());
}

#[tokio::test]
async fn a_right_that_is_replaced_while_a_call_runs_is_asked_for_again() {
    let f = Fixture::make().await;
    let first = GrantId::parse(&f.rule_of("acme/app")["grant:".len()..]).unwrap();
    let ciphertext = sealed(&f).await;
    let holding = f.service.core().hold_places();
    let many: Vec<(usize, &str, &Bytes)> = vec![(0, "42", &ciphertext); 600];
    let mut batch = Box::pin(f.perform("acme/app", open_batch(&["email"], &many)));
    // It looks everything up, with turns between, and waits for a place then.
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut batch).is_pending());
        tokio::task::yield_now().await;
    }
    f.grant(wanted(Role::Data, "acme/app", &["*"], &["*"]))
        .await;
    f.access.revoke(first, operation(), NOW).await.unwrap();
    drop(holding);
    let refused = batch.await.unwrap_err();
    assert!(
        matches!(refused, Failure::RightWithdrawn("no-grant")),
        "{refused:?}"
    );
    assert_eq!(refused.verdict().1, "CONFLICT");
}

/// While 10,000 calls race against a revocation: none that begins after its acknowledgement succeeds, and none that was under
/// way leaves a result after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_revocation_is_acknowledged_no_call_leaves_a_result() {
    const CALLERS: u32 = 100;
    const CALLS: u32 = 100;
    let f = Arc::new(Fixture::make().await);
    let id = f
        .grant(wanted(Role::Data, "acme/racer", &["*"], &["*"]))
        .await;
    let acknowledged = Arc::new(AtomicBool::new(false));
    let (before, after) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let started = Arc::new(tokio::sync::Barrier::new(CALLERS as usize + 1));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let f = Arc::clone(&f);
            let (acknowledged, started) = (Arc::clone(&acknowledged), Arc::clone(&started));
            let (before, after) = (Arc::clone(&before), Arc::clone(&after));
            tokio::spawn(async move {
                started.wait().await;
                for _ in 0..CALLS {
                    let call = f.call::<Encrypt>("acme/racer");
                    let outcome = f.service.perform(call, Ok(encrypt("pii", b"x"))).await;
                    // Read while the reply still holds the rights, as the transport does until it has the frame.
                    match (outcome.is_ok(), acknowledged.load(Ordering::SeqCst)) {
                        (true, true) => after.fetch_add(1, Ordering::SeqCst),
                        (true, false) => before.fetch_add(1, Ordering::SeqCst),
                        (false, _) => 0,
                    };
                    drop(outcome);
                }
            })
        })
        .collect();
    started.wait().await;
    while before.load(Ordering::SeqCst) < CALLERS {
        tokio::task::yield_now().await;
    }
    let revoke = RevokeGrant {
        id,
        request: Repeatable::parse("", b"").unwrap(),
    };
    f.perform("acme/boss", revoke).await.unwrap();
    acknowledged.store(true, Ordering::SeqCst);
    let refused = f.encrypt("acme/racer", b"x").await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(after.load(Ordering::SeqCst), 0);
    assert!(
        before.load(Ordering::SeqCst) < CALLERS * CALLS,
        "nothing raced"
    );
}

#[tokio::test]
async fn a_change_that_cannot_settle_says_so_and_is_made() {
    let f = Fixture::make_unsettled().await;
    let id = f
        .grant(wanted(Role::Data, "acme/new", &["*"], &["*"]))
        .await;
    let held = f.access.snapshot();
    let revoke = || RevokeGrant {
        id,
        request: Repeatable::parse("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", b"r").unwrap(),
    };
    let pending = f.perform("acme/boss", revoke()).await.unwrap_err();
    assert_eq!(pending, Failure::ChangePending);
    assert_eq!(
        (f.last_record().code, f.last_record().changes.len()),
        (0, 1)
    );
    assert!(f.encrypt("acme/new", b"x").await.is_err());
    drop(held);
    f.perform("acme/boss", revoke()).await.unwrap();
}

/// The access admin of one tenant becomes nobody of all tenants, by a credential or by a group.
#[tokio::test]
async fn the_admin_of_a_tenant_takes_no_rights_beyond_it() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::AccessAdmin, "acme/local", &["*"], &["*"]))
        .await;
    let named = |text: &str| LocalName {
        tenant: None,
        name: name(text),
    };
    let issue = |text: &str| IssueCertificate {
        identity: named(text),
        csr_der: Bytes::from_static(b"none"),
        ttl_s: 60,
    };
    // `boss` is the admin of all tenants.
    let refused = f.perform("acme/local", issue("boss")).await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
    let malformed = f.perform("acme/local", issue("app")).await.unwrap_err();
    assert_eq!(malformed.verdict().1, "INVALID_REQUEST");
    let admins = Group::new(name("acme"), name("admins"));
    f.grant(Wanted {
        who: Who::Group(admins),
        scope: Scope::All,
        cross_tenant: true,
        ..wanted(Role::Admin, "acme/x", &["*"], &["*"])
    })
    .await;
    let join = |group: &str, member: &str| AddMember {
        group: named(group),
        member: named(member),
        request: Repeatable::parse("", b"").unwrap(),
    };
    for member in ["local", "friend"] {
        let refused = f
            .perform("acme/local", join("admins", member))
            .await
            .unwrap_err();
        assert_eq!(refused_by(&refused), "no-grant");
    }
    assert!(
        f.perform("acme/local", join("others", "friend"))
            .await
            .is_ok()
    );
    assert!(
        f.perform("acme/boss", join("admins", "friend"))
            .await
            .is_ok()
    );
    // Nor through a member of that group.
    let refused = f.perform("acme/local", issue("friend")).await.unwrap_err();
    assert_eq!(refused_by(&refused), "no-grant");
}
