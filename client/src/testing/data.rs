//! The double's FieldService: the steps of the service's own, without rights and records.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use fieldkeep_crypto::{
    ciphertext::{Ciphertext, MAX_PLAINTEXT_BYTES, OVERHEAD_KC_XAES},
    context::EncodedContext,
    keys::Nonce,
    names::Field,
};
use fieldkeep_keystore::{error::KeyError, key::Key, keystore::DEFAULT_TENANT};
use fieldkeep_proto::v1::{self, ContextPair};
use futures_util::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::{manage::KeyName, memory::Memory, refusal::Refusal};
use crate::{MAX_BATCH_ITEMS, reason};

/// A key and version that a ciphertext names, and its plaintext.
struct Opened {
    key: Arc<Key>,
    version: u32,
    plaintext: Zeroizing<Vec<u8>>,
}

impl Memory {
    async fn sealing_key(&self, name: &str) -> Result<Arc<Key>, Refusal> {
        let name = KeyName::parse("key", name)?;
        if name.tenant.as_str() != DEFAULT_TENANT {
            return Err(Refusal::new(
                Code::PermissionDenied,
                reason::PERMISSION_DENIED,
                "the in-memory caller encrypts and decrypts in the tenant `default` alone",
            ));
        }
        let key = self
            .keystore
            .key(name.tenant.as_str(), name.key.as_str())
            .await;
        let key = key.map_err(|error| match error {
            KeyError::NotFound => Refusal::key_not_found(name.key.as_str()),
            other => other.into(),
        })?;
        if key.enabled() {
            Ok(key)
        } else {
            Err(Refusal::key_disabled())
        }
    }

    async fn seal(
        &self,
        key: &str,
        field: &str,
        context: &[ContextPair],
        plaintext: &[u8],
    ) -> Result<(Bytes, u32), Refusal> {
        check_length(plaintext.len(), MAX_PLAINTEXT_BYTES)?;
        let context = encode(context)?;
        parse_field(field)?;
        let key = self.sealing_key(key).await?;
        seal_with(&key, field, &context, plaintext).await
    }

    async fn open(
        &self,
        field: &str,
        context: &[ContextPair],
        ciphertext: &[u8],
    ) -> Result<Opened, Refusal> {
        check_length(ciphertext.len(), MAX_PLAINTEXT_BYTES + OVERHEAD_KC_XAES)?;
        let context = encode(context)?;
        let field = parse_field(field)?;
        let parsed = Ciphertext::parse(ciphertext).map_err(|_| Refusal::opaque())?;
        let key = self.keystore.key_by_handle(parsed.handle()).await?;
        if key.suite() != parsed.suite() || key.tenant().as_str() != DEFAULT_TENANT {
            return Err(Refusal::opaque());
        }
        let version = key.version(parsed.version()).await?;
        // The tag stands behind the plaintext until it is verified.
        let mut plaintext = Zeroizing::new(Vec::with_capacity(parsed.plaintext_len() + 16));
        version
            .field_key(field)
            .open(&parsed, &context, &mut plaintext)
            .map_err(|_| Refusal::opaque())?;
        Ok(Opened {
            key,
            version: parsed.version(),
            plaintext,
        })
    }

    async fn renew(
        &self,
        field: &str,
        context: &[ContextPair],
        ciphertext: &Bytes,
        destination: &str,
    ) -> Result<v1::ReEncryptResponse, Refusal> {
        let opened = self.open(field, context, ciphertext).await?;
        let destination = match destination {
            "" => Arc::clone(&opened.key),
            name => self.sealing_key(name).await?,
        };
        let primary = destination.primary();
        if destination.handle() == opened.key.handle() && primary.number() == opened.version {
            return Ok(v1::ReEncryptResponse {
                ciphertext: ciphertext.clone(),
                version: opened.version,
                changed: false,
            });
        }
        let (ciphertext, version) =
            seal_with(&destination, field, &encode(context)?, &opened.plaintext).await?;
        Ok(v1::ReEncryptResponse {
            ciphertext,
            version,
            changed: true,
        })
    }

    async fn encrypt_items(
        &self,
        batch: v1::BatchEncryptRequest,
    ) -> Result<Vec<v1::EncryptResult>, Refusal> {
        check_count(batch.items.len())?;
        let mut results = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            let (key, field) = (or(&item.key, &batch.key), or(&item.field, &batch.field));
            let context = or_pairs(&item.context, &batch.context);
            let sealed = self.seal(key, field, context, &item.plaintext).await;
            results.push(match sealed {
                Ok((ciphertext, version)) => v1::EncryptResult {
                    ciphertext,
                    version,
                    error: None,
                },
                Err(refusal) => v1::EncryptResult {
                    error: Some(refusal.into()),
                    ..Default::default()
                },
            });
        }
        Ok(results)
    }

    async fn decrypt_items(
        &self,
        batch: v1::BatchDecryptRequest,
    ) -> Result<Vec<v1::DecryptResult>, Refusal> {
        check_count(batch.items.len())?;
        let mut results = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            let field = or(&item.field, &batch.field);
            let context = or_pairs(&item.context, &batch.context);
            results.push(match self.open(field, context, &item.ciphertext).await {
                Ok(opened) => v1::DecryptResult {
                    plaintext: Bytes::copy_from_slice(&opened.plaintext),
                    ..Default::default()
                },
                Err(refusal) => v1::DecryptResult {
                    error: Some(refusal.into()),
                    ..Default::default()
                },
            });
        }
        Ok(results)
    }

    async fn renew_items(
        &self,
        batch: v1::BatchReEncryptRequest,
    ) -> Result<Vec<v1::ReEncryptResult>, Refusal> {
        check_count(batch.items.len())?;
        let mut results = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            let field = or(&item.field, &batch.field);
            let context = or_pairs(&item.context, &batch.context);
            let destination = or(&item.destination_key, &batch.destination_key);
            let renewed = self.renew(field, context, &item.ciphertext, destination);
            results.push(match renewed.await {
                Ok(renewed) => v1::ReEncryptResult {
                    ciphertext: renewed.ciphertext,
                    version: renewed.version,
                    changed: renewed.changed,
                    error: None,
                },
                Err(refusal) => v1::ReEncryptResult {
                    error: Some(refusal.into()),
                    ..Default::default()
                },
            });
        }
        Ok(results)
    }
}

async fn seal_with(
    key: &Key,
    field: &str,
    context: &EncodedContext,
    plaintext: &[u8],
) -> Result<(Bytes, u32), Refusal> {
    key.count(1, plaintext.len() as u64).await?;
    let version = key.primary();
    let nonce = Nonce::make().map_err(Refusal::internal)?;
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_KC_XAES);
    version
        .field_key(parse_field(field)?)
        .seal(nonce, context, plaintext, &mut out)
        .map_err(Refusal::internal)?;
    Ok((out.into(), version.number()))
}

fn parse_field(field: &str) -> Result<Field<'_>, Refusal> {
    Field::parse(field).map_err(|error| Refusal::invalid("field", error))
}

fn encode(context: &[ContextPair]) -> Result<EncodedContext, Refusal> {
    let pairs = context
        .iter()
        .map(|pair| (pair.name.as_str(), pair.value.as_str()));
    EncodedContext::encode(pairs).map_err(|error| Refusal::invalid("context", error))
}

fn check_length(bytes: usize, limit: usize) -> Result<(), Refusal> {
    if bytes <= limit {
        return Ok(());
    }
    let message = format!("the field has {bytes} bytes, at most {limit} are allowed");
    Err(Refusal::new(
        Code::InvalidArgument,
        reason::FIELD_TOO_LARGE,
        message,
    ))
}

fn check_count(items: usize) -> Result<(), Refusal> {
    if items <= MAX_BATCH_ITEMS {
        return Ok(());
    }
    let message = format!("the batch has {items} items, at most {MAX_BATCH_ITEMS} are allowed");
    Err(Refusal::new(
        Code::InvalidArgument,
        reason::BATCH_TOO_LARGE,
        message,
    ))
}

fn or<'a>(own: &'a str, default: &'a str) -> &'a str {
    if own.is_empty() { default } else { own }
}

fn or_pairs<'a>(own: &'a [ContextPair], default: &'a [ContextPair]) -> &'a [ContextPair] {
    if own.is_empty() { default } else { own }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Splits the outcome of a message for its answer, in which a failure stands in place of the results.
fn in_place<T>(outcome: Result<Vec<T>, Refusal>) -> (Vec<T>, Option<v1::ItemError>) {
    match outcome {
        Ok(results) => (results, None),
        Err(refusal) => (Vec::new(), Some(refusal.into())),
    }
}

#[tonic::async_trait]
impl v1::field_service_server::FieldService for Memory {
    async fn encrypt(
        &self,
        request: Request<v1::EncryptRequest>,
    ) -> Result<Response<v1::EncryptResponse>, Status> {
        let v1::EncryptRequest {
            key,
            field,
            context,
            plaintext,
        } = request.into_inner();
        let (ciphertext, version) = self.seal(&key, &field, &context, &plaintext).await?;
        Ok(Response::new(v1::EncryptResponse {
            ciphertext,
            version,
        }))
    }

    async fn decrypt(
        &self,
        request: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptResponse>, Status> {
        let request = request.into_inner();
        let opened = self
            .open(&request.field, &request.context, &request.ciphertext)
            .await?;
        Ok(Response::new(v1::DecryptResponse {
            plaintext: Bytes::copy_from_slice(&opened.plaintext),
            masked: false,
        }))
    }

    async fn re_encrypt(
        &self,
        request: Request<v1::ReEncryptRequest>,
    ) -> Result<Response<v1::ReEncryptResponse>, Status> {
        let v1::ReEncryptRequest {
            ciphertext,
            field,
            context,
            destination_key,
        } = request.into_inner();
        let renewed = self.renew(&field, &context, &ciphertext, &destination_key);
        Ok(Response::new(renewed.await?))
    }

    async fn batch_encrypt(
        &self,
        request: Request<v1::BatchEncryptRequest>,
    ) -> Result<Response<v1::BatchEncryptResponse>, Status> {
        let results = self.encrypt_items(request.into_inner()).await?;
        Ok(Response::new(v1::BatchEncryptResponse { results }))
    }

    async fn batch_decrypt(
        &self,
        request: Request<v1::BatchDecryptRequest>,
    ) -> Result<Response<v1::BatchDecryptResponse>, Status> {
        let results = self.decrypt_items(request.into_inner()).await?;
        Ok(Response::new(v1::BatchDecryptResponse { results }))
    }

    async fn batch_re_encrypt(
        &self,
        request: Request<v1::BatchReEncryptRequest>,
    ) -> Result<Response<v1::BatchReEncryptResponse>, Status> {
        let results = self.renew_items(request.into_inner()).await?;
        Ok(Response::new(v1::BatchReEncryptResponse { results }))
    }

    type EncryptStreamStream = Answers<v1::EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        request: Request<Streaming<v1::BatchEncryptRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        let memory = self.clone();
        let answers = request.into_inner().then(move |message| {
            let memory = memory.clone();
            async move {
                let (results, error) = in_place(memory.encrypt_items(message?).await);
                Ok(v1::EncryptStreamResponse {
                    request_id: Bytes::new(),
                    receipt: Bytes::new(),
                    error,
                    results,
                })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    type DecryptStreamStream = Answers<v1::DecryptStreamResponse>;

    async fn decrypt_stream(
        &self,
        request: Request<Streaming<v1::BatchDecryptRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        let memory = self.clone();
        let answers = request.into_inner().then(move |message| {
            let memory = memory.clone();
            async move {
                let (results, error) = in_place(memory.decrypt_items(message?).await);
                Ok(v1::DecryptStreamResponse {
                    request_id: Bytes::new(),
                    receipt: Bytes::new(),
                    error,
                    results,
                })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    type ReEncryptStreamStream = Answers<v1::ReEncryptStreamResponse>;

    async fn re_encrypt_stream(
        &self,
        request: Request<Streaming<v1::BatchReEncryptRequest>>,
    ) -> Result<Response<Self::ReEncryptStreamStream>, Status> {
        let memory = self.clone();
        let answers = request.into_inner().then(move |message| {
            let memory = memory.clone();
            async move {
                let (results, error) = in_place(memory.renew_items(message?).await);
                Ok(v1::ReEncryptStreamResponse {
                    request_id: Bytes::new(),
                    receipt: Bytes::new(),
                    error,
                    results,
                })
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}
