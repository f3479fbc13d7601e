use super::*;

#[test]
fn a_call_is_counted_under_its_code_and_in_its_bucket() {
    let metrics = Metrics::new().unwrap();
    let rpc = metrics.rpc("fieldkeep.v1.FieldService/Encrypt");
    rpc.ended(0, Duration::from_micros(70));
    rpc.ended(7, Duration::from_millis(30));
    rpc.ended(99, Duration::from_secs(1));
    let text = metrics.render().unwrap();
    let name = "rpc=\"fieldkeep.v1.FieldService/Encrypt\"";
    for line in [
        format!("fieldkeep_calls_total{{code=\"OK\",{name}}} 1"),
        format!("fieldkeep_calls_total{{code=\"PERMISSION_DENIED\",{name}}} 1"),
        format!("fieldkeep_calls_total{{code=\"UNKNOWN\",{name}}} 1"),
        format!("fieldkeep_call_duration_seconds_bucket{{{name},le=\"0.00005\"}} 0"),
        format!("fieldkeep_call_duration_seconds_bucket{{{name},le=\"0.0001\"}} 1"),
        format!("fieldkeep_call_duration_seconds_count{{{name}}} 3"),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    assert_eq!(metrics.calls_total(), 3);
}

#[test]
fn handles_of_one_rpc_are_one() {
    let metrics = Metrics::new().unwrap();
    assert!(Arc::ptr_eq(&metrics.rpc("a"), &metrics.rpc("a")));
    metrics.rpc("a").items(3, 1);
    metrics.rpc("a").items(2, 0);
    let text = metrics.render().unwrap();
    assert!(
        text.contains("fieldkeep_batch_items_total{result=\"ok\",rpc=\"a\"} 5"),
        "{text}"
    );
    assert!(
        text.contains("fieldkeep_batch_items_total{result=\"failed\",rpc=\"a\"} 1"),
        "{text}"
    );
}

#[test]
fn totals_kept_elsewhere_are_taken_over_and_never_fall() {
    let metrics = Metrics::new().unwrap();
    let figures = |syncs| JournalFigures {
        syncs,
        frames: 9,
        bytes: 100,
        largest_group: 4,
    };
    metrics.set_journal(JournalName::Audit, figures(5));
    metrics.set_journal(JournalName::Audit, figures(7));
    metrics.set_journal(JournalName::Audit, figures(6));
    metrics.set_journal(JournalName::Store, figures(1));
    metrics.set_cache(CacheFigures {
        keys: 2,
        bytes: 64,
        hits: 10,
        misses: 3,
        evictions: 1,
    });
    for made in [4, 3] {
        metrics.audit.set(AuditFigures {
            records: 1_200,
            checkpoint_records: 1_000,
            checkpoints_made: made,
            checkpoints_failed: 2,
            file_failures: 5,
            command_failures: 6,
            refusal_summaries: 7,
            refusals_summarised: 800,
        });
    }
    let text = metrics.render().unwrap();
    for line in [
        "fieldkeep_audit_checkpoint_records 1000",
        "fieldkeep_audit_behind_checkpoint_records 200",
        "fieldkeep_audit_checkpoints_total{outcome=\"ok\"} 4",
        "fieldkeep_audit_checkpoints_total{outcome=\"failed\"} 2",
        "fieldkeep_audit_sink_failures_total{sink=\"file\"} 5",
        "fieldkeep_audit_sink_failures_total{sink=\"command\"} 6",
        "fieldkeep_audit_refusal_summaries_total 7",
        "fieldkeep_audit_refusals_summarised_total 800",
        "fieldkeep_journal_syncs_total{journal=\"audit\"} 7",
        "fieldkeep_journal_syncs_total{journal=\"store\"} 1",
        "fieldkeep_journal_largest_group_frames{journal=\"audit\"} 4",
        "fieldkeep_cache_keys 2",
        "fieldkeep_cache_hits_total 10",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn dependencies_are_never_logged_below_warn() {
    let filter = log_filter(LogLevel::Trace);
    assert!(filter.would_enable("fieldkeep::server", &Level::TRACE));
    assert!(filter.would_enable("fieldkeep_keystore::store", &Level::TRACE));
    assert!(filter.would_enable("hyper::proto", &Level::WARN));
    assert!(!filter.would_enable("hyper::proto", &Level::INFO));
    let quiet = log_filter(LogLevel::Error);
    assert!(!quiet.would_enable("hyper::proto", &Level::WARN));
    assert!(!quiet.would_enable("fieldkeep", &Level::WARN));
}
