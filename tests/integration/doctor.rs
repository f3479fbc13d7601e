//! `fieldkeep doctor` on a whole service, and on one with each part broken.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use fieldkeep_harness::{Home, Identity, binary};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use serde_json::Value;

use crate::fixture::Fixture;

/// Runs it; exit code and findings.
fn doctor(command: &mut Command) -> (Option<i32>, Vec<Value>) {
    let output = command.output().unwrap();
    let findings = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), findings)
}

/// What it says of a configuration, with no settings of a caller.
fn of_config(config: &Path) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(binary());
    command
        .env_clear()
        .args(["doctor", "--format", "json", "--config"]);
    doctor(command.arg(config))
}

/// The checks that failed.
fn failed(findings: &[Value]) -> Vec<&str> {
    let failed = findings.iter().filter(|finding| finding["state"] == "fail");
    failed
        .map(|finding| finding["check"].as_str().unwrap())
        .collect()
}

/// What came of one check.
fn of_check<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let mut of_check = findings.iter().filter(|finding| finding["check"] == check);
    of_check
        .next()
        .unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

#[test]
fn a_caller_of_each_role_can_connect_and_a_foreign_one_cannot() {
    let f = Fixture::start();
    for (identity, address, expected) in [
        (&f.admin_identity, f.server.admin, "as an admin"),
        (&f.app_identity, f.server.admin, "the state is for admins"),
        (&f.app_identity, f.server.data, "the data listener"),
    ] {
        let mut command = f.server.command(identity, ["doctor", "--format", "json"]);
        let (code, findings) = doctor(command.env("FIELDKEEP_ADDR", address.to_string()));
        assert_eq!(code, Some(0), "{findings:?}");
        let connection = findings
            .iter()
            .find(|finding| finding["check"] == "connection");
        let detail = connection.unwrap()["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{detail}");
        for check in ["health", "clocks"] {
            let found = findings.iter().any(|finding| finding["check"] == check);
            assert!(found, "{check}: {findings:?}");
        }
        // A fresh certificate, of a day or of an operator's month, is nothing to warn about.
        assert_eq!(of_check(&findings, "own certificate")["state"], "ok");
    }
    // The same name, of another CA.
    let other = Home::make();
    let mut command = f
        .server
        .command(&other.admin(), ["doctor", "--format", "json"]);
    let (code, findings) = doctor(&mut command);
    assert_eq!(code, Some(1));
    // It might be one of a CA that was added; the handshake says that it is not.
    assert_eq!(failed(&findings), ["connection"]);
    let detail = of_check(&findings, "own certificate")["detail"].to_string();
    assert!(detail.contains("of another CA"), "{detail}");
    // The certificate of one identity, the key of another.
    let mut command = f
        .server
        .command(&f.app_identity, ["doctor", "--format", "json"]);
    let (_, findings) = doctor(command.env("FIELDKEEP_KEY", &f.admin_identity.key));
    assert_eq!(failed(&findings), ["own certificate", "connection"]);
    // Nobody is there.
    let mut command = f
        .server
        .command(&f.admin_identity, ["doctor", "--format", "json"]);
    f.server.stop();
    assert_eq!(failed(&doctor(&mut command).1), ["connection"]);
}

#[test]
fn an_identity_of_an_added_ca_is_as_good_as_any() {
    let f = Fixture::start();
    let folder = f.home.path();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let corp = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let ca = folder.join("corp.pem");
    fs::write(&ca, corp.pem()).unwrap();
    let ca = ca.to_str().unwrap();
    f.server.run(
        &f.admin_identity,
        &[
            "ca",
            "add",
            "corp",
            ca,
            "--tenant",
            "default",
            "--trust-domain",
            "corp.example",
            "--ceiling",
            "data",
        ],
    );
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let uri = "spiffe://corp.example/tenant/default/app";
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let app = Identity {
        certificate: folder.join("corp-app.pem"),
        key: folder.join("corp-app.key"),
    };
    let certificate = params.signed_by(&key, &corp).unwrap();
    fs::write(&app.certificate, certificate.pem()).unwrap();
    fs::write(&app.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&app.key, Permissions::from_mode(0o600)).unwrap();

    let mut command = f.server.command(&app, ["doctor", "--format", "json"]);
    let (code, findings) = doctor(command.env("FIELDKEEP_ADDR", f.server.data.to_string()));
    assert_eq!(code, Some(0), "{findings:?}");
    let certificate = of_check(&findings, "own certificate");
    assert_eq!(certificate["state"], "ok", "{certificate}");
    let detail = certificate["detail"].as_str().unwrap();
    assert!(detail.contains("of another CA"), "{detail}");
}

#[test]
fn each_part_of_a_service_that_is_broken_is_named() {
    let home = Home::make();
    let (code, findings) = of_config(&home.config());
    assert_eq!(code, Some(0), "{findings:?}");

    let file = |name: &str| home.path().join(name);
    fs::set_permissions(file("root.key"), Permissions::from_mode(0o640)).unwrap();
    assert_eq!(failed(&of_config(&home.config()).1), ["root key"]);
    fs::set_permissions(file("root.key"), Permissions::from_mode(0o600)).unwrap();

    let kept = fs::read(file("tls/server.key")).unwrap();
    fs::copy(file("identities/admin.key"), file("tls/server.key")).unwrap();
    assert_eq!(failed(&of_config(&home.config()).1), ["server certificate"]);
    fs::write(file("tls/server.key"), kept).unwrap();

    fs::copy(Home::make().ca(), file("tls/ca.pem")).unwrap();
    assert_eq!(failed(&of_config(&home.config()).1), ["server certificate"]);
    fs::rename(file("data"), file("moved")).unwrap();
    assert_eq!(
        failed(&of_config(&home.config()).1),
        ["data directory", "server certificate"]
    );
}

#[test]
fn a_port_is_free_served_by_the_service_or_in_use_by_another() {
    let home = Home::make();
    let server = home.serve();
    let text = fs::read_to_string(home.config()).unwrap();
    let set = |data: String| {
        let text = text.replacen("127.0.0.1:0", &data, 1);
        fs::write(home.config(), text).unwrap();
        let (_, findings) = of_config(&home.config());
        let port = findings
            .into_iter()
            .find(|finding| finding["check"] == "data port");
        port.unwrap()["detail"].as_str().unwrap().to_owned()
    };
    assert!(set(server.data.to_string()).ends_with("is served by this service"));
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    // A listener that ends the connection, so that nothing waits for it.
    let ended = std::thread::spawn(move || drop(other.accept().unwrap()));
    assert!(set(address.to_string()).ends_with("is in use by another program"));
    ended.join().unwrap();
    assert!(set(address.to_string()).ends_with("is free"));
    server.stop();
}
