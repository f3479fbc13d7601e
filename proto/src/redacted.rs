//! `Debug` of messages that carry values or contexts: their length alone, so that no log, panic or failed test shows them.

use std::fmt;

use crate::v1::{
    CheckTokenRequest, ContextPair, CreateApiKeyResponse, CreateJoinTokenResponse, DecryptResponse,
    DecryptResult, EncryptItem, EncryptRequest, EnrollRequest, RotateApiKeyResponse,
};

/// A length in place of what has it.
struct Hidden(usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

impl fmt::Debug for CreateJoinTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateJoinTokenResponse")
            .field("token", &Hidden(self.token.len()))
            .field("identity", &self.identity)
            .field("expire_time", &self.expire_time)
            .field("ca_fingerprint", &self.ca_fingerprint)
            .finish()
    }
}

impl fmt::Debug for CreateApiKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateApiKeyResponse")
            .field("secret", &Hidden(self.secret.len()))
            .field("api_key", &self.api_key)
            .finish()
    }
}

impl fmt::Debug for RotateApiKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotateApiKeyResponse")
            .field("secret", &Hidden(self.secret.len()))
            .field("api_key", &self.api_key)
            .finish()
    }
}

impl fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("token", &Hidden(self.token.len()))
            .field("csr_der", &self.csr_der)
            .finish()
    }
}

impl fmt::Debug for CheckTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckTokenRequest")
            .field("issuer", &self.issuer)
            .field("token", &Hidden(self.token.len()))
            .finish()
    }
}

impl fmt::Debug for ContextPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextPair")
            .field("name", &self.name)
            .field("value", &Hidden(self.value.len()))
            .finish()
    }
}

impl fmt::Debug for EncryptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptRequest")
            .field("key", &self.key)
            .field("field", &self.field)
            .field("context", &self.context)
            .field("plaintext", &Hidden(self.plaintext.len()))
            .finish()
    }
}

impl fmt::Debug for EncryptItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptItem")
            .field("plaintext", &Hidden(self.plaintext.len()))
            .field("context", &self.context)
            .field("key", &self.key)
            .field("field", &self.field)
            .finish()
    }
}

impl fmt::Debug for DecryptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptResponse")
            .field("plaintext", &Hidden(self.plaintext.len()))
            .field("masked", &self.masked)
            .finish()
    }
}

impl fmt::Debug for DecryptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptResult")
            .field("plaintext", &Hidden(self.plaintext.len()))
            .field("masked", &self.masked)
            .field("error", &self.error)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::v1::{
        BatchDecryptRequest, BatchDecryptResponse, BatchEncryptRequest, ContextPair, DecryptItem,
        DecryptRequest, DecryptResponse, DecryptResult, EncryptItem, EncryptRequest,
        ReEncryptRequest,
    };

    const SECRET: &str = "alice.secret";

    fn context() -> Vec<ContextPair> {
        vec![ContextPair {
            name: "id".into(),
            value: SECRET.into(),
        }]
    }

    #[test]
    fn no_message_shows_a_value_or_a_context() {
        let plaintext = Bytes::from_static(SECRET.as_bytes());
        let items = vec![EncryptItem {
            plaintext: plaintext.clone(),
            context: context(),
            ..Default::default()
        }];
        let results = vec![DecryptResult {
            plaintext: plaintext.clone(),
            ..Default::default()
        }];
        let opening = vec![DecryptItem {
            context: context(),
            ..Default::default()
        }];
        let shown = [
            format!(
                "{:?}",
                EncryptRequest {
                    plaintext: plaintext.clone(),
                    context: context(),
                    ..Default::default()
                }
            ),
            format!(
                "{:#?}",
                BatchEncryptRequest {
                    context: context(),
                    items,
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                DecryptResponse {
                    plaintext,
                    masked: false
                }
            ),
            format!("{:?}", BatchDecryptResponse { results }),
            format!(
                "{:?}",
                BatchDecryptRequest {
                    items: opening,
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                DecryptRequest {
                    context: context(),
                    ..Default::default()
                }
            ),
            format!(
                "{:?}",
                ReEncryptRequest {
                    context: context(),
                    ..Default::default()
                }
            ),
        ];
        for text in shown {
            assert!(!text.contains(SECRET), "{text}");
            assert!(text.contains("<12 bytes>"), "{text}");
        }
    }
}
