//! The bytes on disk, fixed: a change here needs a new format version.

use crate::frame::{Kind, frame_bytes, push_frame, stamp_frames};
use crate::{HeaderError, SegmentHeader, find_frames, parse_frame, parse_header};

const HEADER: SegmentHeader = SegmentHeader {
    id: 0x0102,
    first: 0x0304,
    size: 0x1000,
    salt: 0x1122_3344_5566_7788,
    log: *b"the log's own id",
    copies: 2,
    sealed: false,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_frame(&mut bytes, HEADER.id, 0x0305, payload);
    stamp_frames(&mut bytes, HEADER.salt, 0x0304);
    bytes
}

#[test]
fn a_header_and_a_frame_have_these_bytes() {
    assert_eq!(
        hex(&HEADER.encode(Kind::Segment)),
        "464b4a53000000010000000000000102000000000000030400000000000010001122334455667788\
         746865206c6f672773206f776e206964000000027e635545"
    );
    assert_eq!(
        hex(&frame(b"payload")),
        "464b4a4600000007000000000000010200000000000003050000000000000304\
         7061796c6f61640000000000f6ad40f8"
    );
}

#[test]
fn what_is_encoded_is_parsed_and_every_changed_byte_refused() {
    for length in 0..40 {
        let payload = vec![0xa5; length];
        let mut bytes = frame(&payload);
        assert_eq!((bytes.len(), bytes.len() % 8), (frame_bytes(length), 0));
        bytes.extend_from_slice(&[9; 24]);
        let parsed = parse_frame(&HEADER, &bytes).unwrap();
        assert_eq!(
            (parsed.sequence, parsed.durable_through, parsed.payload),
            (0x0305, 0x0304, payload.as_slice())
        );
        for at in 0..parsed.frame_bytes {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                parse_frame(&HEADER, &changed),
                None,
                "length {length}, byte {at}"
            );
            assert_eq!(
                parse_frame(&HEADER, &bytes[..at]),
                None,
                "length {length}, cut at {at}"
            );
        }
        assert_eq!(
            parse_frame(&SegmentHeader { salt: 1, ..HEADER }, &bytes),
            None
        );
        assert_eq!(
            parse_frame(&SegmentHeader { id: 1, ..HEADER }, &bytes),
            None
        );
    }
    let header = HEADER.encode(Kind::Segment);
    for at in 0..header.len() {
        let mut changed = header.clone();
        changed[at] ^= 1;
        assert!(parse_header(&changed).is_err());
        assert_eq!(parse_header(&header[..at]), Err(HeaderError::Short));
    }
}

#[test]
fn a_header_of_another_version_is_named() {
    let mut header = HEADER.encode(Kind::Segment);
    header[7] = 3;
    let crc = crc32fast::hash(&header[..60]).to_be_bytes();
    header[60..].copy_from_slice(&crc);
    assert_eq!(parse_header(&header), Err(HeaderError::Version(3)));
}

#[test]
fn frames_are_found_at_every_multiple_of_eight() {
    let one = frame(b"x");
    for before in [0, 8, 16, 24, 800] {
        let bytes = [
            vec![0; before],
            one.clone(),
            vec![7; 16],
            one.clone(),
            vec![0; 40],
        ]
        .concat();
        let found: Vec<usize> = find_frames(&HEADER, &bytes).map(|(at, _)| at).collect();
        assert_eq!(found, [before, before + one.len() + 16]);
    }
    assert_eq!(find_frames(&HEADER, &[vec![0; 4], one].concat()).count(), 0);
}
