"""Every form in which Thalamus and its databases give their records, imported into an empty node each: all come out alike.

The forms are what the programs wrote, not examples: PostgreSQL's own `psql` and `pg_dump`, and answers of the running Thalamus.
"""
import copy
import datetime
import json
import os
import subprocess

import exports
from cases import basic
from people import CAMERON, PASSWORD
from servers import Node

SETTINGS = '[backup]\nschedule = ""\n'
#: The ending of the file, and psql's arguments with the table in the place of {}.
PSQL_FORMS = {
    "row_to_json": ("jsonl", ["-Atc", "SELECT row_to_json(r) FROM {} r"]),
    "rows": ("txt", ["-Atc", "SELECT * FROM {}"]),
    "rows with a heading": ("txt", ["-Ac", "SELECT * FROM {}"]),
    "csv of psql": ("csv", ["--csv", "-c", "SELECT * FROM {}"]),
    "COPY": ("txt", ["-c", "COPY {} TO STDOUT"]),
    "COPY with a heading": ("copy", ["-c", "COPY {} TO STDOUT (HEADER)"]),
    "CSV": ("csv", ["-c", "COPY {} TO STDOUT (FORMAT csv, HEADER)"]),
    "CSV with semicolons": ("csv", ["-c", "COPY {} TO STDOUT (FORMAT csv, HEADER, DELIMITER ';')"]),
}
#: Only what stands in `data`: documents, without their bytes.
DATA_ALONE = ("json", ["-Atc", "SELECT data FROM {}"])


class Forms:
    """The forms of one clinic's records, each in a directory of its own."""

    def __init__(self, clinic, binary):
        self.clinic, self.binary, self.count = clinic, binary, 0
        self.directory = os.path.join(clinic.directory, "forms")
        os.mkdir(self.directory)

    def place(self, name):
        path = os.path.join(self.directory, name.replace(" ", "-"))
        os.mkdir(path)
        return path

    def take(self, name, paths, expected, code=0):
        """Imports files into an empty node. What it exports then must be `expected`."""
        node = Node(self.clinic.processes, f"form-{self.clinic.node.name}-{name.replace(' ', '-')}", self.binary, SETTINGS)
        done = node.try_command("import", *paths)
        self.clinic.check(done.returncode == code, f"{name}: ended with {done.returncode}: {done.stdout}{done.stderr}")
        said = exports.complaints(exports.of_node(node, os.path.join(node.directory, "export")), expected)
        self.clinic.check(not said, f"{name}: " + "\n".join(said))
        self.count += 1

    def answers(self, paths, login):
        """Saves answers of Thalamus, each under the name that its collection has in the path. Returns the files."""
        files = []
        for path in paths:
            answer = self.clinic.thalamus.ask("GET", path, basic(login))
            if answer.status == 404:
                continue
            self.clinic.check(answer.status == 200, f"GET {path}: {answer.status} {answer.body[:200]}")
            directory = self.place(f"answer{len(files)}")
            files.append(os.path.join(directory, path.split("/")[1] + ".json"))
            with open(files[-1], "wb") as file:
                file.write(answer.body)
        return files


def only(held, *collections):
    """What of it is in these collections; without bytes."""
    part = exports.Held()
    for name in collections:
        part.records[name] = copy.deepcopy(held.records[name])
    return part


def of_postgres(clinic, postgres, binary):
    forms, held = Forms(clinic, binary), exports.of_postgres(postgres)

    def run(program, arguments, path):
        with open(path, "wb") as file:
            subprocess.run([os.path.join(postgres.bin, program), *arguments], env=postgres.environment, stdout=file, check=True)

    for name, (ending, arguments) in {**PSQL_FORMS, "data alone": DATA_ALONE}.items():
        directory = forms.place(name)
        for table, _ in exports.TABLES.values():
            run("psql", ["-X", "-d", "federation", *(part.replace("{}", table) for part in arguments)],
                os.path.join(directory, f"{table}.{ending}"))
        is_whole = name in PSQL_FORMS
        # Documents without their bytes are taken and named, and the command ends with 1.
        forms.take(name, [directory], held if is_whole else only(held, *exports.TABLES), 0 if is_whole else 1)
    directory = forms.place("dump")
    run("pg_dump", ["--data-only", "federation"], os.path.join(directory, "federation.sql"))
    forms.take("dump", [directory], held)
    people = sorted(held.records["people"])
    files = forms.answers(["/people", *(f"/pols/{account}" for account in people)], (CAMERON, PASSWORD))
    forms.take("answers", files, only(held, "people", "pols"))
    of_demo(forms)
    return forms.count


def of_demo(forms):
    """The directory `demo` of the package. Its picture is no record, so it is named, and its document is incomplete."""
    directory = os.path.join(forms.clinic.thalamus.directory, "demo")
    expected = exports.Held()
    for collection, (table, _) in exports.TABLES.items():
        path = os.path.join(directory, table + ".json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                rows = json.load(file)
            expected.records[collection] = {
                row["id"]: {"_id": row["id"], **{name: value for name, value in row.items() if name != "id"}} for row in rows}
    forms.clinic.check([len(rows) for rows in expected.records.values()] == [3, 2, 1, 0, 0], "the demo has other records")
    forms.take("demo", [directory], expected, 1)


def of_mongo(clinic, held, binary):
    """Answers of 0.9.4. `held` is what its database has. Dates are text in an answer."""
    forms = Forms(clinic, binary)
    expected = only(held, "people", "pols", "personal_document", "domiciliary_unit")
    for records in expected.records.values():
        for document in records.values():
            document.update({name: value.strftime("%a, %d %b %Y %H:%M:%S GMT") for name, value in document.items()
                             if isinstance(value, datetime.datetime)})
    # Nobody's: no answer has it.
    del expected.records["pols"]["lost"]
    people = sorted(expected.records["people"])
    paths = ["/people", *(f"/pols/{account}" for account in people), "/personal-documents", "/domiciliary-units"]
    forms.take("answers", forms.answers(paths, (CAMERON, PASSWORD)), expected)
    return forms.count
