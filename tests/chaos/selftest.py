"""Checks the checker: histories made by hand, each with the complaints that must come of it, or none."""
import itertools

from checker import UP_TO_DATE, Check
from history import BLIND, History
from observation import NodeView, Observation
from records import day_of_birth

PAGE = ("pols", "page-1")
BOOK = "ACCT00"


class Case:
    """A small world: one person with one page, one node that equals the centre, and events in order of time."""

    def __init__(self):
        self.history = History(begin=0)
        self.moment = itertools.count(10)
        self.centre = {"people": {}, "pols": {}, "personal_document": {}}
        self.conflicts, self.trash, self.unrest = [], [], ""
        self.node = NodeView("n0", {})
        self.node_differs = False
        self.person(BOOK, "h0")
        self.history.gave_owner(PAGE, BOOK)

    def person(self, account, human):
        name = f"n0-{900000 + int(human[1:]):06d}:{human}"
        self.history.humans.add(human)
        self.write(name, None, ("people", account), ("name",))
        self.centre["people"][account] = {"_id": account, "name": name, "dob": day_of_birth(human)}

    def write(self, value, seen, record=PAGE, path=("summary",), place="n0", **more):
        start = next(self.moment)
        return self.history.add(action=0, what="write", writer=place, place=place, record=record, path=path,
                                value=value, seen=seen, start=start, end=start + 0.5, how=place, **more)

    def delete(self, saw, record=PAGE, **more):
        start = next(self.moment)
        return self.history.add(action=0, what="delete", writer="legacy", place="the centre", record=record,
                                saw={("summary",): saw}, start=start, end=start + 0.5, how="delete", **more)

    def decide(self, drops, record=PAGE):
        start = next(self.moment)
        return self.history.add(action=0, what="decision", writer="operator", place="n0", record=record,
                                path=("summary",), drops=frozenset(drops), start=start, end=start, how="decides")

    def page(self, summary=None, book=BOOK, **fields):
        document = {"_id": "page-1", "book": book, **fields}
        if summary:
            document["summary"] = summary
        self.centre["pols"]["page-1"] = document

    def kinds(self):
        node = self.node
        if not self.node_differs:
            node.records = self.centre
        seen = Observation(self.centre, [node], self.conflicts, self.trash, self.unrest)
        return sorted({complaint.kind for complaint in Check(self.history, seen).run()})


A, B, C = "n0-000001:h0", "n1-000002:h0", "legacy-000003:h0"
# Written for somebody else: the name of their person, and a page.
OTHER, SINCE = "n0-000004:h1", "n0-000005:h1"


def visible(case):
    case.write(A, None)
    case.page(A)


def overwritten_knowingly(case):
    case.write(A, None)
    case.write(B, A)
    case.page(B)


def in_a_conflict_at_the_centre(case):
    case.write(A, None)
    case.write(B, None)
    case.page(B)
    case.conflicts.append({"collection": "pols", "id": "page-1", "path": ["summary"], "status": "open", "local": A})


def in_a_conflict_at_a_node(case):
    case.write(A, None)
    case.write(B, None)
    case.page(B)
    case.node.conflicts.append({"id": "77", "collection": "pols", "record": "page-1", "path": ["summary"],
                                "status": "open", "type": "value", "local": A})


def deleted_knowingly(case):
    case.write(A, None)
    case.delete(A)


def in_the_trash(case):
    case.write(A, None)
    case.trash.append({"kind": "pols", "id": "page-1", "state": "done", "body": {"summary": A}})


def refused_and_listed(case):
    case.write(A, None)
    case.node_differs = True
    case.node.records = {"people": case.centre["people"],
                         "pols": {"page-1": {"_id": "page-1", "book": BOOK, "summary": A}}}
    case.node.dead.append({"id": "pols:page-1", "collection": "pols", "record": "page-1"})


def held_with_its_person(case):
    refused_and_listed(case)
    case.node.dead.clear()
    case.node.conflicts.append({"id": "1", "type": "identity", "collection": "people", "record": BOOK, "status": "open",
                                "path": []})


def apart_until_its_person_is_decided_about(case):
    held_with_its_person(case)
    case.node.conflicts[-1]["type"] = "record"


def perhaps_overwritten_and_it_was(case):
    case.write(A, None)
    case.write(B, A, acked=False)
    case.page(B)


def never_acknowledged(case):
    case.write(A, None, acked=False)
    case.page()


def destroyed_by_a_copy(case):
    case.write(A, None, destroyed=True)
    case.page()


def edit_wins_over_delete(case):
    case.write(A, None)
    case.write(B, A)
    case.delete(A)
    case.page(B)


def moved_with_what_was_seen(case):
    case.person("ACCT01", "h1")
    case.write(A, None)
    case.history.gave_owner(PAGE, "ACCT01")
    case.history.accept(A, "h1")
    case.page(A, book="ACCT01")


def decided_against(case):
    case.write(A, None)
    case.write(B, None)
    case.decide({A})
    case.page(B)


def overwritten_by_one_who_never_looks(case):
    case.write(A, None)
    case.write(C, BLIND)
    case.page(C)


def delete_undone_by_a_centre_set_back(case):
    case.write(A, None)
    case.delete(A)
    case.history.centre_set_back.append(next(case.moment))
    case.page(A)


def two_are_one(case):
    case.person("ACCT01", "h1")
    case.history.one_human("h1", "h0")
    case.write("n1-000009:h1", None)
    case.page("n1-000009:h1")


def chosen_by_an_operator(case):
    in_the_record_of_another(case)
    case.history.decided_into.add((PAGE, A))


def written_over_another(case):
    """h1 is written over h0 at a node, with a page before and one since, and gets an id of their own."""
    person = ("people", BOOK)
    case.write(A, None)
    first = case.history.events[0].value
    case.history.humans.add("h1")
    case.write(OTHER, first, person, ("name",))
    case.history.gave_owner(("pols", "page-2"), BOOK)
    case.write(SINCE, None, ("pols", "page-2"))
    case.history.parted.append(("n0", BOOK, next(case.moment)))
    case.history.renames.append((BOOK, "NEW01"))
    case.centre["people"]["NEW01"] = {"_id": "NEW01", "name": OTHER, "dob": day_of_birth("h1")}
    case.centre["pols"]["page-2"] = {"_id": "page-2", "book": "NEW01", "summary": SINCE}
    case.page(A)


def asked_whose_the_account_is(case):
    """The same before the decision: the node shows the pages of both under the one who was written last."""
    written_over_another(case)
    case.history.parted.clear()
    theirs = case.centre["people"].pop("NEW01")
    page = case.centre["pols"].pop("page-2")
    case.node_differs = True
    case.node.records = {"people": {BOOK: {**theirs, "_id": BOOK}},
                         "pols": {**case.centre["pols"], "page-2": {**page, "book": BOOK}}}
    case.node.conflicts.append({"collection": "people", "record": BOOK, "type": "identity", "status": "open"})


def bytes_are_there(case):
    content(case, "1" * 64)


def content(case, served):
    digest = "1" * 64
    case.history.contents[digest] = A
    case.write(digest, None, ("personal_document", "doc-1"), ("content",))
    case.history.gave_owner(("personal_document", "doc-1"), BOOK)
    case.centre["personal_document"]["doc-1"] = {"_id": "doc-1", "fedacct": BOOK, "content": {"sha256": digest}}
    case.node.contents["doc-1"] = served


CLEAN = (visible, overwritten_knowingly, in_a_conflict_at_the_centre, in_a_conflict_at_a_node, deleted_knowingly,
         in_the_trash, refused_and_listed, held_with_its_person, apart_until_its_person_is_decided_about,
         perhaps_overwritten_and_it_was, never_acknowledged,
         destroyed_by_a_copy, edit_wins_over_delete, moved_with_what_was_seen, decided_against,
         overwritten_by_one_who_never_looks, delete_undone_by_a_centre_set_back, two_are_one,
         chosen_by_an_operator, written_over_another, asked_whose_the_account_is, bytes_are_there)


def vanished(case):
    case.write(A, None)
    case.page()


def vanished_with_its_record(case):
    case.write(A, None)


def vanished_behind_an_unanswered_write(case):
    case.write(A, None)
    case.write(B, A, acked=False)
    case.page()


def vanished_behind_a_destroyed_write(case):
    case.write(A, None)
    case.write(B, A, destroyed=True)
    case.page()


def in_a_trash_that_is_void(case):
    in_the_trash(case)
    case.trash[0]["state"] = "void"


def deleted_without_knowing(case):
    case.write(A, None)
    case.write(B, A)
    case.delete(A)


def delete_came_to_nothing(case):
    case.write(A, None)
    case.write(B, A)
    case.delete(B)
    case.page(A)


def removal_came_to_nothing(case):
    case.write(A, None)
    case.write(None, A)
    case.page(A)


def typo_is_back(case):
    case.write(A, None)
    case.write(B, A)
    case.write(A, B)
    case.page(B)


def decided_for_and_gone(case):
    decided_against(case)
    case.write(A, B, strict=True)
    case.conflicts.append({"collection": "pols", "id": "page-1", "path": ["summary"], "status": "resolved", "local": A})


def overwritten_unseen(case):
    case.write(A, None)
    case.write(B, None)
    case.page(B)


def nobody_wrote_it(case):
    case.page("n0-777777:h0")


def written_to_another_field(case):
    case.write(A, None, path=("info",))
    case.page(A, info=A)


def torn(case):
    case.write(A, None, path=("items",))
    case.history.values[A] = [A, 1, True]
    case.page(items=[A, {"$numberInt": "2"}, True])


def without_a_tag(case):
    case.page(note="hello")


def owner_of_nobody(case):
    case.page(book="ACCT07")


def in_another_record(case):
    case.write(A.replace("h0", "none"), None, ("institution", "inst-1"))
    case.history.gave_owner(("institution", "inst-2"), "")
    case.centre["institution"] = {"inst-2": {"_id": "inst-2", "summary": A.replace("h0", "none")}}


def in_the_record_of_another(case):
    case.person("ACCT01", "h1")
    case.history.gave_owner(PAGE, "ACCT01")
    case.write(A, None)
    case.page(A, book="ACCT01")


def moved_with_what_was_not_seen(case):
    moved_with_what_was_seen(case)
    case.write(B, None, path=("info",))
    case.centre["pols"]["page-1"]["info"] = B


def birthday_of_another(case):
    case.person("ACCT01", "h1")
    case.centre["people"][BOOK]["dob"] = day_of_birth("h1")


def written_over_another_who_is_gone(case):
    written_over_another(case)
    del case.centre["people"][BOOK]
    case.write(None, A)
    del case.centre["pols"]["page-1"]


def taken_along_by_another(case):
    written_over_another(case)
    case.page(A, book="NEW01")


def goes_on_in_the_book_of_another(case):
    written_over_another(case)
    case.centre["pols"]["page-2"]["book"] = BOOK


def shown_as_anothers_without_asking(case):
    asked_whose_the_account_is(case)
    case.node.conflicts[0]["status"] = "resolved"


def differs_unlisted(case):
    refused_and_listed(case)
    case.node.dead.clear()
    case.page(A)
    del case.node.records["pols"]["page-1"]["summary"]


def differs_by_type(case):
    case.write(A, None, path=("items",))
    case.history.values[A] = [A, 1]
    case.page(items=[A, {"$numberInt": "1"}])
    case.node_differs = True
    case.node.records = {"people": case.centre["people"],
                         "pols": {"page-1": {"_id": "page-1", "book": BOOK, "items": [A, {"$numberLong": "1"}]}}}


def says_up_to_date(case):
    refused_and_listed(case)
    case.node.messages.append(UP_TO_DATE)


def bytes_are_missing(case):
    content(case, "status 404")


def never_quiet(case):
    case.unrest = "n0 pushes again and again"


FAULTY = {
    vanished: ["lost"], vanished_with_its_record: ["lost"], vanished_behind_an_unanswered_write: ["lost"],
    vanished_behind_a_destroyed_write: ["lost"], in_a_trash_that_is_void: ["lost"], deleted_without_knowing: ["lost"],
    delete_came_to_nothing: ["lost"], removal_came_to_nothing: ["lost"],
    typo_is_back: ["lost"], decided_for_and_gone: ["silently overwritten"],
    overwritten_unseen: ["silently overwritten"],
    nobody_wrote_it: ["invented"], written_to_another_field: ["invented"], torn: ["invented"],
    without_a_tag: ["invented"], owner_of_nobody: ["invented"], in_another_record: ["invented", "lost"],
    in_the_record_of_another: ["misplaced"], moved_with_what_was_not_seen: ["misplaced"],
    birthday_of_another: ["misplaced"], differs_unlisted: ["not equal"], differs_by_type: ["not equal"],
    written_over_another_who_is_gone: ["lost"], taken_along_by_another: ["misplaced"],
    goes_on_in_the_book_of_another: ["misplaced"],
    shown_as_anothers_without_asking: ["lost", "misplaced", "not equal", "silently overwritten"],
    says_up_to_date: ["says up to date"], bytes_are_missing: ["lost"], never_quiet: ["not quiet"],
}


def run():
    """Returns how many cases passed and failed, and prints those that failed."""
    passed = failed = 0
    for make, wanted in [(make, []) for make in CLEAN] + list(FAULTY.items()):
        case = Case()
        make(case)
        found = case.kinds()
        if found == wanted:
            passed += 1
        else:
            failed += 1
            print(f"selftest {make.__name__}: complaints {found}, wanted {wanted}")
    return passed, failed
