"""Clients of a node: they look first, write, and note what was acknowledged and what they had seen.

Most send If-Match with what they saw. Some do not, like the clients in the field.
"""
import copy
import hashlib
import http.client

import records
from history import BLIND
from records import KINDS, flatten, name_of, place, tagged

REFUSED = {400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 429, 507}


class Client:
    """One person at work at one node, for one action of the schedule."""

    def __init__(self, world, node, action, random):
        self.world, self.node, self.action, self.random = world, node, action, random
        self.history = world.history

    def url(self, kind, identifier, owner):
        return KINDS[kind].item.format(id=identifier, owner=owner)

    def look(self, kind, identifier, owner):
        """Returns the document as the node shows it and its ETag, or (None, None)."""
        answer = self.node.call("GET", self.url(kind, identifier, owner))
        return (answer.body, answer.etag) if answer.status == 200 else (None, None)

    def human(self, account):
        """Returns the human whom the node shows under an account, or None."""
        document, _ = self.look("people", account, account)
        return self.human_in(document)

    def human_in(self, person):
        name = name_of(person.get("name", "")) if person else None
        return self.history.meant_for(name) if name else None

    def send(self, method, path, body=None, raw=None, headers=None):
        """Sends a write. Returns True: acknowledged, False: refused, None: nobody knows."""
        try:
            answer = self.node.call(method, path, body, raw, headers)
        except (OSError, http.client.HTTPException):
            return None, None
        if answer.good:
            return True, answer
        if answer.status in REFUSED:
            return False, answer
        self.history.tell(self.action, f"{self.node.name} {method} {path} answered {answer.status}")
        return None, answer

    def note(self, outcome, before, after, record, start, how, owner, human, unsure=False):
        """Notes one event for each field that differs between what was seen and what was sent.

        A client that sent no If-Match cannot be sure what it overwrote if a round was under way.
        """
        if outcome is False:
            return
        seen, sent = tagged(before), tagged(after)
        for path in sorted(set(seen) | set(sent)):
            if seen.get(path) == sent.get(path):
                continue
            name = sent.get(path)
            if name and records.TAG.search(name):
                self.history.values[name] = flatten(after)[path]
            self.history.add(action=self.action, what="write", writer=self.node.name, place=self.node.name,
                             record=record, path=path, value=name, seen=BLIND if unsure else seen.get(path),
                             acked=outcome is True, start=start, end=self.history.now(), how=how, owner=owner)
            # The person of the account may have changed while this client wrote.
            if human and owner and name:
                now = self.world.guess(lambda: self.human(owner))
                if now and now != human:
                    self.history.accept(name, now)

    def new_value(self, field, human):
        tag = self.world.tag(self.node.name, self.action, human)
        return [tag, self.random.randrange(1000), True, None] if field.endswith("[]") else tag

    def some_fields(self, most=2):
        return self.random.sample(records.FIELDS, self.random.randint(1, most))

    def create_person(self, account, ssn=None):
        """Registers a new human under an account that the node does not know."""
        human = f"h{self.action}"
        self.history.humans.add(human)
        document = {"name": self.new_value("name", human), "lastname": self.new_value("lastname", human),
                    "dob": records.day_of_birth(human), "gender": "f"}
        if ssn:
            document["ssn"] = ssn
        for field in self.some_fields():
            place(document, field, self.new_value(field, human))
        start = self.history.now()
        outcome, _ = self.send("POST", f"/people/{account}", document)
        self.note(outcome, {}, document, ("people", account), start, f"{self.node.name} POST", None, human)
        # The node can know of records that it shows under the account, but not of others at the centre.
        shown = self.world.names_under(self.node, account)
        for name in self.world.names_at_centre_under(account) - shown:
            if self.history.meant_for(name) != human:
                self.history.accept(name, human)
        return outcome

    def rewrite(self, account):
        """Makes another human of a person in place, as happens where an account is taken for a free one.

        Only of a person whom the centre has as the node shows them: of others nobody can tell a correction from this.
        """
        document, etag = self.look("people", account, account)
        before = self.human_in(document)
        row = self.world.guess(lambda: self.world.centre.database.people.find_one({"_id": account}))
        if before is None or self.human_in(row) != before:
            return None
        human = f"h{self.action}"
        self.history.humans.add(human)
        wanted = {key: value for key, value in document.items() if key in records.UNTAGGED}
        wanted |= {"name": self.new_value("name", human), "lastname": self.new_value("lastname", human),
                   "dob": records.day_of_birth(human)}
        for field in self.some_fields():
            place(wanted, field, self.new_value(field, human))
        start = self.history.now()
        outcome, _ = self.send("PUT", f"/people/{account}", wanted, headers={"If-Match": etag})
        if outcome is not False:
            self.world.rewritten.add((self.node.name, account))
            self.history.tell(self.action, f"{self.node.name} makes {human} of {before} in {account}")
        self.note(outcome, document, wanted, ("people", account), start, f"{self.node.name} PUT (another human)", None,
                  human)
        return outcome

    def is_of_another(self, document, owner, human):
        """Says whether a record that the node shows under a rewritten account was meant for somebody else."""
        meant = {self.history.root(self.history.meant_for(name)) for name in tagged(document).values()
                 if self.history.meant_for(name)}
        return (self.node.name, owner) in self.world.rewritten and meant and self.history.root(human) not in meant

    def change(self, kind, identifier, owner, way="patch", ssn=None, may_register=False):
        """Creates the record if the node has none, else changes it.

        The way is patch, put, remove (a field), or undo (what stood in a field before comes back).
        """
        document, etag = self.look(kind, identifier, owner)
        if kind == "people":
            if document is None:
                return self.create_person(identifier, ssn) if may_register else None
            human, owner = self.human_in(document), None
            if human is None:
                return None
        elif KINDS[kind].owner:
            owner = document.get(KINDS[kind].owner, owner) if document else owner
            human = self.human(owner)
            if human is None:
                return None
        else:
            human, owner = None, None
        record = (kind, identifier)
        start = self.history.now()
        if document is None:
            return self.create(record, owner, human, start)
        if owner and self.is_of_another(document, owner, human):
            # Nobody writes about one human into a record that is plainly another's.
            return None
        wanted = copy.deepcopy(document)
        fields = self.some_fields()
        if kind == "people" and self.random.random() < 0.15:
            fields = ["lastname"]
        undone = self.older_value(record, document) if way == "undo" else None
        if undone:
            fields = [undone[0]]
            place(wanted, *undone)
        for number, field in enumerate([] if undone else fields):
            remove = way == "remove" and number == 0
            place(wanted, field, None if remove else self.new_value(field, human))
        # A sub-document is replaced as a whole: what else is in it must be what was seen.
        careless = way == "patch" and self.random.random() < 0.25 and "." not in "".join(fields)
        unsure = careless and self.world.round_is_running(self.node)
        if way == "patch":
            body = {top: wanted.get(top) for top in {records.path_of(field)[0] for field in fields}}
            method = "PATCH"
        else:
            body, method = {k: v for k, v in wanted.items() if k not in ("_id", "id")}, "PUT"
        outcome, _ = self.send(method, self.url(kind, identifier, owner), body,
                               headers={} if careless else {"If-Match": etag})
        unsure = unsure or careless and (self.world.busy or self.world.round_is_running(self.node))
        self.note(outcome, document, wanted, record, start, f"{self.node.name} {method}", owner, human, unsure)
        return outcome

    def older_value(self, record, document):
        """Returns a field and what stood in it before its value was written: a text, or None for nothing."""
        found = []
        for path, name in tagged(document).items():
            field = ".".join(path)
            for event in self.history.events:
                if field in ("summary", "info") and event.record == record and event.path == path \
                        and event.value == name and event.seen != BLIND and event.what == "write":
                    found.append((field, event.seen))
        return self.random.choice(found) if found else None

    def create(self, record, owner, human, start):
        kind, identifier = record
        document = {}
        if KINDS[kind].owner and kind != "pols":
            document[KINDS[kind].owner] = owner
        if kind == "pols":
            document["id"] = identifier
        for field in self.some_fields(3):
            place(document, field, self.new_value(field, human))
        self.history.gave_owner(record, owner or "")
        outcome, _ = self.send("POST", self.url(kind, identifier, owner), document)
        self.note(outcome, {}, document, record, start, f"{self.node.name} POST for {owner}", owner, human)
        return outcome

    def delete(self, kind, identifier, owner):
        """Deletes a record as seen. A person has to be closed first."""
        document, etag = self.look(kind, identifier, owner)
        if document is None:
            return None
        url = self.url(kind, identifier, document.get(KINDS[kind].owner or "", owner))
        if kind == "people" and document.get("active") is not False:
            outcome, _ = self.send("PATCH", url, {"active": False}, headers={"If-Match": etag})
            if not outcome:
                return outcome
            document, etag = self.look(kind, identifier, owner)
            if document is None:
                return None
        start = self.history.now()
        outcome, _ = self.send("DELETE", url, headers={"If-Match": etag})
        if outcome is not False:
            self.history.add(action=self.action, what="delete", writer=self.node.name, place=self.node.name,
                             record=(kind, identifier), saw=tagged(document), acked=outcome is True, start=start,
                             end=self.history.now(), how=f"{self.node.name} DELETE",
                             owner=document.get(KINDS[kind].owner or ""))
        return outcome

    def attach(self, identifier, owner):
        """Gives a personal document new bytes."""
        kind = "personal_document"
        document, etag = self.look(kind, identifier, owner)
        if document is None:
            return None
        owner = document.get("fedacct", owner)
        human = self.human(owner)
        if human is None or self.is_of_another(document, owner, human):
            return None
        tag = self.world.tag(self.node.name, self.action, human)
        content = (tag + "\n").encode() * self.random.randint(1, 4000)
        digest = hashlib.sha256(content).hexdigest()
        self.history.contents[digest] = tag
        wanted = dict(document)
        wanted["content"] = {"sha256": digest, "length": len(content), "type": "text/plain"}
        start = self.history.now()
        outcome, _ = self.send("PUT", self.url(kind, identifier, owner) + "/content", raw=content,
                               headers={"If-Match": etag, "Content-Type": "text/plain"})
        if outcome is not False:
            self.history.values[digest] = wanted["content"]
        self.note(outcome, document, wanted, (kind, identifier), start, f"{self.node.name} PUT content", owner, human)
        return outcome
