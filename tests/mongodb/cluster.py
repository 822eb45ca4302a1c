"""What happens to nodes while a replica set of three members has trouble: see tests/mongodb/run.

    cluster.py --uri URI [--docker] [--entries N] [--binary PATH]

Two nodes edit one person in turn, a legacy application another one. After each trouble, both nodes and the centre must
hold the latest of both, and rounds during a trouble must end. Without --docker only the trouble that needs no containers
is made: a long history of another database.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "chaos"))
sys.dont_write_bytecode = True

import pymongo  # noqa: E402
from pymongo.errors import AutoReconnect, PyMongoError  # noqa: E402
from pymongo.write_concern import WriteConcern  # noqa: E402

import processes  # noqa: E402

ADDRESSES = {"centre1": "172.30.27.11", "centre2": "172.30.27.12", "centre3": "172.30.27.13"}
NETWORK = "thalamus-edge-centre"
MEMBER = "thalamus-edge-"
ROUND_SECONDS = 60
DATABASE = "federation"


def docker(*arguments):
    subprocess.run(["docker", *arguments], check=True, stdout=subprocess.DEVNULL)


def told(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def configured(node, uri):
    """Makes the node reconcile with this centre, in rounds of a minute at most."""
    with open(node.configuration, encoding="utf-8") as file:
        text = file.read()
    lines = [f'uri = "{uri}"' if line.startswith("uri = ") else line for line in text.splitlines()]
    lines = [f"round_timeout_s = {ROUND_SECONDS}" if line.startswith("round_timeout_s") else line for line in lines]
    with open(node.configuration, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


class Cluster:
    def __init__(self, options, directory):
        self.options = options
        self.client = pymongo.MongoClient(options.uri, serverSelectionTimeoutMS=60_000)
        self.database = self.client.get_database(DATABASE, write_concern=WriteConcern(w="majority", j=True))
        self.running = processes.Processes()
        self.nodes = [processes.Node(self.running, directory, name, options.binary, 0, False)
                      for name in ("north", "south")]
        for node in self.nodes:
            configured(node, options.uri)
        self.turn = 0
        self.worst = 0.0

    def initiate(self):
        """Makes one set of the members, unless they are one."""
        member = pymongo.MongoClient(f"mongodb://{ADDRESSES['centre1']}/?directConnection=true",
                                     serverSelectionTimeoutMS=60_000)
        members = [{"_id": at, "host": f"{address}:27017"} for at, address in enumerate(ADDRESSES.values())]
        try:
            member.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        except PyMongoError as error:
            if getattr(error, "code", None) != 23:
                raise
        self.legacy(lambda: self.database.people.count_documents({}))

    def legacy(self, action):
        """An application that tries again until a primary takes it."""
        end = time.monotonic() + 180
        while True:
            try:
                return action()
            except (AutoReconnect, PyMongoError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def start(self):
        for node in self.nodes:
            node.start()
        north = self.nodes[0]
        answer = north.call("POST", "/people/CLUSTER1", {"name": "Ana", "lastname": "Cluster"})
        assert answer.good, answer.body
        # A new node's people of the demo may exist at the centre already: they are the same.
        self.legacy(lambda: self.database.people.replace_one(
            {"_id": "CLUSTER2"}, {"name": "Bea", "lastname": "Cluster"}, upsert=True))
        self.settle()

    def round(self, node):
        began = time.monotonic()
        report = node.call("POST", "/sync/rounds", timeout=3 * ROUND_SECONDS).body
        self.worst = max(self.worst, time.monotonic() - began)
        return report

    def edit(self):
        """One edit at a node, and one of the legacy application; returns what has to be everywhere."""
        self.turn += 1
        node, value = self.nodes[self.turn % 2], f"value {self.turn}"
        answer = node.call("PATCH", "/people/CLUSTER1", {"phone": value})
        assert answer.good, answer.body
        self.legacy(lambda: self.database.people.update_one({"_id": "CLUSTER2"}, {"$set": {"phone": value}}))
        return value

    def settle(self):
        """Rounds until both nodes say that everything is up to date."""
        end = time.monotonic() + 10 * ROUND_SECONDS
        complete = 0
        while complete < 2 * len(self.nodes):
            for node in self.nodes:
                report = self.round(node)
                complete = complete + 1 if report["outcome"] == "complete" else 0
                if report["outcome"] != "complete":
                    told(f"  {node.name}: {report['outcome']}, pushed {report['pushed']}: {report['message']}")
            assert time.monotonic() < end, "the nodes do not settle"

    def check(self, value):
        places = {"centre": lambda who: self.legacy(lambda: self.database.people.find_one({"_id": who}))}
        for node in self.nodes:
            places[node.name] = lambda who, node=node: node.call("GET", f"/people/{who}").body
        for name, read in places.items():
            for who in ("CLUSTER1", "CLUSTER2"):
                found = read(who)
                assert found and found.get("phone") == value, f"{name} has {found} instead of {value}"

    def trouble(self, what, begin, end=lambda: None):
        """Edits and rounds before, during and after a trouble."""
        told(what)
        self.worst = 0.0
        self.edit()
        self.settle()
        begin()
        value = self.edit()
        for node in self.nodes:
            report = self.round(node)
            told(f"  {node.name}: {report['outcome']}, {self.worst:.0f} s: {report['message']}")
        end()
        self.settle()
        self.check(value)
        told(f"  settled; longest round {self.worst:.0f} s")

    def primary(self):
        """Name of the container of the primary."""
        address = self.legacy(lambda: self.client.admin.command("hello"))["primary"].split(":")[0]
        return MEMBER + next(name for name, own in ADDRESSES.items() if own == address)

    def step_down(self):
        try:
            self.client.admin.command("replSetStepDown", 20, force=True)
        except AutoReconnect:
            pass

    def flood(self):
        """Somebody else's changes, which a node's feed has to pass over."""
        events = self.client.other.get_collection("events", write_concern=WriteConcern(w=1))
        left, began = self.options.entries, time.monotonic()
        while left > 0:
            some = min(left, 20_000)
            self.legacy(lambda: events.insert_many([{"n": n} for n in range(some)], ordered=False))
            left -= some
        told(f"  {self.options.entries} entries in {time.monotonic() - began:.0f} s")

    def run(self):
        if self.options.docker:
            self.initiate()
        self.start()
        if self.options.docker:
            self.trouble("the primary steps down", self.step_down)
            lost = self.primary()
            self.trouble("the primary is killed", lambda: docker("kill", "-s", "KILL", lost),
                         lambda: docker("start", lost))
            cut = self.primary()
            address = ADDRESSES[cut.removeprefix(MEMBER)]
            self.trouble("the primary is cut off", lambda: docker("network", "disconnect", NETWORK, cut),
                         lambda: docker("network", "connect", "--ip", address, NETWORK, cut))
        self.trouble(f"{self.options.entries} changes of another database", self.flood)
        self.client.drop_database("other")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri", required=True)
    parser.add_argument("--docker", action="store_true")
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--binary", default="target/debug/thalamus-edge")
    options = parser.parse_args()
    options.binary = os.path.abspath(options.binary)
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(options, directory)
        try:
            cluster.run()
        finally:
            cluster.running.end_all()
    told("all well")


if __name__ == "__main__":
    main()
