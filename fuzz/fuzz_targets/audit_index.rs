//! Any bytes as the sidecar index of a record segment, and as the dictionaries of one whose length and checksum are right: it is
//! refused, or answers with offsets that there are.

#![no_main]

use fieldkeep_audit::filter::{Filter, PrincipalFilter};
use fieldkeep_audit::index::Index;
use libfuzzer_sys::fuzz_target;

/// Header, 256 bundles, 65,536 request ids.
const FIXED_BYTES: usize = 24 + 256 * 32 + 65_536 * 4;

fuzz_target!(|data: &[u8]| {
    let _ = Index::open(0, data.to_vec());

    let mut bytes = vec![0; FIXED_BYTES];
    bytes[..8].copy_from_slice(b"FKAI\0\0\0\x01");
    bytes.extend_from_slice(data);
    let length = bytes.len() as u64 + 4;
    bytes[16..24].copy_from_slice(&length.to_be_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    let Ok(index) = Index::open(0, bytes) else {
        return;
    };
    assert!(index.position_of(u16::MAX).is_some());
    let any = || Some(String::new());
    for filter in [
        Filter::default(),
        Filter {
            principal: Some(PrincipalFilter::InTenant(String::new())),
            only_failed: true,
            ..Filter::default()
        },
        Filter {
            field: Some("*".to_owned()),
            ..Filter::default()
        },
        Filter {
            key: any(),
            tenant: any(),
            action: any(),
            rpc: any(),
            rule_kind: any(),
            ..Filter::default()
        },
    ] {
        if let Ok(selected) = index.select(&filter) {
            assert!(selected.max() < Some(65_536));
        }
    }
});
