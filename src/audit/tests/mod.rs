use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fieldkeep_audit::items::{ENTRY_BYTES, entry};
use fieldkeep_keystore::info::Change;
use fieldkeep_proto::v1::{AuditResource, Decision};
use tempfile::TempDir;

use super::{
    record::{audit_change, change_of},
    *,
};

mod archive;
mod evidence;
mod kept;
mod segments;
mod walk;

fn options() -> Options {
    Options {
        segment_bytes: 1 << 20,
        max_payload_bytes: MAX_RECORD_BYTES,
        ..Options::default()
    }
}

fn open(dir: &TempDir) -> AuditLog {
    AuditLog::open_with(&dir.path().join("audit"), options()).unwrap()
}

fn numbered(number: u64) -> AuditRecord {
    AuditRecord {
        time_us: number,
        request_id: Bytes::from_static(&[7; 16]),
        principal: "tenants/acme/identities/app".to_owned(),
        rpc: "fieldkeep.v1.FieldService/Encrypt".to_owned(),
        decision: Decision::Allowed.into(),
        resources: vec![AuditResource {
            name: "tenants/acme/keys/pii".to_owned(),
            version: 1,
            ..AuditResource::default()
        }],
        ..AuditRecord::default()
    }
}

fn fill(log: &AuditLog, count: u64) {
    for number in 0..count {
        log.append(&numbered(number)).unwrap();
    }
    log.append_blocking(&numbered(count)).unwrap();
}

/// Waits until the first segment, which is complete, has its tiles and its index.
fn wait_for_index(dir: &TempDir) {
    let index = dir.path().join("audit/index/0000000000000000.idx");
    let begin = Instant::now();
    while !index.exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{index:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_appended_is_listed_newest_first() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    assert!(log.is_empty());
    assert_eq!(log.list(None, 10).unwrap(), []);
    fill(&log, 4);
    assert_eq!(log.len(), 5);
    let page = log.list(None, 10).unwrap();
    let expected: Vec<_> = (0..5)
        .rev()
        .map(|number| (number, numbered(number)))
        .collect();
    assert_eq!(page, expected);
}

#[test]
fn pages_follow_one_another_without_gaps() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    fill(&log, 2_499);
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = log.list(before, 999).unwrap();
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        seen.extend(page.iter().map(|(index, record)| (*index, record.time_us)));
    }
    assert_eq!(
        seen,
        (0..2_500)
            .rev()
            .map(|number| (number, number))
            .collect::<Vec<_>>()
    );
    assert_eq!(log.list(Some(0), 10).unwrap(), []);
    assert_eq!(log.list(Some(u64::MAX), 1).unwrap()[0].0, 2_499);
    assert_eq!(log.list(Some(1), 10).unwrap().len(), 1);
    assert_eq!(log.list(None, 0).unwrap(), []);
}

#[test]
fn the_trail_is_there_after_a_restart_and_goes_on() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 9);
    let log = open(&dir);
    assert_eq!(log.len(), 10);
    log.append_blocking(&numbered(10)).unwrap();
    let indices: Vec<u64> = log.read_from(8).map(|entry| entry.unwrap().0).collect();
    assert_eq!(indices, [8, 9, 10]);
    assert_eq!(log.read_from(11).count(), 0);
    assert_eq!(log.read_from(u64::MAX).count(), 0);
}

#[test]
fn records_go_over_into_the_next_segment() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    let large = |number| AuditRecord {
        reason: "r".repeat(60_000),
        ..numbered(number)
    };
    for number in 0..40 {
        log.append_blocking(&large(number)).unwrap();
    }
    assert!(log.journal().stats().segments > 1);
    let page = log.list(None, 40).unwrap();
    assert!(
        page.iter()
            .rev()
            .map(|(_, record)| record.clone())
            .eq((0..40).map(large))
    );
}

#[test]
fn every_resource_of_a_large_call_is_named_in_parts_of_one_commit() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    log.append_blocking(&numbered(0)).unwrap();
    let mut record = numbered(1);
    record.rule = "grant:g-0123456789abcdef".to_owned();
    record.items_ok = 4_000;
    record.resources = (0..4_000)
        .map(|n| AuditResource {
            name: format!("tenants/acme/keys/key-{n:063}"),
            version: n,
            field: format!("field-{n}"),
            items: 1,
            ..AuditResource::default()
        })
        .collect();
    let ticket = log.append(&record).unwrap();
    log.journal().wait_blocking(ticket).unwrap();
    let mut parts: Vec<AuditRecord> = log
        .list(None, 1000)
        .unwrap()
        .into_iter()
        .map(|(_, part)| part)
        .filter(|part| part.time_us == 1)
        .collect();
    parts.reverse();
    let count = u32::try_from(parts.len()).unwrap();
    assert!(count > 1);
    assert_eq!(ticket.sequence, log.len());
    let mut resources = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        assert!(part.encoded_len() <= MAX_RECORD_BYTES);
        assert_eq!((part.part, part.parts), (number, count));
        assert_eq!(part.request_id, record.request_id);
        assert_eq!(part.principal, record.principal);
        resources.extend(part.resources.clone());
    }
    assert_eq!(resources, record.resources);
    let mut head = parts[0].clone();
    (head.part, head.parts) = (0, 0);
    head.resources.clone_from(&record.resources);
    assert_eq!(head, record, "the first part is the whole head");
    assert_eq!((parts[1].items_ok, parts[1].rule.as_str()), (0, ""));
}

#[test]
fn the_hashes_of_more_items_than_a_record_holds_go_into_parts() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    let hashes = |count: u16, first: u16| -> Bytes {
        let entries = (first..first + count).map(|n| entry(n, (n % 3) as u8, [n as u8; 8]));
        entries.collect::<Vec<_>>().concat().into()
    };
    let mut record = numbered(1);
    record.items_ok = 20_010;
    let used = |key: &str, items, item_hashes| AuditResource {
        name: format!("tenants/acme/keys/{key}"),
        version: 7,
        field: "ssn".to_owned(),
        items,
        item_hashes,
    };
    // Of the second, some items had no right and no hash.
    record.resources = vec![
        used("a", 10_000, hashes(10_000, 0)),
        used("b", 10_007, hashes(10_000, 10_000)),
        used("c", 3, hashes(3, 20_000)),
    ];
    log.append_blocking(&record).unwrap();
    let mut parts = log.list(None, 1000).unwrap();
    parts.reverse();
    assert_eq!(parts.len(), 4, "220,000 bytes of hashes");
    let mut joined: Vec<AuditResource> = Vec::new();
    for (number, (_, part)) in (1..).zip(parts) {
        assert!(part.encoded_len() <= MAX_RECORD_BYTES);
        assert_eq!((part.part, part.parts), (number, 4));
        for piece in part.resources {
            assert_eq!(piece.item_hashes.len() % ENTRY_BYTES, 0);
            match joined.last_mut() {
                Some(last) if last.name == piece.name => {
                    assert_eq!((last.version, &last.field), (piece.version, &piece.field));
                    last.items += piece.items;
                    let both = [&last.item_hashes[..], &piece.item_hashes[..]].concat();
                    last.item_hashes = both.into();
                }
                _ => joined.push(piece),
            }
        }
    }
    assert_eq!(joined, record.resources);
}

#[test]
fn a_record_of_the_largest_size_is_kept_as_it_is_and_a_larger_one_is_cut() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    let with_reason = |bytes| AuditRecord {
        reason: "r".repeat(bytes),
        ..numbered(1)
    };
    let overhead = with_reason(65_000).encoded_len() - 65_000;
    let largest = with_reason(MAX_RECORD_BYTES - overhead);
    assert_eq!(largest.encoded_len(), MAX_RECORD_BYTES);
    log.append_blocking(&largest).unwrap();
    assert_eq!(log.list(None, 1).unwrap()[0].1, largest);

    let mut huge = AuditRecord {
        reason: format!("r{}", "é".repeat(100_000)),
        ..numbered(1)
    };
    huge.rpc = "/".repeat(100_000);
    huge.changes = vec![audit_change(&Change {
        store_key: Bytes::from_static(b"k"),
        generation: 3,
        digest: Some([9; 32]),
    })];
    log.append_blocking(&huge).unwrap();
    let (_, stored) = log.list(None, 1).unwrap().remove(0);
    assert_eq!(stored.reason, format!("r{}", "é".repeat(511)));
    assert_eq!(stored.rpc.len(), 256);
    assert_eq!(stored.changes, huge.changes);
    assert_eq!(stored.resources, huge.resources);
}

#[test]
fn changes_are_never_cut_so_too_many_are_refused() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    let change = audit_change(&Change {
        store_key: Bytes::from(vec![b'k'; 1000]),
        generation: 1,
        digest: None,
    });
    let record = AuditRecord {
        changes: vec![change; 100],
        ..numbered(1)
    };
    assert!(matches!(log.append(&record), Err(AuditError::TooLarge)));
    assert!(log.is_empty());
}

#[test]
fn a_change_goes_into_the_trail_and_back() {
    for digest in [None, Some([5; 32])] {
        let change = Change {
            store_key: Bytes::from_static(b"sys/x"),
            generation: 9,
            digest,
        };
        assert_eq!(change_of(&audit_change(&change)), Some(change));
    }
    let mut malformed = audit_change(&Change {
        store_key: Bytes::new(),
        generation: 1,
        digest: Some([0; 32]),
    });
    malformed.value_sha256.truncate(31);
    assert_eq!(change_of(&malformed), None);
}

#[test]
fn a_second_opener_is_refused_and_damage_is_told() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    fill(&log, 30);
    let second = AuditLog::open_with(&dir.path().join("audit"), options())
        .err()
        .unwrap();
    assert!(second.to_string().contains("in use"), "{second}");
    drop(log);

    let path = std::fs::read_dir(dir.path().join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .min()
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[600] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = AuditLog::open_with(&dir.path().join("audit"), options())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("damaged") && error.to_string().contains("restore"),
        "{error}"
    );
}
