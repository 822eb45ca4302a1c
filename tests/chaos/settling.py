"""The end of a world: heals everything, runs rounds until nothing moves, answers and decides, and looks."""
import hashlib
import random
import time

from legacy import as_json
from observation import NodeView, Observation
from operators import Operator
from records import KINDS, name_of

ROUNDS = 30
SECONDS = 40
# An attachment of a record that waits is never sent: after so many rounds it is no unrest any more.
CONTENT_ROUNDS = 6


def settle(world):
    """Heals everything and runs rounds until nothing moves. Answers halts, decides what the plan says."""
    world.wait_for_busy()
    for relay in world.relays.values():
        relay.set("pass")
    for node in world.nodes:
        world.wait_for(node)
    if world.centre.process.poll() is not None:
        world.centre.start()
    for node in world.nodes:
        if not node.runs:
            node.start()
    # Requests that were delivered late have arrived by then.
    if "lines" in world.plan.themes:
        time.sleep(3)
    rest(world, 9000, "")
    if world.plan.decide_at_end:
        for turn in range(4):
            if not decide_everything(world, 9100 + turn):
                break
            rest(world, 9100 + turn, " after decisions")


def verify(world):
    """Has every node look at everything once, and waits until nothing moves."""
    for node in world.nodes:
        code, output = node.command("sync", "now", "--verify")
        world.history.tell(9200, f"{node.name} sync now --verify: {code} {output.strip()[:160]}")
    rest(world, 9300, " after verifying")


def rest(world, number, when):
    """Runs rounds of all nodes until two in a row moved nothing. Answers halts."""
    quiet, last, end = 0, "", time.monotonic() + SECONDS
    for turn in range(ROUNDS):
        moved = []
        for node in world.nodes:
            body = world.round(node, number)
            operator = Operator(world, node, number, random.Random(f"{world.plan.seed} {number} {turn} {node.name}"))
            if body is None or body.get("outcome") != "complete":
                moved.append(f"{node.name}: {body and body.get('outcome')} {(body or {}).get('message', '')[:200]}")
                operator.answer_halt()
                if body is None or body.get("outcome") in ("offline", "failed"):
                    time.sleep(0.3)
                continue
            status = operator.message()
            attachments = turn < CONTENT_ROUNDS and (status.get("content_owed") or status.get("content_pending"))
            if any(body.get(key) for key in ("pulled", "pushed", "merged", "deleted")) or attachments:
                moved.append(f"{node.name}: " + " ".join(
                    f"{k} {body.get(k) or status.get(k)}" for k in
                    ("pulled", "pushed", "merged", "deleted", "content_owed", "content_pending")))
        if world.plan.continuous and any(world.plan.continuous):
            time.sleep(0.3)
        quiet = 0 if moved else quiet + 1
        last = "; ".join(moved) or last
        if quiet == 2:
            return
        if time.monotonic() > end:
            break
    world.unrest.append(f"after {turn + 1} rounds of all{when} it still moves: {last}")


def decide_everything(world, number):
    """Decides every open conflict of every node. Says whether there was one that could be decided."""
    decided = False
    for node in world.nodes:
        operator = Operator(world, node, number, random.Random(f"{world.plan.seed} {number} {node.name}"))
        for row in operator.open_conflicts():
            decided = bool(operator.decide(row)) or decided
            world.round(node, number)
    return decided


def observe(world):
    """Looks at everything with a plain driver, plain HTTP and exports."""
    for record, human in world.left_behind.items():
        for event in world.history.events:
            if event.record == record and event.value:
                world.history.accept(event.value, human)
    database = world.centre.database
    nodes = [view(world, node) for node in world.nodes]
    centre = {kind: {d["_id"]: as_json(d) for d in database[kind].find() if isinstance(d["_id"], str)}
              for kind in KINDS}
    return Observation(centre, nodes, [as_json(d) for d in database.edge_conflicts.find()],
                       [as_json(d) for d in database.edge_trash.find()], "; ".join(world.unrest))


def view(world, node):
    """Asks one node for its lists and its status, then exports its records."""
    def listing(path):
        answer = world.guess(lambda: node.call("GET", path))
        body = answer.body if answer and answer.status == 200 else []
        if isinstance(body, dict):
            body = next((inner for inner in body.values() if isinstance(inner, list)), [])
        return [row for row in body if isinstance(row, dict)]

    trash = []
    for row in listing("/trash?limit=1000"):
        answer = world.guess(lambda row=row: node.call("GET", f"/trash/{row['id']}"))
        trash.append({**row, **(answer.body if answer and answer.status == 200 else {})})
    status = world.guess(lambda: node.call("GET", "/sync/status"))
    messages = [world.messages.get(node.name, ""), (status.body or {}).get("message", "") if status else ""]
    seen = NodeView(node.name, {}, listing("/sync/conflicts"), listing("/sync/dead"), trash,
                    listing("/sync/waiting") + rows_in(status.body if status else {}), messages)
    seen.records = node.export()
    for identifier, document in seen.records.get("personal_document", {}).items():
        if document.get("content") and name_of(document["content"]) in world.history.contents:
            answer = world.guess(lambda: node.call("GET", f"/personal-documents/{identifier}/content"))
            seen.contents[identifier] = digest(answer)
    return seen


def rows_in(status):
    """Returns the rows about records that a status may hold: what waits, for whom and why."""
    lists = [value for value in status.values() if isinstance(value, list)] if isinstance(status, dict) else []
    return [row for rows in lists for row in rows if isinstance(row, dict) and "record" in row]


def digest(answer):
    """Returns the hash of the bytes that came, or the status."""
    if answer is None or answer.status != 200:
        return f"status {answer and answer.status}"
    body = answer.body if isinstance(answer.body, bytes) else str(answer.body).encode()
    return hashlib.sha256(body).hexdigest()
