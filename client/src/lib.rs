//! The SDK of Fieldkeep: encrypts, decrypts and re-encrypts the sensitive fields of an application's records.
//!
//! ```no_run
//! # async fn example() -> Result<(), fieldkeep_client::Error> {
//! let client = fieldkeep_client::Client::from_env()?;
//! let text = client.field("pii", "customer.email").context("id", "42").encrypt_str("ada@example.org").await?;
//! assert!(text.starts_with("fk1:"));
//! let email = client.field("pii", "customer.email").context("id", "42").decrypt_str(&text).await?;
//! assert_eq!(email, "ada@example.org");
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is cheap to clone; clones share its few HTTP/2 connections ([`ClientBuilder::connections`]). Each is made
//! when a call needs it and made again when it breaks. The transport is TLS 1.3, nothing else. A client shows who it is by a
//! certificate ([`ClientBuilder::identity_files`]), by a token of an identity provider ([`ClientBuilder::token_file`]) or by an API
//! key ([`ClientBuilder::api_key_file`]). Files that change are taken over without a restart.
//!
//! **Deadlines.** Every call ends by its deadline: 10 seconds, or 60 for a batch ([`ClientBuilder::timeout`],
//! [`ClientBuilder::batch_timeout`]); the service is told, so that it stops work that nobody waits for.
//!
//! **Retries.** A call is tried at most three times, within its deadline, with growing and randomised pauses, and only
//! where a second try cannot do harm: when the connection could not be made, when it broke, and when the service says
//! that it is unavailable for a moment. Data calls can be repeated (at worst a ciphertext is made that nobody uses);
//! changes carry an id made here, by which the service recognises a repetition.
//! [`Client::issue_certificate`] has no such id and is only tried again if it was never sent.
//!
//! **Errors** have a [kind](Error::kind) to branch on and, if the service gave one, a stable
//! [reason](Error::reason), listed in [`reason`].
//!
//! **Many values.** [`Client::encrypt_batch`] takes any number and splits them by the service's limits;
//! [`Client::encrypt_stream`] takes a [`Stream`](futures_util::Stream) that need not fit into memory.
//!
//! **Features.** `testing`: `Fieldkeep::in_memory()`, the service in a test's own process, and `Faults`. `otel`: calls carry
//! the W3C trace context of the current OpenTelemetry context, which the spans of `tracing` set by way of
//! `tracing-opentelemetry`.
//!
//! Administrative calls return the messages of `fieldkeep_proto::v1` as they are.

mod access;
mod admin;
mod api_keys;
mod audit;
mod batch;
mod bearer;
mod call;
mod certificates;
mod codec;
mod config;
mod connect;
mod error;
mod field;
mod identity;
mod issuers;
mod items;
mod join;
mod keep;
mod limits;
mod masks;
mod message;
mod pages;
mod pool;
pub mod reason;
mod receipts;
mod renew;
mod request;
mod request_id;
mod stream;
#[cfg(feature = "testing")]
mod testing;
#[cfg(feature = "otel")]
mod trace;
mod wire;

pub use access::{Grants, Groups};
pub use admin::{Keys, Tenants};
pub use api_keys::ApiKeys;
pub use audit::{Audit, SignedReport, Tail};
pub use batch::{MAX_BATCH_ITEMS, MAX_REQUEST_BYTES};
pub use bearer::CredentialProblem;
pub use call::Client;
pub use certificates::Certificates;
pub use config::{ClientBuilder, ConfigError};
pub use connect::ConnectError;
pub use error::{Error, ErrorKind, ServerError};
pub use field::{FieldCall, ReEncrypted, ReEncryptedText};
pub use identity::{Origin, Part, PemProblem};
pub use issuers::Issuers;
pub use items::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, DecryptItem, Decrypted, EncryptItem, Encrypted,
    ItemError, ReEncryptItem,
};
pub use join::{Joined, ServiceCa, join};
pub use limits::Limits;
pub use masks::Masks;
pub use pages::Pages;
pub use receipts::{Receipt, Receipts};
pub use renew::{Kept, Renewed};
pub use stream::Results;
#[cfg(feature = "testing")]
pub use testing::{Faults, Fieldkeep, InMemory};
