//! A path and a line of JSON: what is found is JSON, replacing it by itself changes nothing, and replacing it by a ciphertext
//! leaves a line of JSON in which the ciphertext is found at the same places.

#![no_main]

#[path = "../../src/cli/data/path.rs"]
#[allow(dead_code, reason = "the target uses a part of it")]
mod path;
#[path = "../../src/cli/data/splice.rs"]
mod splice;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const CIPHERTEXT: &str = "\"fk1:_gE\"";

fuzz_target!(|data: &str| {
    let (text, line) = data.split_once('\n').unwrap_or(("a.b[*].c", data));
    let Ok(path) = text.parse::<path::Path>() else {
        return;
    };
    let paths = [path, "a[0]".parse().expect("is a path")];
    let Ok(found) = splice::find(line, &paths) else {
        return;
    };
    for value in &found {
        let raw: &RawValue = serde_json::from_str(&line[value.range.clone()]).expect("is JSON");
        assert_eq!(raw.get(), &line[value.range.clone()]);
    }
    // Only one path's values are replaced: those of two could lie within each other.
    let first = || found.iter().filter(|value| value.path == 0);
    let mut same = Vec::new();
    let places = first().map(|value| (value.range.clone(), line[value.range.clone()].as_bytes()));
    splice::splice(line.as_bytes(), places, &mut same);
    assert_eq!(same, line.as_bytes());

    let mut sealed = Vec::new();
    let places = first().map(|value| (value.range.clone(), CIPHERTEXT.as_bytes()));
    splice::splice(line.as_bytes(), places, &mut sealed);
    let sealed = String::from_utf8(sealed).expect("places are between characters");
    let again = splice::find(&sealed, &paths[..1]).expect("is JSON still");
    assert_eq!(again.len(), first().count());
    assert!(
        again
            .iter()
            .all(|value| &sealed[value.range.clone()] == CIPHERTEXT)
    );
});
