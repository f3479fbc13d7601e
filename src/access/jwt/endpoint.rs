//! The address of something at an identity provider: `https`, or `http` on this host alone.

use std::net::IpAddr;

use http::Uri;

/// The longest URL, bytes.
const MAX_URL_BYTES: usize = 512;
/// Where OpenID Connect Discovery 1.0, section 4, has the provider's configuration.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A URL that keys may be fetched from, with its text as it was given: issuers are compared by bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    tls: bool,
    host: String,
    port: u16,
    target: String,
}

/// Why a text is no such URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It cannot be parsed, or is too long.
    #[error("is not a URL of at most 512 characters, such as `https://login.example.com`")]
    Malformed,
    /// It is neither `https` nor `http`, or it is `http` to another host.
    #[error(
        "must begin with `https://`; only on this host (`127.0.0.1`, `[::1]`, `localhost`) may it be `http://`"
    )]
    Insecure,
    /// It has a user, a query that does not belong there, or a fragment.
    #[error("must have no user, no password, no fragment, and as an issuer no query")]
    Extra,
}

impl Endpoint {
    /// Parses a URL.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > MAX_URL_BYTES || !printable {
            return Err(EndpointError::Malformed);
        }
        // The parser leaves a fragment out without a word.
        if text.contains('#') {
            return Err(EndpointError::Extra);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError::Malformed)?;
        let authority = uri.authority().ok_or(EndpointError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::Extra);
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(EndpointError::Malformed);
        }
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_this_host(&host) => false,
            _ => return Err(EndpointError::Insecure),
        };
        let port = match authority.as_str().rsplit_once(':') {
            // What follows the last colon of `[::1]` is no port.
            Some((_, port)) if !port.ends_with(']') => {
                port.parse().map_err(|_| EndpointError::Malformed)?
            }
            _ if tls => 443,
            _ => 80,
        };
        let target = uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned();
        Ok(Endpoint {
            text: text.to_owned(),
            tls,
            host,
            port,
            target,
        })
    }

    /// Parses the identifier of an issuer, which has no query (OpenID Connect Discovery 1.0, section 2).
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn parse_issuer(text: &str) -> Result<Endpoint, EndpointError> {
        if text.contains('?') {
            return Err(EndpointError::Extra);
        }
        Endpoint::parse(text)
    }

    /// Where an issuer's configuration is.
    ///
    /// # Errors
    /// The issuer's URL leaves no room for it.
    pub(super) fn discovery(&self) -> Result<Endpoint, EndpointError> {
        Endpoint::parse(&format!("{}{DISCOVERY}", self.text.trim_end_matches('/')))
    }

    /// The text that was parsed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is `https`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host name or address, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as a request names them.
    pub(super) fn target(&self) -> &str {
        &self.target
    }
}

fn is_this_host(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url() {
        for (text, tls, host, port, target) in [
            (
                "https://login.example.com",
                true,
                "login.example.com",
                443,
                "/",
            ),
            (
                "https://login.example.com/t/1/",
                true,
                "login.example.com",
                443,
                "/t/1/",
            ),
            (
                "https://login.example.com:8443/k?x=1",
                true,
                "login.example.com",
                8443,
                "/k?x=1",
            ),
            ("http://127.0.0.1:8200/v1", false, "127.0.0.1", 8200, "/v1"),
            ("http://localhost", false, "localhost", 80, "/"),
            ("http://[::1]", false, "::1", 80, "/"),
            ("https://[2001:db8::1]:9443", true, "2001:db8::1", 9443, "/"),
        ] {
            let url = Endpoint::parse(text).unwrap();
            assert_eq!(
                (url.is_tls(), url.host(), url.port(), url.target()),
                (tls, host, port, target),
                "{text}"
            );
            assert_eq!(url.as_str(), text);
        }
    }

    #[test]
    fn plain_http_to_another_host() {
        for text in [
            "http://login.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "ftp://login.example.com",
            "file:///etc/passwd",
        ] {
            assert!(
                matches!(
                    Endpoint::parse(text),
                    Err(EndpointError::Insecure | EndpointError::Malformed)
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn parts_that_do_not_belong_there() {
        for text in [
            "https://user@login.example.com",
            "https://user:secret@login.example.com",
            "https://login.example.com#a",
            "http://localhost@evil.example.com",
        ] {
            assert_eq!(Endpoint::parse(text), Err(EndpointError::Extra), "{text}");
        }
        assert_eq!(
            Endpoint::parse_issuer("https://login.example.com?a"),
            Err(EndpointError::Extra)
        );
    }

    #[test]
    fn not_a_url() {
        let long = format!("https://login.example.com/{}", "a".repeat(600));
        for text in [
            "",
            "login.example.com",
            "/path",
            "https://",
            "https://a b",
            "https://a\n",
            "https://a:99999",
            &long,
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn discovery_is_below_the_issuer() {
        for (issuer, expected) in [
            (
                "https://a.example",
                "https://a.example/.well-known/openid-configuration",
            ),
            (
                "https://a.example/",
                "https://a.example/.well-known/openid-configuration",
            ),
            (
                "https://a.example/t/1",
                "https://a.example/t/1/.well-known/openid-configuration",
            ),
        ] {
            assert_eq!(
                Endpoint::parse(issuer)
                    .unwrap()
                    .discovery()
                    .unwrap()
                    .as_str(),
                expected
            );
        }
    }
}
