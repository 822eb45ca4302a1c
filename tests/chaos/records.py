"""The kinds of record, where they are at a node and at the centre, and how a document is taken apart.

A value that this program writes carries a tag: WRITER-SERIAL:HUMAN, for instance n2-000123:h7. The serial is unique.
HUMAN is the human being for whom the value was meant: an account may belong to one human first and to another later.
"""
import dataclasses
import hashlib
import json
import re

TAG = re.compile(r"\b[a-z]+\d*-\d{6}:(?:h\d+|none)\b")
SHA = re.compile(r"\b[0-9a-f]{64}\b")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of record: the collection at the centre, the owner field and the paths of the API."""
    collection: str
    owner: str | None
    item: str
    listing: str


KINDS = {kind.collection: kind for kind in (
    Kind("people", None, "/people/{id}", "/people"),
    Kind("pols", "book", "/pols/{owner}/{id}", "/pols/{owner}"),
    Kind("personal_document", "fedacct", "/personal-documents/{id}", "/personal-documents"),
    Kind("domiciliary_unit", None, "/domiciliary-units/{id}", "/domiciliary-units"),
    Kind("institution", None, "/institutions/{id}", "/institutions"),
    Kind("encounter", "person", "/encounters/{id}", "/encounters"),
    Kind("event", "person", "/events/{id}", "/events"),
    Kind("measurements", "person", "/measurements/{id}", "/measurements"),
    Kind("hospitalization", "person", "/hospitalizations/{id}", "/hospitalizations"),
)}
OWNED = [name for name, kind in KINDS.items() if kind.owner]

# Fields that clients write. A dot leads into a sub-document, [] marks an array, which is one value.
FIELDS = ("summary", "info", "detail.a", "detail.b", "items[]")

# Fields of a person, and of all records, that carry no tag.
UNTAGGED = {"roles", "active", "dob", "gender", "ssn"}

# Records of --demo, the same everywhere. Nobody here writes to them.
DEMO = {"ITPYT999HON", "ESGNU777ORG", "ITAPYT999HON", "ESPGNU777ORG", "ARGBUE111FAV"}


def human_of_tag(tag):
    """Returns the human for whom a value was meant, or None if it belongs to nobody."""
    human = tag.rsplit(":", 1)[1]
    return None if human == "none" else human


def day_of_birth(human):
    """Returns the day of birth of a human: a function of the name, so that a mix-up shows."""
    number = int(hashlib.sha256(human.encode()).hexdigest()[:6], 16)
    return f"{1930 + number % 80}-{number // 80 % 12 + 1:02d}-{number // 960 % 28 + 1:02d}"


def is_leaf(value):
    """Says whether a value is one for the reconciliation: no sub-document, but arrays and typed values."""
    return not isinstance(value, dict) or not value or any(key.startswith("$") for key in value)


def flatten(document):
    """Returns path -> leaf. The content of a personal document counts as one leaf."""
    found = {}

    def walk(value, path):
        if path == ("content",) or is_leaf(value):
            found[path] = value
            return
        for key, inner in value.items():
            walk(inner, path + (key,))

    for key, value in document.items():
        if key not in ("_id", "id"):
            walk(value, (key,))
    return found


def name_of(leaf):
    """Returns what identifies a written value: its tag, the hash of a content, or None for untagged values."""
    text = leaf if isinstance(leaf, str) else json.dumps(leaf, default=str)
    found = TAG.search(text) or SHA.search(text)
    return found.group() if found else None


def names_in(text):
    """Returns all tags and hashes that stand in a text."""
    return set(TAG.findall(text)) | set(SHA.findall(text))


def tagged(document):
    """Returns path -> name of every tagged value of a document."""
    return {path: name for path, leaf in flatten(document).items() if (name := name_of(leaf))}


def path_text(path):
    return ".".join(path) or "(whole record)"


def place(document, field, value):
    """Sets a field of FIELDS in a JSON document. None removes it."""
    parts = field.removesuffix("[]").split(".")
    inner = document
    for part in parts[:-1]:
        if not isinstance(inner.get(part), dict):
            inner[part] = {}
        inner = inner[part]
    if value is None:
        inner.pop(parts[-1], None)
        if len(parts) == 2 and not inner:
            document.pop(parts[0], None)
    else:
        inner[parts[-1]] = value


def path_of(field):
    return tuple(field.removesuffix("[]").split("."))
