//! The addresses of a service: free, or served by it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::init::reachable;
use super::Findings;
use crate::config::Config;

const PATIENCE: Duration = Duration::from_secs(5);

/// Each listener's address.
pub(super) async fn check(findings: &mut Findings, config: &Config) {
    let mut runs = false;
    let listeners = [
        ("data port", config.listen.data),
        ("admin port", config.listen.admin),
        ("metrics port", config.listen.metrics),
    ];
    for (check, address) in listeners {
        if address.port() == 0 {
            findings.ok(check, "a free one at each start");
            continue;
        }
        match TcpListener::bind(address) {
            Ok(_) => findings.ok(check, format_args!("{address} is free")),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                // Metrics are plain HTTP: they are taken for ours if the others are.
                runs = check == "metrics port" && runs || is_served(config, address).await;
                if runs {
                    findings.ok(check, format_args!("{address} is served by this service"));
                } else {
                    let detail = format!("{address} is in use by another program");
                    findings.fail(
                        check,
                        detail,
                        "stop that program, or change the address under `[listen]`",
                    );
                }
            }
            Err(error) => {
                let remedy =
                    "set an address of this machine and a port above 1023 under `[listen]`";
                findings.fail(
                    check,
                    format_args!("cannot listen on {address}: {error}"),
                    remedy,
                );
            }
        }
    }
}

/// Whether a server with a certificate of the service's CA answers there. No certificate of a caller is shown.
async fn is_served(config: &Config, address: SocketAddr) -> bool {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(&config.tls.ca);
    if !ca.is_ok_and(|ca| roots.add(ca).is_ok()) {
        return false;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let Ok(tls) = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
    else {
        return false;
    };
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // Every certificate of `init` has this name.
    let Ok(name) = ServerName::try_from("localhost") else {
        return false;
    };
    let handshake = async {
        let socket = TcpStream::connect(reachable(address)).await?;
        TlsConnector::from(Arc::new(tls))
            .connect(name, socket)
            .await
    };
    matches!(tokio::time::timeout(PATIENCE, handshake).await, Ok(Ok(_)))
}
