//! `fieldkeep data` against a running service: pipes, compressed files, JSON lines, interruptions, scans.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
};

use fieldkeep_harness::Identity;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fixture::Fixture;

/// Runs `data` with some input.
fn data(f: &Fixture, identity: &Identity, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = f
        .server
        .command(identity, ["data"].iter().chain(arguments))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Output comes while input is still read.
    let writer = thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// The same as `app`, asserting that it succeeds. Standard output, and what was said.
fn ok(f: &Fixture, arguments: &[&str], input: &[u8]) -> (Vec<u8>, String) {
    let output = data(f, &f.app_identity, arguments, input);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    (output.stdout, said)
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)))
}

fn path(f: &Fixture, name: &str) -> String {
    f.home.path().join(name).to_str().unwrap().to_owned()
}

const PATHS: [&str; 6] = [
    "--column",
    "customer.email=pii:customer.email",
    "--column",
    "items[*].card=pii:order.card",
    "--context",
    "id",
];

fn orders(count: usize) -> String {
    let order = |id| {
        format!(
            "{{\"id\": {id},\"total\":{id}.50,\"customer\":{{\"email\":\"user{id}@example.com\"}},\
             \"items\":[{{\"card\":\"4111-{id}\",\"n\":1e2}},{{}},{{\"card\":\"5500-{id}\"}}]}}\n"
        )
    };
    (0..count).map(order).collect()
}

#[test]
fn json_lines_go_through_pipes_and_compressed_files() {
    let f = Fixture::start();
    let input = orders(3_000);
    let (sealed, said) = ok(
        &f,
        &[&["encrypt", "--input-format", "jsonl"], &PATHS[..]].concat(),
        input.as_bytes(),
    );
    assert!(
        said.starts_with("standard output: 3,000 rows, 9,000 values encrypted; "),
        "{said}"
    );
    let text = String::from_utf8(sealed.clone()).unwrap();
    assert!(!text.contains("example.com") && !text.contains("4111") && !text.contains("5500"));
    assert!(text.starts_with("{\"id\": 0,\"total\":0.50,\"customer\":{\"email\":\"fk1:"));

    // From a pipe to a compressed file, from that to another, and back into a pipe.
    let (gz, zst) = (path(&f, "sealed.jsonl.gz"), path(&f, "opened.jsonl.zst"));
    ok(
        &f,
        &[&["encrypt", "--input", "-", "--output", &gz], &PATHS[..]].concat(),
        input.as_bytes(),
    );
    assert!(fs::read(&gz).unwrap().starts_with(&[0x1F, 0x8B]));
    ok(
        &f,
        &[&["decrypt", "--input", &gz, "--output", &zst], &PATHS[..]].concat(),
        b"",
    );
    let mut opened = String::new();
    zstd::Decoder::new(fs::File::open(&zst).unwrap())
        .unwrap()
        .read_to_string(&mut opened)
        .unwrap();
    assert!(opened == input);
    let arguments = [
        "decrypt",
        "--output",
        "-",
        "--input-format",
        "jsonl",
        "--format",
        "json",
    ];
    let (opened, said) = ok(
        &f,
        &[&arguments, &PATHS[..]].concat(),
        &fs::read(&gz).unwrap()[..],
    );
    assert!(opened == input.as_bytes());
    assert_eq!(json(said.as_bytes())["values"], 9_000);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let f = Fixture::start();
    let input = path(&f, "orders.jsonl");
    fs::write(&input, orders(3_000)).unwrap();
    let mut child = f
        .server
        .command(
            &f.app_identity,
            [&["data", "encrypt", "--input", &input], &PATHS[..]].concat(),
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn what_cannot_be_worked_on_is_named_and_listed() {
    let f = Fixture::start();
    let (sealed, _) = ok(
        &f,
        &[&["encrypt", "--input-format", "jsonl"], &PATHS[..]].concat(),
        orders(20).as_bytes(),
    );
    let damaged = String::from_utf8(sealed)
        .unwrap()
        .replacen("{\"id\": 3,", "{\"id\": 33,", 1)
        .replacen("{\"id\": 7,", "{\"id\": 7", 1);
    let (out, errors) = (path(&f, "opened.jsonl"), path(&f, "errors.jsonl"));
    let arguments = ["decrypt", "--input-format", "jsonl", "--output", &out];
    let refused = data(
        &f,
        &f.app_identity,
        &[&arguments, &PATHS[..]].concat(),
        damaged.as_bytes(),
    );
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(
        said.contains("row 8 (line 8) is not JSON, column ") && !Path::new(&out).exists(),
        "{said}"
    );

    let keep = ["--keep-going", "--errors", &errors];
    let kept = data(
        &f,
        &f.app_identity,
        &[&arguments, &PATHS[..], &keep].concat(),
        damaged.as_bytes(),
    );
    assert_eq!(kept.status.code(), Some(5));
    let lines: Vec<(u64, String)> = fs::read_to_string(&errors)
        .unwrap()
        .lines()
        .map(|line| json(line.as_bytes()))
        .map(|line| {
            let column = line["column"].as_str().unwrap_or("-").to_owned();
            (line["row"].as_u64().unwrap(), column)
        })
        .collect();
    assert_eq!(
        lines,
        [
            (4, "customer.email".into()),
            (4, "items[*].card".into()),
            (4, "items[*].card".into()),
            (8, "-".into())
        ]
    );
    assert_eq!(
        fs::read_to_string(&out)
            .unwrap()
            .matches("example.com")
            .count(),
        18
    );
}

const EMAIL: [&str; 4] = ["--column", "email=customer.email", "--context", "id"];

/// A sealed file, whose rows are long enough that it is written in many parts, and its plaintext.
fn sealed_csv(f: &Fixture, rows: usize) -> (PathBuf, String) {
    let filler = "x".repeat(400);
    let mut plain = String::from("id,email,filler\n");
    plain.extend((0..rows).map(|id| format!("{id},user{id}@example.com,{filler}\n")));
    fs::write(path(f, "plain.csv"), &plain).unwrap();
    let sealed = path(f, "sealed.csv");
    let arguments = [
        "encrypt",
        "--input",
        &path(f, "plain.csv"),
        "--output",
        &sealed,
        "--column",
        "email=pii:customer.email",
        "--context",
        "id",
    ];
    ok(f, &arguments, b"");
    (sealed.into(), plain)
}

/// Values by key, version and whether they are current, as `scan` tells.
fn scanned(f: &Fixture, identity: &Identity, file: &str) -> Vec<(String, u64, Option<bool>, u64)> {
    let arguments = [
        "scan", "--input", file, "--column", "email", "--format", "json",
    ];
    let output = data(f, identity, &arguments, b"");
    let scan = json(&output.stdout);
    let values = scan["values"].as_array().unwrap();
    values
        .iter()
        .map(|value| {
            (
                value["key"].as_str().unwrap_or_default().to_owned(),
                value["version"].as_u64().unwrap_or_default(),
                value["current"].as_bool(),
                value["values"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_reencryption_that_is_killed_again_and_again_comes_to_its_end() {
    const ROWS: usize = 16_000;
    let f = Fixture::start();
    let (sealed, plain) = sealed_csv(&f, ROWS);
    let sealed = sealed.to_str().unwrap();
    let folder = f.home.path().join("work");
    fs::create_dir(&folder).unwrap();
    let renewed = folder.join("renewed.csv");
    let renewed_path = renewed.to_str().unwrap();
    let arguments = [
        &[
            "reencrypt",
            "--input",
            sealed,
            "--output",
            renewed_path,
            "--format",
            "json",
        ],
        &EMAIL[..],
    ]
    .concat();
    f.server.run(&f.admin_identity, &["key", "rotate", "pii"]);

    let part_bytes = || {
        let files = fs::read_dir(&folder).unwrap().map(Result::unwrap);
        let parts = files.filter(|file| file.file_name().to_string_lossy().ends_with(".part"));
        parts
            .map(|part| part.metadata().map_or(0, |m| m.len()))
            .sum::<u64>()
    };
    // Where each round is cut differs from run to run; the last is cut before the half, so that none comes to its end first.
    let mut random = u64::from(std::process::id());
    let mut killed = 0;
    for round in 0..6u64 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let cut_at = (round + 1) * 500_000 + (random >> 45) - 250_000;
        let mut child = f
            .server
            .command(&f.app_identity, ["data"].iter().chain(&arguments))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while part_bytes() < cut_at && child.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        let signal = if round % 3 == 2 {
            Signal::INT
        } else {
            Signal::KILL
        };
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        killed += u64::from(!child.wait().unwrap().success());
        if round == 3 {
            // What was written so far is behind now.
            f.server.run(&f.admin_identity, &["key", "rotate", "pii"]);
        }
    }
    assert!(killed >= 4, "only {killed} rounds were cut");

    let (summary, _) = ok(&f, &arguments, b"");
    let summary = json(&summary);
    assert_eq!(summary["rows"], ROWS);
    assert!(
        summary["resumed_rows"].as_u64().unwrap() > 1_000,
        "{summary}"
    );
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        1,
        "nothing is left over"
    );
    assert_eq!(
        scanned(&f, &f.admin_identity, renewed_path),
        [(
            "tenants/default/keys/pii".into(),
            3,
            Some(true),
            ROWS as u64
        )]
    );
    let arguments = [&["decrypt", "--input", renewed_path], &EMAIL[..]].concat();
    assert!(ok(&f, &arguments, b"").0 == plain.as_bytes());

    // Again, over what is done: nothing changes.
    let arguments = [&["reencrypt", "--input", renewed_path], &EMAIL[..]].concat();
    let (again, said) = ok(&f, &arguments, b"");
    assert!(again == fs::read(&renewed).unwrap());
    assert!(
        said.contains("0 values re-encrypted, 16,000 current already"),
        "{said}"
    );
}

#[test]
fn a_scan_counts_by_column_key_and_version_without_any_right() {
    let f = Fixture::start();
    let (sealed, _) = sealed_csv(&f, 50);
    let sealed = sealed.to_str().unwrap();
    f.server.run(&f.admin_identity, &["key", "rotate", "pii"]);
    let dry_run = [&["reencrypt", "--input", sealed, "--dry-run"], &EMAIL[..]].concat();
    let (said, _) = ok(&f, &dry_run, b"");
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.starts_with("nothing written: 50 rows, 50 values behind; "),
        "{said}"
    );

    let (renewed, _) = ok(
        &f,
        &[&["reencrypt", "--input", sealed], &EMAIL[..]].concat(),
        b"",
    );
    let both = [
        fs::read(sealed).unwrap(),
        renewed
            .split(|b| *b == b'\n')
            .skip(1)
            .take(20)
            .collect::<Vec<_>>()
            .join(&b'\n'),
    ]
    .concat();
    let mixed = path(&f, "mixed.csv");
    fs::write(
        &mixed,
        [&both[..], b"\n1,ada@x,f\n2,,f\n3,fk1:oops,f\n"].concat(),
    )
    .unwrap();

    let scan = ["scan", "--input", &mixed];
    let admin = data(&f, &f.admin_identity, &scan, b"");
    assert_eq!(String::from_utf8_lossy(&admin.stderr), "");
    let table = String::from_utf8(admin.stdout).unwrap();
    for line in [
        "email   encrypted  tenants/default/keys/pii  1        behind   50",
        "email   encrypted  tenants/default/keys/pii  2        current  20",
        "email   malformed  -                         -        -        1",
        "email   plaintext  -                         -        -        1",
        "email   empty      -                         -        -        1",
        "id      plaintext  -                         -        -        73",
        "73 rows",
    ] {
        assert!(table.lines().any(|l| l == line), "no {line:?} in\n{table}");
    }
    // An identity that may not list keys sees handles.
    let (table, said) = ok(&f, &scan, b"");
    let table = String::from_utf8(table).unwrap();
    assert!(
        table.contains("handle ") && !table.contains("keys/pii"),
        "{table}"
    );
    assert!(said.starts_with("note: keys are shown by handle"), "{said}");
}
