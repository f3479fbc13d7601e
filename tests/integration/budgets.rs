//! Limits of what callers may use, and the guard against too many calls at once.

use std::time::Duration;

use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, Client, DecryptItem, EncryptItem, Error, ErrorKind,
    reason as reasons,
};
use fieldkeep_proto::v1::{AuditRecord, Decision, SetLimitRequest};
use serde_json::Value;

use crate::fixture::{Fixture, reason};

async fn encrypt(client: &Client) -> Result<Vec<u8>, Error> {
    let field = client.field("pii", "customer.email").context("id", "42");
    field.encrypt(b"ada@example.org").await
}

async fn newest(f: &Fixture, rule: &str) -> AuditRecord {
    let mut pages = f.admin().audit().list();
    let page = pages.next_page().await.unwrap().unwrap();
    let mut records = page.into_iter().filter_map(|entry| entry.record);
    records.find(|record| record.rule == rule).unwrap()
}

#[tokio::test]
async fn a_budget_of_decryptions_holds_over_unary_calls_batches_and_streams() {
    let f = Fixture::start();
    let (admin, app) = (f.admin(), f.app());
    let sealed = encrypt(&app).await.unwrap();
    let budget = SetLimitRequest {
        name: "tenants/default/limits/daily".into(),
        principal: "app".into(),
        actions: vec!["decrypt".into()],
        windows: vec!["10 fields/day".into()],
        ..SetLimitRequest::default()
    };
    admin.limits().set(budget.clone()).await.unwrap();
    let field = || app.field("pii", "customer.email").context("id", "42");
    field().decrypt(&sealed).await.unwrap();
    let many = |count: usize| BatchDecrypt {
        field: "customer.email".into(),
        items: (0..count)
            .map(|_| DecryptItem::new(sealed.clone()).context("id", "42"))
            .collect(),
        ..BatchDecrypt::default()
    };
    let opened = app.decrypt_batch(many(6)).await.unwrap();
    assert_eq!(opened.iter().filter(|one| one.is_ok()).count(), 6);
    // Seven are used, so four more are refused as a whole and one is not.
    let refused = app.decrypt_batch(many(4)).await.unwrap_err();
    assert_eq!(refused.reason(), Some(reasons::LIMIT_EXCEEDED));
    assert_eq!(refused.kind(), ErrorKind::ResourceExhausted);
    let Error::Server(refused) = refused else {
        panic!("{refused:?}")
    };
    assert!(refused.message().contains("tenants/default/limits/daily"));
    assert!(refused.retry_after().unwrap() > Duration::from_secs(86_400));
    let usage = app.limits().usage().await.unwrap();
    assert_eq!((usage[0].used, usage[0].remaining), (7, 3));
    let record = newest(&f, "limit").await;
    assert_eq!(record.decision(), Decision::Refused);
    assert_eq!(record.principal, "tenants/default/identities/app");
    // Encrypting is not what the budget is about, and another identity is not whom it is about.
    encrypt(&app).await.unwrap();
    assert!(f.other().limits().usage().await.unwrap().is_empty());
    // More room, and what was used still counts; none of it after a restart.
    let more = SetLimitRequest {
        windows: vec!["8 fields/day".into()],
        ..budget
    };
    admin.limits().set(more).await.unwrap();
    field().decrypt(&sealed).await.unwrap();
    assert_eq!(
        reason(field().decrypt(&sealed).await),
        reasons::LIMIT_EXCEEDED
    );
    let f = f.restart();
    let app = f.app();
    app.field("pii", "customer.email")
        .context("id", "42")
        .decrypt(&sealed)
        .await
        .unwrap();
    assert_eq!(app.limits().usage().await.unwrap()[0].used, 1);
    f.admin()
        .limits()
        .remove("tenants/default/limits/daily")
        .await
        .unwrap();
    assert!(app.limits().usage().await.unwrap().is_empty());
    assert_eq!(
        reason(
            f.admin()
                .limits()
                .remove("tenants/default/limits/daily")
                .await
        ),
        reasons::SETTING_NOT_FOUND
    );
}

#[test]
fn the_command_line_sets_lists_and_removes_limits() {
    let f = Fixture::start();
    let admin = |arguments: &[&str]| f.server.run(&f.admin_identity, arguments);
    let set = admin(&[
        "limit",
        "set",
        "cards",
        "100 fields / min",
        "64 calls",
        "--principal",
        "app",
        "--key",
        "pii",
        "--action",
        "decrypt",
    ]);
    for part in [
        "tenants/default/limits/cards",
        "100 fields/min, 64 calls",
        "decrypt",
    ] {
        assert!(set.contains(part), "{set}");
    }
    admin(&[
        "limit",
        "set",
        "all",
        "50000 fields/s burst 100000",
        "--service",
        "--sharing",
        "together",
    ]);
    let listed = admin(&["limit", "list", "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "limits/all");
    assert_eq!(listed[1]["principal"], "tenants/default/identities/app");
    let used = |identity| {
        f.server
            .run(identity, &["usage", "show", "--format", "json"])
    };
    let used: Value = serde_json::from_str(&used(&f.app_identity)).unwrap();
    assert_eq!(used.as_array().unwrap().len(), 3);
    assert_eq!(used[0]["remaining"], 100_000);
    // Without somebody to ask, a limit is not lifted.
    let mut unasked = f
        .server
        .command(&f.admin_identity, ["limit", "remove", "all", "--service"]);
    assert_eq!(unasked.output().unwrap().status.code(), Some(2));
    admin(&["limit", "remove", "all", "--service", "--yes"]);
    admin(&["limit", "remove", "cards", "--yes"]);
    assert_eq!(admin(&["limit", "list"]).trim(), "no limits");
    let mut wrong = f
        .server
        .command(&f.admin_identity, ["limit", "set", "x", "10 fields/week"]);
    let wrong = wrong.output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("`day`"));
}

#[tokio::test]
async fn a_flood_of_one_caller_is_shed_and_others_and_operators_get_through() {
    let f = Fixture::start();
    let config = std::fs::read_to_string(f.home.config()).unwrap();
    std::fs::write(f.home.config(), format!("{config}\n[limits]\ncalls = 2\n")).unwrap();
    let f = f.restart();
    // Long batches, so that many are under way at once. The SDK tries again what was shed, but not for ever.
    let app = f.app();
    let batch = || {
        let batch = BatchEncrypt {
            key: "pii".into(),
            field: "customer.email".into(),
            items: (0..5_000).map(|_| EncryptItem::new(vec![7; 64])).collect(),
            ..BatchEncrypt::default()
        };
        let app = app.clone();
        async move { app.encrypt_batch(batch).await }
    };
    let flood: Vec<_> = (0..40).map(|_| tokio::spawn(batch())).collect();
    for _ in 0..5 {
        encrypt(&f.other()).await.unwrap();
        f.admin().status().await.unwrap();
    }
    let mut shed = 0;
    for one in flood {
        if let Err(error) = one.await.unwrap() {
            assert_eq!(error.reason(), Some(reasons::OVERLOADED), "{error:?}");
            shed += 1;
        }
    }
    assert!(shed > 0, "nothing was shed");
    assert_eq!(
        newest(&f, "overload").await.principal,
        "tenants/default/identities/app"
    );
    // When the flood is over everyone is served.
    encrypt(&f.app()).await.unwrap();
}
