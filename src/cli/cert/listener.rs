//! Which of the two listeners a new identity is told to use.
//!
//! A certificate is issued over the admin listener, but an application belongs on the data listener, which may be the only
//! one that it can reach. The service does not tell where that is. `init` and `dev` put it one port below, so it is looked
//! for there, as the new identity: what answers with a certificate of the CA and does not serve its state is it.

use std::path::Path;
use std::time::Duration;

use fieldkeep_client::Client;
use http::uri::Authority;
use tokio::net::TcpStream;
use tonic::Code;

/// How long looking may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The address of the data listener beside the admin listener at `admin`, if it is found. `ca`, `certificate` and `key` are
/// files of an identity.
pub(super) async fn find_data_listener(
    admin: &str,
    ca: &Path,
    certificate: &Path,
    key: &Path,
) -> Option<String> {
    let address = one_port_below(admin)?;
    // The SDK would try again where nobody listens.
    let socket = TcpStream::connect(address.trim_start_matches("https://"));
    tokio::time::timeout(PATIENCE, socket).await.ok()?.ok()?;
    let client = Client::builder()
        .address(&address)
        .ca_file(ca)
        .identity_files(certificate, key)
        .connections(1)
        .timeout(PATIENCE)
        .build()
        .ok()?;
    let answer = client.status().await;
    let is_data = answer.is_err_and(|error| error.code() == Some(Code::Unimplemented));
    is_data.then_some(address)
}

fn one_port_below(address: &str) -> Option<String> {
    let authority = address.strip_prefix("https://").unwrap_or(address);
    let authority: Authority = authority.trim_end_matches('/').parse().ok()?;
    let port = authority.port_u16()?.checked_sub(1)?;
    Some(format!("https://{}:{port}", authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_below_keeps_the_host() {
        for (admin, expected) in [
            ("https://127.0.0.1:7421", Some("https://127.0.0.1:7420")),
            ("https://[::1]:7421", Some("https://[::1]:7420")),
            (
                "https://keys.example.com:9001",
                Some("https://keys.example.com:9000"),
            ),
            ("https://keys.example.com", None),
            (
                "keys.example.com:9001",
                Some("https://keys.example.com:9000"),
            ),
            ("https://127.0.0.1:7421/", Some("https://127.0.0.1:7420")),
            ("https://127.0.0.1:0", None),
            ("", None),
        ] {
            assert_eq!(one_port_below(admin).as_deref(), expected, "{admin}");
        }
    }
}
