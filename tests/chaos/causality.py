"""Which writer had seen which value: the writes before a write, and those that may have superseded it."""
from history import BLIND


class Causality:
    """The events of one history, by record, by value and by decision."""

    def __init__(self, history):
        self.late_lines, self.history = history.late_lines, history
        self.by_record, self.writers, self.by_name, self.dropped = {}, {}, {}, {}
        for event in history.events:
            self.by_record.setdefault(event.record, []).append(event)
            if event.what == "write" and event.value:
                key = (event.record, event.path, event.value)
                self.writers.setdefault(key, []).append(event)
                self.by_name.setdefault(event.value, []).append(event)
            for name in event.drops:
                self.dropped.setdefault(name, []).append(event)
        self.known_ancestors = {}

    def events_of(self, record):
        return self.by_record.get(record, ())

    def writers_of(self, record, path, name):
        return self.writers.get((record, path, name), ())

    def was_written_to(self, record, path, name):
        return (record, path, name) in self.writers

    def writer_of(self, name):
        return next(iter(self.by_name.get(name, ())), None)

    def ancestors(self, event):
        """Returns the writes that a writer has certainly seen, directly or through what others saw."""
        if event.number in self.known_ancestors:
            return self.known_ancestors[event.number]
        self.known_ancestors[event.number] = frozenset()
        if event.seen in (None, BLIND):
            return frozenset()
        before = [w for w in self.writers_of(event.record, event.path, event.seen)
                  if w.start < event.end and w is not event]
        sets = [self.ancestors(w) | {w.number} for w in before]
        found = frozenset.intersection(*sets) if sets else frozenset()
        self.known_ancestors[event.number] = found
        return found

    def successors(self, event):
        """Returns the events that may have superseded a value."""
        # A delayed request finds the old value again if a writer has gone back to it meanwhile. It cannot tell.
        before = frozenset() if self.late_lines else self.ancestors(event)
        for other in self.events_of(event.record):
            if other is event or other.number in before:
                continue
            if other.what == "delete" and event.value in other.saw.values():
                yield other
            elif other.what == "write" and other.path == event.path and not self.went_elsewhere(event, other) and (
                    other.seen == event.value and other.value != event.value
                    or other.seen == BLIND and other.end > event.start):
                yield other
        for other in self.dropped.get(event.value, ()):
            if other.end >= event.start and not (event.strict and other.start == event.start):
                yield other

    def went_elsewhere(self, event, other):
        """Says whether a person who was written over another human's has got an id of their own since.

        Then the one who was written over must still be there, with all that was written about them.
        """
        humans = [self.history.meant_for(e.value) for e in (event, other) if e.value]
        return event.record[0] == "people" and len(humans) == 2 and None not in humans \
            and self.history.root(humans[0]) != self.history.root(humans[1]) \
            and self.history.has_parted(other.place, event.record[1], other.start)

    def known_to(self, delete, write):
        """Says whether a delete had seen a write, or a later value of the same field."""
        if write.value in delete.saw.values():
            return True
        for path, name in delete.saw.items():
            for writer in self.writers_of(delete.record, path, name):
                if writer.path == write.path and write.number in self.ancestors(writer):
                    return True
        return any(other.value is None and other.acked and other.end < delete.start and other.path == write.path
                   and other.seen == write.value for other in self.events_of(delete.record) if other.what == "write")
