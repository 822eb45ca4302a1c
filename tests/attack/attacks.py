"""The attacks. Each takes a running node and how long it may be (`quick`), and returns what it saw and what is wrong."""

import base64
import gzip
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from node import PATIENT, ROOT, ask_again
from wire import PING, RST, WINDOW, Http1, Http2, basic, connect, frame

#: Addresses that attack.
STRANGERS = [f"127.0.1.{number}" for number in range(1, 250)]
FORM = [("content-type", "application/x-www-form-urlencoded")]
JSON = [("Content-Type", "application/json")]
JSON_BODY = [("content-type", "application/json")]
SESSION = "account=x&password=y"
#: Requests that one connection may have at once, but two.
STREAMS = 30


def many(number, make, threads=16):
    """Results of `make(0)`, `make(1)`... and how many failed to connect."""
    def one(at):
        try:
            return make(at)
        except (OSError, EOFError):
            return None
    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(one, range(number)))
    return [each for each in made if each is not None]


def statuses(connections):
    return Counter(status for connection in connections for status in connection.status.values())


def close_all(connections):
    for connection in connections:
        connection.close()


def send_all(connection, streams, bytes_max, seconds):
    """Bodies of these streams, up to so many bytes each, as far as the node lets them come."""
    sent, until = dict.fromkeys(streams, 0), time.monotonic() + seconds
    while time.monotonic() < until and not connection.is_over:
        before = sum(sent.values())
        for stream in streams:
            if stream not in connection.ended and sent[stream] < bytes_max:
                sent[stream] += connection.data(stream, b" " * min(16000, bytes_max - sent[stream]))
        connection.listen(0.02 if sum(sent.values()) > before else 0.2)
    return sum(sent.values())


def newcomer(node, who, method, path, body=b"", number=1, headers=()):
    """What is wrong with the answer to a client that has nothing yet."""
    begun = time.monotonic()
    try:
        status, text = ask_again(node.is_debug, lambda: node.client(who, f"127.0.2.{number}").ask(method, path, body, headers))
    except (OSError, EOFError) as error:
        return [f"a newcomer's {method} {path}: {error!r} after {time.monotonic() - begun:.1f} s"]
    waited = time.monotonic() - begun
    return [] if status == 200 else [f"a newcomer's {method} {path}: {status} {text[:200]!r} after {waited:.1f} s"]


def anonymous_bodies(node, quick):
    """Forms of up to 1 MiB, by nobody, on as many streams as there are."""
    sent = []
    def flood(number):
        connection = Http2(node.address, STRANGERS[number % 3])
        streams = [connection.begin("POST", "/session" if each % 2 else "/link/x", FORM, has_body=True) for each in range(STREAMS)]
        sent.append(send_all(connection, streams, 1 << 20, 2 if quick else 10))
        return connection
    connections = many(8 if quick else 26, flood, threads=26)
    seen = statuses(connections)
    close_all(connections)
    # Few forms are waited for at once: the others are told to come again.
    faults = [] if seen[413] + seen[401] + seen[503] == STREAMS * len(connections) else [f"too long forms are taken: {seen}"]
    return {"sent": f"{sum(sent) / 1e6:.1f} MB", "refused": dict(seen)}, faults


def dripping_forms(node, quick):
    """Forms that come byte by byte must be given up after a while."""
    def drip(number):
        connection = Http2(node.address, STRANGERS[number % 3])
        for _ in range(STREAMS):
            connection.begin("POST", "/session", FORM, has_body=True)
        return connection
    connections = many(8 if quick else 26, drip)
    until = time.monotonic() + 40
    while time.monotonic() < until and not all(connection.is_over or len(connection.status) == STREAMS for connection in connections):
        for connection in connections:
            for stream in range(1, connection.next, 2):
                if stream not in connection.status:
                    connection.data(stream, b"a")
            connection.listen(0)
        time.sleep(1)
    seen = statuses(connections)
    close_all(connections)
    return {"refused": dict(seen)}, [] if seen[408] and seen[408] + seen[503] == STREAMS * len(connections) else [f"not all are given up: {seen}"]


def packed_bodies(node, quick):
    """Little that unpacks to much."""
    bomb = gzip.compress(b"a" * (64 << 20))
    def send(number):
        client = node.client(PATIENT if number % 2 else None, STRANGERS[number % 3])
        path = "/people/ANA001" if number % 2 else "/session"
        fields = [("Content-Encoding", "gzip"), ("Content-Type", "application/json")]
        return client.ask("PATCH" if number % 2 else "POST", path, bomb, fields)[0]
    seen = Counter(many(40 if quick else 400, send))
    return {"refused": dict(seen)}, [] if set(seen) <= {413, 429, 503} else [f"{seen}"]


def packed_writes(node, quick):
    """Little that unpacks to as much as may be, many at once, by a patient."""
    text = gzip.compress(b'{"notes": "' + b"a" * 1_000_000 + b'"}')
    def flood(number):
        connection = Http2(node.address, STRANGERS[number % 3], auth=basic(*PATIENT))
        fields = [("content-type", "application/json"), ("content-encoding", "gzip")]
        streams = [connection.begin("PATCH", "/people/ANA001", fields, has_body=True) for _ in range(STREAMS)]
        for stream in streams:
            connection.data(stream, text, is_end=True)
        connection.await_all(streams, 20 if quick else 60)
        return connection
    node.client(PATIENT, STRANGERS[0]).ask("GET", "/people/ANA001")
    connections = many(4 if quick else 26, flood, threads=26)
    seen = statuses(connections)
    close_all(connections)
    faults = [] if set(seen) <= {200, 429, 503} and seen[200] else [f"{seen}"]
    return {"answers": dict(seen)}, faults


def parsed_bodies(node, quick):
    """Bodies that take many times their length once they are read, whose last byte comes for all at the same moment."""
    def begin(number):
        text = json.dumps({"id": f"k{number}", "x": [{}] * 19_900}, separators=(",", ":")).encode()
        line = connect(node.address, STRANGERS[number % 8], "http/1.1")
        line.settimeout(60)
        line.sendall(f"POST /pols/ANA001/k{number} HTTP/1.1\r\nHost: l\r\nAuthorization: {basic(*PATIENT)}\r\n"
                     f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text[:-1])
        return line
    node.client(PATIENT, STRANGERS[0]).ask("GET", "/people/ANA001")
    lines = many(100 if quick else 200, begin)
    time.sleep(1)
    answers = Counter()
    for line in lines:
        try:
            line.sendall(b"}")
        except OSError:
            pass
    for line in lines:
        try:
            answers[line.recv(65536)[9:12].decode()] += 1
        except OSError as error:
            answers[type(error).__name__] += 1
    close_all(lines)
    return {"answers": dict(answers)}, [] if answers["201"] + answers["200"] else [f"{answers}"]


def many_values(node, quick):
    """Bodies of a mebibyte that are nothing but short values, by a patient."""
    rows = [("1", 500_000), ("{}", 340_000), ('{"a":1}', 130_000), ('""', 340_000), ("[[]]", 200_000)]
    def send(number):
        row, many_rows = rows[number % len(rows)]
        text = '{"x":[' + ",".join([row] * many_rows) + "]}"
        return node.client(PATIENT, STRANGERS[number % 8]).ask("PATCH", "/people/ANA001", text.encode(), JSON)[0]
    node.client(PATIENT, STRANGERS[0]).ask("GET", "/people/ANA001")
    seen = Counter(many(60 if quick else 400, send))
    return {"refused": dict(seen)}, [] if set(seen) <= {413, 429, 503} and seen[413] else [f"{seen}"]


def heavy_records(node, quick):
    """Records with as many short values as there may be, which a patient changes again and again, many at once."""
    client = node.client(PATIENT, STRANGERS[0])
    part, made = [{"a": 1}] * 4000, Counter()
    for number in range(8 if quick else 24):
        made[client.ask("POST", f"/pols/ANA001/h{number}", json.dumps({"id": f"h{number}"}).encode(), JSON)[0]] += 1
        for each in range(5):
            change = json.dumps({f"part{each}": part}).encode()
            made[client.ask("PATCH", f"/pols/ANA001/h{number}", change, JSON)[0]] += 1
    def change(number):
        client = node.client(PATIENT, STRANGERS[number % 8])
        note = json.dumps({"note": number}).encode()
        return client.ask("PATCH", f"/pols/ANA001/h{number % (8 if quick else 24)}", note, JSON)[0]
    seen = Counter(many(100 if quick else 1000, change))
    faults = [] if set(seen) <= {200, 429, 503} and seen[200] else [f"{seen}"]
    return {"made": dict(made), "changes": dict(seen)}, faults


def own_bodies(node, quick):
    """A patient's own bodies of up to 1 MiB, all but their last byte."""
    sent = []
    def flood(number):
        connection = Http2(node.address, STRANGERS[number % 2], auth=basic(*PATIENT))
        json_body = [("content-type", "application/json")]
        streams = [connection.begin("PATCH", "/people/ANA001", json_body, has_body=True) for _ in range(STREAMS)]
        sent.append(send_all(connection, streams, (1 << 20) - 1, 4 if quick else 20))
        return connection
    node.client(PATIENT, STRANGERS[0]).ask("GET", "/people/ANA001")
    connections = many(4 if quick else 26, flood, threads=26)
    faults = newcomer(node, ROOT, "PATCH", "/people/P001", json.dumps({"notes": "z" * 500_000}).encode())
    seen = statuses(connections)
    close_all(connections)
    return {"sent": f"{sum(sent) / 1e6:.1f} MB", "refused": dict(seen)}, faults


def unread_record(node, quick):
    """A patient's client that asks for its own record again and again and takes none of the answers."""
    def ask(number):
        connection = Http2(node.address, STRANGERS[number % 3], window=0, auth=basic(*PATIENT))
        for _ in range(20):
            connection.begin("GET", "/people/ANA001")
        connection.listen(0.2)
        return connection
    connections = many(6 if quick else 24, ask)
    for connection in connections:
        connection.listen(1)
    faults = newcomer(node, PATIENT, "GET", "/people/ANA001")
    time.sleep(6)
    for connection in connections:
        connection.listen(0.1)
    seen = statuses(connections)
    ended = sum(connection.is_over for connection in connections)
    close_all(connections)
    return {"refused": dict(seen), "ended": ended}, faults


def unread_lists(node, quick, who=ROOT, path="/people"):
    """Lists of everybody that nobody takes: HTTP/2 with windows that are shut."""
    def ask(number):
        connection = Http2(node.address, STRANGERS[number % 3], window=0, auth=basic(*who))
        for _ in range(STREAMS):
            connection.begin("GET", path)
        connection.listen(0.5)
        return connection
    connections = many(12 if quick else 48, ask)
    faults = newcomer(node, who, "GET", path)
    time.sleep(6)
    for connection in connections:
        connection.listen(0.1)
    seen = statuses(connections)
    close_all(connections)
    return {"refused": dict(seen)}, faults


def unread_large_list(node, quick):
    """The list of one person's large record, that nobody takes."""
    return unread_lists(node, quick, ROOT, "/people?person=" + PATIENT[0])


def unread_changes(node, quick):
    """Streams of changes that nobody takes."""
    for number in range(1000):
        node.client(ROOT).ask("PATCH", f"/people/P{number % 60:03}", json.dumps({"phone": str(number)}).encode(),
                              [("Content-Type", "application/json")])
    def ask(number):
        connection = Http2(node.address, STRANGERS[number % 3], window=0, auth=basic(*ROOT))
        for _ in range(STREAMS):
            connection.begin("GET", "/changes?since=0", [("accept", "text/event-stream")])
        connection.listen(0.5)
        return connection
    connections = many(6 if quick else 24, ask)
    time.sleep(4)
    seen = statuses(connections)
    close_all(connections)
    return {"answers": dict(seen)}, []


def unread_http1(node, quick):
    """The same over HTTP/1, with one answer on each connection."""
    def ask(number):
        line = connect(node.address, STRANGERS[number % 4], "http/1.1")
        line.sendall(f"GET /people/ANA001 HTTP/1.1\r\nHost: l\r\nAuthorization: {basic(*PATIENT)}\r\n\r\n".encode())
        return line
    lines = many(60 if quick else 400, ask)
    faults = newcomer(node, PATIENT, "GET", "/people/ANA001")
    time.sleep(6)
    close_all(lines)
    return {"connections": len(lines)}, faults


def dripping_uploads(node, quick):
    """Uploads that come byte by byte keep nobody else from uploading."""
    def drip(number):
        line = connect(node.address, STRANGERS[number % 2], "http/1.1")
        line.sendall((f"PUT /personal-documents/d1/content HTTP/1.1\r\nHost: l\r\nAuthorization: {basic(*ROOT)}\r\n"
                      "Content-Type: image/png\r\nContent-Length: 30000000\r\n\r\n").encode() + b"a" * 1000)
        return line
    lines = many(16, drip)
    time.sleep(1)
    begun = time.monotonic()
    client = node.client(ROOT, "127.0.2.1")
    status, _, _ = client.ask("PUT", "/personal-documents/d1/content", b"\x89PNG" * 250_000, [("Content-Type", "image/png")])
    took = time.monotonic() - begun
    faults = [] if status in (200, 201) and took < 10 else [f"another upload: {status} after {took:.1f} s"]
    answered = []
    if not quick:
        time.sleep(max(0.0, 33 - took))
        for line in lines:
            line.settimeout(5)
            try:
                answered.append(line.recv(65536)[9:12].decode())
            except OSError as error:
                answered.append(type(error).__name__)
        if set(answered) != {"408"}:
            faults.append(f"dripping uploads: {Counter(answered)}")
    close_all(lines)
    return {"upload": f"{took:.1f} s", "refused": dict(Counter(answered))}, faults


def whole_uploads(node, quick):
    """Uploads of the largest content from several addresses at once."""
    def upload(number):
        client = node.client(ROOT, STRANGERS[number % 4])
        content = bytes([number]) + b"u" * (20_000_000)
        return client.ask("PUT", "/personal-documents/d1/content", content, [("Content-Type", "image/png")])[0]
    seen = Counter(many(4 if quick else 12, upload, threads=8))
    # Several may reach the bound at the same moment and be told to come again; one of them always gets through.
    return {"answers": dict(seen)}, [] if seen[200] + seen[201] >= 1 else [f"no uploads: {seen}"]


def idle_connections(node, quick):
    """HTTP/2 connections with one request each, as many as there may be, kept."""
    sources = STRANGERS[:2] if quick else STRANGERS[:8]
    def keep(number):
        connection = Http2(node.address, sources[number % len(sources)])
        stream = connection.begin("GET", "/healthz")
        connection.await_all([stream], 10)
        return connection
    connections = many(320 if quick else 4096, keep, threads=12)
    waits = []
    for number in range(20):
        begun = time.monotonic()
        faults = newcomer(node, None, "GET", "/healthz", number=number + 1)
        waits.append(time.monotonic() - begun)
        if faults:
            return {}, faults
    time.sleep(22)
    for connection in connections:
        connection.listen(0)
    left = sum(not connection.is_over for connection in connections)
    close_all(connections)
    faults = [] if left == 0 else [f"{left} idle connections are still open"]
    return {"opened": len(connections), "newcomer": f"{max(waits) * 1000:.0f} ms"}, faults


def busy_connections(node, quick):
    """As many connections as there may be, each with a body that does not come."""
    sources = STRANGERS[:2] if quick else STRANGERS[:8]
    def keep(number):
        line = connect(node.address, sources[number % len(sources)], "http/1.1")
        line.sendall(b"POST /session HTTP/1.1\r\nHost: l\r\nContent-Length: 100\r\n\r\na")
        return line
    lines = many(320 if quick else 2048, keep, threads=12)
    faults = []
    for number in range(20):
        faults += newcomer(node, None, "GET", "/healthz", number=number + 1)
    close_all(lines)
    return {"opened": len(lines)}, faults


def endless_heads(node, quick):
    """Heads of requests that have no end."""
    def send(number):
        line = connect(node.address, STRANGERS[number % 3], "http/1.1")
        try:
            line.sendall(b"GET / HTTP/1.1\r\nHost: l\r\n")
            for _ in range(12):
                line.sendall(b"X-Field: " + b"a" * 30000 + b"\r\n")
        except OSError:
            pass
        return line
    lines = many(100 if quick else 1000, send)
    time.sleep(3)
    close_all(lines)
    return {"connections": len(lines)}, []


def frames_without_requests(node, quick):
    """Frames and pieces of bodies that make no request, as fast as they go, on four connections of one address."""
    ping, settings, priority, unknown = 6, 4, 2, 0x7e
    frames = [frame(ping, 1, 0, b"12345678"), frame(ping, 0, 0, b"12345678"), frame(settings, 0, 0, b""),
              frame(priority, 0, 1, b"\0\0\0\0\1"), frame(unknown, 0, 0, b"")]
    chunked = b"POST /session HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent, faults = [], []
    def flood(number):
        kind = number // 4
        if kind < len(frames):
            line, piece = Http2(node.address, STRANGERS[0]).line, frames[kind] * (262144 // len(frames[kind]))
        else:
            line, piece = connect(node.address, STRANGERS[0], "http/1.1"), b"0" * 262144
            line.sendall(chunked)
        line.settimeout(2)
        until = time.monotonic() + (1.5 if quick else 8)
        try:
            while time.monotonic() < until:
                sent.append(line.send(piece))
        except OSError:
            pass
        line.close()
    before = node.log_bytes()
    for kind in range(len(frames) + 1):
        many(4, lambda number: flood(kind * 4 + number), threads=4)
    written = node.log_bytes() - before
    if written > 20_000:
        faults.append(f"{written} bytes of log")
    return {"sent": f"{sum(sent) / 1e6:.0f} MB", "log": f"{written} bytes"}, faults


def rapid_resets(node, quick):
    """Lists of everybody that are asked for and given up at once (CVE-2023-44487), on connections that begin anew."""
    begun, ended = [], []
    def flood(number):
        until = time.monotonic() + (2 if quick else 10)
        while time.monotonic() < until:
            connection = Http2(node.address, STRANGERS[number], auth=basic(*ROOT))
            while time.monotonic() < until and not connection.is_over:
                for _ in range(20):
                    stream = connection.begin("GET", "/people")
                    connection.send(frame(RST, 0, stream, b"\0\0\0\x08"))
                    begun.append(stream)
                connection.listen(0)
            ended.append(connection.is_over)
            connection.close()
    many(4, flood, threads=4)
    faults = newcomer(node, PATIENT, "GET", "/people/ANA001")
    if not any(ended):
        faults.append(f"{len(begun)} streams were reset, and no connection was ended for it")
    return {"begun and reset": len(begun), "connections ended": sum(ended)}, faults


def taken_slowly(node, quick):
    """Answers of which nothing is taken, or one byte each second, on connections that are alive all the while."""
    def ask(number):
        connection = Http2(node.address, STRANGERS[number], window=0, auth=basic(*ROOT))
        return connection, connection.begin("GET", "/people")
    asked, begun, ended = [ask(number) for number in range(4)], time.monotonic(), {}
    while len(ended) < len(asked) and time.monotonic() < begun + 150:
        for number, (connection, stream) in enumerate(asked):
            connection.send(frame(PING, 0, 0, b"12345678"))
            if number % 2:
                connection.send(frame(WINDOW, 0, stream, b"\0\0\0\1"))
            connection.listen(0.05)
            if (connection.is_over or stream in connection.ended) and number not in ended:
                ended[number] = time.monotonic() - begun
        time.sleep(0.8)
    close_all(connection for connection, _ in asked)
    # 120 s, and 1 s for each KiB that was taken; who stands still is looked at every few seconds.
    faults = [f"connection {number} ended after {ended.get(number)} s" for number in range(len(asked))
              if not 115 <= ended.get(number, 999) <= 140]
    return {"ended after": "/".join(f"{seconds:.0f}" for seconds in ended.values()) + " s"}, faults


def refused_early(node, quick):
    """A request that is refused before its body has come is answered, over HTTP/2 without a reset behind the answer."""
    resets, answers = 0, Counter()
    for number in range(20 if quick else 100):
        connection = Http2(node.address, STRANGERS[number % 3], auth=basic(*PATIENT) if number % 2 else None)
        path = "/personal_docs/ANA001/d9" if number % 2 else "/people/ANA001"
        stream = connection.begin("POST" if number % 2 else "PATCH", path, [("content-type", "application/json")], has_body=True)
        time.sleep(0.05)
        connection.data(stream, b"{}", is_end=True)
        connection.await_all([stream], 10)
        answers[connection.status.get(stream)] += 1
        connection.listen(0.05)
        resets += stream in connection.resets
        connection.close()
    faults = [] if set(answers) == {401, 405} else [f"{answers}"]
    if resets:
        faults.append(f"{resets} answers with a reset behind them")
    return {"answers": dict(answers)}, faults


def heads_of_many_streams(node, quick):
    """Heads of 400 fields, packed into as many bytes, on all streams of many connections, while the own share is full."""
    bodies = many(30, lambda number: silent_forms(node, STRANGERS[0]))
    def flood(number):
        connection = Http2(node.address, STRANGERS[number % (1 if number % 2 else 16)])
        for _ in range(STREAMS):
            # Entry 19 of HPACK's static table is a field without a value.
            connection.begin("GET", "/healthz", packed=b"\x93" * (400 if number % 3 else 80))
        return connection
    connections = many(200 if quick else 480, flood, threads=32)
    time.sleep(6)
    for connection in connections:
        connection.listen(0)
    seen, ended = statuses(connections), sum(connection.is_over for connection in connections)
    close_all(bodies + connections)
    faults = [] if seen[431] else [f"heads of 400 fields are taken: {seen}"]
    if seen[200] + seen[431] + seen[503] != sum(seen.values()):
        faults.append(f"{seen}")
    return {"answers": dict(seen), "ended": ended}, faults


def silent_forms(node, source):
    connection = Http2(node.address, source)
    for _ in range(STREAMS):
        connection.begin("POST", "/session", FORM, has_body=True)
    return connection


def silent_requests(node, quick):
    """Requests whose bodies do not come, as many as are taken; who reads a list meanwhile keeps their connection."""
    reader = Http2(node.address, "127.0.3.1", auth=basic(*ROOT))
    reader.begin("GET", "/people")
    reader.listen(0.5)
    connections = many(100 if quick else 200, lambda number: silent_forms(node, STRANGERS[number % (1 if quick else 8)]))
    time.sleep(1)
    faults = []
    for number in range(10):
        faults += newcomer(node, ROOT, "GET", "/people/P001" if number % 2 else "/people", number=number + 1)
    reader.listen(0.2)
    if reader.is_over:
        faults.append("a reader with less has lost the connection")
    reader.close()
    for connection in connections:
        connection.listen(0)
    seen, ended = statuses(connections), sum(connection.is_over for connection in connections)
    close_all(connections)
    return {"answers": dict(seen), "ended": ended}, faults


def stale_bodies(node, quick):
    """A patient's bodies that come quickly but for their last part, from several addresses, as many as there is room for."""
    def hold(number):
        source = STRANGERS[number % 3]
        line = connect(node.address, source, "http/1.1")
        line.sendall((f"PATCH /people/ANA001 HTTP/1.1\r\nHost: l\r\nAuthorization: {basic(*PATIENT)}\r\n"
                      "Content-Type: application/json\r\nContent-Length: 1048000\r\n\r\n").encode() + b" " * 1_008_000)
        return line
    for source in STRANGERS[:3]:
        node.client(PATIENT, source).ask("GET", "/people/ANA001")
    lines, answers, until = many(51, hold), Counter(), time.monotonic() + (10 if quick else 30)
    time.sleep(2)
    while time.monotonic() < until:
        for line in lines:
            try:
                line.sendall(b" " * 30)
            except OSError:
                pass
        client = node.client(ROOT, f"127.0.2.{1 + sum(answers.values()) % 200}")
        content = b"\x89PNG" * 5_000_000
        try:
            status = client.ask("PUT", "/personal-documents/d1/content", content, [("Content-Type", "image/png")])[0]
        except (OSError, EOFError) as error:
            status = repr(error)
        answers[status] += 1
        time.sleep(2)
    close_all(lines)
    return {"uploads": dict(answers)}, [] if set(answers) <= {200, 201} else [f"uploads: {answers}"]


def password_queue(node, quick):
    """Wrong passwords from four addresses, more than there are places; a right one from elsewhere."""
    def flood(number):
        connection = Http2(node.address, STRANGERS[number % 4])
        return connection
    connections = many(16, flood)
    number, answers, until = 0, Counter(), time.monotonic() + (8 if quick else 30)
    with ThreadPoolExecutor(1) as pool:
        def first_logins():
            seen = Counter()
            for each in range(5 if quick else 15):
                # From another address each time, so that nothing is remembered of it.
                seen[node.client(PATIENT, f"127.0.2.{each + 1}").ask("GET", "/people/ANA001")[0]] += 1
            return seen
        logins = pool.submit(first_logins)
        while time.monotonic() < until or not logins.done():
            for connection in connections:
                for _ in range(8):
                    number += 1
                    if not connection.is_over and connection.next // 2 - len(connection.ended) < STREAMS:
                        connection.begin("GET", "/people/P001", auth=basic(f"GUESS{number}", f"wrong {number}"))
                connection.listen(0)
            time.sleep(0.02)
        seen = logins.result()
    answers = statuses(connections)
    close_all(connections)
    return {"guesses": dict(answers), "logins": dict(seen)}, [] if set(seen) == {200} else [f"first logins: {seen}"]


def guesses_at_names(node, quick):
    """One address that tries one password at each of many names."""
    client = Http1(node.address, STRANGERS[0])
    seen = Counter()
    for number in range(60):
        client.auth = basic(f"NAME{number}", "password1")
        seen[client.ask("GET", "/people/P001")[0]] += 1
    faults = [] if seen[401] <= 30 and seen[429] else [f"{seen}"]
    # Somebody there who waits for their turn gets in.
    wait, turns = comes_when_told(node.client(PATIENT, STRANGERS[0]))
    if wait is None:
        faults.append("a right password never gets in")
    return {"guesses": dict(seen), "right one": f"{wait} s, {turns} tries"}, faults


def guesses_at_an_account(node, quick):
    """One account, guessed at from many addresses; and from one /64, behind a proxy that is believed."""
    seen = Counter(many(60, lambda number: node.client((PATIENT[0], f"wrong{number}"), STRANGERS[number]).ask(
        "GET", "/people/ANA001")[0], threads=1))
    faults = [] if seen[401] <= 30 and seen[429] else [f"{seen}"]
    wait, turns = comes_when_told(node.client(PATIENT, "127.0.2.1"))
    if wait is None:
        faults.append("a right password never gets in")
    def from_host(number):
        forwarded = [("X-Forwarded-For", f"2001:db8:0:1::{number:x}")]
        return node.client(("P001", f"wrong{number}"), "127.0.0.9", forwarded).ask("GET", "/people/P001")[0]
    of_64 = Counter(many(20, from_host, threads=1))
    if of_64[401] > 6:
        faults.append(f"a host's /64 counts as many: {of_64}")
    return {"guesses": dict(seen), "of one /64": dict(of_64), "right one": f"{wait} s, {turns} tries"}, faults


def networks_of_a_site(node, quick):
    """Guesses from a /48 of IPv6, each from a network and at a name of its own, behind a proxy that is believed; people
    elsewhere log in for the first time meanwhile."""
    def of_site(network):
        return [("X-Forwarded-For", f"2001:db8:7:{network:x}::1")]
    def guess(number):
        return node.client((f"SITE{number}", "password1"), "127.0.0.9", of_site(number)).ask("GET", "/people/P001")[0]
    waits, logins, is_over = [], Counter(), threading.Event()
    def first_logins():
        for each in range(4 if quick else 12):
            begun = time.monotonic()
            logins[node.client(PATIENT, f"127.0.3.{each + 1}").ask("GET", "/people/ANA001")[0]] += 1
            waits.append(time.monotonic() - begun)
            if is_over.wait(1):
                return
    with ThreadPoolExecutor(1) as pool:
        people = pool.submit(first_logins)
        seen = Counter(many(130, guess, threads=48))
        is_over.set()
        people.result()
    faults = [] if seen[401] <= 100 and seen[429] else [f"a site's networks count as many: {seen}"]
    if set(logins) != {200}:
        faults.append(f"first logins elsewhere: {logins}")
    # Somebody at a network of the same site who waits for their turn gets in.
    wait, turns = comes_when_told(node.client(PATIENT, "127.0.0.9", of_site(0xfff)))
    if wait is None:
        faults.append("a right password from there never gets in")
    return {"guesses": dict(seen), "logins elsewhere": f"{max(waits):.1f} s at most", "right one": f"{wait} s, {turns} tries"}, faults


def comes_when_told(client):
    """How long it takes and how many tries to get in with a right password, coming back when told."""
    begun, tries = time.monotonic(), 0
    while time.monotonic() - begun < 180:
        tries += 1
        status, fields, _ = client.ask("GET", "/people/ANA001")
        if status == 200:
            return round(time.monotonic() - begun, 1), tries
        if status != 429:
            return None, tries
        time.sleep(float(fields["retry-after"]) + 0.05)
    return None, tries


def growing_record(node, quick):
    """Small PATCHes that add up."""
    client, size, answers = node.client(PATIENT, STRANGERS[0]), 0, Counter()
    for number in range(20):
        status, _, _ = client.ask("PATCH", "/people/ANA001", json.dumps({f"note{number}": "n" * 100_000}).encode(),
                                  [("Content-Type", "application/json")])
        answers[status] += 1
    size = len(client.ask("GET", "/people/ANA001")[2])
    faults = [] if answers[413] and size <= 1_100_000 else [f"{size} bytes, {answers}"]
    return {"refused": dict(answers), "record": f"{size / 1e6:.1f} MB"}, faults


def unfinished_heads(node, quick):
    """Heads of HTTP/2 that do not end, of many fields: as the first on a connection, or after a whole request."""
    fields = [("%c%c" % (97 + at // 26 % 26, 97 + at % 26), "") for at in range(230)]
    def begin(number):
        connection = Http2(node.address, STRANGERS[number % 6])
        if number % 2:
            connection.await_all([connection.begin("GET", "/healthz")], 10)
        connection.begin("GET", "/healthz", fields, is_whole=False)
        return connection
    connections = many(320 if quick else 2040, begin)
    time.sleep(1)
    slow = connect(node.address, "127.0.2.1", "http/1.1")
    slow.sendall(b"GET /healthz HTTP/1.1\r\n")
    more = many(100, begin)
    for connection in connections + more:
        connection.listen(0)
    left = sum(not connection.is_over for connection in connections + more)
    slow.sendall(b"Host: l\r\n\r\n")
    answer = slow.recv(65536)[9:12]
    close_all(connections + more + [slow])
    faults = [] if left <= 256 else [f"{left} connections with a part of a head are open"]
    if answer != b"200":
        faults.append(f"a slow client with one of them: {answer}")
    return {"begun": len(connections + more), "left": left}, faults


def trailers_unread(node, quick):
    """Bodies that nobody asks for end with trailers of many fields, behind answers that are not taken."""
    fields = [("%c%c" % (97 + at // 26 % 26, 97 + at % 26), "") for at in range(230)]
    def begin(number):
        # All at a few addresses, so that what one client may have is seen.
        connection = Http2(node.address, STRANGERS[number % (2 if quick else 6)], window=0)
        streams = [connection.begin("GET", "/session", has_body=True) for _ in range(STREAMS)]
        connection.listen(0.5)
        # Refusals hold their bodies back for a second, and would read these.
        time.sleep(1.5)
        for stream in streams:
            connection.trailers(stream, fields)
        connection.listen(0.2)
        return connection
    connections = many(40 if quick else 240, begin)
    time.sleep(1)
    faults = []
    for number in range(10):
        status = node.client(ROOT, f"127.0.2.{number + 1}").ask("GET", "/people/P001")[0]
        if status != 200:
            faults.append(f"a newcomer got {status}")
    for connection in connections:
        connection.listen(0.1)
    seen, ended = statuses(connections), sum(connection.is_over for connection in connections)
    # A client has room for some 190 of them, all together for some 600.
    held = sum(len(connection.status) for connection in connections if not connection.is_over) - seen[503]
    close_all(connections)
    if held > (400 if quick else 700):
        faults.append(f"{held} trailers are held")
    return {"answers": dict(seen), "ended": ended, "held": held}, faults


def long_handshakes(node, quick):
    """Hellos of TLS of 65 KB, all but the last byte."""
    hello = b"\x01" + (65_500).to_bytes(3, "big") + b"\x03\x03" + b"h" * 65_400
    records = [hello[at:at + 16_000] for at in range(0, len(hello), 16_000)]
    text = b"".join(b"\x16\x03\x01" + len(record).to_bytes(2, "big") + record for record in records)
    def begin(number):
        line = socket.create_connection(node.address, 5, source_address=(STRANGERS[number % 6], 0))
        try:
            line.sendall(text[:-1])
        except OSError:
            pass
        return line
    lines = many(100 if quick else 2040, begin)
    time.sleep(1)
    left = 0
    for line in lines:
        line.settimeout(0.01)
        try:
            while line.recv(1000):
                pass
        except TimeoutError:
            left += 1
        except OSError:
            pass
    close_all(lines)
    return {"begun": len(lines), "left": left}, [f"{left} are waited for"] if left else []


def bodies_of_many(node, quick, path, who, left_max):
    """A byte of a body from each of 40 addresses, again and again, on as many streams as there are."""
    fields, auth = (JSON_BODY, basic(*who)) if who else (FORM, None)
    begin = lambda number: Http2(node.address, STRANGERS[number % 40], auth=auth)
    if who:
        node.client(who, STRANGERS[0]).ask("GET", "/people/" + who[0])
    connections, number, lost, until = many(40, begin), 40, 0, time.monotonic() + (4 if quick else 15)
    while time.monotonic() < until:
        for at, connection in enumerate(connections):
            if connection.is_over:
                lost, number = lost + 1, number + 1
                connections[at:at + 1] = many(1, lambda _: begin(number)) or [connection]
                continue
            for _ in range(4):
                if connection.next // 2 - len(connection.ended) < STREAMS:
                    connection.data(connection.begin("POST", path, fields, has_body=True), b"a")
            connection.listen(0)
        time.sleep(0.02)
    open_bodies = lambda: sum(connection.next // 2 - len(connection.ended) for connection in connections if not connection.is_over)
    # A slow machine is still answering. What is left is told, and not judged: some of it is this client's, which ends streams
    # only when it reads.
    until = time.monotonic() + 15
    while open_bodies() > left_max and time.monotonic() < until:
        for connection in connections:
            connection.listen(0.02)
    left, answers = open_bodies(), statuses(connections)
    close_all(connections)
    return {"answers": dict(answers), "lost": lost, "left": left}, [] if answers[503] else [f"nobody is refused: {answers}"]


def forms_of_many(node, quick):
    """Forms by nobody, from many addresses."""
    return bodies_of_many(node, quick, "/session", None, 64)


def bodies_of_an_account(node, quick):
    """A patient's bodies, from many addresses."""
    return bodies_of_many(node, quick, "/pols/ANA001/page", PATIENT, 64)


def unread_lists_of_many(node, quick):
    """A list that nobody takes at each of many addresses, by one account."""
    def ask(number):
        connection = Http2(node.address, STRANGERS[number], window=1, auth=basic(*ROOT))
        for _ in range(10):
            connection.begin("GET", "/people")
        connection.listen(0.1)
        return connection
    connections = many(60 if quick else 200, ask)
    time.sleep(3)
    faults = newcomer(node, ROOT, "GET", "/people")
    for connection in connections:
        connection.listen(0)
    seen, lost = statuses(connections), sum(connection.is_over for connection in connections)
    close_all(connections)
    return {"answers": dict(seen), "lost": lost}, faults


def unread_answers_of_many(node, quick):
    """The first page again and again, by nobody, from hundreds of addresses that take none of it and come again."""
    sources = [f"127.0.{net}.{number}" for net in (10, 11) for number in range(1, 128)]
    over, seconds = threading.Event(), 8 if quick else 30
    def flood(number):
        while not over.is_set():
            try:
                connection = Http2(node.address, sources[number % len(sources)], window=0)
                for _ in range(STREAMS + 2):
                    connection.begin("GET", "/")
                until = time.monotonic() + seconds
                while not connection.is_over and not over.is_set() and time.monotonic() < until:
                    connection.listen(0.5)
                connection.close()
            except (OSError, EOFError, RuntimeError):
                pass
            over.wait(1 + number % 3)
    attackers = [threading.Thread(target=flood, args=(number,), daemon=True) for number in range(2 * len(sources))]
    for attacker in attackers:
        attacker.start()
    time.sleep(2)
    faults, waits, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until and not faults:
        begun, number = time.monotonic(), len(waits) % 50 + 1
        faults = newcomer(node, ROOT if len(waits) % 2 else None, "GET", "/people/P001" if len(waits) % 2 else "/", number=number)
        waits.append(time.monotonic() - begun)
        time.sleep(0.05)
    over.set()
    for attacker in attackers:
        attacker.join(10)
    return {"newcomers": len(waits), "slowest": f"{max(waits) * 1000:.0f} ms"}, faults


def hidden_sizes(node, quick):
    """Does the time of an answer tell a patient that a record of somebody else's is there, and how large it is?"""
    root, sizes = node.client(ROOT), {"100 B": 100, "100 KB": 100_000, "900 KB": 900_000}
    for name, size in sizes.items():
        path = "h" + name.replace(" ", "")
        node.done(root, "POST", f"/personal-documents/{path}", {"fedacct": "P000", "text": "x" * size})
        node.done(root, "POST", f"/pols/P000/{path}", {"id": path, "text": "x" * size})
        node.done(root, "POST", f"/encounters/{path}", {"person": "P000", "text": "x" * size})
    change = json.dumps({"note": "x"}).encode()
    ways = {"record": ("GET", "/personal-documents/{}", b"", 400 if quick else 3000),
            "content": ("GET", "/personal-documents/{}/content", b"", 400 if quick else 3000),
            "page": ("GET", "/pols/ANA001/{}", b"", 400 if quick else 3000),
            "question": ("GET", "/authorization?method=GET&path=/encounters/{}", b"", 400 if quick else 3000),
            "change": ("PATCH", "/pols/ANA001/{}", change, 100 if quick else 300)}
    names = {"absent": "h-none", **{name: "h" + name.replace(" ", "") for name in sizes}}
    client, seen, faults, chance = node.client(PATIENT), {}, [], random.Random(17)
    client.ask("GET", "/people/ANA001")
    for way, (method, path, body, times) in ways.items():
        took, answers = {name: [] for name in names}, {}
        for _ in range(times):
            # In another order each time: what comes after one that took long may be slower for it.
            for name, record in chance.sample(list(names.items()), len(names)):
                begun = time.perf_counter_ns()
                status, _, text = client.ask(method, path.format(record), body, JSON if body else ())
                took[name].append((time.perf_counter_ns() - begun) / 1000)
                answers.setdefault(name, (status, re.sub(rb'"request_id":"[^"]*"', b"", text)))
        medians = {name: sorted(each)[len(each) // 2] for name, each in took.items()}
        seen[way] = "/".join(f"{median:.0f}" for median in medians.values()) + " us"
        if len(set(answers.values())) > 1:
            faults.append(f"{way}: answers differ: {answers}")
        # Beyond what a machine with other work makes of the same.
        slowest = max(median for name, median in medians.items() if name != "absent")
        if slowest > medians["absent"] * 1.25 + 10:
            faults.append(f"{way}: what is hidden takes {slowest:.0f} us, what is absent {medians['absent']:.0f} us")
    return {"medians of absent/100 B/100 KB/900 KB:": " ", **seen}, faults


#: Name -> attack, whether it needs the large record, and open files of the node in the quick form.
ATTACKS = {
    "anonymous_bodies": (anonymous_bodies, False, None),
    "dripping_forms": (dripping_forms, False, None),
    "packed_bodies": (packed_bodies, False, None),
    "packed_writes": (packed_writes, False, None),
    "parsed_bodies": (parsed_bodies, False, None),
    "many_values": (many_values, False, None),
    "heavy_records": (heavy_records, False, None),
    "own_bodies": (own_bodies, False, None),
    "unread_record": (unread_record, True, None),
    "unread_lists": (unread_lists, False, None),
    "unread_large_list": (unread_large_list, True, None),
    "unread_changes": (unread_changes, False, None),
    "unread_http1": (unread_http1, True, None),
    "dripping_uploads": (dripping_uploads, False, None),
    "whole_uploads": (whole_uploads, False, None),
    "idle_connections": (idle_connections, False, 400),
    "busy_connections": (busy_connections, False, 400),
    "endless_heads": (endless_heads, False, None),
    "frames_without_requests": (frames_without_requests, False, None),
    "rapid_resets": (rapid_resets, False, None),
    "taken_slowly": (taken_slowly, False, None),
    "refused_early": (refused_early, False, None),
    "heads_of_many_streams": (heads_of_many_streams, False, None),
    "unfinished_heads": (unfinished_heads, False, None),
    "trailers_unread": (trailers_unread, False, None),
    "long_handshakes": (long_handshakes, False, None),
    "forms_of_many": (forms_of_many, False, None),
    "bodies_of_an_account": (bodies_of_an_account, False, None),
    "unread_lists_of_many": (unread_lists_of_many, False, None),
    "unread_answers_of_many": (unread_answers_of_many, False, None),
    "silent_requests": (silent_requests, False, None),
    "stale_bodies": (stale_bodies, False, None),
    "password_queue": (password_queue, False, None),
    "guesses_at_names": (guesses_at_names, False, None),
    "guesses_at_an_account": (guesses_at_an_account, False, None),
    "networks_of_a_site": (networks_of_a_site, False, None),
    "growing_record": (growing_record, False, None),
    "hidden_sizes": (hidden_sizes, False, None),
}

#: Those that have no quick form: they wait for time-outs.
LONG_ONLY = {"taken_slowly"}
