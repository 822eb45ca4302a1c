"""The people who answer: halts are resumed over the commands, conflicts decided at nodes and at the centre."""
import http.client
import json

from records import KINDS, name_of, names_in, tagged


class Operator:
    """The technician of one node, during one action of the schedule."""

    def __init__(self, world, node, action, random):
        self.world, self.node, self.action, self.random = world, node, action, random
        self.history = world.history

    def message(self):
        status = self.world.guess(lambda: self.node.call("GET", "/sync/status"))
        return (status.body or {}) if status and status.status == 200 else {}

    def answer_halt(self):
        """Answers what has halted the node, with one of the answers that its message offers."""
        status = self.message()
        if status.get("state") != "halted":
            return None
        text = status.get("message", "")
        if "--centre-restored" in text:
            answer = "--centre-restored"
        elif "--accept-deletes" in text or "--restore-deleted" in text:
            # Vanished records are agreed with only where this program has deleted many and set nothing back.
            meant = self.world.many_deleted and not self.history.centre_set_back
            answer = "--accept-deletes" if meant and self.random.random() < 0.7 else "--restore-deleted"
        else:
            self.history.tell(self.action, f"{self.node.name} halted without naming an answer: {text[:200]}")
            return False
        code, output = self.node.command("sync", "resume", answer)
        self.history.tell(self.action, f"{self.node.name} halted: {text[:160]}... answer {answer}: "
                                       f"{code} {output.strip()[:120]}")
        if answer != "--centre-restored":
            self.history.restored_deletes = True
        return code == 0

    def open_conflicts(self):
        answer = self.world.guess(lambda: self.node.call("GET", "/sync/conflicts?status=open"))
        rows = answer.body if answer and answer.status == 200 and isinstance(answer.body, list) else []
        # These end with the records, and are decided by nobody.
        standing = ("duplicate", "left_behind")
        return sorted((row for row in rows if row.get("status") == "open" and row.get("type") not in standing),
                      key=lambda row: (row["collection"], str(row.get("record")), row["id"]))

    def decide_one(self):
        rows = self.open_conflicts()
        return self.decide(self.random.choice(rows)) if rows else None

    def decide(self, row):
        if row.get("type") == "identity":
            return self.decide_identity(row)
        record, path = (row["collection"], row["record"]), tuple(row.get("path") or ())
        side = self.random.choice(["local", "central"])
        if record[0] == "people" and path and path[0] in ("name", "lastname", "dob", "gender"):
            # A sensible operator does not make one person of two: these fields go together.
            side = "central"
        before = self.look(record)
        names = {key: names_in(json.dumps(row.get(key))) for key in ("local", "central", "current")}
        body = {"take": side}
        start = self.history.now()
        outcome = self.post(row, body)
        if outcome is False:
            return False
        # The value of one side is written, over the other one and over what stands there by now.
        keeps, drops = names[side], set().union(*names.values())
        if not path:
            # A decision about a whole record may delete it: all that the operator could see is decided.
            keeps, drops = set(), drops | before | self.look(record)
        # Of a record that is gone, the side of the centre is that it is: nothing is written.
        is_gone = side == "central" and not self.look(record)
        takes = () if is_gone or names["current"] == keeps else keeps
        self.note(record, path, outcome, start, f"{self.node.name} takes {side}", takes, drops - keeps)
        return outcome

    def note(self, record, path, outcome, start, how, takes, drops):
        common = {"action": self.action, "writer": f"operator of {self.node.name}", "place": self.node.name,
                  "record": record, "start": start, "end": self.history.now(), "how": how}
        self.history.add(what="decision", path=path, drops=frozenset(drops), **common)
        self.history.decided_into |= {(record, name) for name in takes}
        for name in sorted(takes):
            for kind, where in sorted(self.history.sent.get(name, ())):
                if kind == record[0]:
                    self.history.add(what="write", path=where, value=name, acked=outcome is True, strict=True, **common)

    def post(self, row, body):
        try:
            answer = self.node.call("POST", f"/sync/conflicts/{row['id']}/resolution", body,
                                    headers={"If-Match": row["etag"]})
        except (OSError, http.client.HTTPException):
            return None
        if answer.good:
            return True
        self.history.tell(self.action, f"{self.node.name} decision about {row['collection']}/{row['record']} "
                                       f"answered {answer.status} {str(answer.body)[:150]}")
        return False if answer.status < 500 else None

    def look(self, record):
        """Returns the names that this node shows in a record."""
        kind, identifier = record
        names = set()
        for account in self.world.accounts if kind == "pols" else [None]:
            path = KINDS[kind].item.format(id=identifier, owner=account)
            answer = self.world.guess(lambda: self.node.call("GET", path))
            if answer and answer.status == 200:
                names |= set(tagged(answer.body).values())
        return names

    def decide_identity(self, row):
        """Decides whether two people are one. They are, if both descend from one registration."""
        account, record = row["record"], (row["collection"], row["record"])
        humans = [self.history.meant_for(name) for side in ("local", "central")
                  if (name := name_of((row.get(side) or {}).get("name", "")))]
        if row["collection"] != "people":
            return self.decide_other_identity(row)
        one = len(humans) == 2 and self.history.root(humans[0]) == self.history.root(humans[1])
        start = self.history.now()
        if one or self.random.random() < 0.25:
            outcome = self.post(row, {"decide": "same"})
            if outcome is not False and len(humans) == 2:
                self.history.one_human(humans[0], humans[1])
            how = "says that they are one"
        else:
            new = f"NEW{self.action:03d}{self.world.count():03d}"
            self.world.accounts.append(new)
            self.history.renames.append((account, new))
            outcome = self.post(row, {"decide": "new_id", "id": new})
            if outcome is not False:
                self.history.parted.append((self.node.name, account, start))
            how = f"says {new}"
        if outcome is not False:
            self.note(record, (), outcome, start, f"{self.node.name} {how}", (), ())
            self.history.tell(self.action, f"{self.node.name} decides {account}, {' and '.join(map(str, humans))}: "
                                           f"{how}")
        return outcome

    def decide_other_identity(self, row):
        """Two records of two people under one id: decided by another id, as the documentation offers."""
        new = f"new-{self.action}-{self.world.count()}"
        outcome = self.post(row, {"decide": "new_id", "id": new})
        if outcome is not False:
            self.history.tell(self.action, f"{self.node.name} gives {row['collection']}/{row['record']} the id {new}")
            for account in self.history.owners.get((row["collection"], row["record"]), ()):
                self.history.gave_owner((row["collection"], new), account)
        return outcome

    def decide_at_centre(self):
        """Writes a decision into the row at the centre, as the administrator of the federation does."""
        rows = sorted(self.world.centre.database.edge_conflicts.find({"status": "open", "type": "value"}),
                      key=lambda row: str(row["_id"]))
        rows = [row for row in rows if row.get("path")]
        if not rows:
            return None
        row = self.random.choice(rows)
        side = self.random.choice(["local", "central"])
        record = (row["collection"], row["id"])
        local = names_in(json.dumps(row.get("local"), default=str))
        other = names_in(json.dumps(row.get("central"), default=str))
        start = self.history.now()
        result = self.world.centre.database.edge_conflicts.update_one(
            {"_id": row["_id"], "status": "open"},
            {"$set": {"status": "resolved", "resolution": side, "resolved_by": "Head office"}})
        if result.matched_count == 1:
            keeps, drops = (local, other) if side == "local" else (set(), local)
            # Whether the node can carry it out is not known: the value is not held against anybody.
            self.note(record, tuple(row["path"]), None, start, f"the centre takes {side}", keeps, drops - keeps)
        return result.matched_count == 1
