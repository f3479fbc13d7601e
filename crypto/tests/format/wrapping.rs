//! Wraps and records by their typed interface: each opens as exactly what it was made for.

use fieldkeep_crypto::error::{OpenError, SealError};
use fieldkeep_crypto::keys::{AuditKey, Dek, Kek, MasterKey, RecordKey, RootKey};
use fieldkeep_crypto::record::{RECORD_OVERHEAD_BYTES, RecordError};
use fieldkeep_crypto::wrap::{
    self, MAX_SECRET_BYTES, Purpose, StoreId, WRAP_OVERHEAD_BYTES, WrapContext,
};
use proptest::prelude::*;
use zeroize::Zeroizing;

const PURPOSES: [Purpose; 7] = [
    Purpose::MasterKey,
    Purpose::Kek,
    Purpose::Dek,
    Purpose::RecordKey,
    Purpose::TenantRecordKey,
    Purpose::CaKey,
    Purpose::AuditKey,
];

fn context<'a>(purpose: Purpose, store_id: &'a StoreId) -> WrapContext<'a> {
    WrapContext {
        suite: u8::from(purpose == Purpose::Dek),
        tenant: "default",
        object_id: b"object",
        version: 3,
        parent_version: 2,
        created: 1_700_000_000,
        store_id: (purpose == Purpose::Kek).then_some(store_id),
    }
}

fn root() -> RootKey {
    RootKey::from_bytes(Zeroizing::new([1; 32]))
}

/// Two keys of one role are the same if one opens what was made under the other.
#[test]
fn the_whole_hierarchy_unwraps() {
    let id = StoreId::make().unwrap();
    let root = root();
    let made = MasterKey::make().unwrap();
    let wrapped = made.wrap(&root, &context(Purpose::MasterKey, &id)).unwrap();
    assert_eq!(wrapped.len(), 32 + WRAP_OVERHEAD_BYTES);
    let master = MasterKey::unwrap(&root, &context(Purpose::MasterKey, &id), &wrapped).unwrap();

    let made_kek = Kek::make().unwrap();
    let wrapped = made_kek.wrap(&made, &context(Purpose::Kek, &id)).unwrap();
    let kek = Kek::unwrap(&master, &context(Purpose::Kek, &id), &wrapped).unwrap();

    let dek = Dek::make().unwrap();
    let wrapped = dek.wrap(&made_kek, &context(Purpose::Dek, &id)).unwrap();
    Dek::unwrap(&kek, &context(Purpose::Dek, &id), &wrapped).unwrap();

    let record_key = RecordKey::make().unwrap();
    let value = record_key.seal_record(&id, b"k", 1, b"payload");
    let system = record_key
        .wrap(&made, &context(Purpose::RecordKey, &id))
        .unwrap();
    let tenant = record_key
        .wrap_for_tenant(&made_kek, &context(Purpose::TenantRecordKey, &id))
        .unwrap();
    for key in [
        RecordKey::unwrap(&master, &context(Purpose::RecordKey, &id), &system).unwrap(),
        RecordKey::unwrap_for_tenant(&kek, &context(Purpose::TenantRecordKey, &id), &tenant)
            .unwrap(),
    ] {
        assert_eq!(
            key.open_record(&id, b"k", &value).unwrap().payload,
            b"payload"
        );
    }

    let audit = AuditKey::make().unwrap();
    let wrapped = audit.wrap(&made, &context(Purpose::AuditKey, &id)).unwrap();
    let unwrapped = AuditKey::unwrap(&master, &context(Purpose::AuditKey, &id), &wrapped).unwrap();
    let empty = fieldkeep_crypto::context::EncodedContext::EMPTY;
    assert_eq!(audit.context_hash(&empty), unwrapped.context_hash(&empty));
}

#[test]
fn each_purpose_has_one_kind_of_parent() {
    let id = StoreId::make().unwrap();
    let (root, master, kek) = (root(), MasterKey::make().unwrap(), Kek::make().unwrap());
    for purpose in PURPOSES {
        let context = context(purpose, &id);
        let outcomes = [
            wrap::wrap(&root, purpose, &context, b"s"),
            wrap::wrap(&master, purpose, &context, b"s"),
            wrap::wrap(&kek, purpose, &context, b"s"),
        ];
        assert_eq!(
            outcomes.iter().filter(|o| o.is_ok()).count(),
            1,
            "{purpose:?}"
        );
        for outcome in outcomes {
            assert!(matches!(outcome, Ok(_) | Err(SealError::WrongParent)));
        }
    }
}

/// The same 32 bytes as parents of different kinds and for different purposes never open each other's wraps.
#[test]
fn purposes_are_apart_even_with_equal_parents() {
    let id = StoreId::make().unwrap();
    let master = MasterKey::dangerous_from_bytes(&[7; 32]);
    let ca = wrap::wrap(
        &master,
        Purpose::CaKey,
        &context(Purpose::CaKey, &id),
        &[9; 32],
    )
    .unwrap();
    let as_audit = wrap::unwrap(
        &master,
        Purpose::AuditKey,
        &context(Purpose::AuditKey, &id),
        &ca,
    );
    assert_eq!(as_audit, Err(OpenError));
    assert!(RecordKey::unwrap(&master, &context(Purpose::RecordKey, &id), &ca).is_err());
}

#[test]
fn a_key_of_another_length_does_not_unwrap() {
    let id = StoreId::make().unwrap();
    let kek = Kek::make().unwrap();
    let context = context(Purpose::Dek, &id);
    for length in [0, 31, 33, 64] {
        let wrapped = wrap::wrap(&kek, Purpose::Dek, &context, &vec![1; length]).unwrap();
        assert_eq!(
            wrap::unwrap(&kek, Purpose::Dek, &context, &wrapped)
                .unwrap()
                .len(),
            length
        );
        assert_eq!(
            Dek::unwrap(&kek, &context, &wrapped).err(),
            Some(OpenError),
            "{length}"
        );
    }
}

#[test]
fn contexts_that_do_not_fit_are_refused() {
    let id = StoreId::make().unwrap();
    let (master, kek) = (MasterKey::make().unwrap(), Kek::make().unwrap());
    let long = "x".repeat(1025);
    let dek = context(Purpose::Dek, &id);
    for bad in [
        WrapContext { suite: 0, ..dek },
        WrapContext {
            store_id: Some(&id),
            ..dek
        },
        WrapContext {
            tenant: &long,
            ..dek
        },
        WrapContext {
            object_id: long.as_bytes(),
            ..dek
        },
    ] {
        assert_eq!(
            wrap::wrap(&kek, Purpose::Dek, &bad, b"s"),
            Err(SealError::WrapContext)
        );
    }
    let kek_context = context(Purpose::Kek, &id);
    for bad in [
        WrapContext {
            store_id: None,
            ..kek_context
        },
        WrapContext {
            suite: 1,
            ..kek_context
        },
    ] {
        assert_eq!(
            wrap::wrap(&master, Purpose::Kek, &bad, b"s"),
            Err(SealError::WrapContext)
        );
    }
    let context = context(Purpose::CaKey, &id);
    let longest = vec![1; MAX_SECRET_BYTES];
    let wrapped = wrap::wrap(&master, Purpose::CaKey, &context, &longest).unwrap();
    assert_eq!(
        *wrap::unwrap(&master, Purpose::CaKey, &context, &wrapped).unwrap(),
        longest
    );
    let longer = vec![1; MAX_SECRET_BYTES + 1];
    assert_eq!(
        wrap::wrap(&master, Purpose::CaKey, &context, &longer),
        Err(SealError::TooLong)
    );
}

#[test]
fn two_wraps_of_one_secret_differ() {
    let id = StoreId::make().unwrap();
    let (kek, context) = (Kek::make().unwrap(), context(Purpose::Dek, &id));
    let wraps = [(); 2].map(|()| wrap::wrap(&kek, Purpose::Dek, &context, &[5; 32]).unwrap());
    assert_ne!(wraps[0], wraps[1]);
}

#[test]
fn every_flipped_bit_of_a_wrap_and_of_a_record_is_refused() {
    let id = StoreId::make().unwrap();
    let (kek, context) = (Kek::make().unwrap(), context(Purpose::Dek, &id));
    let wrapped = Dek::make().unwrap().wrap(&kek, &context).unwrap();
    let key = RecordKey::make().unwrap();
    let value = key.seal_record(&id, b"store key", 7, b"payload");
    let flip = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..wrapped.len() * 8 {
        assert!(
            Dek::unwrap(&kek, &context, &flip(&wrapped, bit)).is_err(),
            "bit {bit}"
        );
    }
    for bit in 0..value.len() * 8 {
        let flipped = flip(&value, bit);
        let opened = key.open_record(&id, b"store key", &flipped);
        assert_eq!(opened, Err(RecordError::NotAuthentic), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn any_bytes_as_wrap(mut bytes: Vec<u8>) {
        let id = StoreId::from_bytes([1; 16]);
        let kek = Kek::dangerous_from_bytes(&[2; 32]);
        prop_assert!(Dek::unwrap(&kek, &context(Purpose::Dek, &id), &bytes).is_err());
        bytes.insert(0, 1);
        prop_assert!(Dek::unwrap(&kek, &context(Purpose::Dek, &id), &bytes).is_err());
    }

    #[test]
    fn records_round_trip_and_belong_to_their_place(
        store: [u8; 16],
        store_key: Vec<u8>,
        generation: u64,
        payload: Vec<u8>,
        other_store: [u8; 16],
        other_key: Vec<u8>,
        garbage: Vec<u8>,
    ) {
        let key = RecordKey::dangerous_from_bytes(&[3; 32]);
        let (id, other_id) = (StoreId::from_bytes(store), StoreId::from_bytes(other_store));
        let value = key.seal_record(&id, &store_key, generation, &payload);
        prop_assert_eq!(value.len(), payload.len() + RECORD_OVERHEAD_BYTES);
        let record = key.open_record(&id, &store_key, &value).unwrap();
        prop_assert_eq!((record.generation, record.payload), (generation, payload.as_slice()));
        prop_assert_eq!(key.open_record(&other_id, &store_key, &value).is_ok(), store == other_store);
        prop_assert_eq!(key.open_record(&id, &other_key, &value).is_ok(), store_key == other_key);
        prop_assert!(key.open_record(&id, &store_key, &garbage).is_err());
    }
}
