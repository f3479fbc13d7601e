//! Why a client cannot be built.

use std::{io, path::PathBuf};

use crate::{
    CredentialProblem,
    identity::{Origin, Part, PemProblem},
};

/// What is wrong with a client's settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is missing or empty.
    #[error(
        "the environment variable `{name}` is not set; it is {what} (`fieldkeep dev` prints all four for a service of your own)"
    )]
    MissingVariable {
        /// The variable.
        name: &'static str,
        /// What belongs into it.
        what: &'static str,
    },
    /// An environment variable is not UTF-8.
    #[error("the environment variable `{name}` is not UTF-8 text")]
    VariableNotText {
        /// The variable.
        name: &'static str,
    },
    /// A setting is missing.
    #[error("the client has no {what}; call `{call}`")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// How to give it.
        call: &'static str,
    },
    /// The address cannot be understood.
    #[error(
        "`{address}` is not the address of a service; write `https://host:port` or `host:port`"
    )]
    BadAddress {
        /// The address.
        address: Box<str>,
    },
    /// A file cannot be read.
    #[error("cannot read the {what} file `{}`: {source}", path.display())]
    Unreadable {
        /// What the file is for.
        what: Part,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or text does not hold what it should.
    #[error("the {what} {origin} {problem}")]
    BadPem {
        /// What it is for.
        what: Part,
        /// The file, or that it was given in memory.
        origin: Origin,
        /// What is wrong with it.
        problem: PemProblem,
    },
    /// A token or an API key is none that can be.
    #[error("the {what} {origin} {problem}")]
    BadCredential {
        /// What it is.
        what: Part,
        /// The file, or that it was given in memory.
        origin: Origin,
        /// What is wrong with it.
        problem: CredentialProblem,
    },
    /// Two variables say who the client is by a token or an API key.
    #[error("the environment variables `{one}` and `{other}` are both set; leave one of them out")]
    TwoCredentials {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// The private key is not that of the certificate.
    #[error("the private key {key} does not belong to the certificate {certificate}")]
    KeyMismatch {
        /// Where the key is from.
        key: Origin,
        /// Where the certificate is from.
        certificate: Origin,
    },
    /// TLS cannot use what it was given.
    #[error("the identity cannot be used for TLS 1.3: {0}")]
    Tls(#[source] rustls::Error),
    /// The client was built outside a Tokio runtime.
    #[error("the client has to be built inside a Tokio runtime, which runs its connection")]
    NoRuntime,
}
