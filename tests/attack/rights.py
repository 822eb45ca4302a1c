"""Attacks on rights, on the audit trail and by pages of other sites."""

import json
import time

from attacks import FORM, JSON, close_all, many, newcomer, send_all, statuses
from node import DESK, PATIENT, ROOT
from wire import Http1, Http2, basic

#: A proxy that the node trusts: what it says of a client's address counts.
PROXY = "127.0.0.9"


def entries(client):
    """The whole audit trail."""
    after, found = 0, []
    while True:
        status, _, text = client.ask("GET", f"/audit?after={after}&limit=1000")
        if status != 200:
            raise RuntimeError(f"/audit: {status} {text[:200]!r}")
        some = json.loads(text)["entries"]
        if not some:
            return found
        found += some
        after = some[-1]["seq"]


def audit_flood(node, quick):
    """A patient changes one field of an own page over and over, so that who read it before is forgotten."""
    root, patient = node.client(ROOT), node.client(PATIENT)
    node.done(root, "POST", "/pols/ANA001/p1", {"id": "p1", "summary": "as it was"})
    status, _, _ = node.client(DESK, "127.0.2.1").ask("GET", "/pols/ANA001/p1")
    if status != 200:
        return {}, [f"the read that is to be forgotten: {status}"]
    sent, refused, begun = (3000 if quick else 10_400), 0, time.monotonic()
    for number in range(sent):
        status, fields, _ = patient.ask("PATCH", "/pols/ANA001/p1", json.dumps({"summary": f"{number}"}).encode(), JSON)
        if status == 429:
            refused += 1
            if "retry-after" not in fields:
                return {}, ["a change is refused, and it is not said until when"]
        elif status != 200:
            return {}, [f"a change: {status}"]
    took, faults = time.monotonic() - begun, []
    time.sleep(2)
    trail = entries(root)
    reads = [entry for entry in trail
             if entry["verb"] == "read" and entry["id"] == "p1" and entry["who"] == "local:desk"]
    if not reads:
        faults.append("nothing tells who has read the page")
    if not refused:
        faults.append(f"all of {sent} changes were taken")
    if len(trail) > 1500:
        faults.append(f"{len(trail)} entries are in the trail")
    faults += newcomer(node, DESK, "PATCH", "/pols/ANA001/p1", json.dumps({"summary": "by another"}).encode())
    return {"changes": sent, "refused": refused, "entries": len(trail), "took": f"{took:.0f} s"}, faults


def backdoor(node, quick):
    """An administrator, disabled while the body is under way, makes an account."""
    root, faults, seen = node.client(ROOT), [], {}
    ways = {"disabled": ("/active", {"active": False}, 204),
            "another password": ("/password", {"password": "a new horse in the stable"}, 204),
            "another role": ("", {"roles": ["end_user"], "local": True}, 200)}
    for number, (way, (end, change, expected)) in enumerate(ways.items()):
        name, password = f"boss{number}@local", "an old horse in the yard"
        node.operator("POST", "/users/" + name, {"password": password, "roles": ["root"], "local": True}, 201)
        body = json.dumps({"password": "a horse at the back door", "roles": ["root"], "local": True}).encode()
        line = Http1(node.address, f"127.0.2.{number + 10}", basic(name, password))
        status, _, _ = line.ask("GET", "/users")
        if status != 200:
            return {}, [f"{name}: {status}"]
        head = [f"POST /users/backdoor{number}@local HTTP/1.1", "Host: localhost", f"Authorization: {line.auth}",
                "Content-Type: application/json", f"Content-Length: {len(body)}"]
        line.line.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body[:20])
        time.sleep(0.5)
        node.operator("POST", "/users/" + name + end, change, expected)
        time.sleep(0.5 if quick else 42)
        try:
            line.line.sendall(body[20:])
            status, _, _ = line.answer()
        except (OSError, EOFError):
            status = 0
        seen[way] = status
        known = json.loads(root.ask("GET", "/users")[2])
        if status in (200, 201) or f"backdoor{number}@local" in json.dumps(known):
            faults.append(f"{way}: {status}, and the account is there")
        line.close()
    return seen, faults


def star_origin(node, quick):
    """Pages of other sites, with the credentials of somebody's browser, where reading is open to all pages."""
    root, faults, writes = node.client(ROOT), [], 0
    def ask(method, path, body, origin, site):
        nonlocal writes
        writes += 1
        fields = [*JSON, ("Origin", origin), ("Sec-Fetch-Site", site)]
        return root.ask(method, path, json.dumps(body).encode() if body is not None else b"", fields)
    for origin in ("https://evil.example", "null", "http://localhost"):
        for method, path, body in (
            ("POST", "/users/evil@local", {"password": "an evil horse at night", "roles": ["root"], "local": True}),
            ("PATCH", "/people/P001", {"name": "Evil"}), ("PUT", "/people/P001", {"name": "Evil"}),
            ("DELETE", "/people/P001", None), ("POST", "/people/EVIL01", {"name": "Evil"}),
            ("POST", "/sync", None), ("POST", "/backups", None), ("DELETE", "/pols/ANA001/p1", None),
        ):
            status, fields, _ = ask(method, path, body, origin, "cross-site")
            if status != 403:
                faults.append(f"{method} {path} from {origin}: {status}")
            if fields.get("access-control-allow-credentials"):
                faults.append(f"{method} {path} from {origin}: credentials are allowed")
    status, fields, _ = root.ask("GET", "/people/P001", b"", [("Origin", "https://evil.example")])
    if fields.get("access-control-allow-credentials"):
        faults.append("a read with credentials is open to all pages")
    known = json.dumps(json.loads(root.ask("GET", "/users")[2]))
    if "evil" in known.lower():
        faults.append("an account of theirs is there")
    return {"writes": writes, "a read": status, "allow-origin": fields.get("access-control-allow-origin")}, faults


def bodies_of_a_network(node, quick):
    """Bodies of ever new addresses of one /64: they are one client, and leave room for the next network."""
    def flood(number):
        client = [("x-forwarded-for", f"2001:db8:7:7::{number + 1:x}")]
        connection = Http2(node.address, PROXY, headers=client)
        streams = [connection.begin("POST", "/session", FORM, has_body=True) for _ in range(30)]
        send_all(connection, streams, 1 << 20, 2 if quick else 10)
        return connection
    connections = many(8 if quick else 26, flood, threads=26)
    seen, faults = statuses(connections), []
    for number in range(3):
        other = node.client(DESK, PROXY, [("X-Forwarded-For", f"2001:db8:8:{number}::1")])
        status, _, _ = other.ask("GET", "/people/P001")
        if status != 200:
            faults.append(f"somebody of another network: {status}")
        other.close()
    close_all(connections)
    return {"connections": len(connections), "answers": dict(seen)}, faults


ATTACKS = {
    "audit_flood": (audit_flood, False, None),
    "backdoor": (backdoor, False, None),
    "star_origin": (star_origin, False, None),
    "bodies_of_a_network": (bodies_of_a_network, False, None),
}
SETTINGS = {
    "audit_flood": {"STORE__AUDIT_KEEP_ROWS": "10000"},
    "star_origin": {"API__CORS_ALLOWED_ORIGINS": '["*"]'},
}
