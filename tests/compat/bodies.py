"""Bodies of requests: valid, invalid and malformed. Each has a label for the table, a function that makes it, and what
goes with it.

The function gets the name that the id has in bodies (`id` in 0.9.18, `_id` in 0.9.4), the account and the page of the
path. It returns bytes as they are, or a value that becomes JSON.
"""
import gzip
import json
import zlib

from people import HASH, json_bytes

STAMP = {"user": "ITAPYT999HON", "timestamp": "2026-11-28 10:37:51.949467", "node": "SPAIN-LASPALMAS"}
#: As the HMIS sends it.
HMIS = {"creation_info": STAMP, "name": "Juana", "lastname": "Núñez", "dob": "1985-12-10", "gender": "f"}
#: As the HMIS sends a page; U+200B stands in the age.
HMIS_PAGE = {"page_date": "2026-11-28T10:37:52.360417", "age": "40 y\u200b 9 m 28 d", "page_type": "medical",
             "relevance": "important", "medical_context": "health_condition", "health_condition_code": "J45",
             "summary": "Asthma", "info": "First\nsecond", "node": "SPAIN-LASPALMAS", "author": "Cordara",
             "measurements": "{'bp': {'systolic': 121}}"}
NEW_PASSWORD = "a lantern by the lake"
#: As long as a node takes one.
LONG_PASSWORD = "seven quiet herons, a boat of old wood and 2 lanterns by a lake!"


def encoder(body, account, identifier):
    def encode(id_name):
        made = body(id_name, account, identifier)
        return made if isinstance(made, bytes) else json_bytes(made)
    return encode


def always(value):
    return lambda id_name, account, identifier: value


def named(value, key=None):
    """With the id of the path, or another one."""
    return lambda id_name, account, identifier: {id_name: key or identifier or account, **value}


def deep(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


#: What is no record at all, or hardly one.
MALFORMED = [
    ("no body", always(b""), {}), ("no JSON", always(b'{"name": '), {}), ("an array", always([1]), {}),
    ("a text", always("x"), {}), ("null", always(None), {}), ("a number", always(5), {}),
    ("NaN", always(b'{"weight": NaN}'), {}), ("the same key twice", always(b'{"name": "A", "name": "B"}'), {}),
    ("key with $", always({"$set": {"name": "X"}}), {}), ("key with a dot", always({"a.b": 1}), {}),
    ("empty key", always({"": 1}), {}), ("NUL in a text", always({"name": "a\0b"}), {}),
    ("NUL in a key", always({"a\0b": 1}), {}), ("70 levels", always(deep(70)), {}),
    ("number of more than 64 bits", always({"weight": 2 ** 70}), {}), ("number 1e999", always(b'{"weight": 1e999}'), {}),
    ("text that is no UTF-8", always(b'{"name": "\xff\xfe"}'), {}),
    ("UTF-16", always('{"name": "X"}'.encode("utf-16")), {}), ("byte order mark", always(b'\xef\xbb\xbf{"name": "X"}'), {}),
    ("half a surrogate pair", always(b'{"name": "\\ud800"}'), {}),
    ("gzip", always(gzip.compress(b'{"name": "X"}', mtime=0)), {"headers": {"Content-Encoding": "gzip"}}),
    ("two megabytes", always({"notes": "x" * 2_000_000}), {}),
    ("type of a form", always({"name": "X"}), {"headers": {"Content-Type": "application/x-www-form-urlencoded"}}),
    ("type multipart", always({"name": "X"}), {"headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
    ("Origin of another site", always({"name": "X"}), {"headers": {"Origin": "https://elsewhere.example.org"}}),
    ("Origin null", always({"name": "X"}), {"headers": {"Origin": "null"}}),
    ("Sec-Fetch-Site of another site", always({"name": "X"}), {"headers": {"Sec-Fetch-Site": "cross-site"}}),
    ("If-Match of another version", always({"name": "X"}), {"headers": {"If-Match": '"x"'}}),
    ("If-None-Match of any version", always({"name": "X"}), {"headers": {"If-None-Match": "*"}}),
    ("a comma too many", always(b'{"name": "X",}'), {}), ("two objects", always(b'{"name": "X"}{"name": "Y"}'), {}),
    ("single quotes", always(b"{'name': 'X'}"), {}), ("key with $ inside", always({"a": {"$b": 1}}), {}),
    ("key with a dot inside", always({"a": {"b.c": 1}}), {}), ("20001 values", always({"l": list(range(20_001))}), {}),
    ("deflate", always(zlib.compress(b'{"name": "X"}')), {"headers": {"Content-Encoding": "deflate"}}),
    ("Latin-1", always(b'{"name": "N\xfa\xf1ez"}'), {"headers": {"Content-Type": "application/json; charset=iso-8859-1"}}),
]
#: Unusual, and taken by all.
UNUSUAL = [
    ("numbers in other forms", always(b'{"w": -0.0, "x": 1.7976931348623157e308, "y": 5e0}'), {}),
    ("blanks around", always(b' {"name": "X"} \n'), {}),
    ("coding identity", always({"name": "X"}), {"headers": {"Content-Encoding": "identity"}}),
    ("type of a text", always({"name": "X"}), {"headers": {"Content-Type": "text/plain"}}),
    ("type with charset", always({"name": "X"}), {"headers": {"Content-Type": "application/json; charset=iso-8859-1"}}),
    ("key of 5000 letters", always({"k" * 5000: 1}), {}),
    ("500 keys", always({f"k{number}": number for number in range(500)}), {}),
    ("Referer of another site", always({"name": "X"}), {"headers": {"Referer": "https://elsewhere.example.org/"}}),
    ("X-HTTP-Method-Override", always({"name": "X"}), {"headers": {"X-HTTP-Method-Override": "DELETE"}}),
    ("fields of other records", always({"fedacct": "X", "person": "X", "du": "x", "content": {"sha256": "x"}, "_etag": "x",
                                        "creation_info": STAMP}), {}),
]
#: MongoDB and jsonb take these differently.
TYPES = [("numbers and texts of all kinds",
          always({"n": 1, "f": 70.0, "s": 0.1, "big": 9007199254740993, "t": "Ñandú 你好 \u200b", "b": True, "z": None,
                  "l": [1, [2, {}]], "o": {"z": 1, "a": {"x": []}}}), {})]


def passwords(base):
    def one(label, value, works=None):
        return (f"password: {label}", always({**base, "password": value}), {"password": works} if works else {})
    return [one("21 letters", NEW_PASSWORD, NEW_PASSWORD), one("empty", ""), one("5 letters", "q7xkp", "q7xkp"),
            one("guessed first", "12345678", "12345678"), one("a number", 12345678), one("null", None),
            one("64 letters", LONG_PASSWORD, LONG_PASSWORD), one("64 letters repeated", "ab3x" * 16, "ab3x" * 16),
            one("65 letters", LONG_PASSWORD + "y"),
            one("73 bytes", "é" * 36 + "y", "é" * 36 + "y"), one("with NUL", "lantern\0lake77"),
            one("hash $2b$", HASH, "gnusolidario"), one("hash $2a$", HASH.replace("$2b$", "$2a$")),
            one("broken hash", "$2b$oops")]


def roles(base):
    return [(f"roles: {label}", always({**base, "roles": value}), {}) for label, value in (
        ("end_user", ["end_user"]), ("health_professional", ["end_user", "health_professional"]), ("root", ["root"]),
        ("a text", "root"), ("a number", 5), ("null", None), ("none", []), ("unknown", ["wizard"]),
        ("twice", ["end_user", "end_user"]))]


def actives(base):
    return [(f"active: {label}", always({**base, "active": value}), {}) for label, value in (
        ("true", True), ("false", False), ("a text", "false"), ("null", None))]


def dates(field, base):
    """Values of a field that holds a date in every record that has it."""
    return [(f"{field}: {label}", always({**base, field: value}), {}) for label, value in (
        ("a day", "1990-02-01"), ("as shown", "Fri, 04 Oct 1985 13:05:00 GMT"), ("a moment", "2026-11-28T10:37:52.360417"),
        ("a midnight elsewhere", "1990-02-01T00:00:00+02:00"), ("no date", "long ago"), ("null", None), ("a number", 5),
        ("Extended JSON", {"$date": "1985-12-10T00:00:00Z"}))]


NEW_PEOPLE = [
    ("as the HMIS sends it", always(HMIS), {}), ("with the id of the path", named(HMIS), {}),
    ("with another id", named(HMIS, "OTHER00001"), {}), ("with _id and id", always({**HMIS, "_id": "O1", "id": "O2"}), {}),
    ("as the Portal sends it", always({**HMIS, "password": NEW_PASSWORD, "roles": ["end_user"], "active": True}),
     {"password": NEW_PASSWORD}),
    ("account: lower case", always(HMIS), {"account": "low{}", "stored": "LOW{}"}),
    ("account: 2 signs", always(HMIS), {"account": "A{letter}"}),
    ("account: 40 signs", always(HMIS), {"account": "A" * 35 + "{}"}),
    ("account: with a space", always(HMIS), {"account": "A%20B{}"}),
    ("account: with an accent", always(HMIS), {"account": "JOS%C3%89{}"}),
    ("account: with a hyphen", always(HMIS), {"account": "AR-{}"}),
    ("account: markup", always(HMIS), {"account": "%3Cscript%3E{}"}),
    ("only a name", always({"name": "X"}), {}), *dates("dob", HMIS),
    *passwords(HMIS), *roles(HMIS), *actives(HMIS), *TYPES, *UNUSUAL, *MALFORMED,
]
KNOWN_PEOPLE = [
    ("as the HMIS sends it", always(HMIS), {}), ("with a password", always({**HMIS, "password": NEW_PASSWORD}), {}),
    ("account: lower case", always(HMIS), {"folds": True}), ("no JSON", always(b'{"name": '), {}),
]
CHANGES = [
    ("a field", always({"modification_info": STAMP, "profession": "nurse"}), {}),
    ("null as value", always({"profession": None}), {}),
    ("an object as value", always({"address": {"street": "Via Roma"}}), {}),
    ("with the id of the path", named({"profession": "nurse"}), {}),
    ("with another id", named({"name": "X"}, "OTHER00001"), {}),
    ("with id", always({"id": "OTHER00001", "name": "X"}), {}), ("with _id", always({"_id": "OTHER00001", "name": "X"}), {}),
    ("account: lower case", always({"profession": "nurse"}), {"folds": True}),
    ("name null", always({"name": None}), {}), *dates("dob", {}),
    *passwords({}), *roles({}), *actives({}), *TYPES, *UNUSUAL, *MALFORMED,
]
#: Fields of people in pages, where they mean nothing.
OF_PEOPLE = [("active: false", always({"active": False}), {}), ("active: a text", always({"active": "no"}), {}),
             ("a password", always({"password": "x"}), {}), ("roles", always({"roles": ["root"]}), {})]

NEW_PAGES = [
    ("as the HMIS sends it", lambda id_name, account, page: {id_name: page, "book": account, **HMIS_PAGE}, {}),
    ("as MyGNUHealth sends it", lambda id_name, account, page: {
        id_name: page, "page": page, "book": account, "page_date": "2026-11-28T10:37:53", "domain": "lifestyle",
        "context": "physical_activity", "measurements": [{"pa": {"steps": 9000}}, {"hr": 66}], "genetic_info": "",
        "privacy": True, "fsynced": None, "creation_info": STAMP}, {}),
    ("book in lower case", lambda id_name, account, page: {id_name: page, "book": account.lower(), **HMIS_PAGE}, {}),
    ("without book", lambda id_name, account, page: {id_name: page, **HMIS_PAGE}, {}),
    ("with another book", lambda id_name, account, page: {id_name: page, **HMIS_PAGE, "book": "NOBOOK0001"}, {}),
    # MyGNUHealth sends pages so that were made before its account was set.
    ("book null", lambda id_name, account, page: {id_name: page, **HMIS_PAGE, "book": None}, {}),
    ("without id", lambda id_name, account, page: {"book": account, **HMIS_PAGE}, {}),
    ("with another id", lambda id_name, account, page: {id_name: page + "-2", "book": account, **HMIS_PAGE}, {}),
    ("id null", lambda id_name, account, page: {id_name: None, "book": account, **HMIS_PAGE}, {}),
    ("page exists", lambda id_name, account, page: {id_name: page, "book": account, **HMIS_PAGE}, {"exists": "here"}),
    ("page exists as it is sent", lambda id_name, account, page: {id_name: page, "book": account, **HMIS_PAGE},
     {"exists": "as sent"}),
    ("page exists in another book", lambda id_name, account, page: {id_name: page, "book": account, **HMIS_PAGE},
     {"exists": "elsewhere"}),
    ("no such person", lambda id_name, account, page: {id_name: page, "book": account, **HMIS_PAGE}, {"nobody": True}),
    ("account: lower case", lambda id_name, account, page: {id_name: page, "book": account, **HMIS_PAGE}, {"folds": True}),
    ("page: 200 signs", lambda id_name, account, page: {id_name: page, "book": account, **HMIS_PAGE},
     {"page": "p" * 195 + "{}"}),
    ("page: markup", lambda id_name, account, page: {id_name: "<script>", "book": account, **HMIS_PAGE},
     {"page": "%3Cscript%3E{}"}),
    *[(label, lambda id_name, account, page, body=body: with_keys(body(id_name, account, page), id_name, account, page),
       more)
      for label, body, more in dates("page_date", {}) + OF_PEOPLE + TYPES + UNUSUAL + MALFORMED],
]
PAGE_CHANGES = [
    ("a field", always({"summary": "X", "relevance": "minor"}), {}), ("null as value", always({"summary": None}), {}),
    ("with the id of the path", named({"summary": "X"}), {}), ("with another id", named({"summary": "X"}, "other-page"), {}),
    ("with the book of the path", lambda id_name, account, page: {"book": account, "summary": "X"}, {}),
    ("with another book", always({"book": "NOBOOK0001"}), {}), ("book null", always({"book": None}), {}),
    ("no such page", always({"summary": "X"}), {"absent": True}),
    ("page of another book", always({"summary": "X"}), {"elsewhere": True}), *dates("page_date", {}), *OF_PEOPLE, *TYPES,
    *UNUSUAL, *MALFORMED,
]


def with_keys(made, id_name, account, page):
    """The same body with the id and the book that a page needs, where the body is an object at all."""
    keys = {id_name: page, "book": account}
    if isinstance(made, dict):
        return {**keys, **made}
    if isinstance(made, bytes) and made.lstrip().startswith(b'{"') and b": " in made:
        return json.dumps(keys).encode()[:-1] + b", " + made.lstrip()[1:]
    return made


def form(first, second, **more):
    return {"password": first, "pconfirm": second, "update": "Update", **more}


#: Fields of the password form, and the password that works then if they were taken.
FORMS = [
    ("new password twice", form(NEW_PASSWORD, NEW_PASSWORD), NEW_PASSWORD),
    ("new password twice and the present one", form(NEW_PASSWORD, NEW_PASSWORD, current="gnusolidario"), NEW_PASSWORD),
    ("two new passwords", form(NEW_PASSWORD, NEW_PASSWORD + "x", current="gnusolidario"), NEW_PASSWORD),
    ("new password of 5 letters", form("q7xkp", "q7xkp", current="gnusolidario"), "q7xkp"),
    ("new password of 6 letters", form("q7xkpm", "q7xkpm", current="gnusolidario"), "q7xkpm"),
    ("new password of 40 letters", form("ab3x" * 10, "ab3x" * 10, current="gnusolidario"), "ab3x" * 10),
    ("without token", form(NEW_PASSWORD, NEW_PASSWORD, current="gnusolidario", csrf_token=""), NEW_PASSWORD),
]
