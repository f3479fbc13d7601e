"""The cases of ciphertext-v1.json."""

import hashlib
import hmac
import unicodedata

from case_bytes import derived, flip
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from second_format import (
    aes,
    be32,
    encode_context,
    expand32,
    field_key,
    header,
    lp,
    message_keys,
    seal_message,
    text_form,
)


class Sealed:
    """A message with everything that it was made from. Keyword arguments replace single parts."""

    def __init__(self, name, **parts):
        self.name = name
        self.dek = derived(name + " dek", 32)
        self.tenant = "default"
        self.handle = derived(name + " handle", 8)
        self.version = 1
        self.field = "customer.email"
        self.context = {"id": "42"}
        self.nonce = derived(name + " nonce", 24)
        self.plaintext = b"jane.doe@example.com"
        for part, value in parts.items():
            assert part in vars(self), part
            setattr(self, part, value)

    @property
    def key(self):
        return field_key(self.dek, self.tenant, self.handle, self.version, self.field)

    @property
    def aad(self):
        return header(self.handle, self.version) + encode_context(self.context)

    @property
    def ciphertext(self):
        return header(self.handle, self.version) + seal_message(self.key, self.nonce, self.aad, self.plaintext)

    def opener(self):
        return {
            "dek": self.dek.hex(),
            "tenant": self.tenant,
            "handle": self.handle.hex(),
            "version": self.version,
            "field": self.field,
            "context": self.context,
        }

    def open_case(self, text=False):
        case = {"name": self.name, **self.opener()}
        case["nonce"] = self.nonce.hex()
        case["plaintext"] = self.plaintext.hex()
        case["ciphertext"] = self.ciphertext.hex()
        if text:
            case["text"] = text_form(self.ciphertext)
        return case


def open_cases():
    cases = []

    def add(name, text=False, **parts):
        cases.append(Sealed(name, **parts).open_case(text))

    add("plain", text=True)
    for length in (0, 1, 2, 15, 16, 17, 29, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1000, 4096):
        add(f"plaintext_of_{length}_bytes", plaintext=derived(f"plaintext {length}", length))
    add("plaintext_all_zero", plaintext=bytes(32))
    add("plaintext_all_ff", plaintext=b"\xff" * 32)
    add("plaintext_not_utf8", plaintext=bytes.fromhex("fe0180ff00c0"))
    add("plaintext_non_ascii", plaintext="Grüße, Ἀθήνα, 東京, 🦀".encode())
    add("plaintext_that_looks_like_a_ciphertext", plaintext=Sealed("inner").ciphertext)
    add("context_empty", context={})
    add("context_value_empty", context={"id": ""})
    add("context_two_pairs_given_unsorted", context={"row": "7", "id": "42"})
    add("context_name_that_begins_another", context={"id.b": "2", "id": "0", "id-a": "1", "id0": "3"})
    add("context_names_of_digits", context={"10": "a", "9": "b"})
    add("context_sixteen_pairs", context={f"n{i}": str(i) for i in range(16)})
    add("context_name_of_63_bytes", context={"n" * 63: "v"})
    add("context_of_4096_bytes", context={"id": "x" * (4096 - 10)})
    add("context_of_193_bytes_with_header", context={"id": "x" * (193 - 14 - 10)})
    add("context_of_192_bytes_with_header", context={"id": "x" * (192 - 14 - 10)})
    add("context_non_ascii", context={"name": "Ünïcode — 名前 — 🗝"})
    add("context_composed", context={"name": unicodedata.normalize("NFC", "é")})
    add("context_decomposed", context={"name": unicodedata.normalize("NFD", "é")})
    add("context_with_nul_and_newline", context={"id": "a\u0000b\r\n"})
    add("field_of_one_byte", field="f")
    add("field_of_63_bytes", field="f" + "._-" * 20 + "ab")
    add("tenant_of_one_byte", tenant="0")
    add("tenant_of_63_bytes", tenant="t" * 63)
    add("tenant_and_field_boundary_left", tenant="ab", field="c")
    add("tenant_and_field_boundary_right", tenant="a", field="bc")
    add("version_2", version=2)
    add("version_256", version=256)
    add("version_largest", version=2**32 - 1)
    add("handle_all_zero", handle=bytes(8))
    add("handle_all_ff", handle=b"\xff" * 8)
    add("nonce_all_zero", nonce=bytes(24))
    add("nonce_all_ff", nonce=b"\xff" * 24)
    add("dek_all_zero", dek=bytes(32))
    add("k1_with_top_bit_0", dek=dek_with_top_bit(0))
    add("k1_with_top_bit_1", dek=dek_with_top_bit(1))
    add("text_without_spare_bits", text=True, plaintext=b"12")
    add("text_with_two_spare_bits", text=True, plaintext=b"123")
    add("text_with_four_spare_bits", text=True, plaintext=b"1")
    add("text_of_empty_plaintext", text=True, plaintext=b"")
    return cases


def dek_with_top_bit(bit):
    """A DEK for whose field key in the case of this name the top bit of L is `bit`."""
    for i in range(64):
        dek = derived(f"top bit {bit} {i}", 32)
        if aes(Sealed(f"k1_with_top_bit_{bit}", dek=dek).key, bytes(16))[0] >> 7 == bit:
            return dek
    raise AssertionError


def refuse_cases():
    cases = []

    def add(name, reason, sealed, ciphertext, text=None, **opener):
        case = {"name": name, "reason": reason, **sealed.opener(), **opener, "ciphertext": ciphertext.hex()}
        if text is not None:
            case["text"] = text
        cases.append(case)

    base = Sealed("refuse", plaintext=b"a plaintext longer than one commitment")
    good = base.ciphertext
    n_at, c_at, t_at, kc_at = 14, 38, len(good) - 48, len(good) - 32
    refuse_by_length(add, base, good)
    refuse_by_header(add, base, good)
    refuse_by_flips(add, base, good, (n_at, c_at, t_at, kc_at))
    refuse_by_splices(add, base, good, (n_at, c_at, t_at, kc_at))
    refuse_by_opener(add, base, good)
    refuse_by_other_constructions(add, base)
    refuse_by_text(add, base, good)
    return cases


def refuse_by_length(add, base, good):
    for length in (0, 1, 2, 9, 13, 14, 37, 38, 53, 54, 85):
        add(f"truncated_to_{length}_bytes", "too_short", base, good[:length])
    empty = Sealed("refuse_empty", plaintext=b"")
    add("empty_plaintext_truncated_by_one", "too_short", empty, empty.ciphertext[:-1])
    add("truncated_to_86_bytes", "commitment", base, good[:86])
    add("truncated_by_one", "commitment", base, good[:-1])
    add("truncated_by_16", "commitment", base, good[:-16])
    add("extended_by_one_zero", "commitment", base, good + b"\x00")
    add("extended_by_itself", "tag", base, good + good)
    add("empty_plaintext_extended_by_one", "commitment", empty, empty.ciphertext + b"\x00")
    add("prefixed_by_one_zero", "magic", base, b"\x00" + good)
    long = Sealed("refuse_long", plaintext=bytes(65537))
    add("plaintext_of_65537_bytes", "too_long", long, long.ciphertext)


def refuse_by_header(add, base, good):
    add("magic_ff", "magic", base, b"\xff" + good[1:])
    add("magic_00", "magic", base, b"\x00" + good[1:])
    add("magic_7e", "magic", base, flip(good, 0, 0x80))
    add("text_form_given_as_bytes", "magic", base, text_form(good).encode())
    for suite in (0x00, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x81, 0xFE, 0xFF):
        add(f"suite_{suite:02x}", "unknown_suite", base, good[:1] + bytes([suite]) + good[2:])
    add("version_zero", "version_zero", base, good[:10] + be32(0) + good[14:])
    zero = Sealed("refuse_version_zero", version=0)
    add("version_zero_sealed_so", "version_zero", zero, zero.ciphertext)
    add("version_next", "wrong_version", base, good[:10] + be32(2) + good[14:])
    add("version_little_endian", "wrong_version", base, good[:10] + bytes([1, 0, 0, 0]) + good[14:])
    add("handle_first_bit_flipped", "wrong_handle", base, flip(good, 2, 0x80))
    add("handle_last_bit_flipped", "wrong_handle", base, flip(good, 9, 0x01))
    add("handle_zero", "wrong_handle", base, good[:2] + bytes(8) + good[10:])


def refuse_by_flips(add, base, good, offsets):
    n_at, c_at, t_at, kc_at = offsets
    add("nonce_first_bit_flipped", "commitment", base, flip(good, n_at, 0x80))
    add("nonce_byte_12_flipped", "commitment", base, flip(good, n_at + 12))
    add("nonce_last_bit_flipped", "commitment", base, flip(good, c_at - 1))
    add("ciphertext_first_bit_flipped", "tag", base, flip(good, c_at, 0x80))
    add("ciphertext_last_bit_flipped", "tag", base, flip(good, t_at - 1))
    add("tag_first_bit_flipped", "tag", base, flip(good, t_at, 0x80))
    add("tag_last_bit_flipped", "tag", base, flip(good, kc_at - 1))
    add("commitment_first_bit_flipped", "commitment", base, flip(good, kc_at, 0x80))
    add("commitment_byte_16_flipped", "commitment", base, flip(good, kc_at + 16))
    add("commitment_last_bit_flipped", "commitment", base, flip(good, len(good) - 1))


def refuse_by_splices(add, base, good, offsets):
    n_at, c_at, t_at, kc_at = offsets
    other = Sealed("refuse_other", dek=base.dek, handle=base.handle, plaintext=b"another value, same key").ciphertext
    add("ciphertext_byte_removed", "tag", base, good[: t_at - 1] + good[t_at:])
    add("ciphertext_byte_added", "tag", base, good[:t_at] + b"\x00" + good[t_at:])
    add("ciphertext_removed", "tag", base, good[:c_at] + good[t_at:])
    add("tag_removed", "tag", base, good[:t_at] + good[kc_at:])
    add("tag_zero", "tag", base, good[:t_at] + bytes(16) + good[kc_at:])
    add("tag_of_another_message", "tag", base, good[:t_at] + other[-48:-32] + good[kc_at:])
    add("commitment_removed", "commitment", base, good[:kc_at])
    add("commitment_zero", "commitment", base, good[:kc_at] + bytes(32))
    add("commitment_halves_swapped", "commitment", base, good[:kc_at] + good[-16:] + good[kc_at:-16])
    add("commitment_of_another_message", "commitment", base, good[:kc_at] + other[-32:])
    add("nonce_and_commitment_of_another_message", "tag", base, good[:14] + other[14:38] + good[38:kc_at] + other[-32:])
    add("nonce_removed", "commitment", base, good[:n_at] + good[c_at:] + bytes(24))


def refuse_by_opener(add, base, good):
    add("opened_with_another_field", "commitment", base, good, field="customer.phone")
    add("opened_with_another_tenant", "commitment", base, good, tenant="other")
    add("opened_with_another_dek", "commitment", base, good, dek=derived("another dek", 32).hex())
    add("opened_with_another_handle", "wrong_handle", base, good, handle=derived("another handle", 8).hex())
    add("opened_with_another_version", "wrong_version", base, good, version=2)
    moved = good[:2] + bytes(8) + good[10:]
    add("moved_to_another_handle_with_the_same_dek", "commitment", base, moved, handle=bytes(8).hex())
    moved = good[:10] + be32(2) + good[14:]
    add("moved_to_another_version_with_the_same_dek", "commitment", base, moved, version=2)
    add("opened_with_another_context_value", "tag", base, good, context={"id": "43"})
    add("opened_with_another_context_name", "tag", base, good, context={"row": "42"})
    add("opened_without_context", "tag", base, good, context={})
    add("opened_with_more_context", "tag", base, good, context={"id": "42", "row": ""})
    swapped = Sealed("refuse_swapped", context={"a": "b", "c": "d"})
    add("context_values_swapped", "tag", swapped, swapped.ciphertext, context={"a": "d", "c": "b"})
    composed = Sealed("refuse_composed", context={"name": unicodedata.normalize("NFC", "Zoë")})
    decomposed = {"name": unicodedata.normalize("NFD", "Zoë")}
    add("context_value_normalised", "tag", composed, composed.ciphertext, context=decomposed)
    left = Sealed("refuse_boundary", tenant="ab", field="c")
    add("tenant_and_field_boundary_moved", "commitment", left, left.ciphertext, tenant="a", field="bc")
    add("field_with_capital", "field_name", base, good, field="Customer.email")
    add("field_empty", "field_name", base, good, field="")
    add("field_of_64_bytes", "field_name", base, good, field="f" * 64)
    add("field_non_ascii", "field_name", base, good, field="naïve")
    add("context_name_with_capital", "context", base, good, context={"Id": "42"})
    add("context_seventeen_pairs", "context", base, good, context={f"n{i}": "" for i in range(17)})
    add("context_of_4097_bytes", "context", base, good, context={"id": "x" * (4097 - 10)})


def refuse_by_other_constructions(add, base):
    """What implementations that misread the format would make: each must be refused."""

    def message(aad=None, key=None):
        sealed = seal_message(key or base.key, base.nonce, base.aad if aad is None else aad, base.plaintext)
        return header(base.handle, base.version) + sealed

    head = header(base.handle, base.version)
    two = Sealed("refuse_two", context={"b": "1", "a": "2"})
    unsorted = b"".join(lp(n.encode()) + lp(v.encode()) for n, v in two.context.items())
    head_two = header(two.handle, two.version)
    sealed = head_two + seal_message(two.key, two.nonce, head_two + unsorted, two.plaintext)
    add("sealed_with_unsorted_context", "tag", two, sealed)
    add("sealed_without_header_in_aad", "tag", base, message(encode_context(base.context)))
    add("sealed_with_context_before_header", "tag", base, message(encode_context(base.context) + head))
    add("sealed_with_lengths_of_two_bytes", "tag", base, message(head + b"\x00\x02id\x00\x0242"))
    add("sealed_with_little_endian_lengths", "tag", base, message(head + b"\x02\x00\x00\x00id\x02\x00\x00\x0042"))
    add("sealed_under_the_dek_itself", "commitment", base, message(key=base.dek))
    concatenated = b"fieldkeep/v1/field\x01" + base.tenant.encode() + base.handle + be32(1) + base.field.encode()
    add("sealed_without_length_prefixes_in_the_key", "commitment", base, message(key=expand32(base.dek, concatenated)))
    suite_04 = field_key(base.dek, base.tenant, base.handle, base.version, base.field, suite=4)
    add("sealed_under_the_key_of_suite_04", "commitment", base, message(key=suite_04))
    kx, kc = message_keys(base.key, base.nonce)
    front = AESGCM(kx).encrypt(base.nonce[:12], base.plaintext, base.aad)
    add("sealed_with_the_first_half_of_the_nonce", "tag", base, head + base.nonce + front + kc)
    plain = AESGCM(base.key).encrypt(base.nonce[12:], base.plaintext, base.aad)
    add("sealed_with_plain_gcm_under_the_field_key", "tag", base, head + base.nonce + plain + kc)
    mac = hmac.new(base.key, base.nonce, hashlib.sha256).digest()
    add("commitment_is_an_hmac", "commitment", base, message()[:-32] + mac)


def refuse_by_text(add, base, good):
    text = text_form(good)

    def add_text(name, reason, text, sealed=base):
        add(name, reason, sealed, sealed.ciphertext, text=text)

    add_text("text_empty", "text_prefix", "")
    add_text("text_without_prefix", "text_prefix", text[4:])
    add_text("text_prefix_with_capitals", "text_prefix", "FK1:" + text[4:])
    add_text("text_prefix_of_version_2", "text_prefix", "fk2:" + text[4:])
    add_text("text_prefix_without_colon", "text_prefix", "fk1" + text[4:])
    add_text("text_space_before", "text_prefix", " " + text)
    add_text("text_byte_order_mark_before", "text_prefix", "\ufeff" + text)
    add_text("text_prefix_alone", "text_encoding", "fk1:")
    add_text("text_prefix_twice", "text_encoding", "fk1:" + text)
    add_text("text_space_after", "text_encoding", text + " ")
    add_text("text_newline_after", "text_encoding", text + "\n")
    add_text("text_newline_inside", "text_encoding", text[:40] + "\n" + text[40:])
    add_text("text_space_after_prefix", "text_encoding", "fk1: " + text[4:])
    add_text("text_nul_after", "text_encoding", text + "\u0000")
    add_text("text_hexadecimal", "text_encoding", "fk1:0x" + good.hex() + "=")
    add_text("text_of_a_single_character", "text_encoding", "fk1:A")
    add_text("text_non_ascii", "text_encoding", text[:20] + "é" + text[20:])
    add_text("text_with_full_width_letter", "text_encoding", text[:-1] + "Ａ")
    none, two, four = (sealed_with_spare_bits(spare) for spare in (0, 2, 4))
    add_text("text_padded_with_one", "text_encoding", text_form(two.ciphertext) + "=", two)
    add_text("text_padded_with_two", "text_encoding", text_form(four.ciphertext) + "==", four)
    add_text("text_padded_without_need", "text_encoding", text_form(none.ciphertext) + "====", none)
    add_text("text_with_trailing_two_bits", "text_encoding", set_spare_bit(two), two)
    add_text("text_with_trailing_four_bits", "text_encoding", set_spare_bit(four), four)
    add_text("text_with_one_character_too_many", "text_encoding", text_form(none.ciphertext) + "A", none)
    standard = text_form(none.ciphertext).replace("-", "+").replace("_", "/")
    assert standard != text_form(none.ciphertext)
    add_text("text_of_the_standard_alphabet", "text_encoding", standard, none)
    add("text_of_truncated_bytes", "too_short", base, good[:85], text=text_form(good[:85]))
    add("text_of_flipped_commitment", "commitment", base, flip(good, -1), text=text_form(flip(good, -1)))


def sealed_with_spare_bits(spare):
    """A message whose text form has that many unused bits in its last character."""
    length = {0: 40, 2: 42, 4: 41}[spare]
    sealed = Sealed(f"refuse_spare_{spare}", plaintext=b"0" * length)
    assert len(sealed.ciphertext) * 8 % 6 == (6 - spare) % 6
    return sealed


def set_spare_bit(sealed):
    """The text form with the lowest of its unused bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    text = text_form(sealed.ciphertext)
    return text[:-1] + alphabet[alphabet.index(text[-1]) | 1]
