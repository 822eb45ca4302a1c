"""The way back of a small clinic: collections without a record, rows that the old database refuses, an account in two spellings.

`migration` takes clinics back from which everything goes. Here each reason of the table in docs/MIGRATION.md is met, and mended as
that table says.
"""
import os
import re
import shutil

import exports
import guide
from cases import basic
from people import json_bytes
from servers import Node

SETTINGS = '[accounts]\nbcrypt_cost = 4\n[backup]\nschedule = ""\n'
#: The account that the old database has in lower case.
LOW, UPPER, EVA, NOBODY = "arglow001aaa", "ARGLOW001AAA", "ARGEVA001AAA", "ARGNOB001AAA"
TECHNICIAN, PASSWORD = "tech", "long enough, 77"
#: Each record that is refused, and a part of the reason.
REASONS = {f"people {UPPER}": f"the account is spelled {LOW} in the old database",
           "pols low-1": f'Key (book)=({UPPER}) is not present in table "people"',
           "pols stray": f'Key (book)=({NOBODY}) is not present in table "people"',
           "pols nul": "\\u0000 cannot be converted to text",
           "personal_docs of-gone": 'Key (pol)=(gone) is not present in table "pols"',
           "personal_docs of-never": 'Key (pol)=(never) is not present in table "pols"'}


class WayBack:
    def __init__(self, processes, postgres, binary, check):
        self.postgres, self.check = postgres, check
        self.node = Node(processes, "node-small", binary, SETTINGS)
        self.directory = os.path.join(processes.directory, "clinic-small")
        os.mkdir(self.directory)
        self.guide = guide.Guide(self.node, self.directory, postgres.environment)
        os.symlink(postgres.psql_program(), os.path.join(self.guide.programs, "psql"))

    def take(self, *options, **files):
        """Imports files, which are called after their collection, into the node, which does not run."""
        directory = os.path.join(self.directory, "more")
        os.makedirs(os.path.join(directory, "content"))
        for name, lines in files.items():
            with open(os.path.join(directory, name + ".jsonl"), "w", encoding="utf-8") as file:
                file.write("\n".join(lines))
        self.node.command("import", *options, directory)
        shutil.rmtree(directory)

    def ask(self, method, path, value, expected):
        answer = self.node.ask(method, path, basic((TECHNICIAN + "@local", PASSWORD)), json_bytes(value) if value else None)
        self.check(answer.status == expected, f"{method} {path}: {answer.status} {answer.body[:300]}")

    def move(self):
        """From the old database to the node, which has one of the accounts in upper case already, as from a centre."""
        self.postgres.insert("people", ["id", "data"], [[account, {"id": account, "name": name}]
                                                        for account, name in ((LOW, "Ana"), (EVA, "Eva"))])
        self.postgres.insert("pols", ["id", "book", "data"], [[page, account, {"id": page, "book": account, "n": 1}]
                                                              for page, account in (("low-1", LOW), ("eva-1", EVA))])
        self.take(people=[f'{{"_id": "{UPPER}", "name": "Ana"}}'])
        self.guide.step("directory")
        self.guide.step("export from PostgreSQL")
        told = self.guide.step("import")
        self.check(f'"{LOW}": the account is spelled "{UPPER}" here' in told, told)

    def work(self):
        self.node.command("user", "add", TECHNICIAN, "--local", "--role", "root", "--password-stdin", stdin=PASSWORD + "\n")
        self.node.start()
        self.ask("PATCH", f"/pols/{UPPER}/low-1", {"n": 2}, 200)
        self.ask("PATCH", f"/pols/{EVA}/eva-1", {"n": 2}, 200)
        self.ask("POST", f"/pols/{EVA}/gone", {"id": "gone"}, 201)
        self.ask("POST", "/personal-documents/of-gone", {"fedacct": EVA, "pol": "gone"}, 201)
        self.ask("POST", "/personal-documents/of-never", {"fedacct": EVA, "pol": "never"}, 201)
        self.ask("DELETE", f"/pols/{EVA}/gone", None, 204)
        self.node.stop()
        self.take(pols=[f'{{"_id": "stray", "book": "{NOBODY}"}}', f'{{"_id": "nul", "book": "{EVA}", "text": "a\\u0000b"}}'])
        self.node.start()

    def export(self):
        shutil.rmtree(os.path.join(self.directory, "back"), ignore_errors=True)
        self.guide.step("export from the node")

    def go_back(self, refused):
        """Runs the block. It must say of each of `refused` why, and of nothing else."""
        try:
            self.guide.step("back to PostgreSQL")
            said = ""
        except RuntimeError as error:
            said = str(error)
            self.check("all others are" in said, said)
        listed = [line for line in said.splitlines() if re.match(r" \w+ \S+ +\| ", line)]
        self.check(len(listed) == len(refused), f"{said}: {len(refused)} rows were to be refused")
        for record in refused:
            self.check(any(record in line and REASONS[record] in line for line in listed), f"{record}: {said}")
        return exports.of_postgres(self.postgres).records

    def run(self):
        self.move()
        self.work()
        self.export()
        back = self.go_back(set(REASONS))
        self.check({(page, record["n"]) for page, record in back["pols"].items()} == {("low-1", 1), ("eva-1", 2)}, back)
        self.check(back["pols"]["low-1"]["book"] == LOW and set(back["people"]) == {LOW, EVA}, back)
        # The documents, the page and the missing person are mended on the node.
        self.take("--replace", people=[f'{{"_id": "{NOBODY}", "name": "Noe"}}'],
                  pols=[f'{{"_id": "nul", "book": "{EVA}", "text": "ab"}}'],
                  personal_docs=[f'{{"_id": "of-{name}", "fedacct": "{EVA}", "pol": null}}' for name in ("gone", "never")])
        self.node.start()
        self.export()
        for name in ("domiciliary_unit", "institution"):
            self.check(os.path.getsize(os.path.join(self.directory, "back", name + ".jsonl")) == 0, f"{name} is not empty")
        self.go_back({f"people {UPPER}", "pols low-1"})
        self.guide.step("old spelling")
        back = self.go_back(set())
        self.check(set(back["people"]) == {LOW, EVA, NOBODY}, back["people"])
        pages = {page: (record["book"], record.get("n")) for page, record in back["pols"].items()}
        self.check(pages == {"low-1": (LOW, 2), "eva-1": (EVA, 2), "stray": (NOBODY, None), "nul": (EVA, None)}, pages)
        documents = {name: (record["fedacct"], record["pol"]) for name, record in back["personal_document"].items()}
        self.check(documents == {"of-gone": (EVA, None), "of-never": (EVA, None)}, documents)
        return self.guide.done
