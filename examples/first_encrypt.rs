//! Encrypts one field, shows what to store, and decrypts it again.
//!
//! Run it with the environment lines that `fieldkeep dev` prints: `cargo run --example first_encrypt`.

use fieldkeep_client::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::from_env()?;
    let email = client.field("pii", "customer.email").context("id", "42");

    let stored = email.encrypt_str("ada@example.org").await?;
    println!("{stored}");

    let restored = email.decrypt_str(&stored).await?;
    assert_eq!(restored, "ada@example.org");
    Ok(())
}
