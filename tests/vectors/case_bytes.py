"""The bytes that the vectors are made of."""

import hashlib


def derived(label, length):
    """Bytes that only the label determines: keys and nonces of the vectors."""
    return hashlib.shake_128(b"fieldkeep vectors v1: " + label.encode()).digest(length)


def flip(data, index, mask=0x01):
    data = bytearray(data)
    data[index] ^= mask
    return bytes(data)
