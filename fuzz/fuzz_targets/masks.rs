//! The text of a mask and any value: what is a mask has this one text, and what it shows is short, printable and a part of the
//! value or of the mask.

#![no_main]

#[path = "../../src/access/mask/kind.rs"]
mod kind;

use kind::{MAX_MASKED_BYTES, Mask};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (text, value) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (&b"last:4"[..], data),
    };
    let Some(mask) = str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<Mask>().ok())
    else {
        return;
    };
    let form = mask.to_string();
    assert!(form.as_bytes() == text || text == b"fixed");
    let mut out = Vec::new();
    mask.apply(value, &mut out);
    assert!(mask.shows_no_more_than(Some(&mask)));
    if mask.shows_no_more_than(None) {
        let mut of_nothing = Vec::new();
        mask.apply(b"", &mut of_nothing);
        assert_eq!(of_nothing, out, "it shows nothing of any value");
    }
    let shown = str::from_utf8(&out).expect("is text");
    assert!(shown.len() <= MAX_MASKED_BYTES && !shown.contains(char::is_control));
    let part = shown
        .trim_start_matches("***")
        .trim_end_matches("-**-**")
        .trim_start_matches('@');
    assert!(
        value
            .windows(part.len().max(1))
            .any(|window| window == part.as_bytes())
            || part.is_empty()
            || form.strip_prefix("fixed:") == Some(shown)
    );
});
