//! The pipeline's cipher: the service's batch calls.

use std::sync::atomic::{AtomicU64, Ordering};

use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, Client, DecryptItem, EncryptItem, ItemError,
    ReEncryptItem,
};

use super::super::failure::Failure;
use super::cipher::{Item, ItemRefused, Operation, Outcome};

/// Sends items to the service. Values that come back masked are counted in `masked`.
pub(super) async fn call_service(
    client: Client,
    operation: Operation,
    items: Vec<Item>,
    masked: &AtomicU64,
) -> Outcome {
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
            let shown = results.iter().flatten().filter(|value| value.masked);
            masked.fetch_add(shown.count() as u64, Ordering::Relaxed);
            Ok(results
                .into_iter()
                .map(|result| result.map(|opened| opened.plaintext).map_err(refused))
                .collect())
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
