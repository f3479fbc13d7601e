//! The pipeline's cipher: the service's batch calls.

use bytes::Bytes;
use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, Client, DecryptItem, EncryptItem, ItemError,
    ReEncryptItem,
};

use super::super::failure::Failure;
use super::cipher::{Item, ItemRefused, Operation, Outcome};

/// The most bytes of one call, well below what a request may have.
const CALL_BYTES: usize = 2 * 1024 * 1024;
/// What an item takes in a request besides its texts, with some to spare; its ciphertext overhead too.
const ITEM_BYTES: usize = 160;

/// Sends items to the service, in as many calls as their size needs.
pub(crate) async fn call_service(
    client: Client,
    operation: Operation,
    items: Vec<Item>,
) -> Outcome {
    let mut results = Vec::with_capacity(items.len());
    let mut batch: Vec<Item> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let item_bytes = size_bytes(&item);
        if !batch.is_empty() && bytes + item_bytes > CALL_BYTES {
            results.extend(call(&client, operation, std::mem::take(&mut batch)).await?);
            bytes = 0;
        }
        bytes += item_bytes;
        batch.push(item);
    }
    if !batch.is_empty() {
        results.extend(call(&client, operation, batch).await?);
    }
    Ok(results)
}

fn size_bytes(item: &Item) -> usize {
    let context: usize = item
        .context
        .iter()
        .map(|(name, value)| name.len() + value.len() + 16)
        .sum();
    item.value.len() + context + item.column.key.len() + item.column.field.len() + ITEM_BYTES
}

async fn call(client: &Client, operation: Operation, items: Vec<Item>) -> Outcome {
    match operation {
        Operation::Encrypt => {
            let items = items.into_iter().map(|item| EncryptItem {
                plaintext: item.value,
                context: item.context.to_vec(),
                key: item.column.key.clone(),
                field: item.column.field.clone(),
            });
            let batch = BatchEncrypt {
                items: items.collect(),
                ..BatchEncrypt::default()
            };
            let results = client
                .encrypt_batch(batch)
                .await
                .map_err(|error| failed("encrypt", error))?;
            Ok(results
                .into_iter()
                .map(|result| result.map(|sealed| sealed.ciphertext).map_err(refused))
                .collect())
        }
        Operation::Decrypt => {
            let items = items.into_iter().map(|item| DecryptItem {
                ciphertext: item.value,
                context: item.context.to_vec(),
                field: item.column.field.clone(),
            });
            let batch = BatchDecrypt {
                items: items.collect(),
                ..BatchDecrypt::default()
            };
            let results = client
                .decrypt_batch(batch)
                .await
                .map_err(|error| failed("decrypt", error))?;
            Ok(results
                .into_iter()
                .map(|result| result.map_err(refused))
                .collect::<Vec<Result<Bytes, _>>>())
        }
        Operation::ReEncrypt => {
            let items = items.into_iter().map(|item| ReEncryptItem {
                ciphertext: item.value,
                context: item.context.to_vec(),
                field: item.column.field.clone(),
                destination_key: item.column.key.clone(),
            });
            let batch = BatchReEncrypt {
                items: items.collect(),
                ..BatchReEncrypt::default()
            };
            let results = client
                .reencrypt_batch(batch)
                .await
                .map_err(|error| failed("re-encrypt", error))?;
            Ok(results
                .into_iter()
                .map(|result| result.map(|renewed| renewed.ciphertext).map_err(refused))
                .collect())
        }
    }
}

fn failed(doing: &str, error: fieldkeep_client::Error) -> Failure {
    Failure::from(error).while_doing(format_args!("cannot {doing} the columns"))
}

fn refused(error: ItemError) -> ItemRefused {
    ItemRefused {
        reason: error.reason,
        message: error.message,
    }
}
