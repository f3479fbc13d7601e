//! JSON lines through the pipeline.

use super::*;

const PATHS: [&str; 2] = [
    "customer.email=pii:customer.email",
    "items[*].card=pii:order.card",
];

fn lines(direction: Direction, json_values: bool, paths: &[&str]) -> Job {
    Job {
        shape: Shape::JsonLines { json_values },
        ..job(direction, paths)
    }
}

fn encrypt(paths: &[&str], input: &str) -> Result<(Vec<u8>, Counts), Failure> {
    process_job(lines(Direction::Encrypt, false, paths), input.as_bytes())
}

const LINES: &str = "\u{feff}{\"id\": 1, \"total\":12.50 ,\"big\":12345678901234567890123, \"customer\":{\"z\":1,\"email\":\"ada@example.com\",\"a\":2}}\r\n\
    \n\
    {\"id\":\"2\",\"customer\":{\"email\":null},\"items\":[{\"card\":\"4111 é\"},{\"card\":\"\"},{},7,{\"card\":\"5500\"}],\"note\":\"\\u00e9\\/\"}\n\
    {\"id\":3,\"customer\":\"none\"}";

#[test]
fn lines_come_back_byte_for_byte() {
    let (sealed, counts) = encrypt(&PATHS, LINES).unwrap();
    assert_eq!(
        (counts.rows, counts.values, counts.empty, counts.left),
        (3, 3, 2, 0)
    );
    let text = String::from_utf8(sealed.clone()).unwrap();
    for secret in ["ada@", "4111", "5500"] {
        assert!(!text.contains(secret), "{secret}");
    }
    for kept in [
        "\u{feff}{\"id\": 1, \"total\":12.50 ,\"big\":12345678901234567890123, \"customer\":{\"z\":1,\"email\":\"fk1:",
        "\",\"a\":2}}\r\n\n{\"id\":\"2\",\"customer\":{\"email\":null},",
        "{\"card\":\"\"},{},7,",
        "\"note\":\"\\u00e9\\/\"}\n{\"id\":3,\"customer\":\"none\"}",
    ] {
        assert!(text.contains(kept), "{kept}\n{text}");
    }
    let (again, counts) = encrypt(&PATHS, &text).unwrap();
    assert_eq!((again, counts.already), (sealed.clone(), 3));
    let (opened, _) = process_job(lines(DECRYPT, false, &PATHS), &sealed).unwrap();
    assert_eq!(String::from_utf8(opened).unwrap(), LINES);
}

#[test]
fn values_of_any_type_are_their_json_text_when_asked() {
    let input = "{\"id\":1,\"v\":1.50}\n{\"id\":2,\"v\":[1, {\"x\":null}]}\n{\"id\":3,\"v\":\"a\\u0041\"}\n{\"id\":4,\"v\":true}\n{\"id\":5,\"v\":null}\n";
    let job = |direction| lines(direction, true, &["v=pii:any"]);
    let (sealed, counts) = process_job(job(Direction::Encrypt), input.as_bytes()).unwrap();
    assert_eq!((counts.values, counts.empty), (4, 1));
    let (again, counts) = process_job(job(Direction::Encrypt), &sealed).unwrap();
    assert_eq!((&again, counts.already), (&sealed, 4));
    let (opened, _) = process_job(job(DECRYPT), &sealed).unwrap();
    assert_eq!(String::from_utf8(opened).unwrap(), input);
    // A plain string is no JSON text, and what is put into a line must be.
    let (sealed, _) = encrypt(&["v=pii:any"], "{\"id\":1,\"v\":\"a,b\"}").unwrap();
    let error = process_job(job(DECRYPT), &sealed).unwrap_err();
    assert_eq!(error.what(), "row 1 (line 1), column `v` is not JSON text");
    let (kept, counts) = process_job(job(KEEP_GOING), &sealed).unwrap();
    assert_eq!((kept, counts.left), (sealed, 1));
}

#[test]
fn what_is_wrong_is_named_by_row_and_column() {
    let what = |input: &str| encrypt(&PATHS, input).unwrap_err().what().to_owned();
    let good = "{\"id\":1}\n\n";
    for (line, expected) in [
        (
            "{\"id\":2,\"customer\":{\"email\":5}}",
            ", column `customer.email` is a number, not a string",
        ),
        (
            "{\"id\":2,\"customer\":{\"email\":{}}}",
            ", column `customer.email` is an object, not a string",
        ),
        (
            "{\"id\":2,\"items\":[{\"card\":true}]}",
            ", column `items[*].card` is true or false, not a string",
        ),
        (
            "{\"id\":2,\"customer\":{\"email\":\"\\ud800\"}}",
            ", column `customer.email` is a string that is no text: half of a surrogate pair",
        ),
        ("{\"customer\":{}}", ": the context `id` is missing"),
        ("{\"id\":2,\"id\":3}", ": the context `id` is there twice"),
        (
            "{\"id\":null}",
            ": the context `id` is neither a string nor a number",
        ),
        ("{\"id\":2,}", " is not JSON, column 9"),
        ("id,email", " is not JSON, column 1"),
    ] {
        assert_eq!(
            what(&format!("{good}{line}\n")),
            format!("row 2 (line 3){expected}")
        );
    }
    let error = process_job(
        lines(Direction::Encrypt, false, &PATHS),
        b"{\"id\":\"\xFF\"}",
    )
    .unwrap_err();
    assert_eq!(error.what(), "row 1 (line 1) is not UTF-8 text");
}

#[test]
fn rows_that_cannot_be_read_are_left_when_asked() {
    let (sealed, _) = encrypt(&PATHS, "{\"id\":1,\"customer\":{\"email\":\"x\"}}\n").unwrap();
    let input = [
        &sealed[..],
        b"{oops\n",
        b"{\"id\":3,\"customer\":{\"email\":7}}\n",
    ]
    .concat();
    assert!(process_job(lines(DECRYPT, false, &PATHS), &input).is_err());
    let (opened, counts) = process_job(lines(KEEP_GOING, false, &PATHS), &input).unwrap();
    assert_eq!((counts.values, counts.left), (1, 2));
    assert_eq!(
        opened,
        b"{\"id\":1,\"customer\":{\"email\":\"x\"}}\n{oops\n{\"id\":3,\"customer\":{\"email\":7}}\n"
    );
}

#[test]
fn choices_that_are_no_paths_are_refused() {
    let what = |paths: &[&str], context: &str| {
        let job = Job {
            context: vec![context.parse().unwrap()],
            ..lines(Direction::Encrypt, false, paths)
        };
        process_job(job, b"{}").unwrap_err().what().to_owned()
    };
    assert_eq!(what(&["a[=k:f"], "id"), "`a[` is not a path into JSON");
    assert_eq!(
        what(&["a=k:f", "a.b=k:f"], "id"),
        "the column `a.b` is chosen twice"
    );
    assert_eq!(
        what(&["a=k:f"], "id=a.id"),
        "the context column `a.id` is itself encrypted"
    );
    assert_eq!(
        what(&["a=k:f"], "id=b[*]"),
        "the context path `b[*]` names many values"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_strings_come_back(rows in prop::collection::vec((any::<String>(), prop::collection::vec(any::<String>(), 0..4)), 0..20)) {
        let mut input = String::new();
        for (number, (email, cards)) in rows.iter().enumerate() {
            let items: Vec<serde_json::Value> = cards.iter().map(|card| json!({ "card": card })).collect();
            input += &format!("{}\n", json!({ "id": number, "customer": { "email": email }, "items": items }));
        }
        let (sealed, counts) = encrypt(&PATHS, &input).unwrap();
        prop_assert_eq!(counts.rows, rows.len() as u64);
        let (opened, _) = process_job(lines(DECRYPT, false, &PATHS), &sealed).unwrap();
        prop_assert_eq!(String::from_utf8(opened).unwrap(), input);
    }
}
