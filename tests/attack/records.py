"""Attacks on what is held for a body or a connection beside its bytes: parts of TLS records, windows of zstd."""

import os
import struct
import time
from collections import Counter

from attacks import STRANGERS, close_all, many, newcomer
from node import DESK, ROOT
from wire import Http2


def partial_records(node, quick):
    """Connections that have asked, with many small fields, and then send a TLS record that lacks its end."""
    fields = [("%c%c" % (97 + at // 26 % 26, 97 + at % 26), "") for at in range(90)]
    def begin(number):
        connection = Http2(node.address, STRANGERS[number % 8])
        connection.await_all([connection.begin("GET", "/healthz", fields)], 10)
        # On the line itself, past what encrypts.
        os.write(connection.line.fileno(), b"\x17\x03\x03\x40\x18" + os.urandom(16_400))
        return connection
    connections = many(400 if quick else 2040, begin)
    time.sleep(1)
    more = many(60, begin)
    faults = newcomer(node, DESK, "GET", "/people/P001")
    # A record that came while the request before it was being answered counts after a second.
    time.sleep(2)
    for connection in connections + more:
        connection.listen(0)
    left = sum(not connection.is_over for connection in connections + more)
    close_all(connections + more)
    if left > 256:
        faults.append(f"{left} connections with a part of a record are open")
    return {"begun": len(connections + more), "left": left}, faults


def zeros(length, window_log):
    """So many zeros in zstd (RFC 8878): blocks that repeat one byte, in a frame that needs a window of this size."""
    blocks, left = [], length
    while left:
        size = min(left, 128 << 10)
        left -= size
        blocks.append(struct.pack("<I", size << 3 | 1 << 1 | (not left))[:3] + b"\0")
    return b"\x28\xb5\x2f\xfd" + bytes([0, window_log - 10 << 3]) + b"".join(blocks)


def wide_windows(node, quick):
    """Uploads of a thousand bytes that become 31 MB, each with a window of 8 MiB."""
    body, path = zeros(31 << 20, 23), "/personal-documents/d1/content"
    fields = [("Content-Type", "image/png"), ("Content-Encoding", "zstd")]
    def upload(number):
        client = node.client(ROOT if number % 2 else DESK, STRANGERS[number % 8])
        status = client.ask("PUT", path, body, fields)[0]
        client.close()
        return status
    seen = Counter(many(48 if quick else 400, upload, threads=32))
    faults = [] if set(seen) <= {200, 201, 503} else [f"answers {dict(seen)}"]
    if not seen[200] + seen[201]:
        faults.append("no upload was taken")
    status = node.client(DESK, "127.0.2.3").ask("PUT", path, zeros(1 << 20, 20), fields)[0]
    if status not in (200, 201):
        faults.append(f"a small one afterwards: {status}")
    return {"answers": dict(seen)}, faults


ATTACKS = {
    "wide_windows": (wide_windows, False, None),
    "partial_records": (partial_records, False, None),
}
