//! Limits: what a call is charged, what it is refused with, and who is told of what.

use bytes::Bytes;
use fieldkeep_proto::v1::{Decision, Phase};
use tonic::Code;

use super::*;
use crate::access::action::{Action, ActionSet};
use crate::access::limits::record::Sharing;
use crate::access::limits::{Refused, Usage};
use crate::service::access::LocalName;
use crate::service::batch::{BatchDecrypt, BatchEncrypt, DecryptItem, EncryptItem};
use crate::service::keys::Page;
use crate::service::limit::{LimitName, ListLimits, Of, ReadUsage, RemoveLimit, SetLimit};
use crate::service::masks::{LocalField, SetMask};
use crate::service::reencrypt::{BatchReEncrypt, ReEncrypt};

fn repeatable() -> Repeatable {
    Repeatable::parse("", b"").unwrap()
}

fn named(of: Of, id: &str) -> LimitName {
    LimitName { of, id: name(id) }
}

fn acme() -> Of {
    Of::Tenant(name("acme"))
}

/// A limit of each principal of `acme`.
fn limit(id: &str, windows: &[&str]) -> SetLimit {
    SetLimit {
        name: named(acme(), id),
        principal: None,
        key: None,
        actions: ActionSet::NONE,
        sharing: Sharing::EachPrincipal,
        windows: windows.iter().map(|text| text.parse().unwrap()).collect(),
        request: repeatable(),
    }
}

async fn set(f: &Fixture, limit: SetLimit) {
    f.perform("acme/boss", limit).await.unwrap();
}

async fn remove(f: &Fixture, of: Of, id: &str) -> Result<(), Failure> {
    let remove = RemoveLimit {
        name: named(of, id),
        request: repeatable(),
    };
    f.perform("acme/boss", remove).await
}

/// What `identity` has used of each window.
async fn usage(f: &Fixture, identity: &str) -> Vec<Usage> {
    f.perform(identity, ReadUsage).await.unwrap()
}

async fn used(f: &Fixture, identity: &str) -> Vec<u64> {
    usage(f, identity)
        .await
        .iter()
        .map(|one| one.used)
        .collect()
}

async fn create_key(f: &Fixture, tenant: &str, text: &str) {
    let (tenant, text) = (name(tenant), name(text));
    let suite = Suite::KcXaes256Gcm;
    let made = f
        .keystore
        .create_key(&tenant, &text, suite.into(), operation(), NOW);
    made.await.unwrap();
}

fn seal_many(keys: &[&str], items: &[usize]) -> BatchEncrypt {
    let item = |target: &usize| {
        Ok(EncryptItem {
            target: *target,
            context: None,
            plaintext: Bytes::from_static(b"four"),
        })
    };
    BatchEncrypt {
        targets: keys
            .iter()
            .map(|text| (key(text), field("email")))
            .collect(),
        shared: context("42"),
        items: items.iter().map(item).collect(),
    }
}

fn open_many(ciphertexts: &[&Bytes]) -> BatchDecrypt {
    let item = |ciphertext: &&Bytes| {
        Ok(DecryptItem {
            field: 0,
            context: None,
            ciphertext: Bytes::clone(ciphertext),
        })
    };
    BatchDecrypt {
        fields: vec![field("email")],
        shared: context("42"),
        items: ciphertexts.iter().map(item).collect(),
    }
}

/// The refusal by a limit.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> Refused {
    match outcome.unwrap_err() {
        Failure::LimitExceeded(refused) => *refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_names_the_limit_and_the_wait_and_is_in_the_trail() {
    let f = Fixture::make().await;
    set(&f, limit("rate", &["60 fields/min burst 2"])).await;
    for _ in 0..2 {
        f.encrypt("acme/app", b"x").await.unwrap();
    }
    let failure = f.encrypt("acme/app", b"x").await.unwrap_err();
    assert_eq!(
        failure.verdict(),
        (Code::ResourceExhausted, "LIMIT_EXCEEDED")
    );
    assert_eq!(failure.retry_after(), Some(Duration::from_secs(1)));
    let told = failure.to_string();
    for part in [
        "tenants/acme/limits/rate",
        "60 fields/min burst 2",
        "in 1 s",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let record = f.last_record();
    assert_eq!(
        (record.decision(), record.rule.as_str(), record.code),
        (Decision::Refused, "limit", Code::ResourceExhausted.into())
    );
    assert_eq!(record.resources[0].name, "tenants/acme/keys/pii");
    assert!(record.reason.contains("limits/rate"), "{}", record.reason);
    // After the wait it may be.
    f.advance(1);
    f.encrypt("acme/app", b"x").await.unwrap();
}

#[tokio::test]
async fn each_principal_tenant_and_key_has_its_own() {
    let f = Fixture::make().await;
    create_key(&f, "acme", "cards").await;
    f.grant(wanted(Role::Data, "acme/other", &["*"], &["*"]))
        .await;
    set(&f, limit("each", &["3 fields/day"])).await;
    set(
        &f,
        SetLimit {
            key: Some(name("cards")),
            sharing: Sharing::Together,
            ..limit("cards", &["1 fields/day"])
        },
    )
    .await;
    set(
        &f,
        SetLimit {
            name: named(Of::Service, "tenants"),
            sharing: Sharing::EachTenant,
            ..limit("tenants", &["5 fields/day"])
        },
    )
    .await;
    f.perform("acme/app", encrypt("cards", b"x")).await.unwrap();
    // The key has no room for anybody, and nobody is charged for what it refuses.
    for identity in ["acme/app", "acme/other"] {
        let outcome = f.perform(identity, encrypt("cards", b"x")).await;
        let Refused::Spent { limit, .. } = refused(outcome) else {
            panic!()
        };
        assert_eq!(limit.resource(), "tenants/acme/limits/cards");
    }
    for _ in 0..2 {
        f.encrypt("acme/app", b"x").await.unwrap();
    }
    refused(f.encrypt("acme/app", b"x").await);
    // Another principal has his own, within what the tenant has.
    for _ in 0..2 {
        f.encrypt("acme/other", b"x").await.unwrap();
    }
    let Refused::Spent { limit, .. } = refused(f.encrypt("acme/other", b"x").await) else {
        panic!()
    };
    assert_eq!(limit.resource(), "limits/tenants");
    // Another tenant has its own.
    for _ in 0..5 {
        f.encrypt("other/app", b"x").await.unwrap();
    }
    refused(f.encrypt("other/app", b"x").await);
}

#[tokio::test]
async fn a_limit_of_one_principal_and_action_is_about_nothing_else() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::Data, "acme/other", &["*"], &["*"]))
        .await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    set(
        &f,
        SetLimit {
            principal: Some(LocalName {
                tenant: None,
                name: name("app"),
            }),
            actions: ActionSet::of(&[Action::Decrypt]),
            ..limit("reads", &["1 fields/day"])
        },
    )
    .await;
    f.perform("acme/app", decrypt(&sealed)).await.unwrap();
    refused(f.perform("acme/app", decrypt(&sealed)).await);
    for _ in 0..3 {
        f.encrypt("acme/app", b"x").await.unwrap();
        f.perform("acme/other", decrypt(&sealed)).await.unwrap();
    }
    assert!(used(&f, "acme/other").await.is_empty());
}

#[tokio::test]
async fn what_leaves_masked_counts_as_decrypted_and_as_masked() {
    let f = Fixture::make().await;
    let readers = wanted(Role::MaskedReader, "acme/support", &["*"], &["*"]);
    f.grant(readers).await;
    let mask = SetMask {
        field: LocalField {
            tenant: None,
            field: name("email"),
        },
        mask: "last:4".parse().unwrap(),
        request: repeatable(),
    };
    f.perform("acme/boss", mask).await.unwrap();
    let sealed = f.encrypt("acme/app", b"a long value").await;
    let ciphertext = sealed.unwrap().ciphertext;
    for action in [Action::Decrypt, Action::DecryptMasked] {
        let id = action.as_str();
        let one = SetLimit {
            actions: ActionSet::of(&[action]),
            ..limit(id, &["2 fields/day"])
        };
        set(&f, one).await;
        f.perform("acme/support", decrypt(&ciphertext))
            .await
            .unwrap();
        let both = open_many(&[&ciphertext, &ciphertext]);
        refused(f.perform("acme/support", both).await);
        remove(&f, acme(), id).await.unwrap();
    }
}

#[tokio::test]
async fn several_windows_count_at_once_and_time_gives_back() {
    let f = Fixture::make().await;
    set(
        &f,
        limit("both", &["2 fields/s", "5 fields/min", "9 B/day"]),
    )
    .await;
    for plaintext in [b"aa", b"aa"] {
        f.encrypt("acme/app", plaintext).await.unwrap();
    }
    refused(f.encrypt("acme/app", b"a").await);
    f.advance(2);
    f.encrypt("acme/app", b"aaaa").await.unwrap();
    assert_eq!(used(&f, "acme/app").await, [1, 3, 8]);
    let Refused::Spent { window, .. } = refused(f.encrypt("acme/app", b"aa").await) else {
        panic!()
    };
    assert_eq!(window.to_string(), "9 B/day");
    let all = usage(&f, "acme/app").await;
    assert_eq!(all[2].remaining, 1);
    assert!(all[2].resets_in > Duration::from_secs(86_400));
    f.advance(120);
    f.encrypt("acme/app", b"a").await.unwrap();
    assert_eq!(used(&f, "acme/app").await, [1, 1, 9]);
}

#[tokio::test]
async fn a_batch_is_charged_in_full_or_not_at_all() {
    let f = Fixture::make().await;
    create_key(&f, "acme", "cards").await;
    set(&f, limit("all", &["10 fields/day", "3 calls/day"])).await;
    set(
        &f,
        SetLimit {
            key: Some(name("cards")),
            ..limit("cards", &["2 fields/day"])
        },
    )
    .await;
    let keys = ["pii", "cards"];
    // Of its items one is of a key that is not there, one of a tenant that is not open, and one is none at all.
    let mut batch = seal_many(
        &["pii", "cards", "nothing", "tenants/other/keys/pii"],
        &[0, 1, 0, 2, 3],
    );
    batch.items.push(Err(Failure::invalid("field", "bad")));
    let results = f.perform("acme/app", batch).await.unwrap();
    assert_eq!(results.iter().flatten().count(), 3);
    assert_eq!(used(&f, "acme/app").await, [3, 1, 1]);
    // Too much for one key: the whole is refused, and nothing is charged.
    let outcome = f.perform("acme/app", seal_many(&keys, &[0, 0, 1, 1])).await;
    let Refused::Spent { limit, .. } = refused(outcome) else {
        panic!()
    };
    assert_eq!(limit.resource(), "tenants/acme/limits/cards");
    assert_eq!(used(&f, "acme/app").await, [3, 1, 1]);
    let record = f.records().into_iter().rfind(|one| one.rule == "limit");
    let record = record.unwrap();
    assert_eq!((record.decision(), record.items_ok), (Decision::Refused, 0));
    // A batch that is larger than a limit ever allows is told so: there is no use in waiting.
    let outcome = f.perform("acme/app", seal_many(&keys, &[0; 11])).await;
    let failure = outcome.unwrap_err();
    assert_eq!(failure.retry_after(), None);
    assert!(failure.to_string().contains("send smaller batches"));
    f.perform("acme/app", seal_many(&keys, &[0, 0, 1]))
        .await
        .unwrap();
    assert_eq!(used(&f, "acme/app").await, [6, 2, 2]);
    // A batch without an item that may be is no use of anything.
    f.perform("acme/app", seal_many(&["nothing"], &[0]))
        .await
        .unwrap();
    assert_eq!(used(&f, "acme/app").await, [6, 2, 2]);
}

#[tokio::test]
async fn a_ciphertext_that_does_not_open_is_charged_and_one_without_a_right_is_not() {
    let f = Fixture::make().await;
    let sealed = f.encrypt("acme/app", b"four").await.unwrap().ciphertext;
    let foreign = f.encrypt("other/app", b"four").await.unwrap().ciphertext;
    set(&f, limit("reads", &["4 fields/day", "1000 B/day"])).await;
    let mut broken = sealed.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let broken = Bytes::from(broken);
    let outcome = f.perform("acme/app", decrypt(&broken)).await;
    assert!(matches!(outcome, Err(Failure::DecryptionFailed(_))));
    assert_eq!(used(&f, "acme/app").await, [1, 4]);
    let none = Bytes::from_static(b"none");
    let batch = open_many(&[&sealed, &broken, &foreign, &none]);
    let results = f.perform("acme/app", batch).await.unwrap();
    assert_eq!(results.iter().flatten().count(), 1);
    assert_eq!(used(&f, "acme/app").await, [3, 12]);
    refused(f.perform("acme/app", open_many(&[&sealed, &broken])).await);
    assert_eq!(used(&f, "acme/app").await, [3, 12]);
}

#[tokio::test]
async fn what_moves_to_another_key_is_a_decryption_there_and_an_encryption_here() {
    let f = Fixture::make().await;
    create_key(&f, "acme", "cards").await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    let of = |actions: &[Action]| ActionSet::of(actions);
    for (id, key, actions) in [
        ("a-reads", "pii", of(&[Action::Decrypt])),
        ("b-renews", "pii", of(&[Action::ReEncrypt])),
        ("c-seals", "cards", of(&[Action::Encrypt])),
    ] {
        let limit = SetLimit {
            key: Some(name(key)),
            actions,
            ..limit(id, &["2 fields/day", "1 calls"])
        };
        set(&f, limit).await;
    }
    let counts = async || {
        let mut usage = usage(&f, "acme/app").await;
        usage.sort_by_key(|one| one.limit.id.as_str().to_owned());
        let fields = usage.iter().filter(|one| one.window.most() == 2);
        fields.map(|one| one.used).collect::<Vec<u64>>()
    };
    let reencrypt = |destination: Option<&str>| ReEncrypt {
        field: field("email"),
        context: context("42"),
        ciphertext: sealed.clone(),
        destination: destination.map(key),
    };
    f.perform("acme/app", reencrypt(None)).await.unwrap();
    assert_eq!(counts().await, [0, 1, 0]);
    f.perform("acme/app", reencrypt(Some("cards")))
        .await
        .unwrap();
    assert_eq!(counts().await, [1, 2, 1]);
    remove(&f, acme(), "b-renews").await.unwrap();
    let item = DecryptItem {
        field: 0,
        context: None,
        ciphertext: sealed.clone(),
    };
    let batch = BatchReEncrypt {
        fields: vec![field("email")],
        destinations: vec![key("cards")],
        shared: context("42"),
        items: vec![Ok((item, Some(0)))],
    };
    let results = f.perform("acme/app", batch).await.unwrap();
    assert!(results[0].as_ref().unwrap().changed);
    assert_eq!(counts().await, [2, 2]);
    refused(f.perform("acme/app", reencrypt(Some("cards"))).await);
    // What is refused for the key that it moves to has not been charged for the one that it comes from.
    remove(&f, acme(), "a-reads").await.unwrap();
    set(
        &f,
        SetLimit {
            key: Some(name("pii")),
            ..limit("a-reads-2", &["2 fields/day"])
        },
    )
    .await;
    refused(f.perform("acme/app", reencrypt(Some("cards"))).await);
    assert_eq!(counts().await, [0, 2]);
}

#[tokio::test]
async fn a_batch_of_several_tenants_is_charged_in_all_of_them_or_in_none() {
    let f = Fixture::make().await;
    let opens = Wanted {
        scope: Scope::Tenant(name("other")),
        cross_tenant: true,
        ..wanted(Role::Data, "acme/app", &["*"], &["*"])
    };
    f.grant(opens).await;
    set(&f, limit("own", &["9 fields/day", "5 calls"])).await;
    let others = SetLimit {
        name: named(Of::Tenant(name("other")), "theirs"),
        ..limit("theirs", &["1 fields/day"])
    };
    set(&f, others).await;
    let keys = ["tenants/acme/keys/pii", "tenants/other/keys/pii"];
    f.perform("acme/app", seal_many(&keys, &[0, 1, 0]))
        .await
        .unwrap();
    assert_eq!(used(&f, "acme/app").await, [2, 0]);
    let outcome = f.perform("acme/app", seal_many(&keys, &[0, 1, 0])).await;
    let Refused::Spent { limit, .. } = refused(outcome) else {
        panic!()
    };
    assert_eq!(limit.resource(), "tenants/other/limits/theirs");
    assert_eq!(used(&f, "acme/app").await, [2, 0]);
}

#[tokio::test]
async fn calls_under_way_are_given_back_when_they_end() {
    let f = Fixture::make().await;
    set(&f, limit("one", &["1 calls"])).await;
    let waiting = f.service.core().hold_places();
    let many = [0; 600];
    let mut first = Box::pin(f.perform("acme/app", seal_many(&["pii"], &many)));
    assert!(futures_util::poll!(&mut first).is_pending());
    tokio::task::yield_now().await;
    while used(&f, "acme/app").await != [1] {
        assert!(futures_util::poll!(&mut first).is_pending());
    }
    let failure = f.encrypt("acme/app", b"x").await.unwrap_err();
    assert_eq!(failure.retry_after(), Some(Duration::from_millis(50)));
    // One that is given up is under way no more.
    drop(first);
    drop(waiting);
    f.encrypt("acme/app", b"x").await.unwrap();
    assert_eq!(used(&f, "acme/app").await, [0]);
}

#[tokio::test]
async fn a_limit_that_is_removed_stops_at_once_and_its_use_comes_back_with_it() {
    let f = Fixture::make().await;
    set(&f, limit("day", &["1 fields/day"])).await;
    f.encrypt("acme/app", b"x").await.unwrap();
    refused(f.encrypt("acme/app", b"x").await);
    remove(&f, acme(), "day").await.unwrap();
    f.encrypt("acme/app", b"x").await.unwrap();
    assert!(used(&f, "acme/app").await.is_empty());
    // Whoever sets it again with more room has not made anybody's use undone.
    set(&f, limit("day", &["2 fields/day"])).await;
    f.encrypt("acme/app", b"x").await.unwrap();
    refused(f.encrypt("acme/app", b"x").await);
    let gone = remove(&f, acme(), "nothing").await.unwrap_err();
    assert_eq!(gone.verdict(), (Code::NotFound, "SETTING_NOT_FOUND"));
    let record = f
        .records()
        .into_iter()
        .find(|one| one.phase() == Phase::Outcome && one.detail.contains("windows="));
    let record = record.unwrap();
    assert_eq!(record.detail, "windows=1 fields/day counted=each-principal");
    assert_eq!(record.resources[0].name, "tenants/acme/limits/day");
    assert!(!record.changes.is_empty());
}

#[tokio::test]
async fn limits_are_set_and_listed_by_whoever_has_that_right_there() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::Operator, "acme/ops", &["*"], &["*"]))
        .await;
    let service = SetLimit {
        name: named(Of::Service, "all"),
        ..limit("all", &["9 calls"])
    };
    let refusal = f.perform("acme/ops", service).await.unwrap_err();
    assert_eq!(refusal.verdict().0, Code::PermissionDenied);
    let foreign = SetLimit {
        name: named(Of::Tenant(name("other")), "all"),
        ..limit("all", &["9 calls"])
    };
    assert!(f.perform("acme/ops", foreign).await.is_err());
    assert!(
        f.perform("acme/app", limit("all", &["9 calls"]))
            .await
            .is_err()
    );
    let own = SetLimit {
        name: named(Of::Own, "own"),
        ..limit("own", &["9 calls"])
    };
    let made = f.perform("acme/ops", own).await.unwrap();
    assert_eq!(made.resource(), "tenants/acme/limits/own");
    assert_eq!(&*made.set_by, "tenants/acme/identities/ops");
    set(
        &f,
        SetLimit {
            name: named(Of::Service, "all"),
            ..limit("all", &["9 calls"])
        },
    )
    .await;
    let list = |tenant: Option<&str>, after: Option<&str>| ListLimits {
        tenant: tenant.map(name),
        page: Page {
            after: after.map(str::to_owned),
            limit: 1,
        },
    };
    assert!(f.perform("acme/ops", list(None, None)).await.is_err());
    let listed = f
        .perform("acme/ops", list(Some("acme"), None))
        .await
        .unwrap();
    assert_eq!(listed.entries[0].id.as_str(), "own");
    let first = f.perform("acme/boss", list(None, None)).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("limits/all"));
    let second = f.perform("acme/boss", list(None, Some("limits/all")));
    assert_eq!(second.await.unwrap().entries[0].id.as_str(), "own");
    // What cannot be is refused before it is stored.
    let mut none = limit("none", &[]);
    none.name = named(Of::Own, "none");
    let refusal = f.perform("acme/ops", none).await.unwrap_err();
    assert_eq!(
        refusal.verdict(),
        (Code::InvalidArgument, "INVALID_REQUEST")
    );
}

#[tokio::test]
async fn anybody_asks_about_himself_and_learns_of_no_key_that_is_not_his() {
    let f = Fixture::make().await;
    create_key(&f, "acme", "payroll").await;
    set(&f, limit("all", &["9 fields/day"])).await;
    set(
        &f,
        SetLimit {
            key: Some(name("payroll")),
            ..limit("payroll", &["9 fields/day"])
        },
    )
    .await;
    f.grant(wanted(Role::Data, "acme/narrow", &["pii"], &["*"]))
        .await;
    for (identity, limits) in [("acme/nobody", 1), ("acme/narrow", 1), ("acme/app", 2)] {
        assert_eq!(usage(&f, identity).await.len(), limits, "{identity}");
        let record = f.last_record();
        assert_eq!(
            (record.decision(), record.rule.as_str()),
            (Decision::Allowed, "oneself")
        );
    }
    assert!(used(&f, "other/app").await.is_empty());
    // A credential that has ended tells nobody anything.
    f.advance(2_000);
    let refused = f.perform("acme/app", ReadUsage).await.unwrap_err();
    assert_eq!(refused.verdict().0, Code::Unauthenticated);
}

#[tokio::test]
async fn limits_are_there_after_a_restart_and_nothing_of_them_is_used() {
    let f = Fixture::make().await;
    set(&f, limit("day", &["1 fields/day"])).await;
    f.encrypt("acme/app", b"x").await.unwrap();
    let again = Access::load(&f.keystore).await.unwrap();
    let snapshot = again.snapshot();
    assert!(!snapshot.settings().limits().is_empty());
    let meters = crate::access::limits::Meters::new(1);
    let app = "tenants/acme/identities/app";
    let usage = snapshot.settings().limits().usage(&meters, "acme", app, 0);
    assert_eq!((usage.len(), usage[0].used), (1, 0));
}
