//! What is refused while it is still bytes.

use fieldkeep_proto::v1::{BatchEncryptRequest, ContextPair, EncryptItem, EncryptRequest};
use prost::Message;

use super::*;

const BATCH: Shape = Shape {
    context: 3,
    items: 4,
};
const UNARY: Shape = Shape {
    context: 3,
    items: 0,
};

fn counted(message: &[u8], shape: Shape) -> Result<(), Failure> {
    count(message, shape, &Limits::default()).map(drop)
}

fn reason(refused: Result<(), Failure>) -> &'static str {
    refused.map_or_else(|failure| failure.verdict().1, |()| "ok")
}

fn pairs(count: usize) -> Vec<ContextPair> {
    vec![ContextPair::default(); count]
}

fn batch(items: usize, pairs_each: usize) -> BatchEncryptRequest {
    let item = EncryptItem {
        context: pairs(pairs_each),
        plaintext: Bytes::from_static(b"x"),
        ..Default::default()
    };
    BatchEncryptRequest {
        context: pairs(16),
        items: vec![item; items],
        ..Default::default()
    }
}

#[test]
fn the_largest_valid_batch_passes_and_one_more_item_does_not() {
    assert_eq!(counted(&batch(10_000, 16).encode_to_vec(), BATCH), Ok(()));
    assert_eq!(
        counted(&batch(10_001, 0).encode_to_vec(), BATCH),
        Err(Failure::BatchTooLarge {
            items: 10_001,
            limit: 10_000
        })
    );
}

#[test]
fn empty_items_and_pairs_are_counted_without_being_made() {
    let repeated = |part: &[u8]| part.repeat(4 << 20);
    assert_eq!(
        reason(counted(&repeated(&[0x22, 0]), BATCH)),
        "BATCH_TOO_LARGE"
    );
    let context = counted(&repeated(&[0x1A, 0]), BATCH);
    assert_eq!(reason(context), "INVALID_REQUEST");
    let unknown = counted(&repeated(&[0x38, 0]), BATCH).unwrap_err();
    assert!(unknown.to_string().contains("too many fields"), "{unknown}");
    // The pairs of one item fail it alone, but not so many that it is about memory.
    assert_eq!(counted(&batch(1, 17).encode_to_vec(), BATCH), Ok(()));
    let refused = counted(&batch(1, 160_001).encode_to_vec(), BATCH);
    assert_eq!(reason(refused), "INVALID_REQUEST");
}

#[test]
fn a_unary_message_has_sixteen_pairs_at_most() {
    let with = |count| {
        EncryptRequest {
            context: pairs(count),
            ..Default::default()
        }
        .encode_to_vec()
    };
    assert_eq!(counted(&with(16), UNARY), Ok(()));
    let refused = counted(&with(17), UNARY).unwrap_err();
    assert!(matches!(
        refused,
        Failure::Invalid {
            field: "context",
            ..
        }
    ));
}

#[test]
fn what_is_no_message_is_refused() {
    for bytes in [
        &[0x22, 5, 0][..],
        &[0x22],
        &[0xFF; 12],
        &[0x22, 1, 0xFF],
        &[0x0B],
    ] {
        assert_eq!(
            reason(counted(bytes, BATCH)),
            "INVALID_REQUEST",
            "{bytes:?}"
        );
    }
}

#[test]
fn a_frame_is_the_same_in_any_parts() {
    let whole = [&[0, 0, 0, 0, 9][..], b"nine more"].concat();
    for size in 1..=whole.len() {
        let mut frame = Frame::default();
        for part in whole.chunks(size) {
            frame.put(Bytes::copy_from_slice(part)).unwrap();
        }
        assert_eq!(frame.finish().unwrap(), whole);
    }
    for cut in 0..whole.len() {
        let mut frame = Frame::default();
        frame.put(Bytes::copy_from_slice(&whole[..cut])).unwrap();
        assert!(frame.finish().is_err(), "{cut}");
    }
    let mut compressed = Frame::default();
    assert!(
        compressed
            .put(Bytes::from_static(&[1, 0, 0, 0, 0]))
            .is_err()
    );
}
