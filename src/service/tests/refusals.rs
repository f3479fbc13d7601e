//! Refused calls that come too fast to have records of their own.

use fieldkeep_proto::v1::Decision;

use super::*;
use crate::service::refusals::RULE_SUMMARY;

async fn strict() -> Fixture {
    let limits = Limits::default();
    Fixture::make_within(AUDIT_RECORD_BYTES, limits).await
}

/// The records of calls, and how many calls summaries stand for.
fn counted(records: &[AuditRecord]) -> (usize, u64) {
    let is_summary = |record: &&AuditRecord| record.rule == RULE_SUMMARY;
    let summaries = records.iter().filter(is_summary);
    let summarised = summaries.map(|record| record.summarised).sum();
    let own = records.iter().filter(|record| !is_summary(record)).count();
    (own, summarised)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_refusal_is_on_record_or_counted_once() {
    let f = Arc::new(strict().await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let f = Arc::clone(&f);
        tasks.spawn(async move {
            for number in 0..100 {
                f.encrypt("acme/boss", b"x").await.unwrap_err();
                if number % 10 == 0 {
                    f.advance(1);
                    f.service.core().write_summaries();
                }
            }
        });
    }
    tasks.join_all().await;
    f.encrypt("acme/other", b"x").await.unwrap_err();
    f.encrypt("acme/app", b"x").await.unwrap();
    f.advance(2);
    f.service.core().write_summaries();
    f.encrypt("acme/app", b"x").await.unwrap();
    let records = f.records();
    let (own, summarised) = counted(&records);
    assert_eq!(own as u64 + summarised, 800 + 3);
    assert!(summarised > 0);
    let stats = f.service.core().summary_stats();
    assert_eq!(stats.summarised, summarised);
    assert_eq!(stats.summaries, (records.len() - own) as u64);
    let others = records
        .iter()
        .filter(|record| record.principal.ends_with("/other"));
    assert_eq!(
        others.count(),
        1,
        "one caller's noise hid another's refusal"
    );
    for record in records.iter().filter(|record| record.rule == RULE_SUMMARY) {
        assert_eq!(record.principal, "tenants/acme/identities/boss");
        assert_eq!(record.decision(), Decision::Refused);
        assert_eq!(record.address, "127.0.0.1:9");
        assert_eq!(record.credential, "0af1");
        assert_eq!(
            record.detail,
            format!("no-grant:encrypt={}", record.summarised)
        );
    }
}

#[tokio::test]
async fn what_failed_and_was_no_refusal_is_always_on_record() {
    let f = strict().await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap();
    let mut changed = sealed.ciphertext.to_vec();
    changed[20] ^= 1;
    let changed = Bytes::from(changed);
    for _ in 0..30 {
        let failed = f.perform("acme/app", decrypt(&changed)).await;
        assert!(matches!(failed, Err(Failure::DecryptionFailed(_))));
    }
    assert_eq!(f.records().len(), 31);
}

#[tokio::test]
async fn calls_that_are_dropped_are_counted_too() {
    let f = strict().await;
    for _ in 0..25 {
        let call = f.call::<Encrypt>("acme/boss");
        drop(f.service.arrive(&call));
    }
    f.advance(1);
    f.service.core().write_summaries();
    f.encrypt("acme/app", b"x").await.unwrap();
    assert_eq!(counted(&f.records()), (10 + 1, 15));
}

#[tokio::test]
async fn what_was_counted_is_written_at_the_end() {
    let f = strict().await;
    for _ in 0..15 {
        f.encrypt("acme/boss", b"x").await.unwrap_err();
    }
    assert_eq!(f.records().len(), 10);
    let Fixture {
        service,
        keystore,
        access,
        audit,
        dir,
        ..
    } = f;
    // The hub's task lets go of it at its end.
    drop((service, keystore, access));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // What was appended before is durable with this one.
    audit.append_blocking(&AuditRecord::default()).unwrap();
    let last = audit.list(None, 2).unwrap().remove(1).1;
    assert_eq!((last.rule.as_str(), last.summarised), (RULE_SUMMARY, 5));
    drop(dir);
}
