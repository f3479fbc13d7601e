//! Reports: what they count, what is signed about them, and who gets one.

use std::sync::Arc;

use fieldkeep_keystore::info::KeySettings;
use fieldkeep_keystore::rotation::policy::{RotationParts, RotationPolicy};
use fieldkeep_tlog::report::{ReportError, ReportForm, ReportSignature, ReportStatement};
use futures_util::poll;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::*;
use crate::service::perform::permit::Grounds;
use crate::service::report::{MAX_REPORTS, MakeReport, ReportOrder, SignedReport};

const SECOND_US: u64 = 1_000_000;

/// A report from the start of the fixture's clock to `seconds` later.
fn first(seconds: u64, form: ReportForm) -> MakeReport {
    MakeReport {
        from_us: NOW * SECOND_US,
        to_us: Some((NOW + seconds) * SECOND_US),
        form,
    }
}

/// What is left to do when a report was asked for.
async fn ask(f: &Fixture, who: &str, make: MakeReport) -> (Call, Option<Grounds>, ReportOrder) {
    let call = f.call::<MakeReport>(who);
    let reply = f.service.perform(call.clone(), Ok(make)).await.unwrap();
    let (order, _, leave) = reply.into_parts();
    (call, leave.into_grounds(), order)
}

async fn make(f: &Fixture, make: MakeReport) -> Result<SignedReport, Failure> {
    let (call, grounds, order) = ask(f, "acme/boss", make).await;
    f.service.make_report(&call, grounds.as_ref(), order).await
}

fn json(made: &SignedReport) -> Value {
    serde_json::from_slice(&made.report).unwrap()
}

fn verify(f: &Fixture, report: &[u8], signature: &str) -> Result<ReportStatement, ReportError> {
    let signature: ReportSignature = signature.parse()?;
    let sha256 = digest(&SHA256, report).as_ref().try_into().unwrap();
    signature.verify(sha256, std::slice::from_ref(f.audit.verifier_key()))
}

/// An auditor of all tenants.
async fn auditor(f: &Fixture) {
    f.grant(Wanted {
        scope: Scope::All,
        cross_tenant: true,
        ..wanted(Role::Auditor, "acme/eye", &["*"], &["*"])
    })
    .await;
}

#[tokio::test]
async fn a_report_counts_the_range_up_to_its_checkpoint_and_is_signed() {
    let f = Fixture::make().await;
    for _ in 0..3 {
        f.encrypt("acme/app", b"x").await.unwrap();
    }
    f.advance(5);
    f.encrypt("acme/app", b"x").await.unwrap();
    let records = f.audit.len();
    for form in ReportForm::ALL {
        let made = make(&f, first(1, form)).await.unwrap();
        let statement = verify(&f, &made.report, &made.signature).unwrap();
        assert_eq!(statement.form, form);
        assert_eq!(
            (statement.from_us, statement.to_us),
            (NOW * SECOND_US, (NOW + 1) * SECOND_US)
        );
        assert!(statement.head.size >= records);
        let mut changed = made.report.to_vec();
        changed[10] ^= 1;
        assert!(matches!(
            verify(&f, &changed, &made.signature),
            Err(ReportError::OtherReport { .. })
        ));
    }
    let made = make(&f, first(1, ReportForm::Json)).await.unwrap();
    let report = json(&made);
    assert_eq!(report["totals"]["encrypt"]["items"], 3);
    let checkpoint = report["basis"]["checkpoint"].as_str().unwrap();
    assert!(made.signature.ends_with(&format!("\n\n{checkpoint}")));
    let record = f.records().pop().unwrap();
    assert_eq!(
        record.detail,
        format!(
            "form=json start_time_us={} end_time_us={}",
            NOW * SECOND_US,
            (NOW + 1) * SECOND_US
        )
    );
}

#[tokio::test]
async fn without_an_end_a_report_has_all_that_was_acknowledged_before_it() {
    let f = Fixture::make().await;
    f.encrypt("acme/app", b"x").await.unwrap();
    f.advance(1);
    let until_now = MakeReport {
        to_us: None,
        ..first(1, ReportForm::Json)
    };
    // The newest checkpoint may be older than the record: the report waits for the next.
    let made = make(&f, until_now).await.unwrap();
    assert_eq!(json(&made)["totals"]["encrypt"]["items"], 1);
    let later = MakeReport {
        from_us: (NOW + 1) * SECOND_US,
        ..until_now
    };
    let refused = f.perform("acme/boss", later).await.unwrap_err();
    assert_eq!(refused.verdict().1, "INVALID_REQUEST", "{refused}");
}

#[tokio::test]
async fn keys_that_should_have_rotated_are_named() {
    let f = Fixture::make().await;
    for (tenant, key, period) in [
        ("acme", "late", 10),
        ("other", "later", 15),
        ("acme", "new", 99),
    ] {
        let parts = RotationParts {
            period: Some(period),
            jitter: Some(0),
            ..RotationParts::default()
        };
        let policy = RotationPolicy::from_parts(parts).unwrap();
        let (tenant, key) = (name(tenant), name(key));
        let settings = KeySettings {
            rotation: policy.map(Arc::new),
            ..KeySettings::from(Suite::KcXaes256Gcm)
        };
        f.keystore
            .create_key(&tenant, &key, settings, operation(), NOW)
            .await
            .unwrap();
    }
    f.set_time(NOW + 20);
    let made = make(&f, first(20, ReportForm::Json)).await.unwrap();
    let report = json(&made);
    let named = |report: &Value| -> Vec<String> {
        let rows = report["overdue"]["rows"].as_array().unwrap().iter();
        rows.map(|row| row["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        named(&report),
        ["tenants/acme/keys/late", "tenants/other/keys/later"]
    );
    assert_eq!(report["overdue"]["rows"][0]["reason"], "its period ended");
    // By the end of the range, not by now.
    let made = make(&f, first(15, ReportForm::Json)).await.unwrap();
    assert_eq!(named(&json(&made)), ["tenants/acme/keys/late"]);
    // A key that rotated since was not overdue.
    f.keystore
        .rotate_key(&name("acme"), &name("late"), operation(), NOW + 20)
        .await
        .unwrap();
    let made = make(&f, first(20, ReportForm::Json)).await.unwrap();
    assert_eq!(named(&json(&made)), ["tenants/other/keys/later"]);
}

#[tokio::test]
async fn who_loses_the_right_on_the_way_gets_no_report() {
    let f = Fixture::make().await;
    auditor(&f).await;
    let (call, grounds, order) = ask(&f, "acme/eye", first(1, ReportForm::Text)).await;
    let made = f.service.make_report(&call, grounds.as_ref(), order).await;
    assert!(made.is_ok());
    f.revoke_all_of("acme", "eye").await;
    let refused = f.service.make_report(&call, grounds.as_ref(), order).await;
    assert_eq!(refused_by(&refused.unwrap_err()), "no-grant");
    let nobody = f.service.make_report(&call, None, order).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn the_end_of_the_service_is_the_end_of_a_report() {
    let f = Fixture::make().await;
    let (call, grounds, order) = ask(&f, "acme/boss", first(1, ReportForm::Text)).await;
    f.service.core().start_draining();
    let ended = f.service.make_report(&call, grounds.as_ref(), order).await;
    assert_eq!(ended.unwrap_err(), Failure::ShuttingDown);
}

#[tokio::test]
async fn a_few_reports_are_made_at_once_and_others_wait() {
    let f = Fixture::make().await;
    let (call, grounds, order) = ask(&f, "acme/boss", first(1, ReportForm::Text)).await;
    let all = u32::try_from(MAX_REPORTS).unwrap();
    let held = f.service.core().reports.acquire_many(all).await.unwrap();
    let mut waiting = Box::pin(f.service.make_report(&call, grounds.as_ref(), order));
    assert!(poll!(&mut waiting).is_pending());
    // Who waits holds no place and no builder; there is nothing to end when he goes away.
    drop(waiting);
    let mut waiting = Box::pin(f.service.make_report(&call, grounds.as_ref(), order));
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    waiting.await.unwrap();
}
