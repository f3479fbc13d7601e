//! For the tests of applications (feature `testing`): Fieldkeep in the test's own process, and faults on request.

mod data;
mod faults;
mod manage;
mod memory;
mod refusal;
mod rotation;

use fieldkeep_keystore::keystore::Keystore;

use crate::{Client, ClientBuilder, Error, pool::Pool};

pub use faults::Faults;
pub(crate) use faults::{Fault, Injected};
pub(crate) use memory::Memory;

/// Fieldkeep for tests of applications, without a network, files or a process of its own.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fieldkeep_client::Error> {
/// use fieldkeep_client::Fieldkeep;
///
/// let client = Fieldkeep::in_memory().key("pii").client().await?;
/// let email = client.field("pii", "customer.email").context("id", "42");
/// let stored = email.encrypt_str("ada@example.org").await?;
/// assert_eq!(email.decrypt_str(&stored).await?, "ada@example.org");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fieldkeep;

impl Fieldkeep {
    /// Prepares a double of the service: the true cryptography and keystore over a store in memory, behind the same gRPC
    /// messages. What it encrypts has the real format, and what fails fails with the same codes and reasons.
    ///
    /// The caller has every right in the tenant `default`. There are no roles, certificates and audit trail; such calls say so
    /// ([`ErrorKind::Internal`](crate::ErrorKind::Internal)). Rotation policies are kept and shown, but no key rotates by itself.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// let client = fieldkeep_client::Fieldkeep::in_memory().client().await?;
    /// client.keys().create("pii").await?;
    /// let key = client.keys().rotate("pii").await?;
    /// assert_eq!(key.primary_version, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_memory() -> InMemory {
        InMemory::default()
    }
}

/// The settings of a double, from [`Fieldkeep::in_memory`].
#[derive(Clone, Debug, Default)]
pub struct InMemory {
    keys: Vec<String>,
    seed: Option<Vec<u8>>,
}

impl InMemory {
    /// Makes a key of this name at the start. May be called for several.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// let double = fieldkeep_client::Fieldkeep::in_memory().key("pii").key("cards");
    /// let keys = double.client().await?.keys().list("").collect().await?;
    /// assert_eq!(keys.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn key(mut self, name: impl Into<String>) -> Self {
        self.keys.push(name.into());
        self
    }

    /// Derives all keys from `seed`: a key of the same name and version is the same in each run, so that ciphertexts that are
    /// kept with a test decrypt in its next run. Nonces stay random, so no ciphertext is made twice.
    ///
    /// For tests alone: whoever knows the seed has the keys. There is no way to give a real service such keys.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// let double = fieldkeep_client::Fieldkeep::in_memory().key("pii").fixed_keys("my tests");
    /// let (today, tomorrow) = (double.clone().client().await?, double.client().await?);
    /// let stored = today.field("pii", "customer.email").encrypt_str("ada@example.org").await?;
    /// assert_eq!(tomorrow.field("pii", "customer.email").decrypt_str(&stored).await?, "ada@example.org");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fixed_keys(mut self, seed: impl AsRef<[u8]>) -> Self {
        self.seed = Some(seed.as_ref().to_vec());
        self
    }

    /// Starts it, and gives a client of it. The double ends with the last clone of the client.
    ///
    /// # Errors
    /// If a name is none, or the operating system gives no random numbers. A Tokio runtime has to be there.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let error = fieldkeep_client::Fieldkeep::in_memory().key("Not a name").client().await.unwrap_err();
    /// assert_eq!(error.kind(), fieldkeep_client::ErrorKind::InvalidArgument);
    /// # }
    /// ```
    pub async fn client(self) -> Result<Client, Error> {
        let keystore = Keystore::dangerous_in_memory(self.seed.as_deref(), memory::now())
            .await
            .map_err(|error| refusal::Refusal::from(error).into_error())?;
        let pool = Pool::in_memory(Memory::new(keystore));
        let client = Client::new(ClientBuilder::default().settings(), pool, None);
        for key in &self.keys {
            client.keys().create(key).await?;
        }
        Ok(client)
    }
}
