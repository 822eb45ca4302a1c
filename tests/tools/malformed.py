#!/usr/bin/env python3
"""Sends malformed requests to a running node and fails if it ever answers 5xx or drops one.

    malformed.py --url https://127.0.0.1:8443 --user ARGBUE111FAV --password freedom \\
                 --count 1000000 --seed 1 --workers 2

Use a node that holds nothing of value: the requests create, change and delete records. Request number N
of a seed is always the same, however many workers there are, so `--from N --count 1` repeats one.

A request passes when it is answered with a status below 500, and an error that says it is JSON is JSON.
Requests that are broken as HTTP (a wrong length, chunks that are none, half a head) may also end the
connection. The account must keep working: its own record is never sent a password, roles or `active`,
and the run fails if its credentials stop being accepted.

Needs Python 3.9 or newer and nothing else.
"""

import argparse
import base64
import collections
import json
import multiprocessing
import queue
import random
import socket
import ssl
import sys
import time
import urllib.parse

ANSWER_TIMEOUT_S_MAX = 60
LATE_ANSWER_WAIT_S = 0.002
PARKED_MAX = 40
LARGE_BODY_BYTES = 1_153_434  # 1.1 MiB: over the limit of a document
PRINTED_BYTES_MAX = 3000
STATUS_LINE_BYTES_MAX = 65_536

# ---------------------------------------------------------------------------------------------- requests

PEOPLE = ["ITPYT999HON", "ESGNU777ORG", "ESPGNU777ORG", "espgnu777org", "ARGBUE111FAV", "NEW%d", "ABC%d"]
IDS = [
    "119b352e-8e4f-4847-9f05-53462cf94f10", "919c352f-7e4f-5341-7c22-8423acf76b32", "a.b_c:d-%d", "r%d", "x",
]
HOSTILE_IDS = [
    "", ".", "..", "%2e%2e", "%2E", "%2F", "a%2Fb", "%5c..%5c", "%00", "a%00b", "%", "%2", "%zz", "%u0041", "%25%30%30",
    "%c3%28", "%ff%fe", "%c0%af", "%ed%a0%80", "%F0%9F%98%80", "%E2%80%8B", "%C3%91ANDU", "%20", "+", "a%20b", "%0d%0a",
    "%0d%0aX-Injected:%201", "<script>alert(1)</script>", "%3Cscript%3EAAAA%3C%2Fscript%3E", "'", "%22", "';--", "$where",
    "%24ne", "{}", "[]", "{person_id}", "null", "undefined", "true", "0", "-1", "1e9", "_id", "content", "*", "~", "@",
    "a;b=c", "a,b", "a=b", "!", "|", "^", "`", "A" * 32, "A" * 33, "a" * 128, "a" * 129, "a" * 4096, "%41" * 50, "..%2f" * 20,
    "AB", "esp%67nu777org", "ESGNU777ORG%20", "ESGNU777ORG%00", "CON", "\u00e9", "\u202e", "\U0001f600",
]
ROUTES = [
    "/people", "/people/{p}", "/pols/{p}", "/pols/{p}/{i}", "/personal-documents", "/personal-documents/{i}",
    "/personal-documents/{i}/content", "/personal_docs/{p}", "/personal_docs/{p}/{i}", "/domiciliary-units",
    "/domiciliary-units/{i}", "/institutions", "/institutions/{i}", "/encounters", "/encounters/{i}", "/events",
    "/events/{i}", "/measurements", "/measurements/{i}", "/hospitalizations", "/hospitalizations/{i}", "/login",
    "/authorization", "/password/{p}", "/", "/healthz", "/readyz", "/metrics", "/sync/status", "/sync/conflicts",
    "/sync/conflicts/{i}", "/sync/conflicts/{i}/resolution", "/sync/dead", "/sync/dead/{i}/retry", "/changes", "/audit",
    "/openapi.json", "/docs", "/favicon.ico", "/static/{i}", "/users", "/users/{i}", "/{i}", "/{i}/{i}", "/people/{p}/{i}",
    "/pols", "/pols/{p}/{i}/{i}", "/sync", "/sync/{i}", "/.git/config", "/admin",
]
RARE_ROUTES = ["/sync/rounds"]  # may take as long as the centre takes to answer
METHODS = ["GET"] * 8 + ["POST"] * 5 + ["PATCH"] * 5 + ["PUT"] * 4 + ["DELETE"] * 2 + ["HEAD", "OPTIONS"]
ODD_METHODS = ["TRACE", "PROPFIND", "LOCK", "PURGE", "FOO", "get", "Post", "A" * 100, "M-SEARCH", "QUERY", "!"]
QUERIES = [
    "limit=-1", "limit=0", "limit=1", "limit=abc", "limit=99999999999999999999", "limit=1.5", "limit=", "limit", "limit=1&limit=2",
    "limit=%00", "limit=+1", "limit=0x10", "after=", "after=%00", "after=%ff", "after=" + "z" * 3000, "after=ESGNU777ORG",
    "limit=1&after=A", "q=", "q=ana", "q=%C3%81NA", "q=%ff", "q=.*", "q=(((((", "q=" + "a" * 3000, "q=%00", "q[$ne]=1", "q=%F0%9F%98%80",
    "since=-1", "since=abc", "since=0", "since=99999999999999999999", "since=18446744073709551615", "wait=0", "wait=-1", "wait=abc",
    "wait=", "wait=NaN", "wait=1e", "status=open", "status=%27", "status[]=open", "method=GET&path=/people", "method=%00&path=//",
    "method=FOO&path=", "path=%2e%2e%2f", "person=&actor=&since=", "person=%27", "since=2024-13-45T99:99", "&&&", "=", "===", "%", "%zz=1",
    "a" * 2000, "\u00e9=1", "a=b;c=d", "?", "?limit=1", "limit=1?after=2", "__proto__=1", "limit=2147483648", "limit=%31",
]
ACCEPTS = [
    "*/*", "application/json", "application/problem+json", "text/html", "image/*;q=0", "", ",", ";;;", "application/json;q=abc",
    "a" * 500, "*/*;q=1.0000000", "application/problem+json;q=0.1, */*",
]
CONTENT_TYPES = [
    "application/json", "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=", "image/png", "", "/", "application/", "x" * 300, "application/bson", "text/html; charset=\"",
]
RANGES = [
    "bytes=0-", "bytes=-1", "bytes=5-2", "bytes=0-0,1-1", "bytes=99999999999999999999-", "bytes=-99999999999999999999", "bytes=-0",
    "bytes", "bytes=", "bytes=a-b", "lines=1-2", "bytes=0-0" + ",0-0" * 200, "bytes=--1", "bytes=1-9223372036854775808",
]
ETAGS = ['"x"', "*", "x", '""', 'W/"x"', '"x", "y"', '"', "", ",", '"' + "a" * 500 + '"', '"a\tb"', "W/", '*, "x"']
ORIGINS = ["null", "https://example.org", "https://localhost:8443", "http://", "", "*", "https://127.0.0.1", "file://", "a" * 300]
# A few names only: each failing pair of name and address is soon throttled and costs no more hashing.
WRONG_LOGINS = [b"NOBODY1:x", b"NOBODY2:wrong", b"nobody3:", b"NO\x00BODY:x", b"N\xff:x", b"NOBODY4:" + b"y" * 73]
BROKEN_LOGINS = [
    b"", b"Basic", b"Basic ", b"Basic =", b"Basic !!!!", b"Basic " + b"A" * 3, b"Basic " + b"QQ==", b"Basic Og==", b"basic", b"Bearer x",
    b"Digest username=\"x\"", b"Basic\tOg==", b"Basic  Og==", b"Basic Og== Og==", b"Negotiate", b"\xff\xfe", b"Basic \xc3\xa9", b",",
    b"Basic " + b"A" * 5000, b"Token token=1", b"Basic AA==", b"Basic /////w==",
]
ODD_HEADERS = [
    b"Expect: 100-continue", b"Expect: nonsense", b"Upgrade: websocket\r\nConnection: Upgrade", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x",
    b"Content-Encoding: gzip", b"Content-Encoding: nonsense", b"Accept-Encoding: gzip;q=0, *;q=0", b"X-Forwarded-For: 127.0.0.1", b"Forwarded: for=x",
    b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /people", b"Cookie: " + b"a=b; " * 50, b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: \xff",
    b"X-Emergency-Reason: ", b"X-Emergency-Reason: \xff\xfe", b"X-Emergency-Reason: " + b"r" * 2000, b"Accept-Language: \xc3\xa9", b"Date: yesterday",
    b"If-Modified-Since: Thu, 99 Foo 9999 99:99:99 GMT", b"If-Unmodified-Since: 0", b"TE: trailers", b"Trailer: X", b"Access-Control-Request-Method: DELETE",
    b"Access-Control-Request-Headers: " + b"a," * 100, b"Last-Event-ID: -1", b"X-Empty:", b"Max-Forwards: -1", b"Via: " + b"x, " * 100, b"Range: ",
]
SCALARS = [
    "null", "true", "false", "0", "-0", "1", "-1", "1.0", "1e20", "1e400", "-1e400", "NaN", "Infinity", "9223372036854775807",
    "9223372036854775808", "-9223372036854775809", "1" * 400, "0." + "1" * 400, "1e-400", "01", "+1", ".5", "1.", "0x1", '""', '"x"',
    '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\x"', '"\x01"', '"\u200b"', '"\U0001f600"', '"' + "y" * 3000 + '"', '"1985-10-04"',
    '"Fri, 04 Oct 1985 13:05:00 GMT"', '"2016-12-31T23:59:60Z"', '"9999-99-99"', '"+262143-01-01"', "[]", "{}", "[[]]", '[1,"1",1.0,null]',
    '{"$date":1}', '{"$numberLong":"x"}', '{"$oid":"0"}', '{"a":{"b":{"c":[{"d":null}]}}}', '{"a":1,"a":2}', "undefined", "'x'", '"$2b$oops"',
]
FIELDS = [
    "_id", "id", "name", "lastname", "dob", "gender", "book", "person", "fedacct", "page", "page_date", "measurements", "genetic_info",
    "creation_info", "modification_info", "profession", "content", "pol", "summary", "age", "info", "node", "x", "take", "value", "seen",
    "decide", "a.b", "$set", "$where", "", "12", "\\u0000", "\\u005fid", "__proto__", "constructor", "k" * 600, "\u00e9",
    "password", "roles", "active",
]
OWN_ACCOUNT_FIELDS = ("password", "roles", "active")
DOCUMENTS = [
    '{"name":"Ana","lastname":"Betz","gender":"f","dob":"1985-10-04"}', '{"id":"%d","page":"x","measurements":[{"bp":{"systolic":120}}]}',
    '{"person":"ESGNU777ORG","x":%d}', '{"fedacct":"ESGNU777ORG"}', '{"book":"ESGNU777ORG","id":"r%d"}', '{"take":"local"}', '{"take":"central"}',
    '{"value":null}', '{"decide":"same"}', '{"decide":"new_id","id":"NEW%d"}',
]


class Request:
    """One request: its bytes, and what may happen to the connection."""

    __slots__ = ("data", "head_only", "may_drop", "half", "logged_in", "any_version")

    def __init__(self):
        self.data = b""
        self.head_only = False  # the answer has no body
        self.may_drop = False  # the connection may end without an answer
        self.half = False  # the server may wait for more, which never comes
        self.logged_in = False  # carries the right credentials
        self.any_version = False  # names an HTTP version that does not exist: 505 is right


class Generator:
    def __init__(self, seed, host, user, password):
        self.seed = seed
        self.host = host.encode()
        self.user = user.upper()
        self.login = b"Basic " + base64.b64encode(f"{user}:{password}".encode())

    def request(self, number):
        r = random.Random(self.seed * 1_000_003 + number)
        request = Request()
        odds = r.random()
        if odds < 0.94:
            self.ordinary(r, request)
        elif odds < 0.965:
            self.broken_head(r, request)
        elif odds < 0.985:
            self.broken_framing(r, request)
        elif odds < 0.998:
            self.huge_head(r, request)
        else:
            self.large_body(r, request)
        return request

    # Well-formed HTTP with hostile contents.
    def ordinary(self, r, request):
        target = self.target(r)
        method = r.choice(METHODS) if r.random() < 0.93 else r.choice(ODD_METHODS)
        body = b""
        if method not in ("GET", "HEAD", "OPTIONS", "DELETE") or r.random() < 0.03:
            body = self.body(r, target)
        headers = self.headers(r, request, target)
        chunked = body and r.random() < 0.1
        if chunked:
            headers.append(b"Transfer-Encoding: chunked")
        elif body or method in ("POST", "PUT", "PATCH"):
            headers.append(b"Content-Length: %d" % len(body))
        request.head_only = method == "HEAD"
        request.data = self.head(method, target, headers) + (self.chunks(r, body) if chunked else body)

    def head(self, method, target, headers, version=b"HTTP/1.1"):
        line = method.encode() + b" " + target.encode("utf-8", "surrogatepass") + b" " + version
        return b"\r\n".join([line] + headers) + b"\r\n\r\n"

    @staticmethod
    def chunks(r, body):
        parts, at = [], 0
        while at < len(body):
            size = r.choice((1, 7, 100, 4096, len(body)))
            part = body[at : at + size]
            parts.append(b"%x%s\r\n%s\r\n" % (len(part), r.choice((b"", b"", b";a=b", b' ;x="y"')), part))
            at += size
            if len(parts) > 50:
                parts.append(b"%x\r\n%s\r\n" % (len(body) - at, body[at:]) if at < len(body) else b"")
                break
        return b"".join(parts) + b"0\r\n" + r.choice((b"", b"", b"X-Trailer: 1\r\n")) + b"\r\n"

    def target(self, r):
        route = r.choice(ROUTES) if r.random() < 0.9997 else r.choice(RARE_ROUTES)
        for mark, good in (("{p}", PEOPLE), ("{i}", IDS)):
            while mark in route:
                name = r.choice(good) if r.random() < 0.6 else r.choice(HOSTILE_IDS)
                route = route.replace(mark, name.replace("%d", str(r.randrange(20))), 1)
        twist = r.random()
        if twist < 0.12:
            route = r.choice((
                lambda p: p.replace("/", "//"), lambda p: p + "/", lambda p: p + "//", lambda p: "/" + p, lambda p: p.upper(),
                lambda p: "/." + p, lambda p: "/x/.." + p, lambda p: p + "/..", lambda p: p.replace("/", "/./"), lambda p: p + ";x=y",
                lambda p: p.replace("e", "%65"), lambda p: p.replace("/", "%2f"), lambda p: p + "%00", lambda p: p + ".json", lambda p: p + "#x",
                lambda p: "http://other.example" + p, lambda p: p + "%20", lambda p: p.replace("/", "\\"), lambda p: p * 8,
            ))(route)
        if r.random() < 0.25:
            route += "?" + r.choice(QUERIES)
            if r.random() < 0.2:
                route += "&" + r.choice(QUERIES)
        return route

    def headers(self, r, request, target):
        headers = [b"Host: " + self.host]
        odds = r.random()
        if odds < 0.85:
            headers.append(b"Authorization: " + self.login)
            request.logged_in = True
        elif odds < 0.93:
            headers.append(b"Authorization: " + r.choice(BROKEN_LOGINS))
        elif odds < 0.97:
            headers.append(b"Authorization: Basic " + base64.b64encode(r.choice(WRONG_LOGINS)))
        if r.random() < 0.5:
            headers.append(b"Content-Type: " + r.choice(CONTENT_TYPES).encode())
        for name, values, odds in (
            (b"Accept", ACCEPTS, 0.2), (b"Range", RANGES, 0.08), (b"If-Match", ETAGS, 0.12), (b"If-None-Match", ETAGS, 0.1), (b"Origin", ORIGINS, 0.08),
        ):
            if r.random() < odds:
                headers.append(name + b": " + r.choice(values).encode())
        if "changes" not in target and r.random() < 0.01:
            headers.append(b"Accept: text/event-stream")
        while r.random() < 0.12:
            headers.append(r.choice(ODD_HEADERS))
        if r.random() < 0.02:
            headers += [b"X-%d: y" % n for n in range(r.choice((5, 50, 90)))]
        return headers

    # Bodies.
    def body(self, r, target):
        own = self.user in urllib.parse.unquote(target).upper() or "{" in target
        if "password/" in target and not own:
            return r.choice((b"", b"a=b", b"password=x&password2=y", b"new=%00", b"%", b"&" * 1000, b"\xff", b'{"password":"x"}'))
        odds = r.random()
        if odds < 0.2:
            return r.choice(DOCUMENTS).replace("%d", str(r.randrange(20))).encode()
        if odds < 0.6:
            return self.document(r, own).encode("utf-8", "surrogatepass")
        if odds < 0.7:
            return r.choice(SCALARS).encode("utf-8", "surrogatepass")
        if odds < 0.8:
            return self.damaged(r, self.document(r, True).encode("utf-8", "surrogatepass"))
        return self.special_body(r)

    @staticmethod
    def document(r, own):
        fields = []
        for _ in range(r.randrange(6)):
            field = r.choice(FIELDS)
            if own and field in OWN_ACCOUNT_FIELDS:
                continue
            fields.append(f'"{field}":{r.choice(SCALARS)}')
        return "{" + ",".join(fields) + "}"

    @staticmethod
    def damaged(r, body):
        body = bytearray(body)
        for _ in range(r.randrange(1, 4)):
            if body:
                body[r.randrange(len(body))] = r.choice((0, 0xFF, 0x22, 0x5C, 0x7B, 0x2C, r.randrange(256)))
        return bytes(body[: r.randrange(len(body) + 1)] if r.random() < 0.3 else body)

    @staticmethod
    def special_body(r):
        depth = r.choice((63, 64, 65, 127, 128, 129, 2000, 50_000 if r.random() < 0.02 else 200))
        return r.choice((
            lambda: b'{"a":' * depth + b"1" + b"}" * depth,
            lambda: b"[" * depth + b"]" * depth,
            lambda: b'{"a":' + b"[" * depth + b"}",
            lambda: b"",
            lambda: b" " * 1000,
            lambda: b"\x00",
            lambda: b"\xef\xbb\xbf{}",
            lambda: b"\xff\xfe{\x00}\x00",
            lambda: bytes(r.randrange(256) for _ in range(40)),
            lambda: b"{}{}",
            lambda: b"[" + b"1e20," * 500 + b"1]",
            lambda: b'{"a":[' + b'{"b":null},' * 300 + b"null]}",
            lambda: b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(300)) + b"}",
            lambda: b'{"x":"' + b"\\u00e9" * 500 + b'"}',
            lambda: b'{"x":"\xc3\x28"}',
            lambda: b"<xml/>",
            lambda: b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
            lambda: b"name=Ana&lastname=Betz",
        ))()

    # Broken HTTP: the connection may end, with or without an answer.
    def broken_head(self, r, request):
        request.may_drop = True
        auth = b"Authorization: " + self.login
        host = b"Host: " + self.host
        target = self.target(r)
        method = r.choice(METHODS)
        request.head_only = method == "HEAD"
        kind = r.randrange(14)
        headers, version = [host, auth], b"HTTP/1.1"
        if kind == 0:
            version, request.any_version = r.choice((b"HTTP/1.2", b"HTTP/9.9", b"HTTP/0.9", b"HTTP", b"", b"http/1.1", b"HTTP/1.1 x")), True
        elif kind == 1:
            version = b"HTTP/1.0"
        elif kind == 2:
            headers = [auth]
        elif kind == 3:
            headers += [b"Host: other", host]
        elif kind == 4:
            headers.append(r.choice((b"NoColon", b": empty", b"Spa ce: x", b"X\x00Y: 1", b"\xff: 1", b"X: a\x00b", b"X: \x7f", b"(x): 1", b"X : 1")))
        elif kind == 5:
            headers.append(b"X: 1\r\n folded")
        elif kind == 6:
            headers.append(b"X: 1\nY: 2\rZ: 3")
        elif kind == 7:
            method, request.head_only = r.choice(("", "G@T", "GET\t", "G\u00e9T", "\x00", "GET /x", "{}")), False
        elif kind == 8:
            target = r.choice(("", "people", "a b", "/a b", "/\x00", "/\x7f", "http://", "http://[::1", "//", "\\", "/\t", "*", "?", "#", "localhost:1"))
        elif kind == 9:
            request.data = bytes(r.randrange(256) for _ in range(r.randrange(1, 200))) + b"\r\n\r\n"
            request.half = True
            return
        elif kind == 10:
            data = self.head(method, target, headers)
            request.data, request.half = data[: r.randrange(1, len(data) - 2)], True
            return
        elif kind == 11:
            method, target = "CONNECT", r.choice(("localhost:443", "/", "/people", "*", "x"))
        elif kind == 12:
            method, target = "OPTIONS", "*"
        else:
            request.data = b"\r\n" * r.randrange(1, 6) + self.head("GET", target, headers)
            request.head_only = False
            return
        request.data = self.head(method, target, headers, version)
        # Servers may read such a head as one that is not finished.
        request.half = kind in (0, 6, 7, 8, 11)

    def broken_framing(self, r, request):
        request.may_drop = True
        method = r.choice(("POST", "PUT", "PATCH", "GET"))
        target = self.target(r)
        body = self.body(r, target)[:5000]
        headers = [b"Host: " + self.host, b"Authorization: " + self.login]
        kind = r.randrange(8)
        if kind == 0:  # too long: the rest never comes
            headers.append(b"Content-Length: %d" % (len(body) + r.choice((1, 100, 10_000_000, 2**62))))
        elif kind == 1:  # too short: the rest is taken for another request
            headers.append(b"Content-Length: %d" % max(0, len(body) - r.choice((1, 5, 100))))
        elif kind == 2:
            headers.append(b"Content-Length: " + r.choice((b"-1", b"abc", b"1e3", b"0x10", b"", b"99999999999999999999999", b"+5", b"5, 6", b"1 1")))
        elif kind == 3:
            headers += [b"Content-Length: %d" % len(body), b"Content-Length: %d" % (len(body) + 1)]
        elif kind == 4:
            headers += [b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"]
        elif kind == 5:
            headers.append(b"Transfer-Encoding: chunked")
            body = r.choice((b"zz\r\n", b"-1\r\n\r\n", b"5\r\nabc", b"fffffffffffffffff\r\n", b"3\r\nabcdef\r\n0\r\n\r\n", b"1;" + b"x" * 20_000, b"\x00\r\n", b"5\n{}   \n0\n\n"))
        elif kind == 6:
            headers.append(b"Transfer-Encoding: " + r.choice((b"gzip", b"chunked, gzip", b"identity", b"xchunked", b"", b"chunked\x0b", b"Chunked, chunked")))
            body = self.chunks(r, body)
        else:  # cut inside a chunk
            headers.append(b"Transfer-Encoding: chunked")
            data = self.chunks(r, body or b"{}")
            body = data[: r.randrange(len(data))]
        request.data = self.head(method, target, headers) + body
        request.half = True

    def huge_head(self, r, request):
        request.may_drop = True
        headers = [b"Host: " + self.host, b"Authorization: " + self.login]
        target = self.target(r)
        kind = r.randrange(5)
        if kind == 0:
            headers.append(b"X: " + b"y" * r.choice((8_000, 16_000, 70_000, 500_000)))
        elif kind == 1:
            headers += [b"X-%d: y" % n for n in range(r.choice((98, 100, 101, 128, 1000)))]
        elif kind == 2:
            target += "/" + "a" * r.choice((8_000, 65_000, 70_000, 200_000))
        elif kind == 3:
            headers[1] = b"Authorization: Basic " + b"QUFB" * r.choice((1000, 20_000))
        else:
            headers.append(b"y" * r.choice((300, 66_000)) + b": 1")
        request.data = self.head("GET", target, headers)

    def large_body(self, r, request):
        # Refused before it is read to the end, so the connection may break while sending.
        request.may_drop = True
        target = self.target(r)
        body = r.choice((
            lambda: b'{"x":"' + b"y" * LARGE_BODY_BYTES + b'"}', lambda: b"[" * LARGE_BODY_BYTES, lambda: b"\x00" * LARGE_BODY_BYTES,
            lambda: b'{"x":[' + b"1e20," * (LARGE_BODY_BYTES // 6) + b"1]}", lambda: b" " * LARGE_BODY_BYTES + b"{}",
        ))()
        headers = [b"Host: " + self.host, b"Authorization: " + self.login]
        if r.random() < 0.3:
            headers.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            headers.append(b"Content-Length: %d" % len(body))
        request.data = self.head(r.choice(("POST", "PUT", "PATCH")), target, headers) + body


# --------------------------------------------------------------------------------------------- connection


class Dropped(Exception):
    """The connection ended, or broke, before a whole answer."""


class Answer:
    __slots__ = ("status", "head", "body", "closes")


class Connection:
    def __init__(self, url, context):
        self.address = (url.hostname, url.port or (443 if url.scheme == "https" else 80))
        self.context = context if url.scheme == "https" else None
        self.session = None
        self.socket = None
        self.buffer = b""

    def open(self):
        plain = socket.create_connection(self.address, timeout=ANSWER_TIMEOUT_S_MAX)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context:
            self.socket = self.context.wrap_socket(plain, server_hostname=self.address[0], session=self.session)
        else:
            self.socket = plain
        self.buffer = b""

    def close(self):
        if self.socket:
            if self.context and self.socket.session:
                self.session = self.socket.session
            self.socket.close()
            self.socket = None

    def send(self, data):
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def more(self):
        try:
            data = self.socket.recv(65_536)
        except socket.timeout:
            raise
        except OSError as error:
            raise Dropped(str(error)) from error
        if not data:
            raise Dropped("closed")
        self.buffer += data

    def until(self, mark, limit):
        while True:
            at = self.buffer.find(mark)
            if at >= 0:
                found, self.buffer = self.buffer[:at], self.buffer[at + len(mark) :]
                return found
            if len(self.buffer) > limit:
                raise Dropped("an endless head")
            self.more()

    def exactly(self, length):
        while len(self.buffer) < length:
            self.more()
        found, self.buffer = self.buffer[:length], self.buffer[length:]
        return found

    def answer(self, head_only):
        while True:
            head = self.until(b"\r\n\r\n", STATUS_LINE_BYTES_MAX)
            parts = head.split(b"\r\n", 1)[0].split(b" ", 2)
            if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
                raise Dropped(f"no status line: {head[:200]!r}")
            status = int(parts[1])
            if status >= 200 or status == 101:
                break
        answer = Answer()
        answer.status, answer.head, answer.body = status, head, b""
        lower = head.lower()
        answer.closes = b"\r\nconnection: close" in lower or parts[0] == b"HTTP/1.0" or status == 101
        if head_only or status in (101, 204, 304):
            return answer
        at = lower.find(b"\r\ncontent-length:")
        if b"\r\ntransfer-encoding: chunked" in lower:
            answer.body = self.chunked()
        elif at >= 0:
            answer.body = self.exactly(int(lower[at + 17 :].split(b"\r\n", 1)[0]))
        else:
            answer.closes = True
            try:
                while True:
                    self.more()
            except Dropped:
                answer.body, self.buffer = self.buffer, b""
        return answer

    def chunked(self):
        parts = []
        while True:
            size = int(self.until(b"\r\n", 1000).split(b";")[0], 16)
            if size == 0:
                while self.until(b"\r\n", STATUS_LINE_BYTES_MAX):
                    pass
                return b"".join(parts)
            parts.append(self.exactly(size))
            self.exactly(2)


# ------------------------------------------------------------------------------------------------ workers


PARKED = object()


class Failure(Exception):
    """The node did what it must never do."""

    def __init__(self, what, status=None):
        super().__init__(what)
        self.status = status


def check(request, answer):
    if answer.status >= 500 and not (answer.status == 505 and request.any_version):
        raise Failure(f"answered {answer.status}", answer.status)
    if answer.status >= 400 and answer.body:
        lower = answer.head.lower()
        if b"content-type: application/json" in lower or b"content-type: application/problem+json" in lower:
            try:
                json.loads(answer.body)
            except ValueError:
                raise Failure("the error is no JSON", answer.status) from None


def exchange(connection, request):
    """Sends one whole request; None when the connection ended as it may. Raises Failure."""
    for attempt in (1, 2):
        fresh = connection.socket is None
        if fresh:
            connection.open()
        sent = connection.send(request.data)
        try:
            answer = connection.answer(request.head_only)
            check(request, answer)
        except socket.timeout:
            connection.close()
            raise Failure(f"no answer within {ANSWER_TIMEOUT_S_MAX} s") from None
        except Dropped as dropped:
            connection.close()
            if request.may_drop:
                return None
            # A server may close an idle connection just when it is used again.
            if fresh or attempt == 2:
                raise Failure(f"dropped without an answer ({dropped})") from None
            continue
        if answer.closes or request.may_drop or not sent or connection.buffer:
            connection.close()
        return answer
    return None


def late_answer(connection, request):
    """What the server has said by now to a request that it may think unfinished; then hangs up. Behind
    such a request it may also have seen another one."""
    first = None
    connection.socket.settimeout(LATE_ANSWER_WAIT_S)
    try:
        while True:
            answer = connection.answer(request.head_only)
            check(request, answer)
            first = first or answer
    except (Dropped, socket.timeout):
        return first
    finally:
        connection.close()


class Worker:
    def __init__(self, index, options, results, stop):
        self.options, self.results, self.stop = options, results, stop
        self.url = urllib.parse.urlsplit(options.url)
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.generator = Generator(options.seed, self.url.netloc, options.user, options.password)
        self.connection = Connection(self.url, self.context)
        self.parked = collections.deque()  # unfinished requests, looked at again when they have aged
        self.counts = collections.Counter()
        self.numbers = range(options.first + index, options.first + options.count, options.workers)

    def run(self):
        for done, number in enumerate(self.numbers, 1):
            if self.stop.is_set():
                break
            request = self.generator.request(number)
            self.judge(number, request, lambda: self.park(number, request) if request.half else exchange(self.connection, request))
            if len(self.parked) > PARKED_MAX:
                self.unpark()
            if done % 500 == 0:
                self.report()
        while self.parked:
            self.unpark()
        self.connection.close()
        self.report()
        self.results.put(("end",))

    def park(self, number, request):
        connection = Connection(self.url, self.context)
        connection.session = self.connection.session
        connection.open()
        connection.send(request.data)
        self.parked.append((number, request, connection))
        return PARKED

    def unpark(self):
        number, request, connection = self.parked.popleft()
        self.judge(number, request, lambda: late_answer(connection, request))

    def judge(self, number, request, act):
        try:
            answer = act()
            if answer is PARKED:
                return
            self.counts[answer.status if answer else "cut"] += 1
            if request.logged_in:
                self.counts["logged in"] += 1
                self.counts["refused"] += bool(answer) and answer.status in (401, 429)
        except (Failure, Dropped, OSError, ValueError) as failure:
            self.connection.close()
            self.counts["failed"] += 1
            self.counts[getattr(failure, "status", None) or "unanswered"] += 1
            self.results.put(("failure", number, str(failure), request.data))
            if not self.options.keep_going:
                self.stop.set()

    def report(self):
        self.results.put(("counts", self.counts))
        self.counts = collections.Counter()


def work(index, options, results, stop):
    Worker(index, options, results, stop).run()


def show_failure(number, what, data):
    print(f"\nrequest {number}: {what}")
    print(f"  {len(data)} bytes: {data[:PRINTED_BYTES_MAX]!r}{' ...' if len(data) > PRINTED_BYTES_MAX else ''}")
    sys.stdout.flush()


def gather(workers, results):
    """Adds up what the workers report until all have ended."""
    totals, ended, silent_since = collections.Counter(), 0, None
    while ended < len(workers):
        try:
            kind, *rest = results.get(timeout=1)
        except queue.Empty:
            # A worker that was killed reports no end.
            if any(worker.is_alive() for worker in workers):
                silent_since = None
            elif silent_since:
                totals["failed"] += 1
                print("a worker ended without a report")
                break
            else:
                silent_since = time.monotonic()
            continue
        if kind == "counts":
            totals.update(rest[0])
        elif kind == "failure":
            show_failure(*rest)
        else:
            ended += 1
    return totals


def summarize(totals, seconds):
    statuses = {key: n for key, n in totals.items() if isinstance(key, int)}
    families = collections.Counter()
    for status, n in statuses.items():
        families[status // 100] += n
    sent = sum(statuses.values()) + totals["cut"] + totals["unanswered"]
    parts = ", ".join(f"{families[family]} {family}xx" for family in (2, 3, 4, 5))
    print(f"\n{sent} requests, {parts}, {totals['cut']} cut as they may, {totals['failed']} failed; "
          f"{seconds:.1f} s, {sent / max(seconds, 0.001):.0f}/s")
    for status in sorted(statuses):
        print(f"  {status}  {statuses[status]:>9}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="N", help="number of the first request")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument("--any-host", action="store_true", help="allow a node that is not on this machine")
    options = parser.parse_args()
    host = urllib.parse.urlsplit(options.url).hostname
    if host not in ("127.0.0.1", "::1", "localhost") and not options.any_host:
        parser.error("this fills the node with rubbish; say --any-host if it is not on this machine")

    methods = multiprocessing.get_context("fork")
    results, stop = methods.Queue(), methods.Event()
    workers = [methods.Process(target=work, args=(index, options, results, stop)) for index in range(options.workers)]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    totals = gather(workers, results)
    for worker in workers:
        worker.join()
    summarize(totals, time.monotonic() - started)
    if totals["refused"] * 20 > totals["logged in"]:
        print(f"the credentials were refused {totals['refused']} times of {totals['logged in']}: "
              "most requests never got past the login")
        return 1
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
