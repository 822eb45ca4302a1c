"""One world: a centre, nodes and their lines; and the plan that runs in it."""
import http.client
import os
import random
import shutil
import tempfile
import threading
import time

from pymongo.errors import PyMongoError

from clients import Client
from disasters import Disasters
from history import History
from legacy import Legacy, as_json
from observation import plain
from operators import Operator
from processes import Centre, Node, Processes
from records import KINDS, OWNED, tagged
from relay import Relay

# The plan goes on after so many seconds, also while a round is still under way.
PATIENCE = 5


class World:
    """Everything of one seed. `end` ends all processes and removes the directory."""

    def __init__(self, plan, binary, keep=False):
        self.plan, self.binary, self.keep = plan, binary, keep
        self.directory = tempfile.mkdtemp(prefix=f"chaos-{plan.seed}-")
        self.processes, self.nodes, self.relays = Processes(), [], {}
        self.history = History()
        self.accounts = list(plan.accounts)
        self.serials, self.counter = {}, 0
        self.lock = threading.Lock()
        self.left_behind = {}
        # Accounts whose person a client of a node has made another human in place: (node, account).
        self.rewritten = set()
        self.busy = []
        self.many_deleted = False
        self.unrest = []
        self.rounds = {}
        self.messages = {}
        self.disasters = Disasters(self)
        self.centre = None

    def begin(self):
        self.centre = Centre(self.processes, self.directory)
        self.centre.start()
        for number, continuous in enumerate(self.plan.continuous):
            self.new_node(f"n{number}", continuous).start()

    def end(self):
        if self.centre:
            # Not after the end of the server: the client would look for it once more.
            self.centre.client.close()
        self.processes.end_all()
        for relay in self.relays.values():
            relay.close()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def new_node(self, name, continuous):
        relay = Relay(self.centre.port, f"{self.plan.seed} {name}")
        node = Node(self.processes, self.directory, name, self.binary, relay.port, continuous)
        self.nodes.append(node)
        self.relays[name] = relay
        return node

    # --- small help for the actors

    def tag(self, writer, action, human):
        """Returns a new unique value. The serial is the action's number and a count within the action."""
        with self.lock:
            self.serials[action] = self.serials.get(action, -1) + 1
            return f"{writer}-{action:04d}{self.serials[action]:02d}:{human or 'none'}"

    def count(self):
        self.counter += 1
        return self.counter

    def remember(self, name, value):
        self.history.values[name] = plain(value)

    @staticmethod
    def guess(call):
        """Returns the answer of a call, or None if there is none."""
        try:
            return call()
        except (OSError, http.client.HTTPException, PyMongoError):
            return None

    def names_under(self, node, account):
        """Returns the names of the values that a node shows in the records of an account."""
        found = set()
        for kind in OWNED:
            path = KINDS[kind].listing.format(owner=account)
            answer = self.guess(lambda: node.call("GET", path))
            for document in answer.body if answer and answer.status == 200 else []:
                if document.get(KINDS[kind].owner) == account:
                    found |= set(tagged(document).values())
        return found

    def names_at_centre_under(self, account):
        """Returns the names of the values that stand at the centre in the records of an account."""
        found = set()
        for kind in OWNED:
            documents = self.guess(lambda: list(self.centre.database[kind].find({KINDS[kind].owner: account})))
            for document in documents or []:
                found |= set(tagged(as_json(document)).values())
        return found

    # --- the plan

    def run(self):
        for action in self.plan.actions:
            try:
                self.do(action)
            except (OSError, http.client.HTTPException, PyMongoError) as error:
                self.history.tell(action["number"], f"{action['do']} came to nothing: {type(error).__name__} {error}")
            time.sleep(action["pause"])

    def do(self, action):
        number, what = action["number"], action["do"]
        chance = random.Random(action["seed"])
        node = self.nodes[action["node"]] if "node" in action else None
        if what == "client":
            client = Client(self, node, number, chance)
            if action["way"] == "delete":
                client.delete(action["kind"], action["id"], action["owner"])
            elif action["way"] == "content":
                client.attach(action["id"], action["owner"])
            else:
                if action["kind"] == "people" and action["id"] not in self.accounts:
                    self.accounts.append(action["id"])
                client.change(action["kind"], action["id"], action["owner"], action["way"], action.get("ssn"),
                              action.get("create", False))
        elif what == "rewrite":
            Client(self, node, number, chance).rewrite(action["account"])
        elif what == "busy":
            self.start_busy(node, number, chance, action["records"])
        elif what == "legacy":
            legacy = Legacy(self, number, chance)
            if action["way"] == "delete":
                legacy.delete(action["kind"], action["id"])
            else:
                legacy.change(action["kind"], action["id"], action["owner"], action["way"])
        elif what == "move":
            Legacy(self, number, chance).move(action["kind"], action["id"], action["owner"])
        elif what == "give_away":
            self.give_away(action, chance)
        elif what == "orphan":
            Legacy(self, number, chance).delete("people", action["account"])
        elif what == "unique_index":
            self.centre.database.people.create_index("ssn", unique=True, sparse=True)
            if not self.centre.database.people.find_one({"ssn": "1"}):
                self.accounts.append("OWNSSN1")
                Legacy(self, number, chance).insert_person("OWNSSN1", "1")
        elif what == "many_units":
            Legacy(self, number, chance).many_units(30)
        elif what == "delete_many_units":
            self.many_deleted = True
            Legacy(self, number, chance).delete_many_units()
        elif what == "round":
            self.start_round(node, number, action["wait"])
        elif what == "two_rounds":
            first = self.start_round(node, number, False)
            self.start_round(node, number, True, again=True)
            first.join(PATIENCE)
        elif what == "wait":
            self.wait_for(node)
        elif what == "line":
            self.relays[node.name].set(action["mode"])
            self.history.late_lines = self.history.late_lines or action["mode"] == "late"
            self.history.tell(number, f"the line of {node.name}: {action['mode']}")
        elif what == "answer":
            Operator(self, node, number, chance).answer_halt()
        elif what == "decide":
            Operator(self, node, number, chance).decide_one()
        elif what == "decide_at_centre":
            Operator(self, node, number, chance).decide_at_centre()
        elif what == "kill_node":
            self.disasters.kill_node(number, node)
        elif what == "kill_centre":
            self.disasters.kill_centre(number, action["down"])
        elif what == "copy_centre":
            self.disasters.copy_centre(number)
        elif what == "set_centre_back":
            self.disasters.set_centre_back(number)
        elif what == "take_image":
            self.disasters.take_image(number, node)
        elif what == "put_image_back":
            self.disasters.put_image_back(number, node)
        elif what == "clone":
            self.disasters.clone(number, node)
        else:
            raise ValueError(what)

    def start_busy(self, node, number, chance, wanted):
        """A client goes on writing while other things happen, for instance while its node is killed."""
        client = Client(self, node, number, chance)

        def work():
            for kind, identifier, owner in wanted:
                self.guess(lambda: client.change(kind, identifier, owner))

        thread = threading.Thread(target=work, daemon=True)
        self.busy.append(thread)
        thread.start()

    def round_is_running(self, node):
        """Says whether a round may be under way at a node, as far as this program knows."""
        running = self.rounds.get(node.name)
        return node.continuous or bool(running and running.is_alive())

    def give_away(self, action, chance):
        """The lines are down meanwhile: a write that is under way in this moment cannot know better."""
        self.wait_for_busy()
        modes = {name: relay.mode for name, relay in self.relays.items()}
        for node in self.nodes:
            self.wait_for(node)
        for relay in self.relays.values():
            relay.set("down")
        # What the centre has received it may still carry out.
        time.sleep(1.5)
        human = Legacy(self, action["number"], chance).give_account_away(action["account"], action["leave"])
        self.history.tell(action["number"], f"legacy gives {action['account']} to {human}"
                          + (", and leaves the records behind" if action["leave"] else ", without records"))
        for name, relay in self.relays.items():
            relay.set("pass" if modes[name] == "late" else modes[name])

    # --- rounds

    def start_round(self, node, number, wait, again=False):
        running = self.rounds.get(node.name)
        if running and running.is_alive() and not again:
            if wait:
                running.join(PATIENCE)
            return running
        thread = threading.Thread(target=self.round, args=(node, number), daemon=True)
        self.rounds[node.name] = thread
        thread.start()
        if wait:
            thread.join(PATIENCE)
        return thread

    def round(self, node, number):
        answer = self.guess(lambda: node.call("POST", "/sync/rounds", timeout=40))
        if answer is None:
            self.history.tell(number, f"{node.name} round: no answer")
            return None
        body = answer.body if isinstance(answer.body, dict) else {}
        self.messages[node.name] = body.get("message") or ""
        counts = " ".join(f"{key} {body[key]}" for key in ("pulled", "pushed", "merged", "deleted", "conflicts", "dead")
                          if body.get(key))
        message = body.get("message") or ""
        self.history.tell(number, f"{node.name} round: {body.get('outcome', answer.status)} {counts}"
                          + (f" ({message[:140]})" if body.get("outcome") != "complete" else ""))
        return body

    def wait_for_busy(self):
        for thread in self.busy:
            thread.join()
        self.busy = []

    def wait_for(self, node):
        running = self.rounds.get(node.name)
        if running:
            running.join(PATIENCE)
