"""A second implementation of docs/ciphertext-format.md, written from that page alone.

Of the `cryptography` package only AES-256 and AES-256-GCM are used. Not for use with real data: nothing here is constant-time.
"""

import base64
import hashlib
import hmac

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


def context_hash(key, context):
    encoded = encode_context(context)
    return hmac.new(key, b"fieldkeep/v1/audit-context" + lp(encoded), hashlib.sha256).digest()[:16]
