//! The pipeline with a cipher of its own: no service, but real ciphertext forms.

mod fake;
mod interrupted;
mod json;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fieldkeep_crypto::ciphertext::decode_text;
use proptest::prelude::*;

use self::fake::{Counted, answer, refused};
use super::cipher::{Item, Operation};
use super::pipeline::run;
use super::*;

fn job(direction: Direction, columns: &[&str]) -> Job {
    Job {
        direction,
        shape: Shape::Csv,
        columns: columns.iter().map(|text| text.parse().unwrap()).collect(),
        context: vec!["id".parse().unwrap()],
        parallel: 3,
    }
}

const DECRYPT: Direction = Direction::Decrypt { keep_going: false };
const KEEP_GOING: Direction = Direction::Decrypt { keep_going: true };

fn process(
    direction: Direction,
    columns: &[&str],
    input: &[u8],
) -> Result<(Vec<u8>, Counts), Failure> {
    process_job(job(direction, columns), input).map(|(output, mut counts)| {
        assert_eq!(counts.bytes, input.len() as u64);
        counts.bytes = 0;
        (output, counts)
    })
}

fn process_job(job: Job, input: &[u8]) -> Result<(Vec<u8>, Counts), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut output = Vec::new();
        let cipher = |operation, items: Vec<Item>| async move { answer(operation, &items) };
        let source = Source::new(std::io::Cursor::new(input.to_vec()));
        let counts = run(job, source, &mut output, cipher, |_| Ok(())).await?;
        Ok((output, counts))
    })
}

const COLUMNS: [&str; 2] = ["email=pii:customer.email", "notes=pii:customer.notes"];

const FILE: &str = "\u{feff}id,email,notes,plan\r\n\
    1,ada@example.com,\"said \"\"hi\"\", twice\",a\r\n\
    2,,\"two\nlines\",\"b,c\"\r\n\
    \r\n\
    3,\"spare\",fk1:not-a-ciphertext,\"kept\"\r\n\
    4,μ@example.com, ,d";

#[test]
fn a_file_comes_back_byte_for_byte_with_its_mark_line_ends_blank_lines_and_quoting() {
    let (sealed, counts) = process(Direction::Encrypt, &COLUMNS, FILE.as_bytes()).unwrap();
    assert_eq!(
        counts,
        Counts {
            rows: 4,
            values: 7,
            empty: 1,
            ..Counts::default()
        }
    );
    let text = String::from_utf8(sealed.clone()).unwrap();
    for secret in ["ada@", "said", "lines", "spare", "μ@"] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(
        text.starts_with("\u{feff}id,email,notes,plan\r\n1,fk1:")
            && text.contains("\"b,c\"")
            && text.contains("\"kept\"")
    );
    let (opened, counts) = process(DECRYPT, &COLUMNS, &sealed).unwrap();
    assert_eq!(String::from_utf8(opened).unwrap(), FILE);
    assert_eq!(
        counts,
        Counts {
            rows: 4,
            values: 7,
            empty: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn what_opens_is_encrypted_already_and_what_only_looks_so_is_not() {
    let (sealed, _) = process(Direction::Encrypt, &COLUMNS, FILE.as_bytes()).unwrap();
    let (again, counts) = process(Direction::Encrypt, &COLUMNS, &sealed).unwrap();
    assert_eq!(again, sealed);
    assert_eq!(
        counts,
        Counts {
            rows: 4,
            already: 7,
            empty: 1,
            ..Counts::default()
        }
    );
    // The same ciphertext in another row is somebody's value: it gets encrypted, and comes back as it was.
    let moved = String::from_utf8(sealed)
        .unwrap()
        .replacen("\n1,", "\n9,", 1);
    let (sealed, counts) = process(Direction::Encrypt, &COLUMNS, moved.as_bytes()).unwrap();
    assert_eq!((counts.values, counts.already), (2, 5));
    let row = |text: &[u8]| {
        String::from_utf8_lossy(text)
            .lines()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    let (opened, _) = process(DECRYPT, &COLUMNS, &sealed).unwrap();
    assert_eq!(row(&opened), row(moved.as_bytes()));
}

#[test]
fn reencryption_changes_what_is_old_and_nothing_else() {
    let reencrypt = Direction::ReEncrypt {
        keep_going: false,
        dry_run: false,
    };
    let (sealed, _) = process(Direction::Encrypt, &COLUMNS, FILE.as_bytes()).unwrap();
    let (renewed, counts) = process(reencrypt, &COLUMNS, &sealed).unwrap();
    assert_eq!((counts.values, counts.already), (7, 0));
    assert_ne!(renewed, sealed);
    let (again, counts) = process(reencrypt, &COLUMNS, &renewed).unwrap();
    assert_eq!((counts.values, counts.already), (0, 7));
    assert_eq!(again, renewed);
    assert_eq!(
        process(DECRYPT, &COLUMNS, &renewed).unwrap().0,
        FILE.as_bytes()
    );
}

#[test]
fn what_does_not_open_names_its_row_and_column() {
    let plain = b"id,email\n1,\n2,\"a\nb\"\n3,c\n";
    let error = process(DECRYPT, &["email=customer.email"], plain).unwrap_err();
    assert_eq!(
        error.what(),
        "row 2 (line 3), column `email` is not a ciphertext"
    );
    assert_eq!(error.exit(), Exit::Invalid);

    let (sealed, _) = process(Direction::Encrypt, &["email=k:f"], plain).unwrap();
    let swapped = String::from_utf8(sealed)
        .unwrap()
        .replacen("\n3,", "\n4,", 1);
    let error = process(DECRYPT, &["email=f"], swapped.as_bytes()).unwrap_err();
    assert_eq!(
        error.what(),
        "row 3 (line 4), column `email`: decryption_failed"
    );
    let (opened, counts) = process(KEEP_GOING, &["email=f"], swapped.as_bytes()).unwrap();
    assert_eq!((counts.values, counts.left), (1, 1));
    assert!(opened.starts_with(b"id,email\n1,\n2,\"a\nb\"\n4,fk1:"));
}

#[test]
fn malformed_rows_are_named_and_nothing_is_guessed() {
    let what = |input: &[u8]| {
        process(Direction::Encrypt, &["email=k:f"], input)
            .unwrap_err()
            .what()
            .to_owned()
    };
    assert_eq!(
        what(b"id,email\n1,a\n2\n"),
        "row 2 (line 3) has 1 value, the header has 2"
    );
    assert_eq!(
        what(b"id,email\n1,a,b\n"),
        "row 1 (line 2) has 3 values, the header has 2"
    );
    assert_eq!(
        what(b"id,email\n\xFF,a\n"),
        "row 1 (line 2): the context `id` is not UTF-8 text"
    );
    assert_eq!(what(b""), "the input is empty");
    assert_eq!(what(b"\n\r\n"), "the input is empty");
    let long = [b"id,email\n1,".as_slice(), &[b'x'; 65_537]].concat();
    assert_eq!(
        what(&long),
        "row 1 (line 2), column `email` has 65537 bytes"
    );
    assert!(what(b"id,email\n1,\"a\n").starts_with("the input is not a CSV file: line 2"));
    // What is wrong first is told first.
    assert_eq!(
        what(b"id,email\n1\n2,\"a\n"),
        "row 1 (line 2) has 1 value, the header has 2"
    );
}

#[test]
fn a_compressed_input_that_is_cut_off_is_called_so() {
    let mut input = zstd::encode_all(&b"id,email\n1,ada\n"[..], 1).unwrap();
    input.truncate(input.len() - 5);
    let failure = process(Direction::Encrypt, &["email=pii:email"], &input).unwrap_err();
    assert_eq!(failure.exit(), Exit::Failed);
    let remedy = failure.remedy().unwrap();
    assert!(remedy.contains("cut off or damaged"), "{remedy}");
}

#[test]
fn values_are_bytes_and_a_header_alone_is_a_file() {
    let input = b"id,email\n1,\xFF\xFE\x00\x80\n";
    let (sealed, _) = process(Direction::Encrypt, &["email=k:f"], input).unwrap();
    assert_eq!(process(DECRYPT, &["email=f"], &sealed).unwrap().0, input);
    assert_eq!(
        process(Direction::Encrypt, &["email=k:f"], b"id,email").unwrap(),
        (b"id,email".to_vec(), Counts::default())
    );
}

#[test]
fn a_state_that_hides_whether_a_value_is_encrypted_is_an_error() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (sealed, _) = process(Direction::Encrypt, &["email=k:f"], b"id,email\n1,a\n").unwrap();
    let error = runtime.block_on(async {
        // A version is disabled, so what it sealed does not open; the primary still encrypts.
        let cipher = |operation, items: Vec<Item>| async move {
            match operation {
                Operation::Encrypt => answer(operation, &items),
                _ => Ok(items
                    .iter()
                    .map(|_| Err(refused("VERSION_DISABLED")))
                    .collect()),
            }
        };
        run(
            job(Direction::Encrypt, &["email=k:f"]),
            Source::new(std::io::Cursor::new(sealed)),
            &mut Vec::new(),
            cipher,
            |_| Ok(()),
        )
        .await
        .unwrap_err()
    });
    assert_eq!(
        (error.what(), error.exit()),
        (
            "row 1 (line 2), column `email`: version_disabled",
            Exit::Conflict
        )
    );
}

#[test]
fn batches_run_in_parallel_but_few_are_in_memory_and_rows_keep_their_order() {
    const ROWS: usize = 40_000;
    const PARALLEL: usize = 3;
    let value = "x".repeat(200);
    let input: String = std::iter::once(String::from("id,email\n"))
        .chain((0..ROWS).map(|id| format!("{id},{id}{value}\n")))
        .collect();
    let total = input.len();
    let (taken, calls, most) = (
        Arc::default(),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let input = Counted {
        input: std::io::Cursor::new(input.clone().into_bytes()),
        taken: Arc::clone(&taken),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let gate = Arc::new(tokio::sync::Barrier::new(PARALLEL));
    let running = Arc::new(AtomicUsize::new(0));
    let taken_at_first_gate = Arc::new(Mutex::new(None));
    let output = runtime.block_on(async {
        let (calls, most, first) = (
            Arc::clone(&calls),
            Arc::clone(&most),
            Arc::clone(&taken_at_first_gate),
        );
        let cipher = move |operation, items: Vec<Item>| {
            let (calls, most, gate) = (Arc::clone(&calls), Arc::clone(&most), Arc::clone(&gate));
            let (running, taken, first) =
                (Arc::clone(&running), Arc::clone(&taken), Arc::clone(&first));
            async move {
                assert!(items.len() <= 1_000);
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                // The first batches wait for each other: without parallel batches this never ends. Then the later ones
                // are made to end before the earlier ones.
                if calls.fetch_add(1, Ordering::SeqCst) < PARALLEL {
                    gate.wait().await;
                    first
                        .lock()
                        .unwrap()
                        .get_or_insert(taken.load(Ordering::SeqCst));
                }
                let place = items
                    .first()
                    .map(|item| item.context[0].1.parse::<usize>().unwrap() / 1_000)
                    .unwrap();
                for _ in 0..(PARALLEL - place % PARALLEL) * 5 {
                    tokio::task::yield_now().await;
                }
                let answer = answer(operation, &items);
                running.fetch_sub(1, Ordering::SeqCst);
                answer
            }
        };
        let mut output = Vec::new();
        run(
            job(Direction::Encrypt, &["email=k:f"]),
            Source::new(input),
            &mut output,
            cipher,
            |_| Ok(()),
        )
        .await
        .unwrap();
        output
    });
    let ids: Vec<usize> = output
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(|line| {
            std::str::from_utf8(line)
                .unwrap()
                .split(',')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert_eq!(ids, (0..ROWS).collect::<Vec<_>>());
    assert_eq!(most.load(Ordering::SeqCst), PARALLEL);
    let ahead = taken_at_first_gate.lock().unwrap().unwrap();
    assert!(
        ahead < total / 4,
        "{ahead} of {total} bytes were read while the first {PARALLEL} batches ran"
    );
}

fn text_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b'"'),
        Just(b','),
        Just(b'\r'),
        Just(b'\n'),
        Just(b'f'),
        any::<u8>()
    ];
    prop_oneof![
        9 => prop::collection::vec(byte, 0..20),
        1 => prop::collection::vec(any::<u8>(), 5_000..65_536),
        1 => Just(b"fk1:AAAA".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_file_comes_back(
        rows in prop::collection::vec((text_value(), text_value(), text_value()), 0..30),
        crlf: bool, always: bool, last_line_end: bool,
    ) {
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let quotes = if always { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let mut writer = csv::WriterBuilder::new().terminator(terminator).quote_style(quotes).from_writer(Vec::new());
        writer.write_record(["id", "email", "other", "notes"]).unwrap();
        for (number, (email, other, notes)) in rows.iter().enumerate() {
            writer.write_record([number.to_string().as_bytes(), email, other, notes]).unwrap();
        }
        let mut input = writer.into_inner().unwrap();
        if !last_line_end {
            let line_end = if crlf { 2 } else { 1 };
            input.truncate(input.len() - line_end);
        }
        let (sealed, counts) = process(Direction::Encrypt, &COLUMNS, &input).unwrap();
        let mut reader = csv::Reader::from_reader(&sealed[..]);
        let mut ciphertexts = HashSet::new();
        for (record, (email, other, notes)) in reader.byte_records().zip(&rows) {
            let record = record.unwrap();
            prop_assert_eq!(&record[2], other.as_slice());
            for (sealed, plain) in [(&record[1], email), (&record[3], notes)] {
                prop_assert_eq!(sealed.is_empty(), plain.is_empty());
                prop_assert!(sealed.is_empty() || decode_text(std::str::from_utf8(sealed).unwrap()).is_ok());
                ciphertexts.insert(sealed.to_vec());
            }
        }
        let (opened, opened_counts) = process(DECRYPT, &COLUMNS, &sealed).unwrap();
        prop_assert!(opened == input);
        prop_assert_eq!(opened_counts, counts);
    }
}
