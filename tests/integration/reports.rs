//! Reports as an auditor gets them: two files, and a public key.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::evidence::{admin, key_file, offline, said, text};
use crate::fixture::Fixture;

fn verify(report: &Path, more: &[&str]) -> Output {
    let arguments: Vec<&str> = ["audit", "verify-report", text(report)]
        .iter()
        .chain(more)
        .copied()
        .collect();
    offline(&arguments)
}

fn fails(output: &Output, why: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the report does not verify") && said.contains(why),
        "{said}"
    );
}

#[tokio::test]
async fn a_report_is_signed_and_verified_offline_and_a_changed_one_is_refused() {
    let f = Fixture::start();
    let key = key_file(&f);
    let key = ["--key", text(&key)];
    let app = f.app();
    let sealed = app
        .field("pii", "customer.email")
        .encrypt(b"x")
        .await
        .unwrap();
    app.field("pii", "customer.email")
        .decrypt(&sealed)
        .await
        .unwrap();
    for form in ["text", "json", "html"] {
        let report = f.home.path().join(format!("report.{form}"));
        let make = [
            "audit",
            "report",
            "--since",
            "1h",
            "--as",
            form,
            "--output",
            text(&report),
        ];
        let wrote = admin(&f, &make);
        assert!(wrote.contains("audit verify-report"), "{wrote}");
        let whole = verify(&report, &key);
        assert!(whole.status.success(), "{}", said(&whole));
        let proven = said(&whole);
        for word in [
            form,
            "byte for byte",
            "signed",
            "checkpoint of",
            "count again",
        ] {
            assert!(proven.contains(word), "{word}: {proven}");
        }
        let bytes = fs::read(&report).unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("customer.email"));
        // One bit of one byte.
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        fs::write(&report, &changed).unwrap();
        fails(
            &verify(&report, &key),
            "the report is not the one that was signed",
        );
        fs::write(&report, &bytes).unwrap();
    }

    let report = f.home.path().join("report.json");
    let signature = f.home.path().join("report.json.sig");
    // The checkpoint that travels along is in the report as well, and in the log.
    let json: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let checkpoint = json["basis"]["checkpoint"].as_str().unwrap();
    assert!(
        fs::read_to_string(&signature)
            .unwrap()
            .ends_with(checkpoint)
    );
    let kept = f.home.path().join("kept");
    fs::write(&kept, checkpoint).unwrap();
    let grew = admin(&f, &["audit", "checkpoint", "--since", text(&kept)]);
    assert!(grew.contains("the log grew from"), "{grew}");

    let facts = verify(&report, &[key[0], key[1], "--format", "json"]);
    let facts: Value = serde_json::from_slice(&facts.stdout).unwrap();
    assert_eq!(facts["form"], "json");
    assert_eq!(facts["log"], json["basis"]["log_id"]);
    assert_eq!(facts["from_us"], json["range"]["from_us"]);
    assert_eq!(facts["to_us"], json["range"]["to_us"]);

    // Another report's signature, what is none, none at all, and the key of another log.
    let of_text = f.home.path().join("report.text.sig");
    let swapped = verify(&report, &[key[0], key[1], "--signature", text(&of_text)]);
    fails(&swapped, "the report is not the one that was signed");
    let no_signature = verify(&report, &[key[0], key[1], "--signature", text(&kept)]);
    fails(&no_signature, "this is not the signature of a report");
    let other = Fixture::start();
    let other_key = key_file(&other);
    let by_other = verify(&report, &["--key", text(&other_key)]);
    fails(&by_other, "no signature by a known key");
    fs::remove_file(&signature).unwrap();
    let missing = verify(&report, &key);
    assert!(!missing.status.success());
    assert!(
        said(&missing).contains("--signature names the file"),
        "{}",
        said(&missing)
    );
}

#[tokio::test]
async fn a_report_to_standard_output_says_how_to_get_the_signature_and_only_auditors_get_one() {
    let f = Fixture::start();
    let make = ["audit", "report", "--since", "1h"];
    let made = f.server.command(&f.admin_identity, make).output().unwrap();
    assert!(made.status.success(), "{}", said(&made));
    assert!(made.stdout.starts_with(b"FIELDKEEP AUDIT REPORT"));
    let hint = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(hint.contains("--output FILE"), "{hint}");
    let refused = f.server.command(&f.app_identity, make).output().unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
}
