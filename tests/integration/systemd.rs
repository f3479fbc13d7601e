//! `deploy/systemd/fieldkeep.service`, and what the service tells systemd.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
};

use fieldkeep_harness::{Home, binary};
use rustix::process::{Pid, Signal, kill_process};

const UNIT: &str = include_str!("../../deploy/systemd/fieldkeep.service");

/// Runs `systemd-analyze` on the unit with this build's program in it. `None`: there is no such tool here.
fn analyze(arguments: &[&str]) -> Option<String> {
    let folder = tempfile::TempDir::new().unwrap();
    let unit = folder.path().join("fieldkeep.service");
    let program = binary();
    let here = UNIT.replace("/usr/local/bin/fieldkeep", program.to_str().unwrap());
    fs::write(&unit, here).unwrap();
    let Ok(output) = Command::new("systemd-analyze")
        .args(arguments)
        .arg(&unit)
        .env("SYSTEMD_COLORS", "0")
        .output()
    else {
        eprintln!("skipped: `systemd-analyze` is missing; install the Debian package `systemd`");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(said)
}

#[test]
fn the_unit_is_valid() {
    if let Some(said) = analyze(&["verify", "--man=no"]) {
        assert!(!said.contains("fieldkeep.service:"), "{said}");
    }
}

#[test]
fn the_unit_is_as_hardened_as_the_manual_says() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let manual = fs::read_to_string(manual).unwrap();
    let (_, rest) = manual
        .split_once("`systemd-analyze security` rates it ")
        .unwrap();
    let claimed: f64 = rest[..3].parse().unwrap();
    if let Some(said) = analyze(&["security", "--offline=yes", "--no-pager"]) {
        let (_, rest) = said.split_once("Overall exposure level for ").unwrap();
        let found: f64 = rest.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(found <= claimed, "{found} is worse than {claimed}:\n{said}");
    }
}

#[test]
fn systemd_hears_when_the_service_is_ready_and_when_it_stops() {
    let home = Home::make();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut child = Command::new(binary())
        .arg("serve")
        .arg("--config")
        .arg(home.config())
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let heard = || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert_eq!(heard().trim(), "READY=1");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(heard().trim(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
}
