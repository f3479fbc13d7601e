//! Calls on one field.

use std::{fmt, time::Duration};

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{MAX_PLAINTEXT_BYTES, decode_text, encode_text};
use fieldkeep_proto::v1;

use crate::{Client, Decrypted, Error, MAX_REQUEST_BYTES, call::Plan, reason};

/// One field of one record, made by [`Client::field`]: what to bind a value to, and then what to do with it.
///
/// It borrows its parts and holds no value, so it is cheap to make and may be used for many calls.
#[derive(Clone)]
pub struct FieldCall<'a> {
    client: &'a Client,
    key: &'a str,
    field: &'a str,
    context: Vec<(&'a str, &'a str)>,
    timeout: Option<Duration>,
}

impl fmt::Debug for FieldCall<'_> {
    // Context values come from the application's records, so only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.context.iter().map(|(name, _)| *name).collect();
        f.debug_struct("FieldCall")
            .field("key", &self.key)
            .field("field", &self.field)
            .field("context_names", &names)
            .finish_non_exhaustive()
    }
}

/// A re-encrypted value in binary form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReEncrypted {
    /// Ciphertext format v1.
    pub ciphertext: Bytes,
    /// The key version that seals it.
    pub version: u32,
    /// False if the ciphertext was already current, and is returned as it came.
    pub changed: bool,
}

/// A re-encrypted value in text form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReEncryptedText {
    /// `fk1:` text.
    pub text: String,
    /// The key version that seals it.
    pub version: u32,
    /// False if the ciphertext was already current, and is returned as it came.
    pub changed: bool,
}

impl Client {
    /// A field to encrypt, decrypt or re-encrypt.
    ///
    /// `key` is `{key}` in the caller's tenant or `tenants/{tenant}/keys/{key}`. `field` is the field's stable name,
    /// for example `customer.email`: a value only opens under the name that it was encrypted under.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email");
    /// let stored = email.encrypt(b"ada@example.org").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn field<'a>(&'a self, key: &'a str, field: &'a str) -> FieldCall<'a> {
        FieldCall {
            client: self,
            key,
            field,
            context: Vec::new(),
            timeout: None,
        }
    }
}

impl<'a> FieldCall<'a> {
    /// Binds the value to a name and value of its surroundings, for example the id of its row. It has to be the same
    /// when the value is decrypted. At most 16 pairs with unique names; their order does not matter.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored = email.encrypt(b"ada@example.org").await?;
    /// let other_row = client.field("pii", "customer.email").context("id", "43");
    /// assert!(other_row.decrypt(&stored).await.unwrap_err().is_decryption_failed());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn context(mut self, name: &'a str, value: &'a str) -> Self {
        self.context.push((name, value));
        self
    }

    /// Ends this call by another deadline than the client's.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use std::time::Duration;
    /// let email = client.field("pii", "customer.email").timeout(Duration::from_secs(1));
    /// email.encrypt(b"ada@example.org").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Encrypts `plaintext`, at most 64 KiB, under the primary version of the key. Returns ciphertext format v1.
    ///
    /// # Errors
    /// See [`Error`]; [`reason::KEY_NOT_FOUND`], [`reason::KEY_DISABLED`], [`reason::FIELD_TOO_LARGE`] among others.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored: Vec<u8> = email.encrypt(b"ada@example.org").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.seal(plaintext).await?.into())
    }

    /// As [`encrypt`](Self::encrypt), from text to text: the result is `fk1:` and base64url characters.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored: String = email.encrypt_str("ada@example.org").await?;
    /// assert!(stored.starts_with("fk1:"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn encrypt_str(&self, plaintext: &str) -> Result<String, Error> {
        Ok(encode_text(&self.seal(plaintext.as_bytes()).await?))
    }

    /// Decrypts a ciphertext in binary form. The ciphertext names its key, so this call's key plays no part. Whoever may
    /// decrypt the field only masked gets what its mask shows; [`reveal`](Self::reveal) says whether it is so.
    ///
    /// # Errors
    /// [`ErrorKind::DecryptionFailed`](crate::ErrorKind::DecryptionFailed) if the ciphertext, field, context or caller
    /// is not the right one, without saying which; other errors as in [`Error`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored = email.encrypt(b"ada@example.org").await?;
    /// assert_eq!(email.decrypt(&stored).await?, b"ada@example.org");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn decrypt(&self, ciphertext: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.reveal(ciphertext).await?.plaintext.into())
    }

    /// As [`decrypt`](Self::decrypt), and says whether the value is masked: whoever may decrypt the field only so gets what
    /// its mask shows, such as `***@example.org`.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt); [`reason::PERMISSION_DENIED`] if the field has no mask for such a caller.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored = email.encrypt(b"ada@example.org").await?;
    /// let shown = email.reveal(&stored).await?;
    /// assert_eq!((&shown.plaintext[..], shown.masked), (&b"ada@example.org"[..], false));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reveal(&self, ciphertext: &[u8]) -> Result<Decrypted, Error> {
        check_length(ciphertext)?;
        self.open(Bytes::copy_from_slice(ciphertext)).await
    }

    /// Decrypts a ciphertext in text form to text.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt); [`reason::INVALID_REQUEST`] if `text` is not `fk1:` text; [`Error::NotText`] if
    /// the value is not UTF-8.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored = email.encrypt_str("ada@example.org").await?;
    /// assert_eq!(email.decrypt_str(&stored).await?, "ada@example.org");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn decrypt_str(&self, text: &str) -> Result<String, Error> {
        let opened = self.open(parse_text(text)?).await?;
        // The error would carry the plaintext, so it is dropped.
        String::from_utf8(opened.plaintext.into()).map_err(|_| Error::NotText)
    }

    /// Opens a ciphertext in binary form and seals it again, with the same field and context, under the primary
    /// version of this call's key; an empty key name means the key that the ciphertext names. A ciphertext that is
    /// current comes back unchanged. The plaintext stays with the service.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) and [`encrypt`](Self::encrypt).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored = email.encrypt(b"ada@example.org").await?;
    /// client.keys().rotate("pii").await?;
    /// let renewed = email.reencrypt(&stored).await?;
    /// assert!(renewed.changed);
    /// assert_eq!(renewed.version, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reencrypt(&self, ciphertext: &[u8]) -> Result<ReEncrypted, Error> {
        check_length(ciphertext)?;
        self.renew(Bytes::copy_from_slice(ciphertext)).await
    }

    /// As [`reencrypt`](Self::reencrypt), in text form.
    ///
    /// # Errors
    /// As [`reencrypt`](Self::reencrypt); [`reason::INVALID_REQUEST`] if `text` is not `fk1:` text.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let email = client.field("pii", "customer.email").context("id", "42");
    /// let stored = email.encrypt_str("ada@example.org").await?;
    /// let renewed = email.reencrypt_str(&stored).await?;
    /// assert!(!renewed.changed, "it is current");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reencrypt_str(&self, text: &str) -> Result<ReEncryptedText, Error> {
        let renewed = self.renew(parse_text(text)?).await?;
        Ok(ReEncryptedText {
            text: encode_text(&renewed.ciphertext),
            version: renewed.version,
            changed: renewed.changed,
        })
    }

    async fn seal(&self, plaintext: &[u8]) -> Result<Bytes, Error> {
        if plaintext.len() > MAX_PLAINTEXT_BYTES {
            return Err(Error::Refused {
                reason: reason::FIELD_TOO_LARGE,
                message: format!(
                    "the value has {} bytes, and a field at most {MAX_PLAINTEXT_BYTES}",
                    plaintext.len()
                )
                .into(),
            });
        }
        let request = v1::EncryptRequest {
            key: self.key.to_owned(),
            field: self.field.to_owned(),
            context: self.pairs(),
            plaintext: Bytes::copy_from_slice(plaintext),
        };
        let path = "/fieldkeep.v1.FieldService/Encrypt";
        let reply: v1::EncryptResponse = self.client.unary(path, request, self.plan()).await?;
        Ok(reply.ciphertext)
    }

    async fn open(&self, ciphertext: Bytes) -> Result<Decrypted, Error> {
        let request = v1::DecryptRequest {
            ciphertext,
            field: self.field.to_owned(),
            context: self.pairs(),
        };
        let path = "/fieldkeep.v1.FieldService/Decrypt";
        let reply: v1::DecryptResponse = self.client.unary(path, request, self.plan()).await?;
        Ok(Decrypted {
            plaintext: reply.plaintext,
            masked: reply.masked,
        })
    }

    async fn renew(&self, ciphertext: Bytes) -> Result<ReEncrypted, Error> {
        let request = v1::ReEncryptRequest {
            ciphertext,
            field: self.field.to_owned(),
            context: self.pairs(),
            destination_key: self.key.to_owned(),
        };
        let path = "/fieldkeep.v1.FieldService/ReEncrypt";
        let reply: v1::ReEncryptResponse = self.client.unary(path, request, self.plan()).await?;
        Ok(ReEncrypted {
            ciphertext: reply.ciphertext,
            version: reply.version,
            changed: reply.changed,
        })
    }

    fn pairs(&self) -> Vec<v1::ContextPair> {
        self.context
            .iter()
            .map(|(name, value)| v1::ContextPair {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect()
    }

    fn plan(&self) -> Plan {
        let plan = self.client.plan();
        match self.timeout {
            Some(timeout) => Plan { timeout, ..plan },
            None => plan,
        }
    }
}

fn parse_text(text: &str) -> Result<Bytes, Error> {
    check_length(text.as_bytes())?;
    decode_text(text)
        .map(Bytes::from)
        .map_err(|_| Error::Refused {
            reason: reason::INVALID_REQUEST,
            message: "the ciphertext is not in text form: `fk1:` and base64url characters without padding are expected"
                .into(),
        })
}

// Nothing of this length was made by Fieldkeep; the check spares the copy.
fn check_length(ciphertext: &[u8]) -> Result<(), Error> {
    if ciphertext.len() <= MAX_REQUEST_BYTES {
        return Ok(());
    }
    Err(Error::Refused {
        reason: reason::REQUEST_TOO_LARGE,
        message: format!(
            "the ciphertext has {} bytes, and a request at most {MAX_REQUEST_BYTES}",
            ciphertext.len()
        )
        .into(),
    })
}
