"""Attacks with large answers that are taken slowly, by many accounts, each from an address of its own."""

import json
import random
import socket
import threading
import time

from attacks import JSON, close_all, many, newcomer
from node import DESK, ROOT
from wire import basic, connect

#: Who reads, each from an address of its own.
READERS = [(f"reader{number}@local", "a horse that reads slowly") for number in range(40)]
#: As large as clients may make them, and more than the node keeps of texts.
PAGES, PAGE_BYTES = 20, 1_000_000
CONTENT_BYTES = 4_000_000


def prepare(node):
    root = node.client(ROOT)
    for who, password in READERS:
        node.operator("POST", "/users/" + who, {"password": password, "roles": ["root"], "local": True}, 201)
    node.done(root, "POST", "/people/OWNER01", {"name": "Own", "lastname": "Er"})
    for number in range(PAGES):
        node.done(root, "POST", f"/pols/OWNER01/page{number:02}", {"id": f"page{number:02}", "summary": "s" * PAGE_BYTES})
    node.done(root, "POST", "/people/SMALL01", {"name": "Small", "lastname": "Book"})
    node.done(root, "POST", "/pols/SMALL01/one", {"id": "one", "summary": "x"})
    status, _, text = root.ask("PUT", "/personal-documents/d1/content", random.randbytes(CONTENT_BYTES),
                               [("Content-Type", "image/png")])
    assert status == 201, text
    root.close()


def get(path_of):
    return lambda at: ("GET", path_of(at), b"")


def slowly(node, seconds, number, asked, threads=16):
    """So many answers over HTTP/1, of which a few bytes are taken now and then; `asked(at)`: method, path and body."""
    def ask(at):
        reader = at % len(READERS)
        method, path, body = asked(at)
        line = connect(node.address, f"127.0.3.{1 + reader}", "http/1.1")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(f"{method} {path} HTTP/1.1\r\nHost: l\r\nAuthorization: {basic(*READERS[reader])}\r\n"
                     f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        line.settimeout(0.001)
        return line
    lines, until = many(number, ask, threads), time.monotonic() + seconds
    while time.monotonic() < until:
        for line in lines:
            try:
                line.recv(16)
            except OSError:
                pass
        time.sleep(0.3)
    return lines


def list_from(at):
    """A list that begins at another page each time, so that no text is there already."""
    return f"/pols/OWNER01?limit=5&after=page{at % (PAGES - 5):02}"


def beside(node, work, honest):
    """What `work()` returns, and the faults of honest users who come for the first time all the while."""
    faults, over = [], threading.Event()
    def others():
        at = 0
        while not over.wait(0.3) and not faults:
            at += 1
            faults.extend(honest(1 + at % 50))
    thread = threading.Thread(target=others, daemon=True)
    thread.start()
    lines = work()
    over.set()
    thread.join(60)
    close_all(lines)
    return {"connections": len(lines)}, faults


def large_answers(node, quick, number, path_of):
    prepare(node)
    node.forget_memory()
    return beside(node, lambda: slowly(node, 8 if quick else 20, number, get(path_of)),
                  lambda at: newcomer(node, DESK, "GET", "/pols/SMALL01", number=at))


def large_lists_of_many(node, quick):
    """Lists of pages of 1 MB."""
    return large_answers(node, quick, 160 if quick else 400, list_from)


def large_answers_of_many(node, quick):
    """Lists, single pages, attachments and lists of everybody, mixed."""
    paths = (list_from, lambda at: f"/pols/OWNER01/page{at % PAGES:02}", lambda at: "/personal-documents/d1/content",
             lambda at: "/people?q=person", lambda at: f"/people?limit=50&after=P{at % 9:03}")
    return large_answers(node, quick, 160 if quick else 400, lambda at: paths[at % len(paths)](at))


def unread_writes(node, quick):
    """Pages of 1 MB that are written, all at once, and of which the answers are taken slowly. Somebody who reads and
    somebody who writes a little do not notice."""
    prepare(node)
    node.forget_memory()
    def asked(at):
        page = {"summary": str(at % 10) * PAGE_BYTES}
        if at % 2:
            return "POST", f"/pols/OWNER01/new{at}", json.dumps({"id": f"new{at}", **page}).encode()
        return "PATCH", f"/pols/OWNER01/page{at % PAGES:02}", json.dumps(page).encode()
    def honest(at):
        note = json.dumps({"summary": "x" * 20_000, "note": at}).encode()
        return (newcomer(node, DESK, "GET", "/pols/SMALL01", number=at)
                + newcomer(node, DESK, "PATCH", "/pols/SMALL01/one", note, at, JSON))
    return beside(node, lambda: slowly(node, 8 if quick else 20, 200, asked, threads=100), honest)


#: As in `attacks`; the passwords cost little here, because many log in.
ATTACKS = {
    "large_lists_of_many": (large_lists_of_many, False, None),
    "large_answers_of_many": (large_answers_of_many, False, None),
    "unread_writes": (unread_writes, False, None),
}
SETTINGS = {name: {"ACCOUNTS__BCRYPT_COST": "6"} for name in ATTACKS}
