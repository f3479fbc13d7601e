//! A caller's settings, and the connection with them.

use std::time::Duration;

use fieldkeep_client::{Client, Error, reason};
use fieldkeep_proto::v1;
use tonic::Code;

use super::super::connection::ConnectionArgs;
use super::super::failure::Failure;
use super::super::init::unix_now;
use super::Findings;
use super::certificates::{Checked, Signer};
use super::{bearer, files, health};
use crate::version::VERSION;

const PATIENCE: Duration = Duration::from_secs(15);
const SETTINGS: &str = "set FIELDKEEP_CA, FIELDKEEP_CERT and FIELDKEEP_KEY, or use a profile; `fieldkeep dev`, `fieldkeep init` and `fieldkeep cert issue` print the lines. A token (FIELDKEEP_TOKEN_FILE) or an API key (FIELDKEEP_API_KEY) takes the place of the last two";

/// The identity's files, and a call as it.
pub(super) async fn check(findings: &mut Findings, connection: &ConnectionArgs, now: i64) {
    if let (ca, Some(shown)) = (connection.files().0, connection.bearer()) {
        if ca.is_none() {
            let detail = "no CA is given, by which the service is known";
            return findings.fail("connection settings", detail, SETTINGS);
        }
        bearer::check(findings, shown, now);
        // The health service answers whoever has a certificate.
        return match connection.client() {
            Ok(client) => call(findings, &client, connection.address()).await,
            Err(failure) => failed(findings, &failure),
        };
    }
    let (Some(ca), Some(certificate), Some(key)) = connection.files() else {
        let detail = "no CA, certificate or key is given, so nothing can be asked";
        return findings.fail("connection settings", detail, SETTINGS);
    };
    files::private_file(findings, "own key", key, None);
    let checked = Checked {
        check: "own certificate",
        ca,
        signer: Signer::CaOrAdded,
        certificate,
        key,
        renewal: "renew it with `fieldkeep cert renew`; after its end that takes a new join token",
        remedy: "get a new one: an admin makes a join token with `fieldkeep cert join-token create NAME`, and `fieldkeep join` uses it here",
    };
    checked.check(findings, now);
    let client = match connection.client() {
        Ok(client) => client,
        Err(failure) => return failed(findings, &failure),
    };
    let address = connection.address();
    // The time is taken again: connecting may have taken seconds.
    let health = health::ask(address, ca, certificate, key).await;
    let answered = i64::try_from(unix_now()).unwrap_or(i64::MAX);
    call(findings, &client, address).await;
    if let Some(health) = health {
        health.judge(findings, answered);
    }
}

/// Asks the service for its state, which says at least whether it knows the caller.
async fn call(findings: &mut Findings, client: &Client, address: &str) {
    match tokio::time::timeout(PATIENCE, client.status()).await {
        Ok(Ok(status)) => {
            findings.ok("connection", format_args!("{address}, as an admin"));
            compare(findings, &status);
        }
        Ok(Err(error)) if error.code() == Some(Code::Unimplemented) => {
            findings.ok(
                "connection",
                format_args!("{address}, the data listener; it does not tell its state"),
            );
        }
        Ok(Err(error)) if error.reason() == Some(reason::PERMISSION_DENIED) => {
            findings.ok(
                "connection",
                format_args!("{address}; the state is for admins, and this identity is none"),
            );
        }
        Ok(Err(error)) => failed(findings, &Failure::from(error)),
        Err(_) => failed(
            findings,
            &Failure::from(Error::DeadlineExceeded {
                timeout: PATIENCE,
                last: None,
            }),
        ),
    }
}

fn failed(findings: &mut Findings, failure: &Failure) {
    let remedy = failure.remedy().unwrap_or(
        "the service's log says more; `fieldkeep doctor --config FILE` on its machine checks it",
    );
    findings.fail("connection", failure.in_one_line(), remedy);
}

/// What the service says of itself.
fn compare(findings: &mut Findings, status: &v1::GetStatusResponse) {
    let own = VERSION;
    if status.version == own {
        findings.ok("version", own);
    } else {
        let detail = format!("the service is {}, this command {own}", status.version);
        findings.warn("version", detail, "use the same version on both sides");
    }
}
