"""What the databases of a clinic hold, and what a node exports: the same records in one form, to be compared.

A record is a document with `_id`; of a row of PostgreSQL it has the key columns too, as the node has. Records are compared as
canonical extended JSON, so that types count. Bytes of documents are kept apart, by the id of their document.
"""
import datetime
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field

from bson import Int64, json_util

#: Dates are those of UTC without a zone, as pymongo reads them.
CANONICAL = json_util.CANONICAL_JSON_OPTIONS.with_options(tz_aware=False, tzinfo=None)
EPOCH = datetime.datetime(1970, 1, 1)
#: The collections of Thalamus, each with its table and the key columns of that.
TABLES = {"people": ("people", ()), "pols": ("pols", ("book",)), "personal_document": ("personal_docs", ("fedacct", "pol")),
          "domiciliary_unit": ("dus", ()), "institution": ("institutions", ())}


@dataclass
class Held:
    """Records by collection and id, and bytes by the id of the document."""
    records: dict = field(default_factory=lambda: {name: {} for name in TABLES})
    contents: dict = field(default_factory=dict)


def canonical(document):
    return json_util.dumps(document, json_options=CANONICAL, sort_keys=True, ensure_ascii=False)


def of_node(node, directory):
    """What a node exports, which does not run."""
    node.command("export", directory)
    held = Held()
    for name in TABLES:
        path = os.path.join(directory, name + ".jsonl")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                documents = [json_util.loads(line, json_options=CANONICAL) for line in file]
            held.records[name] = {document["_id"]: document for document in documents}
    for identifier, document in held.records["personal_document"].items():
        content = document.pop("content", None)
        if content:
            held.contents[identifier] = read_content(directory, content)
    return held


def read_content(directory, content):
    """The bytes that a document names, which must be those that it says they are."""
    with open(os.path.join(directory, "content", content["sha256"]), "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != content["sha256"] or len(data) != content["length"]:
        raise AssertionError(f"these are other bytes: {content}")
    return data


def of_running_node(node, directory):
    """As [`of_node`], of one that runs. The files are removed."""
    node.stop()
    try:
        return of_node(node, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        node.start()


def of_postgres(postgres):
    held = Held()
    for name, (table, keys) in TABLES.items():
        for line in postgres.psql(rf"\pset tuples_only on" "\n" rf"\pset format unaligned" "\n"
                                  f"SELECT row_to_json(r) FROM {table} r;\n").splitlines():
            row = json.loads(line)
            document = {key: value for key, value in row["data"].items() if key != "id"}
            held.records[name][row["id"]] = {"_id": row["id"], **document, **{key: row[key] for key in keys}}
            if row.get("document"):
                held.contents[row["id"]] = bytes.fromhex(row["document"].removeprefix("\\x"))
    return held


def of_mongo(database):
    held = Held()
    for name in TABLES:
        held.records[name] = {document["_id"]: document for document in database[name].find()}
    return held


def complaints(found, expected):
    """What differs, in words: nothing if both hold the same."""
    said = []
    for name in TABLES:
        ours, theirs = found.records[name], expected.records[name]
        if set(ours) != set(theirs):
            said.append(f"{name}: {sorted(set(ours) ^ set(theirs))} stand on one side only")
        for identifier in sorted(set(ours) & set(theirs)):
            if canonical(ours[identifier]) != canonical(theirs[identifier]):
                said.append(f"{name} {identifier}: {canonical(ours[identifier])} is not {canonical(theirs[identifier])}")
    if found.contents != expected.contents:
        said.append(f"bytes of {sorted(found.contents)} are not those of {sorted(expected.contents)}")
    return said


def as_json(held):
    """An export as the commands for going back store it in PostgreSQL: numbers are numbers, and a date is an object with its
    milliseconds."""
    return Held(in_json(held.records), held.contents)


def in_json(value):
    if isinstance(value, dict):
        return {key: in_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_json(item) for item in value]
    if isinstance(value, datetime.datetime):
        return {"$date": round((value - EPOCH).total_seconds() * 1000)}
    return int(value) if isinstance(value, Int64) else value
