#!/usr/bin/env python3
"""Makes the vector files with the second implementation beside it.

    python3 tests/vectors/generate.py            writes the vector files
    python3 tests/vectors/generate.py --check    makes them again and compares; fails if one differs

Needs Python 3.10 or later and the `cryptography` package. Keys and nonces come from the hash of the case's name, so the output is
always the same. The format is frozen: a run must not change existing cases.
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True  # The imports below lie beside this file; leave no cache there.

from ciphertext_cases import open_cases, refuse_cases
from second_format import Refused, decode_text, open_ciphertext, seal_message
from stored_cases import api_key_vectors, audit_vectors, item_vectors, record_vectors, wrap_vectors

HERE = pathlib.Path(__file__).parent


def self_test():
    """The known answers of docs/ciphertext-format.md, section 6."""
    n = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    answers = [
        (1, b"B" * 24, b"Hello, XAES-256-GCM!", b"", "01e5f78bc99de880bd2eeff2870d361f0eab5b2fc55268f34b14045878fe3668db980319"
         "bf37571be1b43aeca64a95d99a2f162e24f8bfd79bbb71fa7d943e6fc060a8ae"),
        (1, n, b"XAES-256-GCM", b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"
         "04076b6085eebab138855fe57811c04112eff989d44120dfff662d5475a383c3"),
        (3, n, b"XAES-256-GCM", b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"
         "5553cd21d1592b422e3129632a3187eee8a658cdca5c5b32ce86308dcc18e9d1"),
    ]
    for byte, nonce, plaintext, aad, answer in answers:
        assert seal_message(bytes([byte]) * 32, nonce, aad, plaintext) == nonce + bytes.fromhex(answer)


def check_ciphertexts(cases):
    """Opens every case with the second implementation: each gives its plaintext or is refused for its reason."""
    for case in cases["open"] + cases["refuse"]:
        opener = [bytes.fromhex(case["dek"]), case["tenant"], bytes.fromhex(case["handle"])]
        opener += [case["version"], case["field"], case["context"]]
        try:
            given = decode_text(case["text"]) if "text" in case else bytes.fromhex(case["ciphertext"])
            outcome = open_ciphertext(*opener, given).hex()
        except Refused as refused:
            outcome = str(refused)
        expected = case.get("reason", case.get("plaintext"))
        assert outcome == expected, f"{case['name']}: {outcome} instead of {expected}"


def main():
    self_test()
    files = {
        "ciphertext-v1.json": {"open": open_cases(), "refuse": refuse_cases()},
        "wrap-v1.json": wrap_vectors(),
        "record-v1.json": record_vectors(),
        "audit-context-v1.json": audit_vectors(),
        "audit-item-v1.json": item_vectors(),
        "api-key-v1.json": api_key_vectors(),
    }
    check_ciphertexts(files["ciphertext-v1.json"])
    differ = []
    for file_name, content in files.items():
        for kind, cases in content.items():
            names = [case["name"] for case in cases]
            assert len(set(names)) == len(names), f"{file_name}: a name of {kind} occurs twice"
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        path = HERE / file_name
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                differ.append(file_name)
        else:
            path.write_text(text)
        print(file_name, ", ".join(f"{kind} {len(cases)}" for kind, cases in content.items()))
    if differ:
        sys.exit("these differ from what is made here: " + ", ".join(differ))


if __name__ == "__main__":
    main()
