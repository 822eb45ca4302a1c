"""A legacy application at the centre: it knows nothing of nodes and writes straight into MongoDB.

It reads first and writes only if the field still holds what it read, except for the blind writer. Every write asks
for journal and majority. A write without an answer may have happened.
"""
import datetime
import json

import bson
import pymongo
from bson import json_util
from pymongo.errors import DuplicateKeyError, PyMongoError

import records
from history import BLIND
from records import KINDS, day_of_birth, flatten, name_of, place, tagged

WRITER = "legacy"


def as_json(value):
    """Turns a BSON value into canonical extended JSON, as an export has it."""
    return json.loads(json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS))


class Legacy:
    """The legacy application during one action of the schedule."""

    def __init__(self, world, action, random):
        self.world, self.action, self.random = world, action, random
        self.history, self.database = world.history, world.centre.database

    def get(self, kind, identifier):
        return self.database[kind].find_one({"_id": identifier})

    def human(self, account):
        person = self.get("people", account)
        name = name_of(person.get("name", "")) if person else None
        return self.history.meant_for(name) if name else None

    def try_write(self, write):
        """Returns True: acknowledged and done, False: not done, None: nobody knows."""
        try:
            result = write()
        except DuplicateKeyError:
            return False
        except PyMongoError:
            return None
        if isinstance(result, pymongo.results.UpdateResult):
            return result.matched_count == 1
        if isinstance(result, pymongo.results.DeleteResult):
            return result.deleted_count == 1
        return True

    def note(self, outcome, before, after, record, start, how, blind=False, owner=None):
        """Notes one event for each field that differs between what was read and what was written."""
        if outcome is False:
            return
        seen, sent = tagged(as_json(before)), tagged(as_json(after))
        for path in sorted(set(seen) | set(sent)):
            if seen.get(path) == sent.get(path):
                continue
            name = sent.get(path)
            if name and records.TAG.search(name):
                self.world.remember(name, as_json(flatten(after)[path]))
            self.history.add(action=self.action, what="write", writer=WRITER, place="the centre", record=record,
                             path=path, value=name, seen=BLIND if blind else seen.get(path), acked=outcome is True,
                             start=start, end=self.history.now(), how=how, owner=owner)

    def new_value(self, field, human):
        tag = self.world.tag(WRITER, self.action, human)
        if not field.endswith("[]"):
            return tag
        kinds = [bson.Int64(self.random.randrange(1000)), 3, 2.0, True, None, bson.Decimal128("1.50"),
                 datetime.datetime(2020, 1, 2, 3, 4, 5), bson.ObjectId("5f0000000000000000000001"), {"deep": [1, 2.5]}]
        return [tag] + self.random.sample(kinds, 3)

    def owner_of(self, kind, document):
        return document.get(KINDS[kind].owner) if KINDS[kind].owner else None

    def insert(self, kind, identifier, owner):
        human = self.human(owner) if KINDS[kind].owner else None
        if KINDS[kind].owner and human is None:
            return None
        document = {"_id": identifier}
        if KINDS[kind].owner:
            document[KINDS[kind].owner] = owner
        self.history.gave_owner((kind, identifier), owner or "")
        for field in self.random.sample(records.FIELDS, 3):
            place(document, field, self.new_value(field, human))
        start = self.history.now()
        outcome = self.try_write(lambda: self.database[kind].insert_one(document))
        self.note(outcome, {}, document, (kind, identifier), start, f"legacy insert for {owner}", owner=owner)
        return outcome

    def insert_person(self, account, ssn=None):
        human = f"h{self.action}"
        self.history.humans.add(human)
        document = {"_id": account, "name": self.new_value("name", human),
                    "lastname": self.new_value("lastname", human), "dob": day_of_birth(human), "gender": "m"}
        if ssn:
            document["ssn"] = ssn
        for field in self.random.sample(records.FIELDS, 2):
            place(document, field, self.new_value(field, human))
        start = self.history.now()
        outcome = self.try_write(lambda: self.database.people.insert_one(document))
        self.note(outcome, {}, document, ("people", account), start, "legacy insert")
        if outcome is False:
            return None
        self.note_left_behind(account, human)
        return human

    def note_left_behind(self, account, human):
        """Accepts the records at the centre under an account that gets a new human: this writer left them there."""
        for kind in records.OWNED:
            for document in self.database[kind].find({KINDS[kind].owner: account}):
                record = (kind, document["_id"])
                for event in self.history.events:
                    if event.record == record and event.value:
                        self.history.accept(event.value, human)
                self.world.left_behind[record] = human

    def change(self, kind, identifier, owner, way):
        """Changes a record: way is set, unset, replace, blind, revert. Inserts it where there is none."""
        document = self.get(kind, identifier)
        if document is None:
            return None if kind == "people" else self.insert(kind, identifier, owner)
        owner = self.owner_of(kind, document)
        human = self.human(identifier if kind == "people" else owner) if kind == "people" or owner else None
        if human is None and (kind == "people" or KINDS[kind].owner):
            return None
        field = self.random.choice(records.FIELDS)
        path = records.path_of(field)
        value = None if way == "unset" else self.new_value(field, human)
        if way == "revert":
            field, value = self.older_value(kind, identifier, document, human)
            if field is None:
                return None
            path = records.path_of(field)
        wanted = bson.decode(bson.encode(document))
        place(wanted, field, value)
        start = self.history.now()
        if way == "replace":
            write = lambda: self.database[kind].replace_one(document, {k: v for k, v in wanted.items() if k != "_id"})
        else:
            write = lambda: self.set_field(kind, document, path, value, way == "blind")
        outcome = self.try_write(write)
        self.note(outcome, document, wanted, (kind, identifier), start, f"legacy {way}", way == "blind", owner)
        return outcome

    def set_field(self, kind, document, path, value, blind):
        dotted = ".".join(path)
        wanted = {"_id": document["_id"]}
        if not blind:
            leaf = flatten(document).get(path)
            wanted[dotted] = {"$exists": False} if leaf is None else {"$eq": leaf}
            for field in {KINDS[kind].owner, "name" if kind == "people" else None} - {None}:
                wanted[field] = document.get(field)
        change = {"$unset": {dotted: ""}} if value is None else {"$set": {dotted: value}}
        return self.database[kind].update_one(wanted, change)

    def older_value(self, kind, identifier, document, human):
        """Returns a field and a text that once stood in it and no longer does."""
        current = tagged(as_json(document))
        found = [(e.path, e.value) for e in self.history.events
                 if e.record == (kind, identifier) and e.what == "write" and e.acked and e.value
                 and ".".join(e.path) in ("summary", "info") and self.history.meant_for(e.value) == human
                 and current.get(e.path) not in (None, e.value)]
        if not found:
            return None, None
        path, value = self.random.choice(sorted(set(found)))
        return ".".join(path), value

    def delete(self, kind, identifier):
        document = self.get(kind, identifier)
        if document is None:
            return None
        start = self.history.now()
        outcome = self.try_write(lambda: self.database[kind].delete_one(document))
        if outcome is not False:
            self.history.add(action=self.action, what="delete", writer=WRITER, place="the centre",
                             record=(kind, identifier), saw=tagged(as_json(document)), acked=outcome is True,
                             start=start, end=self.history.now(), how="legacy delete",
                             owner=self.owner_of(kind, document))
        return outcome

    def move(self, kind, identifier, account):
        """Gives a record to another person: a correction of a record filed under the wrong person."""
        document, human = self.get(kind, identifier), self.human(account)
        field = KINDS[kind].owner
        if document is None or human is None or document.get(field) == account:
            return None
        record = (kind, identifier)
        self.history.gave_owner(record, account)
        for name in tagged(as_json(document)).values():
            self.history.accept(name, human)
        start = self.history.now()
        outcome = self.try_write(lambda: self.database[kind].update_one(document, {"$set": {field: account}}))
        if outcome is not False:
            self.history.add(action=self.action, what="write", writer=WRITER, place="the centre", record=record,
                             path=(field,), value=account, seen=document[field], acked=outcome is True, start=start,
                             end=self.history.now(), how="legacy move", owner=account)
        return outcome

    def give_account_away(self, account, leave_records):
        """Deletes a person, with or without the records, and registers another human under the account."""
        for kind in records.OWNED:
            for document in list(self.database[kind].find({KINDS[kind].owner: account})):
                if not leave_records:
                    self.delete(kind, document["_id"])
        if self.get("people", account) is not None and self.delete("people", account) is not True:
            return None
        return self.insert_person(account)

    def many_units(self, count):
        """Registers many institutions, which belong to nobody."""
        for number in range(count):
            self.insert("institution", f"many-{number}", None)

    def delete_many_units(self):
        for document in list(self.database.institution.find({"_id": {"$regex": "^many-"}})):
            self.delete("institution", document["_id"])
