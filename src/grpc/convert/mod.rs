//! Between messages and domain types, and nowhere else: what leaves here is valid.

pub mod access;
pub mod admin;
pub mod api_keys;
pub mod audit;
pub mod batch;
pub mod certificates;
pub mod field;
pub mod issuers;
pub mod limits;
pub mod masks;
pub mod rotation;
#[cfg(test)]
mod tests;

use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::names::Name;
use fieldkeep_proto::v1::ContextPair;
use prost::Message;

use crate::service::failure::Failure;
use crate::service::keys::Page;
use crate::service::resource::{FieldName, KeyName};

/// The entries of a page when none are asked for.
const DEFAULT_PAGE: u32 = 100;
/// The most entries of a page.
const MAX_PAGE: u32 = 1_000;
/// The longest page token, characters.
const MAX_TOKEN: usize = 512;

fn key_name(part: &'static str, text: String) -> Result<KeyName, Failure> {
    KeyName::parse(text).map_err(|error| Failure::invalid(part, error.to_string()))
}

fn field_name(text: String) -> Result<FieldName, Failure> {
    FieldName::parse(text).map_err(|error| Failure::invalid("field", error.to_string()))
}

fn context(pairs: &[ContextPair]) -> Result<EncodedContext, Failure> {
    EncodedContext::encode(
        pairs
            .iter()
            .map(|pair| (pair.name.as_str(), pair.value.as_str())),
    )
    .map_err(|error| Failure::invalid("context", error.to_string()))
}

fn field_size(bytes: usize, limit: usize) -> Result<(), Failure> {
    if bytes > limit {
        return Err(Failure::FieldTooLarge { bytes, limit });
    }
    Ok(())
}

/// Refuses a message that is longer than its RPC allows.
///
/// # Errors
/// [`Failure::RequestTooLarge`].
pub fn request_size(message: &impl Message, limit: usize) -> Result<usize, Failure> {
    let bytes = message.encoded_len();
    if bytes > limit {
        return Err(Failure::RequestTooLarge { limit });
    }
    Ok(bytes)
}

fn tenant_name(part: &'static str, text: &str) -> Result<Name, Failure> {
    let name = text.strip_prefix("tenants/").unwrap_or(text);
    Name::parse(name)
        .map_err(|error| Failure::invalid(part, format!("not `tenants/{{tenant}}`: {error}")))
}

/// The tenant of a listing; empty: none.
fn parent(text: &str) -> Result<Option<Name>, Failure> {
    match text {
        "" => Ok(None),
        text if text.starts_with("tenants/") => tenant_name("parent", text).map(Some),
        _ => Err(Failure::invalid("parent", "a parent is `tenants/{tenant}`")),
    }
}

fn page(page_size: u32, page_token: &str) -> Result<Page, Failure> {
    let limit = if page_size == 0 {
        DEFAULT_PAGE
    } else {
        page_size.min(MAX_PAGE)
    };
    let after = if page_token.is_empty() {
        None
    } else {
        Some(open_token(page_token)?)
    };
    Ok(Page {
        after,
        limit: limit as usize,
    })
}

/// A page token: the last name of a page, in base64url. Callers must not look into it.
fn token(last: Option<String>) -> String {
    last.map(|name| data_encoding::BASE64URL_NOPAD.encode(name.as_bytes()))
        .unwrap_or_default()
}

fn open_token(token: &str) -> Result<String, Failure> {
    let refused = || Failure::invalid("page_token", "not a `next_page_token` of this listing");
    if token.len() > MAX_TOKEN {
        return Err(refused());
    }
    let name = data_encoding::BASE64URL_NOPAD
        .decode(token.as_bytes())
        .map_err(|_| refused())?;
    let name = String::from_utf8(name).map_err(|_| refused())?;
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(refused());
    }
    Ok(name)
}
