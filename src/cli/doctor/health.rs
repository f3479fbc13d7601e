//! What the health service answers, on either listener and to every identity: whether calls are served, and by what clock.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataMap;
use tonic::transport::{Endpoint, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::super::output::rfc3339;
use super::Findings;

const PATIENCE: Duration = Duration::from_secs(5);
/// The port of an address that has none, as in the SDK.
const DEFAULT_PORT: u16 = 7420;
/// Clocks that differ by less are as good as equal, seconds.
const CLOCK_TOLERANCE_S: u64 = 60;
const NTP: &str = "set both clocks, and keep them right with NTP";

/// An answer of the health service.
pub(super) struct Health {
    is_serving: bool,
    /// The service's clock, from the `date` header that HTTP servers send; `None`: there was none.
    clock: Option<i64>,
}

/// Asks the service at `address` as an identity. None if it does not answer; a call of the SDK says why better.
pub(super) async fn ask(
    address: &str,
    ca: &Path,
    certificate: &Path,
    key: &Path,
) -> Option<Health> {
    let tls = client_config(ca, certificate, key)?;
    tokio::time::timeout(PATIENCE, check(address, tls))
        .await
        .ok()?
}

async fn check(address: &str, tls: ClientConfig) -> Option<Health> {
    let authority = address.strip_prefix("https://").unwrap_or(address);
    // The TLS is the connector's, not tonic's.
    let uri: Uri = format!("http://{authority}").parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    let name = ServerName::try_from(host.clone()).ok()?;
    let tls = TlsConnector::from(Arc::new(tls));
    let connect = tower::service_fn(move |_: Uri| {
        let (tls, name, host) = (tls.clone(), name.clone(), host.clone());
        async move {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            Ok::<_, io::Error>(TokioIo::new(tls.connect(name, socket).await?))
        }
    });
    let endpoint = Endpoint::from(uri);
    let channel = endpoint.connect_with_connector(connect).await.ok()?;
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest::default()).await.ok()?;
    Some(Health {
        is_serving: answer.get_ref().status() == ServingStatus::Serving,
        clock: date(answer.metadata()),
    })
}

fn client_config(ca: &Path, certificate: &Path, key: &Path) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).ok()?).ok()?;
    let chain = CertificateDer::pem_file_iter(certificate).ok()?;
    let chain = chain.collect::<Result<Vec<_>, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_file(key).ok()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .ok()?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Some(tls)
}

/// Unix seconds of the `date` header (RFC 9110, section 6.6.1).
fn date(headers: &MetadataMap) -> Option<i64> {
    let text = headers.get("date")?.to_str().ok()?;
    let time = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(time.unix_timestamp())
}

impl Health {
    /// Adds what it means. `now` is this machine's clock at the answer, Unix seconds.
    pub(super) fn judge(&self, findings: &mut Findings, now: i64) {
        if self.is_serving {
            findings.ok("health", "the service serves calls");
        } else {
            findings.fail(
                "health",
                "the service does not serve calls: its audit trail cannot be written, or it is being stopped",
                "look at its log and at the free space of its disk; it goes on by itself once the trail can be written",
            );
        }
        let Some(theirs) = self.clock else { return };
        let apart = theirs.abs_diff(now);
        if apart <= CLOCK_TOLERANCE_S {
            return findings.ok("clocks", "the service's and this machine's agree");
        }
        let (here, there) = (rfc3339(now), rfc3339(theirs));
        let detail = format!(
            "{apart} s apart: it is {} here and {} at the service",
            here.as_str().unwrap_or("-"),
            there.as_str().unwrap_or("-")
        );
        findings.fail("clocks", detail, NTP);
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn found(is_serving: bool, clock: Option<i64>) -> Vec<(State, &'static str)> {
        let mut findings = Findings::default();
        Health { is_serving, clock }.judge(&mut findings, 1_000_000_000);
        let found = findings.0.iter();
        found
            .map(|finding| (finding.state, finding.check))
            .collect()
    }

    #[test]
    fn clocks_may_be_a_minute_apart_in_either_direction() {
        for (theirs, state) in [
            (1_000_000_000, State::Ok),
            (1_000_000_060, State::Ok),
            (999_999_940, State::Ok),
            (1_000_000_061, State::Fail),
            (999_999_939, State::Fail),
            (i64::MIN, State::Fail),
        ] {
            let expected = [(State::Ok, "health"), (state, "clocks")];
            assert_eq!(found(true, Some(theirs)), expected, "{theirs}");
        }
        assert_eq!(found(true, None), [(State::Ok, "health")]);
        assert_eq!(found(false, None), [(State::Fail, "health")]);
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let mut headers = MetadataMap::new();
        assert_eq!(date(&headers), None);
        headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(date(&headers), Some(784_111_777));
        headers.insert("date", "yesterday".parse().unwrap());
        assert_eq!(date(&headers), None);
    }
}
