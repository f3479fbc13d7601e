//! What is no index is refused.

use super::*;
use crate::index::format::{BUNDLES_BYTES, HEADER_BYTES};

fn cause(bytes: Vec<u8>) -> &'static str {
    match Index::open(SEGMENT, bytes) {
        Err(IndexError::Damaged {
            segment: SEGMENT,
            cause,
        }) => cause,
        other => panic!("{other:?}"),
    }
}

/// Puts the right length and checksum in, as somebody would who plants an index.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let (length, body) = (bytes.len() as u64, bytes.len() - 4);
    bytes[16..24].copy_from_slice(&length.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn damaged_bytes_are_refused() {
    let (_, good) = &*SAMPLES;
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    assert_eq!(cause(Vec::new()), "it is too short");
    assert_eq!(cause(good[..20].to_vec()), "it is too short");
    assert_eq!(
        cause(good[..good.len() - 1].to_vec()),
        "its length is wrong"
    );
    assert_eq!(
        cause([good.as_slice(), &[0]].concat()),
        "its length is wrong"
    );
    assert_eq!(cause(changed(0, b"X")), "its first bytes are wrong");
    for at in [
        8,
        24,
        HEADER_BYTES + BUNDLES_BYTES,
        good.len() / 2,
        good.len() - 1,
    ] {
        let flipped = good[at] ^ 0x10;
        assert_eq!(
            cause(changed(at, &[flipped])),
            "its checksum is wrong",
            "byte {at}"
        );
    }
    assert_eq!(
        Index::open(SEGMENT, changed(7, &[2])).unwrap_err(),
        IndexError::Version {
            segment: SEGMENT,
            version: 2
        }
    );
    assert_eq!(
        Index::open(8, good.clone()).unwrap_err(),
        IndexError::OtherSegment {
            segment: 8,
            found: SEGMENT
        }
    );
}

#[test]
fn malformed_bytes_with_a_right_checksum_are_refused() {
    let good = build(|offset| using(format!("tenants/t/keys/{}", offset % 2), String::new()));
    let find = |what: &[u8]| {
        good.windows(what.len())
            .position(|bytes| bytes == what)
            .unwrap()
    };
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        sealed(bytes)
    };
    let unreadable_at = HEADER_BYTES + BUNDLES_BYTES + 4 * SEGMENT_RECORDS as usize;
    let principals_at = unreadable_at + 4 + 8;
    assert_eq!(good[principals_at..principals_at + 5], [0, 0, 0, 1, 0]);
    assert_eq!(cause(sealed(good[..200].to_vec())), "it is too short");
    assert_eq!(
        cause(sealed(good[..good.len() - 6].to_vec())),
        "it is too short"
    );
    assert_eq!(
        cause(sealed([good.as_slice(), &[0; 3]].concat())),
        "it has bytes behind its end"
    );
    assert_eq!(cause(changed(unreadable_at, &[0xff; 4])), "it is too short");
    assert_eq!(
        cause(changed(unreadable_at + 4, &[9])),
        "a set of records is malformed"
    );
    assert_eq!(
        cause(changed(principals_at, &[0, 0, 0x10, 1])),
        "a dimension has too many values"
    );
    // Two values where there is one: what follows is taken for the second.
    Index::open(SEGMENT, changed(principals_at, &[0, 0, 0, 2])).unwrap_err();
    let second = find(b"tenants/t/keys/1");
    assert_eq!(
        cause(changed(second + 15, b"0")),
        "its values are not sorted"
    );

    // A set is read when it is asked for.
    let set_at = second + 16 + 4;
    let index = open(&changed(set_at, &[0xff; 4]));
    let filter = |key: &str| Filter {
        key: Some(format!("tenants/t/keys/{key}")),
        ..Filter::default()
    };
    assert_eq!(index.select(&filter("0")).unwrap().len(), 32_768);
    assert!(matches!(
        index.select(&filter("1")),
        Err(IndexError::Damaged { .. })
    ));
}
