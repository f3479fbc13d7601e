//! Re-encryption that was interrupted, and that sends only what is behind.

use super::fake::version_of;
use super::*;

const REENCRYPT: Direction = Direction::ReEncrypt {
    keep_going: false,
    dry_run: false,
};

/// Runs a job with what an earlier run left; gives the output, the counts and how many values were sent.
fn resume(job: Job, input: &[u8], left: Option<Vec<u8>>) -> (Vec<u8>, Counts, usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let cipher = move |operation, items: Vec<Item>| {
        counting.fetch_add(items.len(), Ordering::SeqCst);
        async move { answer(operation, &items) }
    };
    let mut output = Vec::new();
    let source = Source {
        input: Box::new(std::io::Cursor::new(input.to_vec())),
        resume: left.map(|left| Box::new(std::io::Cursor::new(left)) as Box<_>),
    };
    let counts = runtime
        .block_on(run(job, source, &mut output, cipher, |_| Ok(())))
        .unwrap();
    (output, counts, sent.load(Ordering::SeqCst))
}

/// A file of both forms, sealed under version 1, and its plaintext.
fn sealed(shape: Shape, rows: usize) -> (Vec<u8>, Vec<u8>) {
    let mut plain = match shape {
        Shape::Csv => String::from("id,email,notes,plan\n"),
        Shape::JsonLines { .. } => String::new(),
    };
    for id in 0..rows {
        plain += &match shape {
            Shape::Csv => format!("{id},a{id}@x,\"\n{id}\",p\r\n"),
            Shape::JsonLines { .. } => format!("{{\"id\":{id},\"email\":\"a{id}@x\", \"p\":1}}\n"),
        };
    }
    plain.truncate(plain.trim_end().len());
    let job = Job {
        shape,
        ..job(Direction::Encrypt, &columns(shape))
    };
    (process_job(job, plain.as_bytes()).unwrap().0, plain.into())
}

fn columns(shape: Shape) -> Vec<&'static str> {
    match shape {
        Shape::Csv => vec!["email=pii:customer.email", "notes=customer.notes"],
        Shape::JsonLines { .. } => vec!["email=customer.email"],
    }
}

/// The versions of all ciphertexts of a text.
fn versions(text: &[u8]) -> HashSet<u32> {
    let text = String::from_utf8_lossy(text);
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-:".contains(c)))
        .filter(|word| word.starts_with("fk1:"))
        .map(|word| version_of(&decode_text(word).unwrap()))
        .collect()
}

#[test]
fn a_run_goes_on_from_wherever_it_was_cut() {
    for shape in [Shape::Csv, Shape::JsonLines { json_values: false }] {
        let (sealed, plain) = sealed(shape, 12);
        let reencrypt = || Job {
            shape,
            ..job(REENCRYPT, &columns(shape))
        };
        let (whole, counts, _) = resume(reencrypt(), &sealed, None);
        assert_eq!((versions(&whole), counts.already), ([2].into(), 0));
        for cut in 0..=whole.len() {
            let (output, counts, sent) = resume(reencrypt(), &sealed, Some(whole[..cut].to_vec()));
            assert_eq!(versions(&output), [2].into(), "cut at {cut}");
            let rows = 12 - counts.resumed as usize;
            let values = rows * columns(shape).len();
            assert!(
                sent <= values + 2 && sent >= values,
                "cut at {cut}: {sent} sent for {rows} rows"
            );
            let decrypt = Job {
                shape,
                ..job(DECRYPT, &columns(shape))
            };
            assert!(
                process_job(decrypt, &output).unwrap().0 == plain,
                "cut at {cut}"
            );
        }
        let (_, counts, _) = resume(reencrypt(), &sealed, Some(whole));
        assert_eq!(
            counts.resumed, 11,
            "the last row may be cut off, and so is done again"
        );
    }
}

#[test]
fn what_is_left_of_another_file_does_not_count() {
    let (input, plain) = sealed(Shape::Csv, 12);
    let reencrypt = || job(REENCRYPT, &columns(Shape::Csv));
    let (whole, _, _) = resume(reencrypt(), &input, None);
    let text = String::from_utf8(whole).unwrap();
    for (name, left, resumed) in [
        ("another header", text.replacen("plan", "paln", 1), 0),
        ("another id", text.replacen("\r\n4,", "\r\n44,", 1), 4),
        ("a row more", text.replacen("\r\n4,", "\r\n\r\n4,", 1), 4),
        (
            "a value that is no ciphertext",
            text.replacen("\r\n4,fk1:_", "\r\n4,fk1:\0", 1),
            4,
        ),
        ("no CSV", text.replacen("\r\n4,", "\r\n4,\"x\"", 1), 4),
        (
            "not text",
            String::from_utf8_lossy(&[0; 4096]).into_owned(),
            0,
        ),
    ] {
        let (output, counts, _) = resume(reencrypt(), &input, Some(left.into_bytes()));
        assert_eq!(
            (counts.resumed, versions(&output)),
            (resumed, [2].into()),
            "{name}"
        );
        let (opened, _) = process(DECRYPT, &columns(Shape::Csv), &output).unwrap();
        assert!(opened == plain, "{name}");
    }
}

#[test]
fn what_became_behind_since_the_interruption_is_brought_up_too() {
    // The interrupted run saw another primary; here all that it wrote is of version 1.
    let (input, _) = sealed(Shape::Csv, 12);
    let (output, counts, _) = resume(
        job(REENCRYPT, &columns(Shape::Csv)),
        &input,
        Some(input.clone()),
    );
    assert_eq!((counts.resumed, counts.values), (11, 24));
    assert_eq!(versions(&output), [2].into());
}

#[test]
fn only_what_is_behind_is_sent() {
    let (input, _) = sealed(Shape::Csv, 4_000);
    let reencrypt = || job(REENCRYPT, &columns(Shape::Csv));
    let (renewed, counts, sent) = resume(reencrypt(), &input, None);
    assert_eq!((counts.values, sent), (8_000, 8_000));
    let (again, counts, sent) = resume(reencrypt(), &renewed, None);
    assert_eq!((again, counts.values, counts.already), (renewed, 0, 8_000));
    // One value for each of two destinations in each chunk of 500 rows.
    assert_eq!(sent, 16);
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let (input, _) = sealed(Shape::Csv, 2_000);
    let dry_run = || {
        let direction = Direction::ReEncrypt {
            keep_going: false,
            dry_run: true,
        };
        job(direction, &columns(Shape::Csv))
    };
    let (output, counts, sent) = resume(dry_run(), &input, None);
    assert_eq!(
        (output.len(), counts.values, counts.already, sent),
        (0, 4_000, 0, 8)
    );
    let (renewed, _, _) = resume(job(REENCRYPT, &columns(Shape::Csv)), &input, None);
    let (output, counts, _) = resume(dry_run(), &renewed, None);
    assert_eq!((output.len(), counts.values, counts.already), (0, 0, 4_000));
}

#[test]
fn a_first_value_that_does_not_open_hides_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (input, _) = sealed(Shape::JsonLines { json_values: false }, 10);
    let text = String::from_utf8(input)
        .unwrap()
        .replacen("{\"id\":0,", "{\"id\":99,", 1);
    let keep_going = Direction::ReEncrypt {
        keep_going: true,
        dry_run: false,
    };
    let job = Job {
        shape: Shape::JsonLines { json_values: false },
        ..job(keep_going, &["email=customer.email"])
    };
    let mut output = Vec::new();
    let mut left = Vec::new();
    let cipher = |operation, items: Vec<Item>| async move { answer(operation, &items) };
    let source = Source::new(std::io::Cursor::new(text.into_bytes()));
    let counts = runtime
        .block_on(run(job, source, &mut output, cipher, |problem| {
            left.push(problem.to_string());
            Ok(())
        }))
        .unwrap();
    assert_eq!((counts.values, counts.left), (9, 1));
    assert_eq!(left, ["row 1 (line 1), column `email`: decryption_failed"]);
    assert_eq!(versions(&output), [1, 2].into());
}
