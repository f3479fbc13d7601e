//! Any bytes as an archive file, and as what a sound one decompresses to: reading it ends, and what was read is what was there.

#![no_main]

use fieldkeep_audit::archive::SegmentReader;
use libfuzzer_sys::fuzz_target;

/// The entry bundles' bytes that can be read, and whether the file ended well.
fn read(file: &[u8]) -> (Vec<u8>, bool) {
    let mut reader = SegmentReader::new(7, file).expect("there is memory");
    let mut bytes = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some((_, record))) => {
                bytes.extend_from_slice(&(record.len() as u16).to_be_bytes());
                bytes.extend_from_slice(record);
            }
            Ok(None) => return (bytes, true),
            Err(_) => {
                assert!(reader.next_record().is_err());
                return (bytes, false);
            }
        }
        // What a few bytes decompress to can be large; the reader itself needs one record's memory.
        if bytes.len() > 1 << 20 {
            return (bytes, false);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    read(data);

    let file = zstd::encode_all(data, 1).expect("memory can be written to");
    let (bytes, ended) = read(&file);
    assert!(data.starts_with(&bytes));
    assert!(!ended, "a segment has 65,536 records");
});
