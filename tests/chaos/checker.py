"""The verdict: compares what was acknowledged with what can be seen at the end.

Lost. An acknowledged value must stand in its record at the centre, or be superseded, or be listed.
- Superseded: another write or delete replaced it, and its writer had seen exactly this value. Writers read first and
  write only if the field still holds what they read. A writer that did not read counts if it wrote later. So does an
  operator's decision against the value. An earlier write does not count: a writer that put v0 over v1 had seen the
  write of v1, so v1 must not come back over v0. If the superseding write was not acknowledged, or a copy that was put
  back destroyed it, then the value or its successor must be found.
- Listed: it stands in a conflict (at a node or at the centre), in a trash, or in a node's record that this node lists
  as refused, held, waiting or in conflict. After an operator decided for the value, a closed conflict is not enough.
- Destroyed: before a copy is put back, the program reads everything that survives, and when it makes the copy, it
  reads what goes into it. A value that stands in neither may vanish. Every other value must be found.

Silently overwritten. The same as lost, but the field now holds a value whose writer had not seen the lost one.

Deletes. An acknowledged delete, or removal of a field, must hold, unless a write to the record was not known to it, or
a conflict names the record. Two worlds are exempt. Where the centre was set back, the documentation says that deletes
may be undone until all nodes have come together. Where requests arrived late, a write that compares by value cannot
know that the value had changed and changed back.

Invented. No field may hold a value that was not sent for this field of this record.

Misplaced. No value may stand in a record of another human than the one it was meant for. The human of a record is the
one whose tag stands in the name of the owner's person. Exempt are people's own acts: a record that was moved
knowingly, records that a writer left behind under an account that it gave to another human, and a value that an
operator chose for this record; and at a node, as long as it asks its staff whose the account is. A person who was
written over another one and has got an id of their own since supersedes nothing: the other one must still be there.

Not equal. Every node's export must equal the centre, save for records that this node lists. A node that says that
everything is up to date must differ in nothing.
"""
import json

from causality import Causality
from observation import Complaint, canonical, plain, same_record
from records import DEMO, KINDS, UNTAGGED, day_of_birth, flatten, name_of, names_in, path_text, tagged

UP_TO_DATE = "Everything is up to date with the centre."


class Check:
    """One verdict over one history and one observation."""

    def __init__(self, history, seen):
        self.history, self.seen = history, seen
        self.complaints = []
        self.causality = Causality(history)
        self.visible, self.misplaced = set(), set()
        self.listed_open, self.listed_closed = set(), set()

    def run(self):
        if self.seen.unrest:
            self.complain("not quiet", ("", ""), (), "", self.seen.unrest)
        self.check_places("the centre", self.seen.centre, None)
        for node in self.seen.nodes:
            self.check_places(node.name, node.records, node)
        self.collect_listed()
        self.check_equality()
        self.check_lost()
        self.check_deletes()
        self.check_removals()
        self.check_contents()
        return self.complaints

    def complain(self, kind, record, path, value, text, event=None, owner=None):
        complaint = Complaint(kind, record, path, value or "", text, event, owner)
        if all(complaint.key() != other.key() for other in self.complaints):
            self.complaints.append(complaint)

    # --- what stands where

    def human(self, kind, document, people):
        """Returns the human to whom a record belongs, or None where that cannot be told."""
        if kind == "people":
            name = name_of(document.get("name", ""))
        else:
            field = KINDS[kind].owner
            owner = document.get(field) if field else None
            person = people.get(owner.upper()) if isinstance(owner, str) else None
            name = name_of(person.get("name", "")) if person else None
        return self.history.meant_for(name) if name else None

    def check_places(self, place, records, node):
        """No invented and no misplaced values. Values of the centre that stand where they belong become visible."""
        people = records.get("people", {})
        for kind, documents in records.items():
            if kind not in KINDS:
                continue
            for identifier, document in documents.items():
                if identifier in DEMO or document.get(KINDS[kind].owner) in DEMO:
                    continue
                self.check_document(place, kind, identifier, document, people, node)

    def check_document(self, place, kind, identifier, document, people, node):
        history, record = self.history, (kind, identifier)
        mine = self.human(kind, document, people)
        owner = document.get(KINDS[kind].owner) if KINDS[kind].owner else None
        if owner is not None and not self.owner_is_known(record, owner):
            self.complain("invented", record, (KINDS[kind].owner,), str(owner),
                          f"at {place} the record belongs to {owner}, and nobody gave it to them", owner=owner)
        for path, leaf in flatten(document).items():
            name = name_of(leaf)
            if name is None:
                self.check_untagged(place, record, path, leaf, mine, owner)
                continue
            if (kind, path) not in history.sent.get(name, ()):
                self.complain("invented", record, path, name, f"at {place}, and nobody wrote it into this field",
                              owner=owner)
                continue
            written = history.values.get(name)
            if written is not None and plain(leaf) != written:
                self.complain("invented", record, path, name,
                              f"at {place} it is {plain(leaf)!r}, and {written!r} was written", owner=owner)
            human = history.meant_for(name)
            chosen = (record, name) in history.decided_into
            # Until it is decided whose an account is, a node shows the records of both under it, and says so.
            is_asked = node is not None and self.is_asked_whose(node, owner)
            if human and mine and history.root(human) != history.root(mine) and not chosen and not is_asked \
                    and history.root(mine) not in {history.root(h) for h in history.accepted.get(name, ())}:
                self.complain("misplaced", record, path, name,
                              f"meant for {human}, and at {place} it stands in a record of {mine}",
                              self.causality.writer_of(name), owner)
                self.misplaced.add(name)
                continue
            if record in history.owners and not (human and mine and history.root(human) == history.root(mine)) \
                    and not self.causality.was_written_to(record, path, name):
                self.complain("invented", record, path, name, f"at {place}, and it was written to another record",
                              self.causality.writer_of(name), owner)
                continue
            if node is None:
                self.visible.add(name)

    @staticmethod
    def is_asked_whose(node, account):
        """Says whether a node asks its staff about the human of an account."""
        return account is not None and any(
            row.get("type") == "identity" and row.get("status") == "open" and same_record(row, ("people", account))
            for row in node.conflicts)

    def owner_is_known(self, record, owner):
        given = {account.upper() for account in self.history.owners.get(record, ())}
        if not given:
            # A record that got its id from a decision: its values say whose it is.
            return True
        while True:
            more = {new.upper() for old, new in self.history.renames if old.upper() in given} - given
            if not more:
                return owner.upper() in given
            given |= more

    def check_untagged(self, place, record, path, leaf, mine, owner):
        if path[0] == "dob" and record[0] == "people" and mine:
            others = {h for h in self.history.humans
                      if self.history.root(h) != self.history.root(mine) and day_of_birth(h) == leaf}
            allowed = {day_of_birth(h) for h in self.history.humans if self.history.root(h) == self.history.root(mine)}
            if leaf not in allowed:
                self.complain("misplaced" if others else "invented", record, path, str(leaf),
                              f"at {place} a day of birth that {mine} does not have")
        elif leaf != {} and path[0] not in UNTAGGED and path[0] != KINDS[record[0]].owner:
            self.complain("invented", record, path, json.dumps(leaf)[:80], f"at {place}, and nobody wrote it",
                          owner=owner)

    # --- lists that staff can see

    def collect_listed(self):
        for row in self.seen.conflicts:
            names = names_in(json.dumps(row, default=str))
            (self.listed_open if row.get("status") == "open" else self.listed_closed).update(names)
        for row in self.seen.trash:
            if row.get("state") != "void":
                self.listed_closed |= names_in(json.dumps(row, default=str))
        for node in self.seen.nodes:
            for row in node.conflicts:
                names = names_in(json.dumps(row))
                (self.listed_open if row.get("status") == "open" else self.listed_closed).update(names)
            self.listed_closed |= names_in(json.dumps(node.trash))
            self.listed_open |= names_in(json.dumps(node.dead)) | names_in(json.dumps(node.waiting))
            for kind, documents in node.records.items():
                for identifier, document in documents.items():
                    if kind in KINDS and self.is_listed(node, (kind, identifier), document):
                        self.listed_open |= set(tagged(document).values())

    def is_listed(self, node, record, document):
        """Says whether a node lists a record, or its person, as refused, held, waiting or in conflict."""
        owner = document.get(KINDS[record[0]].owner or "", "") if document else ""
        persons = {("people", owner)} if owner else set()
        for row in node.dead + node.waiting:
            if any(same_record(row, one) for one in {record} | persons):
                return True
        for row in node.conflicts:
            if row.get("status") != "open":
                continue
            if same_record(row, record) and not row.get("path"):
                return True
            # Two people, or one who is gone at the centre: until that is decided what comes for them waits apart.
            if row.get("type") in ("identity", "record") and any(same_record(row, one) for one in persons):
                return True
        return False

    def check_equality(self):
        for node in self.seen.nodes:
            differences = []
            for kind in KINDS:
                here, there = node.records.get(kind, {}), self.seen.centre.get(kind, {})
                for identifier in sorted(set(here) | set(there)):
                    record = (kind, identifier)
                    mine, theirs = here.get(identifier), there.get(identifier)
                    if mine is not None and theirs is not None and canonical(mine) == canonical(theirs):
                        continue
                    listed = any(self.is_listed(node, record, d) for d in (mine, theirs) if d is not None)
                    if not listed and mine and theirs:
                        listed = self.differ_in_conflicts_only(node, record, mine, theirs)
                    differences.append(record)
                    if not listed:
                        self.complain("not equal", record, (), "", self.difference(node, mine, theirs),
                                      owner=(mine or theirs).get(KINDS[kind].owner or ""))
            if differences and any(message == UP_TO_DATE for message in node.messages):
                self.complain("says up to date", differences[0], (), "",
                              f"{node.name} says so and differs in {len(differences)} records: "
                              + ", ".join("/".join(d) for d in differences[:5]))

    @staticmethod
    def differ_in_conflicts_only(node, record, mine, theirs):
        paths = [tuple(row.get("path") or ()) for row in node.conflicts
                 if row.get("status") == "open" and same_record(row, record) and row.get("type") == "value"]
        ours, other = flatten(mine), flatten(theirs)
        return all(any(path[:len(p)] == p for p in paths)
                   for path in set(ours) | set(other) if canonical(ours.get(path)) != canonical(other.get(path)))

    @staticmethod
    def difference(node, mine, theirs):
        if mine is None or theirs is None:
            return f"{node.name} {'has' if mine else 'lacks'} it, the centre {'has' if theirs else 'lacks'} it"
        ours, other = flatten(mine), flatten(theirs)
        paths = [path for path in sorted(set(ours) | set(other))
                 if canonical(ours.get(path)) != canonical(other.get(path))]
        return "; ".join(f"{path_text(p)}: {node.name} {canonical(ours.get(p))[:90]}, "
                         f"the centre {canonical(other.get(p))[:90]}" for p in paths[:4])

    # --- lost

    def stands(self, event):
        if event.value in self.visible or event.value in self.listed_open:
            return True
        return event.value in self.listed_closed and not event.strict

    def is_fine(self, event, visited):
        if event.value is None or self.stands(event):
            return True
        for other in self.causality.successors(event):
            if other.what == "decision" or (other.acked and not other.destroyed):
                return True
            if other.number not in visited and self.is_fine(other, visited | {other.number}):
                return True
        return False

    def check_lost(self):
        for event in self.history.events:
            if event.what != "write" or not event.acked or event.destroyed or event.value is None:
                continue
            # A value that is written back looks as if what had replaced it were forgotten by a centre that was set back.
            if self.history.centre_set_back and any(
                    other is not event and other.path == event.path and other.value == event.value
                    and other.start < event.start for other in self.causality.events_of(event.record)):
                continue
            # A misplaced value has its complaint already.
            if event.value in self.misplaced or self.is_moved_owner(event) or self.is_fine(event, {event.number}):
                continue
            self.complain_lost(event)

    def is_moved_owner(self, event):
        """The new owner of a moved record carries no tag: it stands if the record names it."""
        kind, identifier = event.record
        if event.path != (KINDS[kind].owner,):
            return False
        document = self.seen.centre.get(kind, {}).get(identifier)
        if document is None or document.get(KINDS[kind].owner) == event.value:
            return True
        rows = [row for row in self.seen.conflicts + sum((n.conflicts for n in self.seen.nodes), [])
                if same_record(row, event.record)]
        return bool(rows) or self.history.centre_set_back or self.owner_is_known(
            event.record, document.get(KINDS[kind].owner)) and any(
                other.path == event.path and other.start > event.start
                for other in self.causality.events_of(event.record) if other is not event and other.what == "write")

    def complain_lost(self, event):
        kind, identifier = event.record
        document = self.seen.centre.get(kind, {}).get(identifier)
        now = name_of(flatten(document)[event.path]) if document and event.path in flatten(document) else None
        where = "nowhere to be found"
        if document is None:
            where += ", the record is gone"
        elif now:
            where += f", there stands {now}"
        else:
            where += ", the field is gone"
        by_stranger = now is not None and event.value not in {
            w.seen for w in self.causality.writers_of(event.record, event.path, now)}
        self.complain("silently overwritten" if by_stranger else "lost", event.record, event.path, event.value,
                      f"written by {event.writer} at {event.start:.2f} at {event.place}: {where}", event, event.owner)

    def has_row(self, record):
        """Says whether a record is in conflict somewhere, or openly waits: then a delete or removal has not been sent."""
        return any(same_record(row, record) for rows in
                   [self.seen.conflicts] + [n.conflicts + n.waiting for n in self.seen.nodes] for row in rows)

    def has_gone_along(self, event):
        """Says whether the person it was meant for got another id where it was made: what the centre has stays another's."""
        owner = event.record[1] if event.record[0] == "people" else event.owner
        return owner is not None and self.history.has_parted(event.place, owner, event.start)

    def check_deletes(self):
        if self.history.restored_deletes or self.history.centre_set_back or self.history.late_lines:
            return
        for event in self.history.events:
            kind, identifier = event.record
            if event.what != "delete" or not event.acked or event.destroyed:
                continue
            if identifier not in self.seen.centre.get(kind, {}) or self.has_row(event.record):
                continue
            if self.has_gone_along(event):
                continue
            others = [e for e in self.causality.events_of(event.record) if e is not event]
            if any(e.what == "decision" for e in others):
                continue
            if all(e.what != "write" or e.value is None or self.causality.known_to(event, e) for e in others):
                self.complain("lost", event.record, (), "(delete)",
                              f"deleted by {event.writer} at {event.start:.2f} at {event.place}: the record is back, "
                              "and nobody wrote anything to it that the delete had not seen", event, event.owner)

    def check_removals(self):
        if self.history.centre_set_back or self.history.late_lines:
            return
        for event in self.history.events:
            kind, identifier = event.record
            if event.what != "write" or event.value is not None or not event.acked or event.destroyed:
                continue
            if self.has_row(event.record) or self.has_gone_along(event):
                continue
            document = self.seen.centre.get(kind, {}).get(identifier)
            now = tagged(document).get(event.path) if document else None
            writers = self.causality.writers_of(event.record, event.path, now) if now else ()
            before = self.causality.ancestors(event)
            if writers and all(w.number in before for w in writers):
                self.complain("lost", event.record, event.path, "(removal)",
                              f"removed by {event.writer} at {event.start:.2f} at {event.place}: {now} is back, which "
                              "was removed knowingly", event, event.owner)

    def check_contents(self):
        for node in self.seen.nodes:
            for identifier, got in node.contents.items():
                document = node.records.get("personal_document", {}).get(identifier) or {}
                wanted = name_of(document["content"]) if document.get("content") else None
                if wanted is None or got == wanted:
                    continue
                events = [e for e in self.history.events if e.value == wanted]
                if events and all(e.destroyed or not e.acked for e in events):
                    continue
                self.complain("lost", ("personal_document", identifier), ("content",), wanted,
                              f"{node.name} answers {got} instead of these bytes", events[0] if events else None)
