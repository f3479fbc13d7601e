//! The messages of batches: defaults at the top, items that may replace them, and one result an item.

use std::collections::HashMap;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::OVERHEAD_KC_XAES;
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_proto::v1::{
    BatchDecryptRequest, BatchDecryptResponse, BatchEncryptRequest, BatchEncryptResponse,
    BatchReEncryptRequest, BatchReEncryptResponse, ContextPair, DecryptResult, EncryptResult,
    ReEncryptResult,
};

use super::{context, field_name, field_size, key_name};
use crate::access::mask::kind::MAX_MASKED_BYTES;
use crate::grpc::status::item_error;
use crate::service::Limits;
use crate::service::batch::{BatchDecrypt, BatchEncrypt, DecryptItem, EncryptItem, Results};
use crate::service::failure::Failure;
use crate::service::field::{Opened, Sealed};
use crate::service::reencrypt::{BatchReEncrypt, ReEncrypted};
use crate::service::resource::{FieldName, KeyName};

/// What a result adds around its value in a reply, bytes: tags, lengths, version. An item that fails takes no more than
/// [`ERROR_BYTES`].
const RESULT_BYTES: usize = 24;
/// The longest error of an item, bytes.
const ERROR_BYTES: usize = 384;
// What a mask shows may be longer than the ciphertext that it is counted as.
const _: () = assert!(MAX_MASKED_BYTES <= ERROR_BYTES);

/// What a result takes in a reply at most beside the bytes that its item had, bytes.
pub const REPLY_ITEM_BYTES: usize = RESULT_BYTES + ERROR_BYTES;

/// What a BatchEncrypt asks for.
///
/// # Errors
/// The whole batch is refused if its defaults are not valid or it is beyond a limit.
pub fn encrypt(request: BatchEncryptRequest, limits: &Limits) -> Result<BatchEncrypt, Failure> {
    batch_size(request.items.len(), limits)?;
    reply_size(
        request
            .items
            .iter()
            .map(|item| item.plaintext.len() + OVERHEAD_KC_XAES),
        limits,
    )?;
    check_default(&request.key, |text| key_name("key", text).map(drop))?;
    check_default(&request.field, |text| field_name(text).map(drop))?;
    let shared = context(&request.context)?;
    let default = (request.key, request.field);
    let mut targets = Distinct::default();
    let parse_target = |(key, field): &(String, String)| {
        Ok((key_name("key", key.clone())?, field_name(field.clone())?))
    };
    let mut parse = |item: fieldkeep_proto::v1::EncryptItem| {
        field_size(item.plaintext.len(), limits.field_bytes)?;
        let target = if item.key.is_empty() && item.field.is_empty() {
            targets.default_index(&default, parse_target)?
        } else {
            let own = (
                or_default(item.key, &default.0),
                or_default(item.field, &default.1),
            );
            targets.index(own, parse_target)?
        };
        Ok(EncryptItem {
            target,
            context: own_context(&item.context)?,
            plaintext: item.plaintext,
        })
    };
    let items = request.items.into_iter().map(&mut parse).collect();
    Ok(BatchEncrypt {
        targets: targets.values,
        shared,
        items,
    })
}

/// The reply of a BatchEncrypt.
#[must_use]
pub fn encrypted(results: Results<Sealed>) -> BatchEncryptResponse {
    let result = |result| match result {
        Ok(Sealed {
            ciphertext,
            version,
        }) => EncryptResult {
            ciphertext,
            version,
            error: None,
        },
        Err(failure) => EncryptResult {
            error: Some(item_error(&failure)),
            ..Default::default()
        },
    };
    BatchEncryptResponse {
        results: results.into_iter().map(result).collect(),
    }
}

/// What a BatchDecrypt asks for.
///
/// # Errors
/// As [`encrypt`].
pub fn decrypt(request: BatchDecryptRequest, limits: &Limits) -> Result<BatchDecrypt, Failure> {
    batch_size(request.items.len(), limits)?;
    reply_size(
        request.items.iter().map(|item| item.ciphertext.len()),
        limits,
    )?;
    check_default(&request.field, |text| field_name(text).map(drop))?;
    let shared = context(&request.context)?;
    let mut fields = Fields::new(request.field);
    let mut parse = |item: fieldkeep_proto::v1::DecryptItem| {
        fields.item(item.ciphertext, item.field, &item.context, limits)
    };
    let items = request.items.into_iter().map(&mut parse).collect();
    Ok(BatchDecrypt {
        fields: fields.distinct.values,
        shared,
        items,
    })
}

/// The reply of a BatchDecrypt.
#[must_use]
pub fn decrypted(results: Results<Opened>) -> BatchDecryptResponse {
    let result = |result| match result {
        Ok(Opened { plaintext, masked }) => DecryptResult {
            plaintext,
            error: None,
            masked,
        },
        Err(failure) => DecryptResult {
            error: Some(item_error(&failure)),
            ..Default::default()
        },
    };
    BatchDecryptResponse {
        results: results.into_iter().map(result).collect(),
    }
}

/// What a BatchReEncrypt asks for.
///
/// # Errors
/// As [`encrypt`].
pub fn reencrypt(
    request: BatchReEncryptRequest,
    limits: &Limits,
) -> Result<BatchReEncrypt, Failure> {
    batch_size(request.items.len(), limits)?;
    reply_size(
        request.items.iter().map(|item| item.ciphertext.len()),
        limits,
    )?;
    check_default(&request.field, |text| field_name(text).map(drop))?;
    check_default(&request.destination_key, |text| {
        key_name("destination_key", text).map(drop)
    })?;
    let shared = context(&request.context)?;
    let default_destination = request.destination_key;
    let mut fields = Fields::new(request.field);
    let mut destinations: Distinct<String, KeyName> = Distinct::default();
    let mut parse = |item: fieldkeep_proto::v1::ReEncryptItem| {
        let parse_key = |name: &String| key_name("destination_key", name.clone());
        let destination = match (
            item.destination_key.is_empty(),
            default_destination.is_empty(),
        ) {
            (true, true) => None,
            (true, false) => Some(destinations.default_index(&default_destination, parse_key)?),
            (false, _) => Some(destinations.index(item.destination_key, parse_key)?),
        };
        let item = fields.item(item.ciphertext, item.field, &item.context, limits)?;
        Ok((item, destination))
    };
    let items = request.items.into_iter().map(&mut parse).collect();
    Ok(BatchReEncrypt {
        fields: fields.distinct.values,
        destinations: destinations.values,
        shared,
        items,
    })
}

/// The reply of a BatchReEncrypt.
#[must_use]
pub fn reencrypted(results: Results<ReEncrypted>) -> BatchReEncryptResponse {
    let result = |result| match result {
        Ok(ReEncrypted {
            ciphertext,
            version,
            changed,
        }) => ReEncryptResult {
            ciphertext,
            version,
            changed,
            error: None,
        },
        Err(failure) => ReEncryptResult {
            error: Some(item_error(&failure)),
            ..Default::default()
        },
    };
    BatchReEncryptResponse {
        results: results.into_iter().map(result).collect(),
    }
}

fn batch_size(items: usize, limits: &Limits) -> Result<(), Failure> {
    let limit = limits.batch_items;
    if items > limit {
        return Err(Failure::BatchTooLarge { items, limit });
    }
    Ok(())
}

/// Refuses a batch whose reply could be too long, before any work is done for it.
fn reply_size(values: impl Iterator<Item = usize>, limits: &Limits) -> Result<(), Failure> {
    let limit = limits.reply_bytes;
    let bytes = values
        .map(|bytes| RESULT_BYTES + bytes.max(ERROR_BYTES))
        .sum();
    if bytes > limit {
        return Err(Failure::ReplyTooLarge { bytes, limit });
    }
    Ok(())
}

/// A default that is there must be valid, whether or not an item uses it.
fn check_default(
    text: &str,
    check: impl FnOnce(String) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if text.is_empty() {
        Ok(())
    } else {
        check(text.to_owned())
    }
}

fn or_default(own: String, default: &str) -> String {
    if own.is_empty() {
        default.to_owned()
    } else {
        own
    }
}

/// The context of an item, if it has any pair.
fn own_context(pairs: &[ContextPair]) -> Result<Option<EncodedContext>, Failure> {
    if pairs.is_empty() {
        Ok(None)
    } else {
        context(pairs).map(Some)
    }
}

/// The distinct fields of a batch.
struct Fields {
    default: String,
    distinct: Distinct<String, FieldName>,
}

impl Fields {
    fn new(default: String) -> Self {
        Self {
            default,
            distinct: Distinct::default(),
        }
    }

    fn item(
        &mut self,
        ciphertext: Bytes,
        field: String,
        pairs: &[ContextPair],
        limits: &Limits,
    ) -> Result<DecryptItem, Failure> {
        field_size(ciphertext.len(), limits.field_bytes + OVERHEAD_KC_XAES)?;
        let parse = |name: &String| field_name(name.clone());
        let field = if field.is_empty() {
            self.distinct.default_index(&self.default, parse)?
        } else {
            self.distinct.index(field, parse)?
        };
        Ok(DecryptItem {
            field,
            context: own_context(pairs)?,
            ciphertext,
        })
    }
}

/// Values that are parsed once for each distinct text. Most items use the default, which costs no look-up; of the others
/// neighbours are mostly alike, so the last one is looked at first.
struct Distinct<K, V> {
    index: HashMap<K, usize>,
    default: Option<usize>,
    last: Option<(K, usize)>,
    values: Vec<V>,
}

impl<K, V> Default for Distinct<K, V> {
    fn default() -> Self {
        Self {
            index: HashMap::new(),
            default: None,
            last: None,
            values: Vec::new(),
        }
    }
}

impl<K: std::hash::Hash + Eq + Clone, V> Distinct<K, V> {
    /// The index of the default text's value.
    fn default_index(
        &mut self,
        key: &K,
        parse: impl FnOnce(&K) -> Result<V, Failure>,
    ) -> Result<usize, Failure> {
        if let Some(index) = self.default {
            return Ok(index);
        }
        let index = self.index(key.clone(), parse)?;
        self.default = Some(index);
        Ok(index)
    }

    fn index(
        &mut self,
        key: K,
        parse: impl FnOnce(&K) -> Result<V, Failure>,
    ) -> Result<usize, Failure> {
        if let Some((last, index)) = &self.last
            && *last == key
        {
            return Ok(*index);
        }
        let index = match self.index.get(&key) {
            Some(&index) => index,
            None => {
                self.values.push(parse(&key)?);
                let index = self.values.len() - 1;
                self.index.insert(key.clone(), index);
                index
            }
        };
        self.last = Some((key, index));
        Ok(index)
    }
}
