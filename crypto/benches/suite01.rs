//! What suite 01 costs for a value of 64 bytes, beside the least it could cost: AES-256-GCM of ring with the key set up for every
//! message, as any scheme with a key a message must, and with a key that is kept.

#![allow(missing_docs, reason = "`criterion_group` makes undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fieldkeep_crypto::ciphertext::{Ciphertext, Handle, OVERHEAD_KC_XAES, Suite};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::{Dek, FieldKey, Nonce, Nonces};
use fieldkeep_crypto::names::Field;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};

const PLAINTEXT: [u8; 64] = [0x5A; 64];

fn field_key(dek: &Dek) -> FieldKey {
    let field = Field::parse("customer.email").unwrap();
    dek.derive_field_key(
        Suite::KcXaes256Gcm,
        "default",
        Handle::from_bytes([1; 8]),
        1,
        field,
    )
}

fn suite01(c: &mut Criterion) {
    let dek = Dek::make().unwrap();
    let key = field_key(&dek);
    let context = EncodedContext::encode([("id", "1234567")]).unwrap();
    let mut group = c.benchmark_group("suite01");
    group.throughput(Throughput::Elements(1));

    let mut out = Vec::with_capacity(OVERHEAD_KC_XAES + PLAINTEXT.len());
    group.bench_function("seal 64 B, nonce given", |b| {
        b.iter(|| {
            out.clear();
            let nonce = Nonce::dangerous_from_bytes(black_box([7; 24]));
            key.seal(nonce, black_box(&context), black_box(&PLAINTEXT), &mut out)
                .unwrap();
        });
    });
    group.bench_function("seal 64 B, nonce from the system", |b| {
        b.iter(|| {
            out.clear();
            key.seal(
                Nonce::make().unwrap(),
                &context,
                black_box(&PLAINTEXT),
                &mut out,
            )
            .unwrap();
        });
    });
    let sealed = out.clone();
    let mut opened = Vec::with_capacity(256);
    group.bench_function("open 64 B", |b| {
        b.iter(|| {
            opened.clear();
            let ciphertext = Ciphertext::parse(black_box(&sealed)).unwrap();
            key.open(&ciphertext, &context, &mut opened).unwrap();
        });
    });
    group.bench_function("derive a field key", |b| {
        b.iter(|| field_key(black_box(&dek)))
    });
    group.bench_function("encode a context of one pair", |b| {
        b.iter(|| EncodedContext::encode(black_box([("id", "1234567")])).unwrap());
    });

    group.throughput(Throughput::Elements(1000));
    let mut batch = Vec::with_capacity(1000 * (OVERHEAD_KC_XAES + PLAINTEXT.len()));
    group.bench_function("seal 1,000 x 64 B, one draw", |b| {
        b.iter(|| {
            batch.clear();
            for nonce in Nonces::make(1000).unwrap() {
                key.seal(nonce, &context, black_box(&PLAINTEXT), &mut batch)
                    .unwrap();
            }
        });
    });
    group.finish();
}

fn plain_gcm(c: &mut Criterion) {
    let key_bytes = [3; 32];
    let aad = [4; 14 + 17];
    let nonce = || ring::aead::Nonce::assume_unique_for_key(black_box([7; 12]));
    let cipher = |bytes: &[u8; 32]| LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).unwrap());
    let mut group = c.benchmark_group("plain ring AES-256-GCM");
    group.throughput(Throughput::Elements(1));

    let mut out = Vec::with_capacity(256);
    group.bench_function("seal 64 B, key set up", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&PLAINTEXT));
            let cipher = cipher(black_box(&key_bytes));
            cipher
                .seal_in_place_append_tag(nonce(), Aad::from(&aad), &mut out)
                .unwrap();
        });
    });
    let kept = cipher(&key_bytes);
    group.bench_function("seal 64 B, key kept", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&PLAINTEXT));
            kept.seal_in_place_append_tag(nonce(), Aad::from(&aad), &mut out)
                .unwrap();
        });
    });
    let sealed = out.clone();
    group.bench_function("open 64 B, key set up", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&sealed));
            let cipher = cipher(black_box(&key_bytes));
            cipher
                .open_in_place(nonce(), Aad::from(&aad), &mut out)
                .unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, suite01, plain_gcm);
criterion_main!(benches);
