"""The cases of wrap-v1.json, record-v1.json, audit-context-v1.json and audit-item-v1.json."""

from case_bytes import derived, flip
from second_format import BASE62, Refused, api_key_hash, api_key_text, be64, context_hash, item_hash, parse_api_key, record_value, wrap


def wrap_base(name, purpose, **parts):
    tenant = purpose in (2, 3, 5)
    case = {
        "purpose": purpose,
        "parent": derived(name + " parent", 32),
        "suite": 1 if purpose == 3 else 0,
        "tenant": "default" if tenant else "",
        "object_id": b"object",
        "version": 1,
        "parent_version": 1,
        "created": 1_700_000_000,
        "store_id": derived(name + " store", 16) if purpose == 2 else None,
    }
    case.update(parts)
    return case


def wrap_json(case):
    out = dict(case)
    for part in ("parent", "object_id", "store_id"):
        out[part] = None if case[part] is None else case[part].hex()
    out["created"] = str(case["created"])
    return out


def wrap_vectors():
    opened, refused = [], []

    def add(name, purpose, secret=None, **parts):
        case = wrap_base(name, purpose, **parts)
        secret = derived(name + " secret", 32) if secret is None else secret
        nonce = derived(name + " nonce", 24)
        wrapped = wrap(case, nonce, secret)
        made = {"name": name, **wrap_json(case), "nonce": nonce.hex(), "secret": secret.hex(), "wrapped": wrapped.hex()}
        opened.append(made)

    names = ["master_key", "kek", "dek", "record_key", "tenant_record_key", "ca_key", "audit_key"]
    for purpose, name in enumerate(names, 1):
        add(name, purpose)
    add("ca_key_of_138_bytes", 6, secret=derived("pkcs8", 138))
    add("ca_key_empty", 6, secret=b"")
    add("dek_largest_numbers", 3, version=2**32 - 1, parent_version=2**32 - 1, created=2**64 - 1)
    add("dek_object_id_of_8_bytes", 3, object_id=bytes.fromhex("00ff00ff00ff00ff"))
    add("kek_object_id_empty", 2, object_id=b"")
    add("dek_boundary_left", 3, tenant="ab", object_id=b"c")
    add("dek_boundary_right", 3, tenant="a", object_id=b"bc")

    def refuse(name, reason, case, wrapped):
        refused.append({"name": name, "reason": reason, **wrap_json(case), "wrapped": wrapped.hex()})

    dek = wrap_base("refuse dek", 3)
    nonce, secret = derived("refuse nonce", 24), derived("refuse secret", 32)
    good = wrap(dek, nonce, secret)
    for length in (0, 1, 25, 72):
        refuse(f"truncated_to_{length}_bytes", "too_short", dek, good[:length])
    refuse("truncated_by_one", "commitment", dek, good[:-1])
    refuse("extended_by_one", "commitment", dek, good + b"\x00")
    refuse("secret_of_16385_bytes", "too_long", dek, wrap(dek, nonce, bytes(16385)))
    for version in (0, 2, 255):
        refuse(f"wrap_version_{version}", "wrap_version", dek, bytes([version]) + good[1:])
    refuse("nonce_flipped", "commitment", dek, flip(good, 1))
    refuse("ciphertext_flipped", "tag", dek, flip(good, 25))
    refuse("tag_flipped", "tag", dek, flip(good, -33))
    refuse("commitment_flipped", "commitment", dek, flip(good, -1))
    refuse("another_parent", "commitment", {**dek, "parent": derived("another parent", 32)}, good)
    record_key = {**dek, "purpose": 5, "suite": 0}
    refuse("dek_as_tenant_record_key", "commitment", record_key, good)
    for part, value in (
        ("suite", 2),
        ("tenant", "other"),
        ("object_id", b"another"),
        ("version", 2),
        ("parent_version", 2),
        ("created", 1_700_000_001),
    ):
        refuse(f"another_{part}", "tag", {**dek, part: value}, good)
    refuse("tenant_and_object_boundary_moved", "tag", {**dek, "tenant": "defaulto", "object_id": b"bject"}, good)
    refuse("dek_without_suite", "wrap_context", {**dek, "suite": 0}, wrap({**dek, "suite": 0}, nonce, secret))
    store_id = derived("a store", 16)
    refuse("dek_with_store_id", "wrap_context", {**dek, "store_id": store_id}, wrap({**dek, "store_id": store_id}, nonce, secret))
    kek = wrap_base("refuse kek", 2)
    good = wrap(kek, nonce, secret)
    refuse("kek_of_another_store", "tag", {**kek, "store_id": store_id}, good)
    without = {**kek, "store_id": None}
    refuse("kek_without_store_id", "wrap_context", without, wrap(without, nonce, secret))
    refuse("kek_sealed_without_store_id", "tag", kek, wrap(without, nonce, secret))
    with_suite = {**kek, "suite": 1}
    refuse("kek_with_suite", "wrap_context", with_suite, wrap(with_suite, nonce, secret))
    return {"open": opened, "refuse": refused}


def record_vectors():
    opened, refused = [], []

    def part(name):
        return derived(name + " record key", 32), derived(name + " store", 16)

    def add(name, store_key=b"tenant/default", generation=1, payload=b"payload"):
        key, store = part(name)
        value = record_value(key, store, store_key, generation, payload)
        case = {"name": name, "record_key": key.hex(), "store_id": store.hex(), "store_key": store_key.hex()}
        opened.append({**case, "generation": str(generation), "payload": payload.hex(), "value": value.hex()})

    add("plain")
    add("payload_empty", payload=b"")
    add("store_key_empty", store_key=b"")
    add("generation_zero", generation=0)
    add("generation_largest", generation=2**64 - 1)
    add("payload_of_4096_bytes", payload=derived("long payload", 4096))
    add("boundary_left", store_key=b"ab", payload=b"c")
    add("boundary_right", store_key=b"a", payload=b"bc")

    key, store = part("refuse")
    good = record_value(key, store, b"tenant/default", 7, b"payload")

    def refuse(name, reason, value, key=key, store=store, store_key=b"tenant/default"):
        case = {"name": name, "reason": reason, "record_key": key.hex(), "store_id": store.hex()}
        refused.append({**case, "store_key": store_key.hex(), "value": value.hex()})

    for length in (0, 7, 8, 39):
        refuse(f"truncated_to_{length}_bytes", "too_short", good[:length])
    refuse("truncated_by_one", "record", good[:-1])
    refuse("extended_by_one", "record", good + b"\x00")
    refuse("generation_flipped", "record", flip(good, 7))
    refuse("generation_rolled_back", "record", be64(6) + good[8:])
    refuse("payload_flipped", "record", flip(good, 8))
    refuse("mac_first_bit_flipped", "record", flip(good, -32, 0x80))
    refuse("mac_last_bit_flipped", "record", flip(good, -1))
    refuse("mac_zero", "record", good[:-32] + bytes(32))
    refuse("another_record_key", "record", good, key=derived("another record key", 32))
    refuse("another_store", "record", good, store=derived("another store", 16))
    refuse("another_store_key", "record", good, store_key=b"tenant/other")
    refuse("store_key_and_payload_boundary_moved", "record", good, store_key=b"tenant/defaul")
    other_label = record_value(key, store, b"tenant/default", 7, b"payload", b"fieldkeep/v1/wrap")
    refuse("another_label", "record", other_label)
    return {"open": opened, "refuse": refused}


def audit_vectors():
    cases = []
    contexts = {
        "empty": {},
        "one_pair": {"id": "42"},
        "two_pairs": {"row": "7", "id": "42"},
        "non_ascii": {"name": "Ünïcode — 名前 — 🗝"},
        "longest": {"id": "x" * (4096 - 10)},
    }
    for name, context in contexts.items():
        key = derived(name + " audit key", 32)
        hashed = context_hash(key, context)
        cases.append({"name": name, "audit_key": key.hex(), "context": context, "hash": hashed.hex()})
    return {"hash": cases}


def item_vectors():
    cases = []

    def add(label, tenant="acme", key="pii", field="customer.ssn", context=None):
        audit_key, context = derived("item audit key", 32), {"id": "4711"} if context is None else context
        hashed = item_hash(audit_key, tenant, key, field, context)
        case = {"name": label, "audit_key": audit_key.hex(), "tenant": tenant, "key": key, "field": field}
        cases.append({**case, "context": context, "hash": hashed.hex()})

    add("plain")
    add("context_empty", context={})
    add("two_pairs", context={"row": "7", "id": "4711"})
    add("context_of_4096_bytes", context={"id": "x" * (4096 - 10)})
    add("another_tenant", tenant="acme2")
    add("another_key", key="pii2")
    add("another_field", field="customer.email")
    add("boundary_of_tenant_and_key_moved", tenant="acm", key="epii")
    add("boundary_of_key_and_field_moved", key="piic", field="ustomer.ssn")
    return {"hash": cases}


def api_key_vectors():
    def characters(label, alphabet, length):
        return "".join(alphabet[byte % len(alphabet)] for byte in derived(label, length))

    def parts(name):
        return characters(name + " id", BASE62[:10] + BASE62[36:], 16), characters(name + " secret", BASE62, 43)

    hashed, refused = [], []

    def add(name, key_id=None, secret=None):
        record_key, made = derived(name + " record key", 32), parts(name)
        key_id, secret = key_id or made[0], secret or made[1]
        case = {"name": name, "record_key": record_key.hex(), "id": key_id, "secret": secret}
        hashed.append({**case, "key": api_key_text(key_id, secret), "hash": api_key_hash(record_key, key_id, secret).hex()})

    def refuse(name, reason, key):
        try:
            outcome = str(parse_api_key(key))
        except Refused as refusal:
            outcome = str(refusal)
        assert outcome == reason, f"{name}: {outcome} instead of {reason}"
        refused.append({"name": name, "reason": reason, "key": key})

    add("plain")
    add("another")
    add("lowest_characters", "0" * 16, "0" * 43)
    add("highest_characters", "z" * 16, "z" * 43)
    zeros = next(n for n in range(10**6) if api_key_text(*parts(f"zeros {n}"))[63:65] == "00")
    add("checksum_with_zeros_in_front", *parts(f"zeros {zeros}"))

    key_id, secret = parts("plain")
    good = api_key_text(key_id, secret)
    refuse("empty", "prefix", "")
    refuse("another_prefix", "prefix", "fx_" + good[3:])
    refuse("prefix_in_capitals", "prefix", "FK_" + good[3:])
    refuse("space_before", "prefix", " " + good)
    refuse("space_after", "form", good + " ")
    refuse("line_end_after", "form", good + "\n")
    refuse("truncated", "form", good[:-1])
    refuse("appended", "form", good + "0")
    refuse("without_checksum", "form", good[:-6])
    refuse("id_in_capitals", "form", good[:3] + good[3:19].upper() + good[19:])
    refuse("id_with_a_capital_and_its_checksum", "form", api_key_text("A" + key_id[1:], secret))
    refuse("separator_missing", "form", good[:19] + "0" + good[20:])
    refuse("secret_with_an_underscore", "form", api_key_text(key_id, "_" + secret[1:]))
    refuse("secret_not_ascii", "form", good[:20] + "é" + good[22:])
    refuse("secret_of_another_key", "checksum", good[:20] + parts("another")[1] + good[63:])
    refuse("id_of_another_key", "checksum", good[:3] + parts("another")[0] + good[19:])
    refuse("two_characters_swapped", "checksum", good[:30] + good[31] + good[30] + good[32:])
    refuse("checksum_zero", "checksum", good[:-6] + "000000")
    refuse("checksum_beyond_32_bits", "checksum", good[:-6] + "zzzzzz")
    return {"hash": hashed, "refuse": refused}
