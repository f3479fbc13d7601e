use std::sync::atomic::AtomicU64;

use super::*;
use crate::store::sled::frame::encode_stored;

/// What never changes must be in every pass, once, whatever is split and merged meanwhile: a scan that steps over a record
/// would lose a role binding or a key that is due.
#[test]
fn passes_and_pages_while_batches_are_applied_skip_nothing() {
    const STEADY: u32 = 600;
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(&dir.path().join("sled"), 1 << 20).unwrap();
    let mut update = Update::default();
    let steady: Vec<String> = (0..STEADY).map(|n| format!("k{n:05}")).collect();
    for (number, key) in steady.iter().enumerate() {
        update.put(key.as_bytes(), encode_stored(1, b"steady"));
        update.remember(&steady_id(number as u32), &outcome());
    }
    index.apply(update).unwrap();
    let (stop, applied) = (AtomicBool::new(false), AtomicU64::new(0));
    let wrong = thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                index.apply(churn(round)).unwrap();
                applied.store(round, Ordering::Relaxed);
            }
        });
        let mut wrong = None;
        for pass in 0.. {
            wrong = first_wrong(&index, &steady);
            if wrong.is_some() || (pass >= 50 && applied.load(Ordering::Relaxed) >= 1000) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        wrong
    });
    assert_eq!(wrong, None);
}

/// Runs of keys between the steady ones come and go. Two records change together.
fn churn(round: u64) -> Update {
    let mut update = Update::default();
    let at = (round * 7919 % 600) as u32;
    for n in 0..60 {
        let (key, mut id) = (
            format!("k{:05}/{}", at + n / 3, n % 3),
            steady_id(at + n / 3),
        );
        id[15] = 1 + (n % 3) as u8;
        if (round / 7).is_multiple_of(2) {
            update.put(key.as_bytes(), encode_stored(round, b"comes and goes"));
            update.remember(&id, &outcome());
        } else {
            update.delete(key.as_bytes());
            update.forget(&id);
        }
    }
    for key in ["pair/1", "pair/2"] {
        update.put(key.as_bytes(), encode_stored(round, b"together"));
    }
    update
}

fn outcome() -> Outcome {
    Outcome {
        time: 1,
        revision: 1,
        fingerprint: [1; 32],
    }
}

fn steady_id(number: u32) -> [u8; 16] {
    (u128::from(number) << 96).to_be_bytes()
}

/// What a pass over each tree, and a scan page by page, saw wrongly.
fn first_wrong(index: &Index, steady: &[String]) -> Option<&'static str> {
    let is_steady = |key: &[u8]| key.len() == 6 && key.starts_with(b"k");
    let seen = index.records().map(|entry| entry.unwrap().0.to_vec());
    if !seen.filter(|key| is_steady(key)).eq(bytes_of(steady)) {
        return Some("records");
    }
    let seen = index.outcomes(&[]).map(|entry| entry.unwrap().0.to_vec());
    let ids = (0..steady.len()).map(|number| steady_id(number as u32).to_vec());
    if !seen.filter(|id| id.ends_with(&[0])).eq(ids) {
        return Some("outcomes");
    }
    let (mut seen, mut after) = (Vec::new(), None::<Bytes>);
    loop {
        let page = index.scan(b"k", after.as_deref(), 50).unwrap();
        seen.extend(page.iter().map(|(key, _)| key.to_vec()));
        match page.last() {
            Some((key, _)) => after = Some(key.clone()),
            None => break,
        }
    }
    if !seen.is_sorted()
        || !seen
            .into_iter()
            .filter(|key| is_steady(key))
            .eq(bytes_of(steady))
    {
        return Some("scan");
    }
    match index.scan(b"pair/", None, 10).unwrap().as_slice() {
        [] => None,
        [(_, one), (_, two)] if one.revision == two.revision => None,
        _ => Some("half a commit"),
    }
}

fn bytes_of(keys: &[String]) -> impl Iterator<Item = Vec<u8>> {
    keys.iter().map(|key| key.as_bytes().to_vec())
}
