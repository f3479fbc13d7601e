#!/usr/bin/env python3
"""Checks Fieldkeep's audit trail with code of its own: made from docs/audit-format.md, standard library alone.

verify_tlog.py VKEY PROOF RECORD                        is the record (a file of its bytes) in the log?
verify_tlog.py VKEY --consistency OLD_CHECKPOINT PROOF  did the log only grow since the old checkpoint?
"""
import base64, re, sys
from hashlib import sha256, sha512
P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

def must(condition, refusal):
    if not condition: sys.exit("refused: " + refusal)

def decode_point(data):  # RFC 8032, section 5.1.3
    sign, y = divmod(int.from_bytes(data, "little"), 2**255)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P: x = x * pow(2, (P - 1) // 4, P) % P
    must(y < P and (x * x - square) % P == 0 and (x or not sign), "a point is not on the curve")
    return (x if x & 1 == sign else P - x), y

def add(p, q):  # the law of addition of RFC 8032, section 5.1, without the faster coordinates
    t, cross = D * p[0] * q[0] * p[1] * q[1], p[0] * q[1] + q[0] * p[1]
    return cross * pow(1 + t, -1, P) % P, (p[1] * q[1] + p[0] * q[0]) * pow(1 - t, -1, P) % P

def times(number, point):
    half = times(number // 2, add(point, point)) if number else (0, 1)
    return add(half, point) if number & 1 else half

def verify_ed25519(public, message, signature):  # RFC 8032, section 5.1.7
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(sha512(r + public + message).digest(), "little") % Q
    sb, base = s < Q and len(signature) == 64, decode_point(bytes.fromhex("58" + "66" * 31))
    return sb and times(s, base) == add(decode_point(r), times(k, decode_point(public)))

def decode(text, lengths):
    must(re.fullmatch("[A-Za-z0-9+/]+={0,2}", text) and len(text) % 4 == 0, "not base64: " + text)
    data = base64.b64decode(text)
    return must(base64.b64encode(data).decode() == text and len(data) in lengths, "wrong base64: " + text) or data

def decimal(line, name):
    match = re.fullmatch(name + "(0|[1-9][0-9]{0,18})", line)
    must(match and int(match[1]) <= 2**62, "`%s` is not `%s<number>`" % (line, name))
    return int(match[1])

def open_checkpoint(note, vkey):
    name, key_id, key = vkey.split("+", 2)
    key = decode(key, [33])
    must(key[0] == 1 and sha256(name.encode() + b"\n" + key).hexdigest()[:8] == key_id, "the key is malformed")
    must(not re.search("[\0-\x09\x0b-\x1f]", note), "the note has a control character")
    (text, _, signatures), good = note.rpartition("\n\n"), False
    for line in signatures.split("\n")[:-1]:
        match = re.fullmatch("\u2014 ([^\\s+]+) (\\S+)", line)
        must(match, "`%s` is not a signature" % line)
        signature = decode(match[2], range(5, 10000))
        if (match[1], signature[:4].hex()) == (name, key_id):
            good = verify_ed25519(key[1:], text.encode() + b"\n", signature[4:])
            must(good, "the signature is bad: the checkpoint was changed or forged")
    lines = text.split("\n")
    must(good and signatures[-1:] == "\n" and lines[0] == name, "the log did not sign this checkpoint")
    must(len(lines) > 2 and all(lines), "the checkpoint is malformed")
    return decimal(lines[1], ""), decode(lines[2], [32])

def climb(at, last, path, start):  # the roots that the path leads to: without what is to the right of `at`, and with it
    old = new = start
    for sibling in path:
        must(last > 0, "the proof has too many hashes")
        if at & 1 or at == last:
            old, new = (sha256(b"\1" + sibling + root).digest() for root in (old, new))
            while at and not at & 1: at, last = at >> 1, last >> 1
        else: new = sha256(b"\1" + new + sibling).digest()
        at, last = at >> 1, last >> 1
    must(last == 0, "the proof has too few hashes")
    return old, new

def main(vkey, option, *files):
    proof = files[1] if option == "--consistency" else option
    head, _, note = open(proof, "rb").read().decode().partition("\n\n")
    (size, root), (first, *lines), other = open_checkpoint(note, vkey), head.split("\n"), open(files[0], "rb").read()
    if option != "--consistency":
        if lines and lines[0].startswith("extra "): decode(lines.pop(0)[6:], range(1, 65536))
        index = decimal(lines.pop(0) if lines else "", "index ")
        must(first == "c2sp.org/tlog-proof@v1" and index < size, "the proof is of another kind or checkpoint")
        path, leaf = [decode(line, [32]) for line in lines], sha256(b"\0" + other).digest()
        must(climb(index, size - 1, path, leaf)[1] == root, "the record or the log was changed")
        return print("in the log: record %d of %d" % (index, size))
    path, (old_size, old_root) = [decode(line, [32]) for line in lines], open_checkpoint(other.decode(), vkey)
    must(decimal(first, "old ") == old_size <= size, "the proof is for another checkpoint, or the log shrank")
    below = (old_size & -old_size).bit_length() - 1  # the level of the subtree that the old log ends with
    if old_size in (0, size): result = None if path else (root if old_size else sha256().digest(), root)
    else:
        path = [old_root] * (old_size == 1 << below) + path
        must(path, "the proof has too few hashes")
        result = climb((old_size - 1) >> below, (size - 1) >> below, path[1:], path[0])
    must(result == (old_root, root), "the log was changed")
    print("consistent: the log grew from %d to %d records" % (old_size, size))
must(len(sys.argv) == (5 if "--consistency" in sys.argv[2:3] else 4), __doc__)
main(*sys.argv[1:])
