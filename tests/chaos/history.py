"""What was written, by whom, over what, and whether it was acknowledged. The checker knows nothing else of the past."""
import dataclasses
import threading
import time

from records import human_of_tag, path_text

BLIND = "(did not look)"


@dataclasses.dataclass
class Event:
    """One write of one field, one delete of a record, or one decision of an operator.

    what      write, delete or decision
    value     name of the value written; None: the field was removed
    seen      name of the value that stood there, as the writer saw it; None: nothing; BLIND: the writer did not look
    acked     False: no answer came, so it may or may not have happened
    saw       of a delete: path -> name, all that the writer saw in the record
    drops     of a decision: the names that the operator decided against
    strict    a decision for a value: a resolved conflict is then no place for it to be
    destroyed a copy put back has legitimately taken it away
    """
    number: int
    action: int
    what: str
    writer: str
    place: str
    record: tuple
    path: tuple = ()
    value: str | None = None
    seen: str | None = None
    acked: bool = True
    start: float = 0.0
    end: float = 0.0
    how: str = ""
    saw: dict = dataclasses.field(default_factory=dict)
    drops: frozenset = frozenset()
    strict: bool = False
    destroyed: bool = False
    owner: str | None = None

    def line(self):
        kind, identifier = self.record
        head = f"{self.start:7.2f}  action {self.action:3d}  {self.how:24s} {kind}/{identifier}"
        state = "" if self.acked else "  NO ANSWER"
        if self.destroyed:
            state += "  (stood in nothing that survived a copy put back)"
        if self.what == "delete":
            seen = ", ".join(sorted(set(self.saw.values()))) or "nothing of ours"
            return f"{head}  deleted, saw {seen}{state}"
        if self.what == "decision":
            return f"{head}  {path_text(self.path)}: decided against {', '.join(sorted(self.drops)) or '-'}{state}"
        return f"{head}  {path_text(self.path)} = {self.value or '(removed)'} over {self.seen or '(nothing)'}{state}"


class History:
    """Events in the order in which they began, the story of the world, and what else counts as known."""

    def __init__(self, begin=None):
        self.begin = time.monotonic() if begin is None else begin
        self.events = []
        self.story = []
        self.lock = threading.Lock()
        # Hash of a content -> tag, tag -> hash.
        self.contents = {}
        # Name of a value -> humans in whose record it may stand beside its own.
        self.accepted = {}
        # Humans that an operator declared to be one.
        self.same = {}
        # Values that were sent, answered or not: name -> set of (kind, path).
        self.sent = {}
        # Owner that was given to a record: (kind, id) -> accounts.
        self.owners = {}
        # Name of a value -> the whole value as it was written, where it is more than a text.
        self.values = {}
        # Values that an operator's decision has put into a record: (record, name).
        self.decided_into = set()
        # Humans of this world.
        self.humans = set()
        # Accounts that an operator's decision has changed: (old, new).
        self.renames = []
        # Whose person got another id at a node, and when: (node, account, time).
        self.parted = []
        # Moments at which the centre was set back: deletes before may be undone.
        self.centre_set_back = []
        # Whether requests were delivered late, after their sender had given them up.
        self.late_lines = False
        # Records that operators took out of the trash again.
        self.restored_deletes = False

    def now(self):
        return time.monotonic() - self.begin

    def tell(self, action, text):
        """Adds a line to the story that belongs to no single record."""
        with self.lock:
            self.story.append((self.now(), f"{self.now():7.2f}  action {action:3d}  {text}"))

    def add(self, **fields):
        with self.lock:
            event = Event(number=len(self.events), **fields)
            self.events.append(event)
            if event.value:
                self.sent.setdefault(event.value, set()).add((event.record[0], event.path))
            return event

    def will_send(self, name, kind, path):
        with self.lock:
            self.sent.setdefault(name, set()).add((kind, path))

    def gave_owner(self, record, account):
        with self.lock:
            self.owners.setdefault(record, set()).add(account)

    def accept(self, name, human):
        with self.lock:
            self.accepted.setdefault(name, set()).add(human)

    def one_human(self, first, second):
        """An operator says that two are the same human."""
        with self.lock:
            if self.root(first) != self.root(second):
                self.same[self.root(first)] = self.root(second)

    def root(self, human):
        while human in self.same:
            human = self.same[human]
        return human

    def has_parted(self, place, account, since):
        """Says whether a person of this account got another id at this node after a moment."""
        return any(where == place and who.upper() == account.upper() and at > since
                   for where, who, at in self.parted)

    def meant_for(self, name):
        """Returns the human of a value, through the tag of the content if it is a hash."""
        tag = self.contents.get(name, name)
        return human_of_tag(tag) if ":" in tag else None

    def story_of(self, record, owner=None):
        """Returns the lines about one record, its person, and the world, in order of time.

        Rounds that did nothing are left out.
        """
        records = {record}
        if owner:
            records.add(("people", owner))
        lines = [(e.start, e.line()) for e in self.events if e.record in records]
        world = [pair for pair in self.story if not pair[1].endswith("round: complete ")]
        return [text for _, text in sorted(lines + world, key=lambda pair: pair[0])]
