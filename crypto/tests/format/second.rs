//! Suite 01 a second time, straight from `docs/ciphertext-format.md`, on the `aes-gcm` crate instead of ring's GCM.
//! It says which check refuses, which the real one never does.

use std::collections::BTreeMap;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

/// What an opener holds and says.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) dek: [u8; 32],
    pub(crate) tenant: String,
    pub(crate) handle: [u8; 8],
    pub(crate) version: u32,
    pub(crate) field: String,
    pub(crate) context: BTreeMap<String, String>,
}

impl Opener {
    pub(crate) fn seal(&self, nonce: &[u8; 24], plaintext: &[u8]) -> Vec<u8> {
        let header = self.header();
        let context = encode_context(&self.context).unwrap();
        let message = seal_message(
            &self.field_key(),
            nonce,
            &[header.clone(), context].concat(),
            plaintext,
        );
        [header, message].concat()
    }

    /// The plaintext, or the reason as the vectors name it.
    pub(crate) fn open(&self, ciphertext: &[u8]) -> Result<Vec<u8>, &'static str> {
        if !is_name(&self.field) {
            return Err("field_name");
        }
        let context = encode_context(&self.context).ok_or("context")?;
        let first = ciphertext.first().ok_or("too_short")?;
        if *first != 0xFE {
            return Err("magic");
        }
        if ciphertext.len() < 14 {
            return Err("too_short");
        }
        if ciphertext[1] != 1 {
            return Err("unknown_suite");
        }
        let version = u32::from_be_bytes(ciphertext[10..14].try_into().unwrap());
        if version == 0 {
            return Err("version_zero");
        }
        if ciphertext.len() < 86 {
            return Err("too_short");
        }
        if ciphertext.len() > 65_622 {
            return Err("too_long");
        }
        if ciphertext[2..10] != self.handle {
            return Err("wrong_handle");
        }
        if version != self.version {
            return Err("wrong_version");
        }
        let (header, message) = ciphertext.split_at(14);
        open_message(&self.field_key(), &[header, &context].concat(), message)
    }

    fn header(&self) -> Vec<u8> {
        [
            &[0xFE, 1],
            self.handle.as_slice(),
            &self.version.to_be_bytes(),
        ]
        .concat()
    }

    fn field_key(&self) -> [u8; 32] {
        let info = [
            b"fieldkeep/v1/field\x01".as_slice(),
            &lp(self.tenant.as_bytes()),
            &self.handle,
            &self.version.to_be_bytes(),
            &lp(self.field.as_bytes()),
        ];
        expand32(&self.dek, &info.concat())
    }
}

/// The bytes of a text form, or the reason.
pub(crate) fn decode_text(text: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = text.strip_prefix("fk1:").ok_or("text_prefix")?;
    let bytes = BASE64URL_NOPAD
        .decode(encoded.as_bytes())
        .map_err(|_| "text_encoding")?;
    if bytes.is_empty() || BASE64URL_NOPAD.encode(&bytes) != encoded {
        return Err("text_encoding");
    }
    Ok(bytes)
}

pub(crate) fn is_name(name: &str) -> bool {
    let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.chars().next().is_some_and(small)
        && name.chars().all(|c| small(c) || ".-_".contains(c))
}

pub(crate) fn encode_context(context: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let encoded: Vec<u8> = context
        .iter()
        .flat_map(|(name, value)| [lp(name.as_bytes()), lp(value.as_bytes())].concat())
        .collect();
    let good = context.len() <= 16 && encoded.len() <= 4096 && context.keys().all(|n| is_name(n));
    good.then_some(encoded)
}

pub(crate) fn lp(x: &[u8]) -> Vec<u8> {
    [&u32::try_from(x.len()).unwrap().to_be_bytes(), x].concat()
}

pub(crate) fn expand32(key: &[u8], info: &[u8]) -> [u8; 32] {
    hmac_sha256(key, &[info, &[1]].concat())
}

pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().try_into().unwrap()
}

pub(crate) fn seal_message(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let (kx, kc) = message_keys(key, nonce);
    let gcm_nonce = Nonce::try_from(&nonce[12..]).unwrap();
    let sealed = Aes256Gcm::new(&kx.into())
        .encrypt(&gcm_nonce, Payload { msg, aad })
        .unwrap();
    [nonce.as_slice(), &sealed, &kc].concat()
}

pub(crate) fn open_message(
    key: &[u8; 32],
    aad: &[u8],
    message: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let (nonce, rest) = message.split_first_chunk::<24>().ok_or("too_short")?;
    let (msg, commitment) = rest.split_last_chunk::<32>().ok_or("too_short")?;
    if msg.len() < 16 {
        return Err("too_short");
    }
    let (kx, kc) = message_keys(key, nonce);
    if kc != *commitment {
        return Err("commitment");
    }
    let gcm_nonce = Nonce::try_from(&nonce[12..]).unwrap();
    Aes256Gcm::new(&kx.into())
        .decrypt(&gcm_nonce, Payload { msg, aad })
        .map_err(|_| "tag")
}

fn message_keys(key: &[u8; 32], nonce: &[u8; 24]) -> ([u8; 32], [u8; 32]) {
    let cipher = Aes256::new(key.into());
    let e = |input: [u8; 16]| {
        let mut block = input.into();
        cipher.encrypt_block(&mut block);
        <[u8; 16]>::from(block)
    };
    let l = e([0; 16]);
    let mut k1 = [0; 16];
    for i in 0..16 {
        k1[i] = (l[i] << 1) | l.get(i + 1).map_or(0, |next| next >> 7);
    }
    if l[0] & 0x80 != 0 {
        k1[15] ^= 0x87;
    }
    let xor = |a: [u8; 16], b: [u8; 16]| std::array::from_fn(|i| a[i] ^ b[i]);
    let join = |a: &[u8], b: &[u8]| -> [u8; 16] { [a, b].concat().try_into().unwrap() };
    let two = |a: [u8; 16], b: [u8; 16]| -> [u8; 32] { [a, b].concat().try_into().unwrap() };
    let kx = |i| e(xor(join(&[0, i, b'X', 0], &nonce[..12]), k1));
    let x1 = e(join(b"XCMT", &nonce[..12]));
    let kc = |i| e(xor(xor(x1, join(&nonce[12..], &[0, 1, 0, i])), k1));
    (two(kx(1), kx(2)), two(kc(1), kc(2)))
}
