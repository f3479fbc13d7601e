//! A directory that was put back to an older state, store and trail together.

use std::fs;
use std::path::Path;
use std::process::Command;

use fieldkeep_harness::Home;
use fieldkeep_proto::v1;

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    assert!(
        command
            .arg("-a")
            .args([from, to])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn a_directory_that_was_put_back_is_refused_by_a_checkpoint_that_was_kept() {
    let home = Home::make();
    let (data, old) = (home.path().join("data"), home.path().join("old"));
    let admin = home.admin();
    let kept = home.path().join("kept");
    let config = fs::read_to_string(home.config()).unwrap();
    let sink = format!("{config}\n[audit]\ncheckpoint_file = \"kept\"\n");
    fs::write(home.config(), sink).unwrap();
    let server = home.serve();
    server.run(&admin, &["key", "create", "pii"]);
    server.stop();
    copy(&data, &old);
    let server = home.serve();
    server.run(&admin, &["key", "rotate", "pii"]);
    server.stop();
    let with = ["--min-checkpoint", kept.to_str().unwrap()];
    // From here on nothing is sent any more, so that the file stays as it was.
    fs::write(home.config(), config).unwrap();
    home.serve_with(&with).stop();

    let put_back = || {
        fs::remove_dir_all(&data).unwrap();
        copy(&old, &data);
    };
    put_back();
    // Nothing in the directory tells.
    home.serve().stop();
    put_back();
    let refused = home.try_serve_with(&with).err().unwrap();
    assert!(refused.contains("its end was cut off"), "{refused}");
    assert!(refused.contains(with[1]), "{refused}");
    assert!(refused.contains("--accept-audit-loss"), "{refused}");
    // An operator can go over it, on record.
    let server = home.serve_with(&[with[0], with[1], "--accept-audit-loss"]);
    let filter = v1::AuditFilter {
        rpc: String::from("fieldkeep serve --accept-audit-loss"),
        ..v1::AuditFilter::default()
    };
    let client = server.admin_client(&admin);
    let accepted = client.audit().find(filter).collect().await.unwrap();
    assert_eq!(accepted.len(), 1);
    let detail = &accepted[0].record.as_ref().unwrap().detail;
    assert!(
        detail.contains("cut off") && detail.contains(with[1]),
        "{detail}"
    );
    server.stop();

    // What is no checkpoint of this log is no reason to call the trail cut.
    let other = Home::make();
    let checkpoint = other.path().join("data/audit/checkpoint");
    other.serve().stop();
    let wrong = ["--min-checkpoint", checkpoint.to_str().unwrap()];
    let refused = home.try_serve_with(&wrong).err().unwrap();
    assert!(
        refused.contains("holds no checkpoint of this log"),
        "{refused}"
    );
    let refused = home.try_serve_with(&["--min-checkpoint", "/nowhere"]).err();
    assert!(
        refused
            .unwrap()
            .contains("cannot read the checkpoint `/nowhere`")
    );
}
