"""What can be seen at the end: the centre, each node, their lists, and the complaints that come of it."""
import dataclasses
import json

from records import path_text


@dataclasses.dataclass
class NodeView:
    """What one node says and exports at the end. Messages are those of its last round and its status."""
    name: str
    records: dict
    conflicts: list = dataclasses.field(default_factory=list)
    dead: list = dataclasses.field(default_factory=list)
    trash: list = dataclasses.field(default_factory=list)
    waiting: list = dataclasses.field(default_factory=list)
    messages: list = dataclasses.field(default_factory=list)
    # Id of a personal document -> hash of the bytes that the node serves, or a status.
    contents: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Observation:
    """What a plain driver and plain HTTP see at the end."""
    centre: dict
    nodes: list
    conflicts: list = dataclasses.field(default_factory=list)
    trash: list = dataclasses.field(default_factory=list)
    unrest: str = ""


@dataclasses.dataclass
class Complaint:
    """One broken promise: which, where, which value, in words, and the events behind it."""
    kind: str
    record: tuple
    path: tuple
    value: str
    text: str
    event: object = None
    owner: str | None = None

    def key(self):
        return f"{self.kind} {self.record[0]}/{self.record[1]} {path_text(self.path)} {self.value}"


def plain(value):
    """Turns canonical extended JSON into comparable Python: numbers as numbers, the rest as it is."""
    if isinstance(value, dict):
        if len(value) == 1:
            (key, inner), = value.items()
            if key in ("$numberInt", "$numberLong"):
                return int(inner)
            if key == "$numberDouble":
                return float(inner)
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def canonical(document):
    return json.dumps(document, sort_keys=True)


def same_record(row, record):
    """Says whether a row of a list (conflict, refused, waiting, trash) is about a record."""
    identifier = row.get("record") or (row.get("id") if "record" not in row else None)
    return row.get("collection", row.get("kind")) == record[0] and identifier == record[1]
