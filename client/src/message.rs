//! What batches and streams of the three kinds have in common: a message with defaults and items, and one result an item.

use fieldkeep_crypto::ciphertext::OVERHEAD_KC_XAES;
use fieldkeep_proto::v1;
use prost::{Message, length_delimiter_len};

use crate::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, DecryptItem, Decrypted, EncryptItem, Encrypted,
    Error, ItemError, MAX_BATCH_ITEMS, MAX_REQUEST_BYTES, ReEncryptItem, ReEncrypted, reason,
};

/// The longest reply that the service makes, bytes (its `Limits::reply_bytes`).
const MAX_REPLY_BYTES: usize = 16 * 1024 * 1024 - 64 * 1024;
/// What the service reckons for a result beside its value, and for a value or an error at least, bytes.
const RESULT_BYTES: usize = 24;
const LEAST_VALUE_BYTES: usize = 384;

/// A request for many fields, without its items: the defaults.
pub(crate) trait Batch: Message + Clone + Default + 'static {
    /// An item as users give it.
    type Item: Send + 'static;
    type WireItem: Message;
    type Reply: Message + Default + 'static;
    type StreamReply: Message + Default + 'static;
    type Result;
    /// What an item that succeeded gives.
    type Output: Send + 'static;

    const BATCH_PATH: &'static str;
    const STREAM_PATH: &'static str;

    fn item(item: Self::Item) -> Self::WireItem;
    /// The most bytes that the item's value has in a reply.
    fn value_bytes(item: &Self::WireItem) -> usize;
    fn with(&self, items: Vec<Self::WireItem>) -> Self;
    fn results(reply: Self::Reply) -> Vec<Self::Result>;
    fn stream_results(reply: Self::StreamReply) -> Result<Vec<Self::Result>, v1::ItemError>;
    /// The receipt of a message of a stream, encoded; empty if it has none.
    fn receipt(reply: &Self::StreamReply) -> &[u8];
    fn output(result: Self::Result) -> Result<Self::Output, ItemError>;
}

/// What one message may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) items: usize,
    pub(crate) request_bytes: usize,
}

impl Limits {
    /// The service's.
    pub(crate) const CALL: Self = Self {
        items: MAX_BATCH_ITEMS,
        request_bytes: MAX_REQUEST_BYTES,
    };
}

/// Items that go into one message.
pub(crate) struct Group<B: Batch> {
    items: Vec<B::WireItem>,
    request_bytes: usize,
    reply_bytes: usize,
}

/// What became of an item that was to be added to a group.
pub(crate) enum Added<I> {
    Yes,
    /// The group is full; the item belongs into the next one.
    Full(I),
    /// No call can hold it.
    TooLong(Error),
}

impl<B: Batch> Group<B> {
    pub(crate) fn new(defaults: &B) -> Self {
        Self {
            items: Vec::new(),
            request_bytes: defaults.encoded_len(),
            reply_bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn into_message(self, defaults: &B) -> B {
        defaults.with(self.items)
    }

    /// Adds `item` if it fits. A group that is empty takes an item beyond `limits` that a call may have.
    pub(crate) fn add(&mut self, item: B::WireItem, limits: Limits) -> Added<B::WireItem> {
        let bytes = item.encoded_len();
        let request_bytes = self.request_bytes + 1 + length_delimiter_len(bytes) + bytes;
        let value_bytes = B::value_bytes(&item).max(LEAST_VALUE_BYTES);
        let reply_bytes = self.reply_bytes + RESULT_BYTES + value_bytes;
        let limits = if self.is_empty() {
            Limits::CALL
        } else {
            limits
        };
        if self.items.len() < limits.items
            && request_bytes <= limits.request_bytes
            && reply_bytes <= MAX_REPLY_BYTES
        {
            self.items.push(item);
            (self.request_bytes, self.reply_bytes) = (request_bytes, reply_bytes);
            Added::Yes
        } else if self.is_empty() {
            Added::TooLong(Error::Refused {
                reason: reason::REQUEST_TOO_LARGE,
                message: format!(
                    "the item and the batch's defaults have {request_bytes} bytes, and a request at most {MAX_REQUEST_BYTES}"
                )
                .into(),
            })
        } else {
            Added::Full(item)
        }
    }
}

/// The results of one message. Another number of results than items could pair values with the wrong rows, so such an
/// answer is refused as a whole.
pub(crate) fn outputs<B: Batch>(
    items: usize,
    results: Vec<B::Result>,
) -> Result<Vec<Result<B::Output, ItemError>>, Error> {
    if results.len() != items {
        return Err(Error::Reply {
            what: "the batch's results are not as many as its items",
        });
    }
    Ok(results.into_iter().map(B::output).collect())
}

impl Batch for v1::BatchEncryptRequest {
    type Item = EncryptItem;
    type WireItem = v1::EncryptItem;
    type Reply = v1::BatchEncryptResponse;
    type StreamReply = v1::EncryptStreamResponse;
    type Result = v1::EncryptResult;
    type Output = Encrypted;

    const BATCH_PATH: &'static str = "/fieldkeep.v1.FieldService/BatchEncrypt";
    const STREAM_PATH: &'static str = "/fieldkeep.v1.FieldService/EncryptStream";

    fn item(item: EncryptItem) -> v1::EncryptItem {
        v1::EncryptItem {
            plaintext: item.plaintext,
            context: pairs(item.context),
            key: item.key,
            field: item.field,
        }
    }

    fn value_bytes(item: &v1::EncryptItem) -> usize {
        item.plaintext.len() + OVERHEAD_KC_XAES
    }

    fn with(&self, items: Vec<v1::EncryptItem>) -> Self {
        Self {
            items,
            ..self.clone()
        }
    }

    fn results(reply: v1::BatchEncryptResponse) -> Vec<v1::EncryptResult> {
        reply.results
    }

    fn stream_results(
        reply: v1::EncryptStreamResponse,
    ) -> Result<Vec<v1::EncryptResult>, v1::ItemError> {
        reply.error.map_or(Ok(reply.results), Err)
    }

    fn receipt(reply: &v1::EncryptStreamResponse) -> &[u8] {
        &reply.receipt
    }

    fn output(result: v1::EncryptResult) -> Result<Encrypted, ItemError> {
        match result.error {
            Some(error) => Err(error.into()),
            None => Ok(Encrypted {
                ciphertext: result.ciphertext,
                version: result.version,
            }),
        }
    }
}

impl Batch for v1::BatchDecryptRequest {
    type Item = DecryptItem;
    type WireItem = v1::DecryptItem;
    type Reply = v1::BatchDecryptResponse;
    type StreamReply = v1::DecryptStreamResponse;
    type Result = v1::DecryptResult;
    type Output = Decrypted;

    const BATCH_PATH: &'static str = "/fieldkeep.v1.FieldService/BatchDecrypt";
    const STREAM_PATH: &'static str = "/fieldkeep.v1.FieldService/DecryptStream";

    fn item(item: DecryptItem) -> v1::DecryptItem {
        v1::DecryptItem {
            ciphertext: item.ciphertext,
            context: pairs(item.context),
            field: item.field,
        }
    }

    fn value_bytes(item: &v1::DecryptItem) -> usize {
        item.ciphertext.len()
    }

    fn with(&self, items: Vec<v1::DecryptItem>) -> Self {
        Self {
            items,
            ..self.clone()
        }
    }

    fn results(reply: v1::BatchDecryptResponse) -> Vec<v1::DecryptResult> {
        reply.results
    }

    fn stream_results(
        reply: v1::DecryptStreamResponse,
    ) -> Result<Vec<v1::DecryptResult>, v1::ItemError> {
        reply.error.map_or(Ok(reply.results), Err)
    }

    fn receipt(reply: &v1::DecryptStreamResponse) -> &[u8] {
        &reply.receipt
    }

    fn output(result: v1::DecryptResult) -> Result<Decrypted, ItemError> {
        match result.error {
            Some(error) => Err(error.into()),
            None => Ok(Decrypted {
                plaintext: result.plaintext,
                masked: result.masked,
            }),
        }
    }
}

impl Batch for v1::BatchReEncryptRequest {
    type Item = ReEncryptItem;
    type WireItem = v1::ReEncryptItem;
    type Reply = v1::BatchReEncryptResponse;
    type StreamReply = v1::ReEncryptStreamResponse;
    type Result = v1::ReEncryptResult;
    type Output = ReEncrypted;

    const BATCH_PATH: &'static str = "/fieldkeep.v1.FieldService/BatchReEncrypt";
    const STREAM_PATH: &'static str = "/fieldkeep.v1.FieldService/ReEncryptStream";

    fn item(item: ReEncryptItem) -> v1::ReEncryptItem {
        v1::ReEncryptItem {
            ciphertext: item.ciphertext,
            context: pairs(item.context),
            field: item.field,
            destination_key: item.destination_key,
        }
    }

    fn value_bytes(item: &v1::ReEncryptItem) -> usize {
        item.ciphertext.len()
    }

    fn with(&self, items: Vec<v1::ReEncryptItem>) -> Self {
        Self {
            items,
            ..self.clone()
        }
    }

    fn results(reply: v1::BatchReEncryptResponse) -> Vec<v1::ReEncryptResult> {
        reply.results
    }

    fn stream_results(
        reply: v1::ReEncryptStreamResponse,
    ) -> Result<Vec<v1::ReEncryptResult>, v1::ItemError> {
        reply.error.map_or(Ok(reply.results), Err)
    }

    fn receipt(reply: &v1::ReEncryptStreamResponse) -> &[u8] {
        &reply.receipt
    }

    fn output(result: v1::ReEncryptResult) -> Result<ReEncrypted, ItemError> {
        match result.error {
            Some(error) => Err(error.into()),
            None => Ok(ReEncrypted {
                ciphertext: result.ciphertext,
                version: result.version,
                changed: result.changed,
            }),
        }
    }
}

impl BatchEncrypt {
    /// The defaults, and the items.
    pub(crate) fn into_parts(self) -> (v1::BatchEncryptRequest, Vec<EncryptItem>) {
        let defaults = v1::BatchEncryptRequest {
            key: self.key,
            field: self.field,
            context: pairs(self.context),
            items: Vec::new(),
        };
        (defaults, self.items)
    }
}

impl BatchDecrypt {
    /// The defaults, and the items.
    pub(crate) fn into_parts(self) -> (v1::BatchDecryptRequest, Vec<DecryptItem>) {
        let defaults = v1::BatchDecryptRequest {
            field: self.field,
            context: pairs(self.context),
            items: Vec::new(),
        };
        (defaults, self.items)
    }
}

impl BatchReEncrypt {
    /// The defaults, and the items.
    pub(crate) fn into_parts(self) -> (v1::BatchReEncryptRequest, Vec<ReEncryptItem>) {
        let defaults = v1::BatchReEncryptRequest {
            field: self.field,
            context: pairs(self.context),
            destination_key: self.destination_key,
            items: Vec::new(),
        };
        (defaults, self.items)
    }
}

fn pairs(context: Vec<(String, String)>) -> Vec<v1::ContextPair> {
    context
        .into_iter()
        .map(|(name, value)| v1::ContextPair { name, value })
        .collect()
}
