//! Join tokens: what a new workload shows once to get its first certificate.
//!
//! ```text
//! fkj_<id>_<secret><checksum>      16, 40 and 8 small hexadecimal digits
//! ```
//!
//! The checksum is the first four bytes of SHA-256 over all that is before it, so that a mistyped token is told from a
//! wrong one, and a scanner for leaked secrets can tell a token from a text that looks like one. Of the secret only an
//! HMAC is stored, under a key of the store's own that is wrapped like the CA's.

use std::{fmt, sync::Arc};

use fieldkeep_crypto::{names::Name, random};
use fieldkeep_keystore::{
    error::KeystoreError,
    info::{Changed, SystemRecord},
    keystore::Keystore,
    store::Operation,
};
use prost::Message as _;
use ring::{
    digest::{SHA256, digest},
    hmac,
};
use zeroize::Zeroizing;

use super::{
    ca::{CaError, Issued},
    certificates::Certificates,
    principal::Identity,
    records::read_all,
    revocation::Revocations,
};

/// What the keys of join tokens begin with.
const PREFIX: &str = "sys/join/";
/// The record of the key of the hashes, and the object id under which it is wrapped.
const HASH_KEY: &str = "sys/join-key";
/// The mark that scanners for secrets find.
const MARK: &str = "fkj_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;
const TOKEN_CHARS: usize = MARK.len() + 2 * ID_BYTES + 1 + 2 * SECRET_BYTES + 2 * CHECKSUM_BYTES;
/// The most tokens that are held at once, used ones among them until their place is taken.
pub const MAX_TOKENS: usize = 1_000;
/// The most of them that are of one tenant, so that the admin of one cannot keep the others from letting workloads in.
pub const MAX_TOKENS_OF_TENANT: usize = MAX_TOKENS / 10;
/// The life of a token when none is asked for, seconds: an hour.
pub const DEFAULT_TTL_S: u64 = 3_600;
/// The longest life of a token, seconds: 7 days.
pub const MAX_TTL_S: u64 = 7 * 24 * 3_600;

/// A token, as it was shown once.
pub struct JoinToken {
    id: String,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has not the form.
    #[error("not a join token: it begins with `fkj_` and has 69 characters")]
    Form,
    /// The checksum does not fit: it was cut or mistyped.
    #[error("the join token is mistyped: copy it as a whole")]
    Checksum,
}

impl JoinToken {
    fn make(id: String) -> Result<JoinToken, random::RandomError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        random::fill(secret.as_mut())?;
        Ok(JoinToken { id, secret })
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<JoinToken, TokenError> {
        if text.len() != TOKEN_CHARS || !text.is_ascii() {
            return Err(TokenError::Form);
        }
        let (body, sum) = text.split_at(TOKEN_CHARS - 2 * CHECKSUM_BYTES);
        let rest = body.strip_prefix(MARK).ok_or(TokenError::Form)?;
        let (id, digits) = rest.split_once('_').ok_or(TokenError::Form)?;
        if id.len() != 2 * ID_BYTES || !is_hexadecimal(id) || !is_hexadecimal(digits) {
            return Err(TokenError::Form);
        }
        if *checksum(body) != *sum {
            return Err(TokenError::Checksum);
        }
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        data_encoding::HEXLOWER
            .decode_mut(digits.as_bytes(), secret.as_mut())
            .map_err(|_| TokenError::Form)?;
        Ok(JoinToken {
            id: id.to_owned(),
            secret,
        })
    }

    /// The token as it is shown, once.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS));
        text.push_str(MARK);
        text.push_str(&self.id);
        text.push('_');
        data_encoding::HEXLOWER.encode_append(self.secret.as_ref(), &mut text);
        let sum = checksum(&text);
        text.push_str(&sum);
        text
    }

    /// The part that is no secret, for the audit trail.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn store_key(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// What the hash is over: the id too, so that no hash counts for another token.
    fn hashed(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * ID_BYTES + SECRET_BYTES));
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.secret.as_ref());
        bytes
    }
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

fn checksum(body: &str) -> String {
    let digest = digest(&SHA256, body.as_bytes());
    let first = digest.as_ref().get(..CHECKSUM_BYTES).unwrap_or_default();
    data_encoding::HEXLOWER.encode(first)
}

/// The payload of a token's record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct JoinRecord {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "vec", tag = "3")]
    hash: Vec<u8>,
    /// Unix seconds, as all times here; after the revocations of the identity that there were.
    #[prost(uint64, tag = "4")]
    created: u64,
    #[prost(uint64, tag = "5")]
    expires: u64,
    #[prost(string, tag = "6")]
    created_by: String,
    /// 0: not used.
    #[prost(uint64, tag = "7")]
    used: u64,
    /// SHA-256 of the signing request that used it.
    #[prost(bytes = "vec", tag = "8")]
    request: Vec<u8>,
    /// The certificate that it gave, PEM.
    #[prost(string, tag = "9")]
    certificate_pem: String,
    #[prost(int64, tag = "10")]
    not_after: i64,
    /// As `created`, after the revocations of whoever made it. They are two times, since each counts its own identity's
    /// revocations; a record without this one is of before, and any revocation of its maker ends it.
    #[prost(uint64, tag = "11")]
    created_by_time: u64,
}

impl JoinRecord {
    /// Whether the identity, or whoever made the token, was revoked after the token was made.
    fn is_revoked(&self, identity: &Identity, revocations: &Revocations) -> bool {
        revocations.covers(identity.resource(), self.created)
            || revocations.covers(&self.created_by, self.created_by_time)
    }
}

/// A token that is to be made.
pub struct WantedToken {
    identity: Identity,
    by: Arc<str>,
    now: u64,
    created: u64,
    created_by_time: u64,
    expires: u64,
}

impl WantedToken {
    /// A token for `identity` that `by`, a resource name, makes at `now`, Unix seconds, good for `ttl_s` seconds
    /// ([`DEFAULT_TTL_S`] if 0). A later revocation of either ends it, so it is dated by those that there are, see
    /// [`Certificates::issue_with`].
    ///
    /// # Errors
    /// [`JoinError::Ttl`].
    pub fn new(
        identity: Identity,
        ttl_s: u64,
        by: Arc<str>,
        revocations: &Revocations,
        now: u64,
    ) -> Result<WantedToken, JoinError> {
        let ttl_s = if ttl_s == 0 { DEFAULT_TTL_S } else { ttl_s };
        if ttl_s > MAX_TTL_S {
            return Err(JoinError::Ttl { ttl_s });
        }
        Ok(WantedToken {
            created: revocations.issuing_time(identity.resource(), now),
            created_by_time: revocations.issuing_time(&by, now),
            expires: now.saturating_add(ttl_s),
            identity,
            by,
            now,
        })
    }
}

/// A token that is drawn and not yet in the store, where it counts from.
pub struct DrawnToken {
    token: JoinToken,
    record: Box<JoinRecord>,
    /// The generation of the ended token whose place it takes.
    expected: Option<u64>,
    now: u64,
}

impl DrawnToken {
    /// The store key of its record.
    #[must_use]
    pub fn store_key(&self) -> String {
        self.token.store_key()
    }

    /// `name=value` pairs for the audit trail, without the secret.
    #[must_use]
    pub fn detail(&self) -> String {
        format!(
            "join_token={} expires={}",
            self.token.id(),
            self.record.expires
        )
    }
}

/// A token that was made.
pub struct MadeToken {
    /// The token.
    pub token: JoinToken,
    /// Until when it can be used, Unix seconds.
    pub expires: u64,
}

/// Whom a token lets in, and what is needed to use it up.
pub struct Admission {
    /// The identity.
    pub identity: Identity,
    store_key: String,
    generation: u64,
    /// With the signing request already.
    record: Box<JoinRecord>,
}

impl Admission {
    /// The store key of the token's record.
    #[must_use]
    pub fn store_key(&self) -> &str {
        &self.store_key
    }

    /// Whether the identity, or whoever made the token, was revoked after the token was made: asked again when the certificate
    /// is signed.
    #[must_use]
    pub fn is_revoked(&self, revocations: &Revocations) -> bool {
        self.record.is_revoked(&self.identity, revocations)
    }
}

/// What a token that is shown again with the same signing request gives: what it gave before.
pub struct Repeated {
    /// The identity.
    pub identity: Identity,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// When the certificate ends, Unix seconds.
    pub not_after: i64,
}

/// What a token is good for.
pub enum Checked {
    /// A certificate.
    New(Admission),
    /// The same reply as before, which may have been lost.
    Repeated(Repeated),
}

/// What using a token up came to.
pub enum UsedUp {
    /// The certificate that was signed may leave.
    First(Changed<()>),
    /// Another call with the same signing request was first; its certificate may leave, and the one that was signed may not.
    Repeated(Repeated),
}

/// Why a token does not count, or none was made.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No such token, or its secret is another, or it was made before a revocation.
    #[error("unknown")]
    Unknown,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// It was used, with another signing request.
    #[error("used")]
    Used,
    /// The life asked for is out of range.
    #[error("the life of a join token is 1 to {MAX_TTL_S} seconds, not {ttl_s}")]
    Ttl {
        /// What was asked for, seconds.
        ttl_s: u64,
    },
    /// There are as many as are held.
    #[error(
        "there are {MAX_TOKENS} join tokens, or {MAX_TOKENS_OF_TENANT} of this tenant, whose time is not over: let some end first"
    )]
    TooMany,
    /// A record cannot be read.
    #[error("the record `{0}` cannot be read by this version: start the version that wrote it")]
    UnknownRecord(String),
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] random::RandomError),
    /// The keystore refused or failed.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The certificate could not be signed.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl Certificates {
    /// Draws a token. Its record takes the place of one that has ended, if there is any, so that their number stays bounded.
    ///
    /// # Errors
    /// Too many tokens wait, or the store cannot be read.
    pub async fn draw_token(&self, wanted: WantedToken) -> Result<DrawnToken, JoinError> {
        let keystore = self.keystore();
        let WantedToken {
            identity,
            by,
            now,
            created,
            created_by_time,
            expires,
        } = wanted;
        let (id, expected) = free_place(keystore, identity.tenant(), now).await?;
        let token = JoinToken::make(id)?;
        let key = hash_key(keystore, now).await?;
        let record = JoinRecord {
            tenant: identity.tenant().as_str().to_owned(),
            name: identity.name().as_str().to_owned(),
            hash: hmac::sign(&key, &token.hashed()).as_ref().to_vec(),
            created,
            expires,
            created_by: by.as_ref().to_owned(),
            created_by_time,
            ..JoinRecord::default()
        };
        Ok(DrawnToken {
            token,
            record: Box::new(record),
            expected,
            now,
        })
    }

    /// Puts a token into the store.
    ///
    /// # Errors
    /// Another took its place first, or the store cannot be written.
    pub async fn keep_token(
        &self,
        drawn: DrawnToken,
        operation: Operation,
    ) -> Result<Changed<MadeToken>, JoinError> {
        let DrawnToken {
            token,
            record,
            expected,
            now,
        } = drawn;
        let payload = record.encode_to_vec();
        let key = token.store_key();
        let kept =
            self.keystore()
                .change_system_record(&key, expected, Some(&payload), operation, now);
        let expires = record.expires;
        Ok(kept.await?.with(MadeToken { token, expires }))
    }

    /// Looks whether a token counts for a signing request at `now`, Unix seconds.
    ///
    /// # Errors
    /// [`JoinError::Unknown`], [`JoinError::Expired`], [`JoinError::Used`]; the store cannot be read.
    pub async fn check_token(
        &self,
        token: &JoinToken,
        csr_der: &[u8],
        now: u64,
    ) -> Result<Checked, JoinError> {
        let keystore = self.keystore();
        let store_key = token.store_key();
        let Some(stored) = keystore.system_record(&store_key).await? else {
            return Err(JoinError::Unknown);
        };
        let mut record = decode(&store_key, &stored)?;
        let key = hash_key(keystore, now).await?;
        hmac::verify(&key, &token.hashed(), &record.hash).map_err(|_| JoinError::Unknown)?;
        let identity = identity_of(&store_key, &record)?;
        if record.is_revoked(&identity, self.trust().state().revocations()) {
            return Err(JoinError::Unknown);
        }
        if now > record.expires {
            return Err(JoinError::Expired);
        }
        let request = digest(&SHA256, csr_der).as_ref().to_vec();
        if record.used != 0 {
            return repeated(identity, record, &request).map(Checked::Repeated);
        }
        record.request = request;
        Ok(Checked::New(Admission {
            identity,
            store_key,
            generation: stored.generation,
            record: Box::new(record),
        }))
    }

    /// Uses a token up for a certificate: of several that try at once, one succeeds. Only then may a certificate leave. Those with
    /// the same signing request get the same one, as a later repetition does.
    ///
    /// # Errors
    /// [`JoinError::Used`]; the store cannot be read or written.
    pub async fn use_up(
        &self,
        admission: Admission,
        issued: &Issued,
        operation: Operation,
        now: u64,
    ) -> Result<UsedUp, JoinError> {
        let Admission {
            identity,
            store_key,
            generation,
            record: mut mine,
        } = admission;
        mine.used = now;
        mine.certificate_pem.clone_from(&issued.certificate_pem);
        mine.not_after = issued.not_after;
        let keystore = self.keystore();
        let payload = mine.encode_to_vec();
        let used = keystore
            .change_system_record(&store_key, Some(generation), Some(&payload), operation, now)
            .await;
        if !matches!(used, Err(KeystoreError::Conflict { .. })) {
            return Ok(UsedUp::First(used?));
        }
        let stored = keystore.system_record(&store_key).await?;
        let stored = stored.ok_or(JoinError::Used)?;
        let record = decode(&store_key, &stored)?;
        // Another token may have taken the place of one whose time ended meanwhile.
        if record.hash != mine.hash || record.used == 0 {
            return Err(JoinError::Used);
        }
        repeated(identity, record, &mine.request).map(UsedUp::Repeated)
    }
}

/// What a used token gives for a signing request. Whoever sends the same one again has its private key, or can do nothing with
/// the reply.
fn repeated(identity: Identity, record: JoinRecord, request: &[u8]) -> Result<Repeated, JoinError> {
    if record.request != request {
        return Err(JoinError::Used);
    }
    Ok(Repeated {
        identity,
        certificate_pem: record.certificate_pem,
        not_after: record.not_after,
    })
}

fn decode(store_key: &str, stored: &SystemRecord) -> Result<JoinRecord, JoinError> {
    JoinRecord::decode(stored.payload.as_ref())
        .map_err(|_| JoinError::UnknownRecord(store_key.to_owned()))
}

fn identity_of(store_key: &str, record: &JoinRecord) -> Result<Identity, JoinError> {
    let name =
        |text: &str| Name::parse(text).map_err(|_| JoinError::UnknownRecord(store_key.to_owned()));
    Ok(Identity::new(name(&record.tenant)?, name(&record.name)?))
}

/// The id of a new token of `tenant`, and the generation of the ended one whose place it takes.
async fn free_place(
    keystore: &Keystore,
    tenant: &Name,
    now: u64,
) -> Result<(String, Option<u64>), JoinError> {
    let (mut count, mut of_tenant) = (0, 0);
    let ended = read_all(keystore, PREFIX, |key, stored| {
        let record = decode(key, stored)?;
        // A used one stays until its time is over, for a reply that was lost.
        if now <= record.expires {
            count += 1;
            of_tenant += usize::from(record.tenant == tenant.as_str());
            return Ok(None);
        }
        let id = key.strip_prefix(PREFIX).unwrap_or_default();
        Ok::<_, JoinError>(Some((id.to_owned(), stored.generation)))
    });
    let ended = ended.await?.into_iter().next();
    if count >= MAX_TOKENS || of_tenant >= MAX_TOKENS_OF_TENANT {
        return Err(JoinError::TooMany);
    }
    if let Some((id, generation)) = ended {
        return Ok((id, Some(generation)));
    }
    let mut id = [0; ID_BYTES];
    random::fill(&mut id)?;
    Ok((data_encoding::HEXLOWER.encode(&id), None))
}

/// The key of the hashes, made when it is first needed.
async fn hash_key(keystore: &Keystore, now: u64) -> Result<hmac::Key, JoinError> {
    if let Some(stored) = keystore.system_record(HASH_KEY).await? {
        let secret = keystore.unwrap_system_secret(HASH_KEY, &stored.payload)?;
        return Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret));
    }
    let mut secret = Zeroizing::new([0; 32]);
    random::fill(secret.as_mut())?;
    let wrapped = keystore.wrap_system_secret(HASH_KEY, secret.as_ref(), now)?;
    let made = keystore
        .change_system_record(HASH_KEY, None, Some(&wrapped), Operation::make()?, now)
        .await;
    match made {
        Ok(_) => Ok(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref())),
        // Another call was first.
        Err(KeystoreError::Conflict { .. }) => {
            let stored = keystore.system_record(HASH_KEY).await?;
            let stored = stored.ok_or_else(|| JoinError::UnknownRecord(HASH_KEY.to_owned()))?;
            let secret = keystore.unwrap_system_secret(HASH_KEY, &stored.payload)?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
