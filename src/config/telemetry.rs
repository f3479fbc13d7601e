//! Where traces and metrics are sent.

use std::{env, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::ConfigError;

/// A collector that is sent traces and metrics (OTLP, protobuf over HTTP).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Where it listens.
    pub endpoint: CollectorAddress,
    /// Headers that go with each request, and the environment variables that hold their values.
    pub headers: Vec<(HeaderName, String)>,
    /// Whether traces are sent.
    pub traces: bool,
    /// Of a million traces that begin here, so many are kept. A caller decides for its own.
    pub sample_per_million: u32,
    /// Whether metrics are sent.
    pub metrics: bool,
    /// How often metrics are sent.
    pub metrics_interval: Duration,
    /// `service.name` of everything that is sent.
    pub service_name: String,
    /// `service.instance.id` of everything that is sent.
    pub service_instance: String,
}

/// The parts of `http://authority/path` that a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorAddress {
    /// Host and port.
    pub authority: String,
    /// What stands before `/v1/traces`; empty, or begins with `/` and ends without one.
    pub path: String,
}

impl CollectorAddress {
    /// Parses `http://host:port`, with or without a path.
    ///
    /// # Errors
    /// What is wrong and what to do, without the setting's name.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: http::Uri = text
            .parse()
            .map_err(|_| "not a URL; name the collector as in `http://127.0.0.1:4318`")?;
        if uri.scheme_str() != Some("http") {
            return Err(
                "only `http://` is spoken; run a collector on this host and let it send on over TLS",
            );
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("no user or password can be in it; use `headers_env`");
        }
        if uri.query().is_some() {
            return Err("it must not have a query");
        }
        let authority = match uri.port() {
            Some(_) => authority.to_owned(),
            None => format!("{authority}:4318"),
        };
        Ok(Self {
            authority,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl OtlpConfig {
    /// The headers with their values, read from the environment.
    ///
    /// # Errors
    /// A variable is not set, or its value is no value of a header.
    pub fn headers(&self) -> Result<HeaderMap, ConfigError> {
        let mut headers = HeaderMap::new();
        for (name, variable) in &self.headers {
            let refuse = |problem| ConfigError::HeaderVariable {
                variable: variable.clone(),
                header: name.to_string(),
                problem,
            };
            let value = env::var(variable).map_err(|_| refuse("is not set, or is not UTF-8"))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| refuse("holds what cannot be the value of a header"))?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }
}
