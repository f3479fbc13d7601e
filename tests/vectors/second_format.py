"""A second implementation of docs/ciphertext-format.md, written from that page alone.

Of the `cryptography` package only AES-256 and AES-256-GCM are used. Not for use with real data: nothing here is constant-time.
"""

import base64
import hashlib
import hmac
import re
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def be32(n):
    return n.to_bytes(4, "big")


def be64(n):
    return n.to_bytes(8, "big")


def lp(x):
    return be32(len(x)) + x


def xor(*strings):
    out = bytes(len(strings[0]))
    for s in strings:
        out = bytes(a ^ b for a, b in zip(out, s, strict=True))
    return out


def expand32(key, info):
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def aes(key, block):
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def message_keys(key, nonce):
    """Kx and KC of section 6."""
    l = int.from_bytes(aes(key, bytes(16)), "big")
    k1 = (l << 1) & ((1 << 128) - 1)
    if l >> 127:
        k1 ^= 0x87
    k1 = k1.to_bytes(16, "big")
    front, back = nonce[:12], nonce[12:]
    kx = b"".join(aes(key, xor(bytes([0, i, 0x58, 0]) + front, k1)) for i in (1, 2))
    x1 = aes(key, b"XCMT" + front)
    kc = b"".join(aes(key, xor(x1, back + bytes([0, 1, 0, i]), k1)) for i in (1, 2))
    return kx, kc


def seal_message(key, nonce, aad, plaintext):
    kx, kc = message_keys(key, nonce)
    return nonce + AESGCM(kx).encrypt(nonce[12:], plaintext, aad) + kc


def encode_context(context):
    pairs = sorted((name.encode(), value.encode()) for name, value in context.items())
    return b"".join(lp(name) + lp(value) for name, value in pairs)


def header(handle, version, suite=1):
    return b"\xfe" + bytes([suite]) + handle + be32(version)


def field_key(dek, tenant, handle, version, field, suite=1):
    info = b"fieldkeep/v1/field" + bytes([suite]) + lp(tenant.encode()) + handle + be32(version) + lp(field.encode())
    return expand32(dek, info)


def text_form(ciphertext):
    return "fk1:" + base64.urlsafe_b64encode(ciphertext).rstrip(b"=").decode()


class Refused(Exception):
    """Its text is the reason, as docs/ciphertext-format.md, section 11, names them."""


NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def decode_text(text):
    if not text.startswith("fk1:"):
        raise Refused("text_prefix")
    encoded = text[4:]
    if not re.fullmatch(r"[A-Za-z0-9_-]+", encoded) or len(encoded) % 4 == 1:
        raise Refused("text_encoding")
    decoded = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if text_form(decoded) != text:
        raise Refused("text_encoding")
    return decoded


def open_message(key, aad, message):
    if len(message) < 72:
        raise Refused("too_short")
    nonce, sealed, commitment = message[:24], message[24:-32], message[-32:]
    kx, kc = message_keys(key, nonce)
    if not hmac.compare_digest(kc, commitment):
        raise Refused("commitment")
    try:
        return AESGCM(kx).decrypt(nonce[12:], sealed, aad)
    except InvalidTag:
        raise Refused("tag") from None


def open_ciphertext(dek, tenant, handle, version, field, context, ciphertext):
    if not NAME.fullmatch(field):
        raise Refused("field_name")
    encoded = encode_context(context)
    if len(context) > 16 or len(encoded) > 4096 or not all(NAME.fullmatch(name) for name in context):
        raise Refused("context")
    checks = [
        ("too_short", len(ciphertext) >= 1),
        ("magic", ciphertext[:1] == b"\xfe"),
        ("too_short", len(ciphertext) >= 14),
        ("unknown_suite", ciphertext[1:2] == b"\x01"),
        ("version_zero", ciphertext[10:14] != bytes(4)),
        ("too_short", len(ciphertext) >= 86),
        ("too_long", len(ciphertext) <= 65_622),
        ("wrong_handle", ciphertext[2:10] == handle),
        ("wrong_version", ciphertext[10:14] == be32(version)),
    ]
    for reason, passed in checks:
        if not passed:
            raise Refused(reason)
    key = field_key(dek, tenant, handle, version, field)
    return open_message(key, ciphertext[:14] + encoded, ciphertext[14:])


def wrap_context(case):
    aad = bytes([case["purpose"], case["suite"]]) + lp(case["tenant"].encode()) + lp(case["object_id"])
    aad += be32(case["version"]) + be32(case["parent_version"]) + be64(case["created"])
    return aad + (case["store_id"] or b"")


def wrap(case, nonce, secret, aad=None):
    key = expand32(case["parent"], b"fieldkeep/v1/wrap" + bytes([case["purpose"]]))
    return b"\x01" + seal_message(key, nonce, wrap_context(case) if aad is None else aad, secret)


def record_value(key, store_id, store_key, generation, payload, label=b"fieldkeep/v1/record"):
    mac_input = label + store_id + lp(store_key) + be64(generation) + lp(payload)
    return be64(generation) + payload + hmac.new(key, mac_input, hashlib.sha256).digest()


BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def api_key_text(key_id, secret):
    body = f"fk_{key_id}_{secret}"
    checksum, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        checksum, digit = divmod(checksum, 62)
        digits = BASE62[digit] + digits
    return body + digits


def parse_api_key(text):
    """Id and secret of an API key."""
    if not text.startswith("fk_"):
        raise Refused("prefix")
    if not re.fullmatch("fk_[0-9a-z]{16}_[0-9A-Za-z]{49}", text):
        raise Refused("form")
    key_id, secret = text[3:19], text[20:63]
    if api_key_text(key_id, secret) != text:
        raise Refused("checksum")
    return key_id, secret


def api_key_hash(record_key, key_id, secret):
    hash_key = expand32(record_key, b"fieldkeep/v1/api-key-hash")
    return hmac.new(hash_key, lp(key_id.encode()) + lp(secret.encode()), hashlib.sha256).digest()


def context_hash(key, context):
    encoded = encode_context(context)
    return hmac.new(key, b"fieldkeep/v1/audit-context" + lp(encoded), hashlib.sha256).digest()[:16]


def item_hash(key, tenant, name, field, context):
    names = b"".join(lp(part.encode()) for part in (tenant, name, field))
    return hmac.new(key, b"fieldkeep/v1/audit-item" + names + lp(encode_context(context)), hashlib.sha256).digest()[:8]
