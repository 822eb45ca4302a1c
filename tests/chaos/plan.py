"""Makes the schedule of one world from a seed: a pure function of it and of the options --nodes and --themes.

The timing of the processes is not part of the plan, so the same seed may end differently.
"""
import random

from records import OWNED

THEMES = ("lines", "kills", "centre_kills", "set_back", "set_back_in_round", "images", "clones", "same_id", "reuse",
          "orphans", "rewrites", "refused", "moves", "many_deletes", "decisions", "contents", "slow_lines")


class Action(dict):
    """One step: its number, what to do, with what, and the pause after it."""

    def __str__(self):
        rest = " ".join(f"{key}={value}" for key, value in self.items() if key not in ("number", "do", "seed", "pause"))
        return f"action {self['number']:3d}  {self['do']} {rest}"


class Plan:
    """The nodes, themes and actions of one seed."""

    def __init__(self, seed, most_nodes, themes=THEMES):
        self.seed = seed
        self.random = random.Random(f"plan {seed}")
        # Three or more nodes need more time than they find: two are enough for half of the seeds.
        self.nodes = self.random.choice([2, 2, 3, 3, 4, 5])
        self.nodes = max(2, min(self.nodes, most_nodes))
        self.continuous = [self.random.random() < 0.25 for _ in range(self.nodes)]
        self.themes = sorted(self.random.sample(themes, min(len(themes), self.random.choice([1, 2, 2, 3]))))
        if "set_back" in self.themes and "set_back_in_round" in self.themes:
            self.themes.remove("set_back")
        self.accounts = [f"ACCT{number:02d}" for number in range(self.random.choice([2, 3, 4]))]
        self.kinds = self.random.sample(OWNED, self.random.choice([2, 3]))
        self.decide_at_end = self.random.random() < 0.5
        self.verify_at_end = self.random.random() < 0.5
        self.actions = []
        self.make()

    def add(self, what, pause=None, **fields):
        if pause is None:
            pause = self.random.choice([0, 0, 0.02, 0.05, 0.1])
        self.actions.append(Action(number=len(self.actions), do=what, seed=self.random.randrange(1 << 32),
                                   pause=round(pause, 3), **fields))

    def node(self):
        return self.random.randrange(self.nodes)

    def record(self):
        """Returns kind, id and owner. Ids are few, and each has one owner unless the theme wants otherwise."""
        kind = self.random.choice(self.kinds * 2 + ["people", "institution"])
        number = self.random.randrange(len(self.accounts))
        account = self.accounts[number]
        if kind == "people":
            return kind, account, account
        if kind == "institution":
            return kind, f"inst-{self.random.randrange(2)}", ""
        return kind, f"{kind[:4]}-{number}-{self.random.randrange(2)}", account

    def make(self):
        for number, account in enumerate(self.accounts):
            self.add("client", 0, node=number % self.nodes, kind="people", id=account, owner=account, way="patch",
                     create=True)
        for _ in range(8):
            self.client(0)
        self.rounds_of_all()
        self.rounds_of_all()
        steps = self.random.randint(25, 50)
        special = [(self.random.randrange(steps), theme) for theme in self.themes
                   for _ in range(self.random.choice([1, 2, 3]))]
        for step in range(steps):
            for _, theme in (pair for pair in special if pair[0] == step):
                getattr(self, theme)()
            self.ordinary()
        if self.pending_set_back():
            self.add("set_centre_back")
        self.ordinary()

    def pending_set_back(self):
        done = [action["do"] for action in self.actions]
        return "copy_centre" in done and "set_centre_back" not in done

    def rounds_of_all(self):
        for node in range(self.nodes):
            self.add("round", 0, node=node, wait=True)

    # --- the ordinary day

    def client(self, pause=None, node=None):
        kind, identifier, owner = self.record()
        way = self.random.choice(["patch"] * 6 + ["put", "put", "remove", "undo", "delete"])
        self.add("client", pause, node=self.node() if node is None else node, kind=kind, id=identifier, owner=owner,
                 way=way)

    def legacy(self):
        kind, identifier, owner = self.record()
        way = self.random.choice(["set"] * 5 + ["replace", "unset", "blind", "revert", "delete"])
        if kind == "people" and way == "delete":
            way = "set"
        self.add("legacy", kind=kind, id=identifier, owner=owner, way=way)

    def ordinary(self):
        what = self.random.random()
        if what < 0.5:
            self.client()
        elif what < 0.68:
            self.legacy()
        elif what < 0.96:
            self.add("round", node=self.node(), wait=self.random.random() < 0.5)
        else:
            self.add("two_rounds", node=self.node())

    # --- themes

    def lines(self):
        node, mode = self.node(), self.random.choice(["cut", "cut", "swallow", "late", "slow", "down"])
        self.add("line", node=node, mode=mode)
        for _ in range(self.random.randint(1, 3)):
            self.client(node=node)
            self.add("round", node=node, wait=True)
        self.add("line", node=node, mode="pass")

    def slow_lines(self):
        node = self.node()
        self.add("line", node=node, mode="slow")
        self.client(node=node)
        self.add("round", node=node, wait=False)
        for _ in range(3):
            self.client(node=node)
            self.legacy()
        self.add("line", node=node, mode="pass")

    def kills(self):
        node = self.node()
        if self.random.random() < 0.5:
            self.client(0, node=node)
        else:
            self.add("busy", self.random.random() * 0.05, node=node, records=[self.record() for _ in range(8)])
        if self.random.random() < 0.6:
            self.add("round", self.random.random() * 0.06, node=node, wait=False)
        self.add("kill_node", node=node)

    def centre_kills(self):
        for _ in range(self.random.choice([1, 2])):
            node = self.node()
            for _ in range(self.random.choice([1, 3])):
                self.client(0, node=node)
            if self.random.random() < 0.4:
                self.legacy()
            # A node that stays connected sends by itself after 0.2 s.
            self.add("round", self.random.random() * 0.1, node=node, wait=self.random.random() < 0.75)
            self.add("kill_centre", down=round(self.random.random() * 0.4, 2))

    def set_back(self):
        if not self.pending_set_back():
            self.add("copy_centre")
        else:
            self.add("set_centre_back")
            for node in range(self.nodes):
                if self.random.random() < 0.6:
                    self.add("round", node=node, wait=True)
                    self.add("answer", node=node)

    def set_back_in_round(self):
        """The copy falls into a round that sends many edits over a slow line."""
        if self.pending_set_back():
            self.add("set_centre_back")
            return
        node = self.node()
        self.add("line", 0, node=node, mode="slow")
        for _ in range(8):
            self.client(0, node=node)
        self.add("round", self.random.random() * 1.2, node=node, wait=False)
        self.add("copy_centre")
        self.add("line", 0, node=node, mode="pass")
        self.add("wait", node=node)
        if self.random.random() < 0.5:
            self.add("set_centre_back")

    def images(self):
        node = self.node()
        done = [action["node"] for action in self.actions if action["do"] == "take_image"]
        if done and self.random.random() < 0.7:
            self.add("put_image_back", node=done[-1])
            return
        if self.random.random() < 0.4:
            self.undone_elsewhere(node)
            return
        for _ in range(self.random.randint(0, 3)):
            self.client(node=node)
        self.add("take_image", node=node)

    def undone_elsewhere(self, node):
        """The image holds edits that are sent, and that others see and undo, before it is put back."""
        other = self.random.choice([n for n in range(self.nodes) if n != node])
        edited = [self.record() for _ in range(3)]
        for kind, identifier, owner in edited:
            self.add("client", 0, node=node, kind=kind, id=identifier, owner=owner, way="patch")
        self.add("take_image", node=node)
        for one in (node, other):
            self.add("round", node=one, wait=True)
        for kind, identifier, owner in edited:
            way = self.random.choice(["undo", "undo", "delete"])
            self.add("client", 0, node=other, kind=kind, id=identifier, owner=owner, way=way)
        for one in (other, node):
            self.add("round", node=one, wait=True)
        self.add("put_image_back", node=node)

    def clones(self):
        if any(action["do"] == "clone" for action in self.actions):
            return
        self.add("clone", node=self.node())

    def same_id(self):
        """Two nodes make a record under one id, each for another person."""
        kind, first, second = self.random.choice(self.kinds), *self.random.sample(self.accounts, 2)
        nodes = self.random.sample(range(self.nodes), 2)
        identifier = f"same-{self.random.randrange(2)}"
        for node, owner in zip(nodes, (first, second)):
            self.add("client", node=node, kind=kind, id=identifier, owner=owner, way="patch")
        if self.random.random() < 0.5:
            self.add("client", node=nodes[1], kind=kind, id=identifier, owner=second, way="patch")

    def reuse(self):
        """An account is given to another human at the centre, or to two humans at two nodes."""
        account = self.random.choice(self.accounts)
        if self.random.random() < 0.6:
            number = self.accounts.index(account)
            for _ in range(2):
                kind = self.random.choice(self.kinds)
                self.add("client", node=self.node(), kind=kind, id=f"{kind[:4]}-{number}-{self.random.randrange(2)}",
                         owner=account, way="patch")
            self.add("give_away", account=account, leave=self.random.random() < 0.25)
        else:
            fresh = f"DUP{len(self.actions):03d}"
            self.accounts.append(fresh)
            for node in self.random.sample(range(self.nodes), 2):
                self.add("client", node=node, kind="people", id=fresh, owner=fresh, way="patch", create=True)
                kind = self.random.choice(self.kinds)
                self.add("client", node=node, kind=kind, id=f"{kind[:4]}-{fresh}-{node}", owner=fresh, way="patch")

    def orphans(self):
        """A person is deleted at the centre, the records stay, and a node registers another human."""
        account, node = self.random.choice(self.accounts), self.node()
        self.add("orphan", account=account)
        for one in self.random.sample(range(self.nodes), self.nodes):
            self.add("round", node=one, wait=True)
        self.add("client", node=node, kind="people", id=account, owner=account, way="patch", create=True)

    def rewrites(self):
        """A node makes another human of a person in place, between records for the one and records for the other."""
        number, node = self.random.randrange(len(self.accounts)), self.node()
        account = self.accounts[number]
        kind = self.random.choice(self.kinds)

        def record(name):
            self.add("client", 0, node=node, kind=kind, id=f"{kind[:4]}-{number}-{name}", owner=account, way="patch")

        if self.random.random() < 0.5:
            record(f"before-{len(self.actions)}")
        if self.random.random() < 0.5:
            self.add("round", 0, node=node, wait=True)
        self.add("rewrite", node=node, account=account)
        for _ in range(self.random.randint(1, 2)):
            record(f"since-{len(self.actions)}")
        if self.random.random() < 0.5:
            self.add("round", node=node, wait=True)
            record(f"since-{len(self.actions)}")
        if self.random.random() < 0.5:
            self.add("decide", node=node)

    def refused(self):
        """A unique index at the centre refuses a person with a number that another person has."""
        fresh = f"REF{len(self.actions):03d}"
        self.accounts.append(fresh)
        self.add("unique_index")
        node = self.node()
        self.add("client", node=node, kind="people", id=fresh, owner=fresh, way="patch", ssn="1", create=True)
        for _ in range(2):
            kind = self.random.choice(self.kinds)
            self.add("client", node=node, kind=kind, id=f"{kind[:4]}-{fresh}-0", owner=fresh, way="patch")
        if self.random.random() < 0.5:
            self.add("round", node=node, wait=True)
            self.add("client", node=(node + 1) % self.nodes, kind="people", id=fresh, owner=fresh, way="patch",
                     create=True)

    def moves(self):
        kind = self.random.choice(self.kinds)
        number = self.random.randrange(len(self.accounts))
        identifier, account = f"{kind[:4]}-{number}-0", self.accounts[number]
        other = self.random.choice([a for a in self.accounts if a != account])
        node = self.node()
        for way in self.random.choice([("edit", "move"), ("move", "edit"), ("edit", "round", "edit", "move")]):
            if way == "edit":
                self.add("client", node=node, kind=kind, id=identifier, owner=account, way="patch")
            elif way == "round":
                self.add("round", node=node, wait=True)
            else:
                self.add("move", kind=kind, id=identifier, owner=other)

    def many_deletes(self):
        if not any(action["do"] == "many_units" for action in self.actions):
            self.add("many_units")
        else:
            self.add("delete_many_units")
            self.add("round", node=self.node(), wait=True)
            self.add("answer", node=self.node())

    def decisions(self):
        for _ in range(3):
            self.add(self.random.choice(["decide", "decide", "decide_at_centre"]), node=self.node())

    def contents(self):
        node, number = self.node(), self.random.randrange(2)
        for other in (node, node, self.node()):
            self.add("client", node=other, kind="personal_document", id=f"pers-{number}-0",
                     owner=self.accounts[number], way=self.random.choice(["patch", "content", "content"]))
