//! Any bytes as what the store reads back from its own disk: a frame of its journal, a part of a snapshot, a stored
//! record, a remembered outcome, the state. What decodes encodes to the same bytes.

#![no_main]

use fieldkeep_keystore::store::sled::frame::{Frame, Outcome, State, decode_stored, encode_stored};
use fieldkeep_keystore::store::sled::snapshot::decode_part;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = Frame::decode(data) {
        assert_eq!(frame.encode(), data);
    }
    if let Ok((revision, value)) = decode_stored(data) {
        assert_eq!(encode_stored(revision, value), data);
    }
    if let Ok(outcome) = Outcome::decode(data) {
        assert_eq!(outcome.encode(), data);
    }
    if let Ok(state) = State::from_bytes(data) {
        assert_eq!(state.to_bytes(), data);
    }
    let _ = decode_part(data);
});
