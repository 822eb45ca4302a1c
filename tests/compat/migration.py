"""Moves a clinic from each Thalamus to a node with the commands of docs/MIGRATION.md, joins a centre, and goes back."""
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys

import bodies
import exports
import forms
import guide
import way_back
from cases import basic
from people import ADMIN, ANA, BIRTH, CAMERON, PASSWORD, PICTURE, ROOT_PASSWORD, json_bytes, page, person
from servers import Mongo, Node, Postgres, Thalamus

PROFESSIONAL, ROOT = (CAMERON, PASSWORD), (ADMIN, ROOT_PASSWORD)
#: Made by the clinic's Thalamus: accounts with the passwords that they have.
MADE = {"ARGNEW001AAA": "a lantern by the lake", "ARGNEW002BBB": "seven quiet herons", "ARGNEW003CCC": None}
#: Somebody who left, whose account stays closed.
LEFT, LEFT_PASSWORD = "ARGLEFT001AAA", "gone with the rain"
#: What is said of rules that were written for Thalamus, at the start, in `check` and in `doctor`.
GIVEN_TO_ROOT = ('"root" may use them as in the node', '"root" may read them, nobody else')
SETTINGS = '[accounts]\nbcrypt_cost = 4\nroles_file = "{roles}"\n[backup]\nschedule = ""\n'
#: What MongoDB's tool writes and reads: one document a line in relaxed extended JSON.
EXPORT = """#!{python}
import sys, pymongo
from bson import json_util
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert set(given) == {{"--uri", "-c", "-o"}}, given
found = pymongo.MongoClient(given["--uri"], directConnection=True).get_default_database()[given["-c"]].find()
with open(given["-o"], "w", encoding="utf-8") as file:
    for document in found:
        file.write(json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False,
                                   separators=(",", ":")) + "\\n")
"""
IMPORT = """#!{python}
import sys, pymongo
from bson import json_util
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert set(given) == {{"--uri", "-c", "--mode", "--file"}} and given["--mode"] == "upsert", given
collection = pymongo.MongoClient(given["--uri"], directConnection=True).get_default_database()[given["-c"]]
with open(given["--file"], encoding="utf-8") as file:
    for line in file:
        document = json_util.loads(line)
        collection.replace_one({{"_id": document["_id"]}}, document, upsert=True)
"""


def check(is_good, what):
    if not is_good:
        raise AssertionError(what)


class Clinic:
    """A clinic with its Thalamus, and the node that it moves to."""

    def __init__(self, processes, name, binary, thalamus, id_name, environment):
        self.processes, self.thalamus, self.id_name, self.checks = processes, thalamus, id_name, 0
        self.node = Node(processes, "node-" + name, binary, "")
        self.directory = os.path.join(processes.directory, "clinic-" + name)
        os.mkdir(self.directory)
        self.guide = guide.Guide(self.node, self.directory, {**environment, "THALAMUS": thalamus.directory})
        self.roles = os.path.join(self.directory, "etc/thalamus-edge/roles.cfg")
        os.makedirs(os.path.dirname(self.roles))

    def check(self, is_good, what):
        self.checks += 1
        check(is_good, what)

    def work(self):
        """What the staff did with Thalamus: people with and without a password, pages, changes."""
        for account, password in {**MADE, LEFT: LEFT_PASSWORD}.items():
            self.write("POST", f"/people/{account}", {**bodies.HMIS, **({"password": password} if password else {})})
            for number in range(3):
                identifier = f"{account}-page-{number}"
                self.write("POST", f"/pols/{account}/{identifier}",
                           {self.id_name: identifier, "book": account, **bodies.HMIS_PAGE, "n": number, "weight": 70.5})
        self.write("PATCH", f"/people/{ANA}", {"profession": "nurse", "phones": ["+34 600", {"kind": "home"}]})

    def write(self, method, path, value):
        answer = self.thalamus.ask(method, path, basic(PROFESSIONAL), json_bytes(value))
        check(answer.status < 300, f"{method} {path}: {answer.status} {answer.body[:300]}")

    def remember(self, rows):
        self.hashes = {account: record.get("password") for account, record in rows.records["people"].items()}

    def let_anybody_read(self):
        """What `check` says that Thalamus let people do besides is so: here they may not."""
        for path, login in self.besides:
            status = self.thalamus.ask("GET", path, basic(login)).status
            self.check(status == 200, f"Thalamus: GET {path}: {status}")

    @property
    def besides(self):
        cases = [(f"/pols/{ANA}/ARGNEW001AAA-page-0", (ANA, PASSWORD))]
        if self.id_name == "_id":
            cases += [("/personal-documents", None), ("/domiciliary-units", None)]
        return cases

    @staticmethod
    def flat(value):
        return [row[0] if isinstance(row, list) else row for row in value]

    def read(self, server, path):
        answer = server.ask("GET", path, basic(PROFESSIONAL))
        check(answer.status == 200, f"{server.name}: GET {path}: {answer.status} {answer.body[:300]}")
        value = answer.json()
        return self.flat(value) if isinstance(value, list) else value

    def compare(self, rows):
        """Every row of the five tables or collections is here with the same fields, hashes and bytes, and nothing else is."""
        for account, record in rows.records["people"].items():
            if "password" in record and ("active" in record or account == LEFT):
                # What step 7 changes, of those who could log in.
                record["active"] = account != LEFT
        here = exports.of_running_node(self.node, os.path.join(self.directory, "compared"))
        for name in exports.TABLES:
            self.checks += len(rows.records[name])
        said = exports.complaints(here, rows)
        self.check(not said, "\n".join(said))

    def look_at_rights(self):
        """With the rules that came along, root administers the node and reads what they do not name; others do neither."""
        picture = f"/personal-documents/{PICTURE}"
        for path in ("/sync/status", "/users", "/sync/conflicts", "/domiciliary-units", "/domiciliary-units/unit-1", "/institutions",
                     "/institutions/hospital-1", "/personal-documents", picture, f"/personal_docs/{ANA}"):
            for login, expected in ((ROOT, 200), (PROFESSIONAL, 403), ((ANA, PASSWORD), 403)):
                answer = self.node.ask("GET", path, basic(login))
                self.check(answer.status == expected, f"{login[0]}: GET {path}: {answer.status} {answer.body[:200]}")
        units = {"/domiciliary-units/unit-1": ("name", "House"), "/institutions/hospital-1": ("beds", 120),
                 picture: ("fedacct", ANA)}
        for path, (field, value) in units.items():
            record = self.node.ask("GET", path, basic(ROOT)).json()
            self.check(record[field] == value, f"{path}: {record}")
        for path, login in self.besides:
            status = self.node.ask("GET", path, basic(login)).status
            self.check(status in (401, 404), f"{path} as {login}: {status}")
        log = self.node.whole_log()
        for words in GIVEN_TO_ROOT:
            self.check(words in log, f"{words!r} does not stand in the log of the start: {log}")

    def look_at_added_rights(self):
        """The lines that the guide says to add to the rules do what it says."""
        with open(self.roles, encoding="utf-8") as file:
            before = file.read()
        roles, added = json.loads(before), guide.read_added_names()
        self.check(set(added) == {"health_professional", "end_user"}, added)
        added["root"] = added["health_professional"]
        for role in roles:
            role["permissions"]["GET"] += added[role["role"]]
        units = ("/domiciliary-units", "/domiciliary-units/unit-1", "/institutions", "/institutions/hospital-1")
        documents = ("/personal-documents", f"/personal-documents/{PICTURE}", f"/personal_docs/{ANA}",
                     f"/personal_docs/{ANA}/{BIRTH}")
        self.set_rules(json.dumps(roles), "/institutions", 200)
        for path in units + documents:
            for login, expected in ((ROOT, 200), (PROFESSIONAL, 200), ((ANA, PASSWORD), 200 if path in documents else 403)):
                answer = self.node.ask("GET", path, basic(login))
                self.check(answer.status == expected, f"{login[0]}: GET {path}: {answer.status} {answer.body[:200]}")
        self.set_rules(before, "/institutions", 403)

    def set_rules(self, text, path, expected):
        """Writes the rules and lets the node read them, until the professional is answered so at the path."""
        with open(self.roles, "w", encoding="utf-8") as file:
            file.write(text)
        self.node.process.send_signal(signal.SIGHUP)
        self.processes.wait_for(self.node.process, self.node.name,
                                lambda: self.node.ask("GET", path, basic(PROFESSIONAL)).status == expected)

    def read_picture(self, picture):
        answer = self.node.ask("GET", f"/personal-documents/{PICTURE}/content", basic(ROOT))
        self.check(answer.status == 200 and answer.body == picture, f"root reads {answer.status} {answer.body[:60]!r}")

    def stays_out(self):
        status = self.node.ask("GET", f"/people/{LEFT}", basic((LEFT, LEFT_PASSWORD))).status
        self.check(status == 401, f"{LEFT} logs in: {status}")

    def log_in(self, server, passwords):
        for account, password in passwords.items():
            if password:
                status = server.ask("GET", f"/people/{account}", basic((account, password))).status
                self.check(status == 200, f"{server.name}: {account} cannot log in: {status}")

    def make_certificate(self):
        """The certificate that the clinic's Thalamus has."""
        directory = os.path.join(self.directory, "opt/gnuhealth/certs")
        os.makedirs(directory)
        self.certificate = os.path.join(directory, "gnuhealthfed.crt")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "90", "-subj", "/CN=clinic.example.org", "-addext",
                        "subjectAltName=DNS:clinic.example.org,IP:127.0.0.1", "-out", self.certificate, "-keyout",
                        os.path.join(directory, "gnuhealthfed.key")], check=True, capture_output=True)

    def configure(self, *sections):
        own = SETTINGS.format(roles=self.roles) if os.path.exists(self.roles) else SETTINGS.replace(
            'roles_file = "{roles}"\n', "")
        self.node.configure(own + "[node]\nname = \"clinic\"\n" + "".join(
            section.replace("0.0.0.0:8443", f"127.0.0.1:{self.node.port}") for section in sections))

    def take_over(self, export):
        """Steps 1 to 4. Returns the counts."""
        steps = self.guide
        self.make_certificate()
        self.configure(f'[server]\nlisten = "127.0.0.1:{self.node.port}"\n')
        self.node.context = ssl._create_unverified_context()
        self.node.start()
        steps.step("stop")
        self.processes.end(self.thalamus.process)
        steps.step("directory")
        steps.step(export)
        counted = steps.step("count")
        steps.step("certificate")
        shutil.copy(os.path.join(self.thalamus.directory, "etc", "roles.cfg"), self.roles)
        self.server_section = steps.configuration("configuration")
        self.configure(self.server_section)
        explained = steps.step("roles")
        for words in ('role "health_professional"', "Thalamus let it besides: read and change a page", *GIVEN_TO_ROOT):
            self.check(words in explained, f"{words!r}: {explained}")
        self.check(("without a login" in explained) == (self.id_name == "_id"), explained)
        return counted

    def import_all(self, who_was_root):
        """Steps 5 to 8."""
        steps = self.guide
        before = self.count_here()
        steps.step("dry run")
        self.check(self.count_here() == before, "the dry run changed the store")
        steps.step("import")
        if who_was_root:
            self.check(steps.step(who_was_root).split() == [ADMIN], "another root")
        steps.step("root")
        closed = steps.step("closed accounts")
        steps.step("people who left")
        opened = steps.step("open the others")
        self.check(LEFT not in opened and (LEFT in closed) == ("ARGNEW001AAA" in opened), closed + opened)
        self.node.context = ssl.create_default_context(cafile=self.certificate)
        listed = steps.step("start")
        self.check(ADMIN in listed and CAMERON in listed, listed)
        for words in GIVEN_TO_ROOT:
            self.check(words in listed, f"doctor does not say {words!r}: {listed}")

    def count_here(self):
        """Lines of an export of the node, which is stopped."""
        target = os.path.join(self.directory, "counted")
        self.node.command("export", target)
        count = sum(1 for file in os.listdir(target) if file.endswith(".jsonl")
                    for _ in open(os.path.join(target, file), encoding="utf-8"))
        shutil.rmtree(target)
        return count

    def join(self, centre):
        steps = self.guide
        section = steps.configuration("configuration for joining")
        path = os.path.join(self.directory, "etc/thalamus-edge/central.uri")
        with open(path, "w", encoding="utf-8") as file:
            file.write(centre.uri + "\n")
        os.chmod(path, 0o600)
        self.configure(self.server_section, section + 'schedule = "0 0 0 1 1 *"\njitter_s = 0\n')
        return steps.step("join")

    def open_at_centre(self, centre, account, password):
        """Joining has closed whom step 7 opened, because the centre has `false`. The guide says how they are opened."""
        def may_log_in():
            return self.node.ask("GET", f"/people/{account}", basic((account, password))).status == 200
        self.check(not may_log_in(), f"{account} was not closed by joining: the step is for nothing")
        said = self.guide.step("open at the centre")
        self.check("active" in said and may_log_in(), said)
        self.node.command("sync", "now")
        self.check(centre.database.people.find_one({"_id": account})["active"] is True, f"{account} stays closed at the centre")

    def go_on(self):
        """Work with the node, which the old Thalamus must have when the clinic goes back."""
        account = "ARGNEW001AAA"
        answer = self.node.ask("POST", f"/pols/{account}/after", basic((account, MADE[account])),
                               json_bytes({"id": "after", **bodies.HMIS_PAGE}))
        self.check(answer.status == 201, f"{answer.status} {answer.body}")
        answer = self.node.ask("PATCH", f"/people/{account}", basic((account, MADE[account])),
                               json_bytes({"password": "changed at the node"}))
        self.check(answer.status == 200, f"{answer.status} {answer.body}")

    def go_back(self, step, read_back, as_stored=lambda held: held):
        """`read_back` reads what the old database holds then; `as_stored` says what an export becomes there."""
        self.guide.step("export from the node")
        held = as_stored(exports.of_node(self.node, os.path.join(self.directory, "held")))
        self.guide.step(step)
        back = read_back()
        # The node says of its bytes which they are.
        for document in back.records["personal_document"].values():
            document.pop("content", None)
        said = exports.complaints(back, held)
        self.check(not said, "\n".join(said))
        self.checks += sum(len(held.records[name]) for name in exports.TABLES)
        self.thalamus.restart()
        self.log_in(self.thalamus, {"ARGNEW001AAA": "changed at the node", "ARGNEW002BBB": MADE["ARGNEW002BBB"]})
        after = self.read(self.thalamus, "/pols/ARGNEW001AAA/after")
        self.check(after["summary"] == "Asthma" and after[self.id_name] == "after", after)
        before = self.read(self.thalamus, "/pols/ARGNEW001AAA/ARGNEW001AAA-page-1")
        self.check(before["n"] == 1 and before["weight"] == 70.5, f"numbers came back as {before}")


#: Where clinic and centre say different things: collection, record, path, the clinic's value and the centre's. Dates as text
#: and as BSON, and fields that only one side has, make no conflict.
PROFESSION = ("people", ANA, "profession", "nurse", "teacher")
#: Another hash; nobody is shown it.
CHANGED_PASSWORD = ("people", ANA, "password", None, None)


def fill_centre(centre, *more):
    """The federation before the clinic joins: somebody the clinic knows too, somebody else, and `more` people."""
    ana = person(ANA, "Ana", profession="teacher", weight=61)
    del ana["active"]
    centre.database.people.insert_many([ana, person("DEUMOP095IDI", "John", lastname="Dillinger"), *more])
    centre.database.pols.insert_many([page(BIRTH, ANA), page("far-1", "DEUMOP095IDI")])


def check_joined(clinic, centre, output, conflicts):
    """Node and centre hold the same, and the conflicts are the expected ones."""
    clinic.check("complete" in output, output)
    found = json.loads(clinic.node.command("conflicts", "list", "--json"))
    found = {(row["collection"], row["record"], ".".join(row["path"]), row.get("local"), row.get("central"))
             for row in found}
    clinic.check(found == conflicts,
                 f"conflicts that nobody expects: {found - conflicts}; that are missing: {conflicts - found}")
    here = exports.of_running_node(clinic.node, os.path.join(clinic.directory, "joined"))
    there = exports.of_mongo(centre.database)
    for document in there.records["personal_document"].values():
        document.pop("content", None)
    there.contents = bytes_at_centre(centre)
    here.contents = set(here.contents.values())
    said = exports.complaints(here, there)
    clinic.check(not said, "\n".join(said))
    people = there.records["people"]
    for account, password in {**MADE, LEFT: LEFT_PASSWORD}.items():
        record = people[account]
        clinic.check(all(record[name] == value for name, value in bodies.HMIS.items()), record)
        clinic.check(record.get("password") == clinic.hashes[account], f"another hash: {record}")
        if password:
            # 0.9.4 stores `false` for everybody it makes, which step 7 opens; 0.9.18 stores nothing.
            opened = True if clinic.id_name == "_id" else None
            expected = False if account == LEFT else opened
            clinic.check(record.get("active") is expected, f"{account} came to the centre as {record}")
    clinic.check(people["DEUMOP095IDI"]["name"] == "John", "the centre's people are not here")
    ana = people[ANA]
    clinic.check(ana["weight"] == 61 and ana["phones"] == ["+34 600", {"kind": "home"}], ana)


def bytes_at_centre(centre):
    """The bytes of all uploads."""
    chunks = {}
    for chunk in centre.database.fs.chunks.find().sort([("files_id", 1), ("n", 1)]):
        chunks.setdefault(str(chunk["files_id"]), []).append(chunk["data"])
    return {b"".join(parts) for parts in chunks.values()}


def from_postgresql(processes, binary):
    postgres = Postgres(processes)
    postgres.start()
    thalamus = Thalamus(processes, "0.9.18", {}, postgres.environment)
    demo = os.path.join(thalamus.directory, "demo")
    with open(os.path.join(demo, "federation_schema.sql"), encoding="utf-8") as file:
        postgres.psql(file.read())
    python = os.path.join(os.path.dirname(thalamus.gunicorn), "python")
    subprocess.run([python, "import_pg.py"], cwd=demo, env=postgres.environment, check=True, stdout=subprocess.DEVNULL)
    postgres.insert("dus", ["id", "data"], [["unit-1", {"id": "unit-1", "name": "House"}]])
    postgres.insert("institutions", ["id", "data"], [["hospital-1", {"id": "hospital-1", "beds": 120}]])
    thalamus.start()
    clinic = Clinic(processes, "postgresql", binary, thalamus, "id", postgres.environment)
    os.symlink(postgres.psql_program(), os.path.join(clinic.guide.programs, "psql"))
    clinic.work()
    rows = exports.of_postgres(postgres)
    clinic.remember(rows)
    clinic.let_anybody_read()
    clinic.forms = forms.of_postgres(clinic, postgres, binary)
    counted = clinic.take_over("export from PostgreSQL")
    clinic.check("7 federation/people.jsonl" in counted and "14 federation/pols.jsonl" in counted, counted)
    clinic.import_all("who was root in PostgreSQL")
    clinic.compare(rows)
    clinic.stays_out()
    clinic.log_in(clinic.node, {**MADE, CAMERON: PASSWORD, ANA: PASSWORD, ADMIN: ROOT_PASSWORD})
    clinic.look_at_rights()
    clinic.look_at_added_rights()
    with open(os.path.join(demo, "newborn.jpg"), "rb") as file:
        picture = file.read()
    clinic.check(rows.contents == {PICTURE: picture}, "PostgreSQL has another picture")
    clinic.read_picture(picture)
    centre = Mongo(processes, "centre-postgresql")
    centre.start()
    fill_centre(centre)
    check_joined(clinic, centre, clinic.join(centre), {PROFESSION, CHANGED_PASSWORD})
    clinic.go_on()
    clinic.go_back("back to PostgreSQL", lambda: exports.of_postgres(postgres), exports.as_json)
    processes.end(thalamus.process)
    postgres.psql("ALTER DATABASE federation RENAME TO moved; CREATE DATABASE federation", database="postgres")
    with open(os.path.join(demo, "federation_schema.sql"), encoding="utf-8") as file:
        postgres.psql(file.read())
    clinic.guide.done |= way_back.WayBack(processes, postgres, binary, clinic.check).run()
    return clinic


def from_mongodb(processes, binary):
    mongo = Mongo(processes)
    mongo.start()
    uri = f"mongodb://127.0.0.1:{mongo.port}/federation"
    thalamus = Thalamus(processes, "0.9.4", {"MONGO_URI": uri})
    mongo.database.people.insert_many([
        person(CAMERON, "Cameron", ("end_user", "health_professional")), person(ANA, "Ana"),
        person(ADMIN, "Admin", ("root",), password="$2b$12$McKDNgArdHKbUssD1fj64ecpdbJGMIt29ns7DGvqzqIT26W0dtJzi")])
    mongo.database.pols.insert_one(page(BIRTH, ANA))
    # Says that there are no bytes: without `document` the import would name it as incomplete.
    mongo.database.personal_document.insert_one(
        {"_id": PICTURE, "fedacct": ANA, "pol": BIRTH, "type": "picture", "document": None})
    mongo.database.domiciliary_unit.insert_one({"_id": "unit-1", "name": "House"})
    mongo.database.institution.insert_one({"_id": "hospital-1", "beds": 120})
    thalamus.start()
    clinic = Clinic(processes, "mongodb", binary, thalamus, "_id", {"MONGO_URI": uri})
    clinic.guide.add_program("mongoexport", EXPORT.format(python=sys.executable))
    clinic.guide.add_program("mongoimport", IMPORT.format(python=sys.executable))
    clinic.work()
    # Nobody sees it: 0.9.4 does not ask for the book.
    clinic.write("POST", f"/pols/{ANA}/lost", {"_id": "lost", **bodies.HMIS_PAGE})
    rows = exports.of_mongo(mongo.database)
    clinic.remember(rows)
    clinic.let_anybody_read()
    clinic.forms = forms.of_mongo(clinic, rows, binary)
    counted = clinic.take_over("export from MongoDB")
    clinic.check("7 federation/people.json" in counted and "14 federation/pols.json" in counted, counted)
    mend_lost_page(clinic)
    rows.records["pols"]["lost"] = {"_id": "lost", "book": ANA, **bodies.HMIS_PAGE}
    clinic.import_all(None)
    clinic.compare(rows)
    clinic.stays_out()
    clinic.log_in(clinic.node, {**MADE, CAMERON: PASSWORD, ANA: PASSWORD, ADMIN: ROOT_PASSWORD})
    clinic.look_at_rights()
    clinic.look_at_added_rights()
    centre = Mongo(processes, "centre-mongodb")
    centre.start()
    # As its Thalamus made them: nobody looks at `active` there.
    fill_centre(centre, {**rows.records["people"]["ARGNEW002BBB"], "active": False})
    joined = clinic.join(centre)
    clinic.open_at_centre(centre, "ARGNEW002BBB", MADE["ARGNEW002BBB"])
    check_joined(clinic, centre, joined, {PROFESSION})
    clinic.go_on()
    clinic.go_back("back to MongoDB", lambda: exports.of_mongo(mongo.database))
    return clinic


def mend_lost_page(clinic):
    """A page without its book is refused and named, and mended in the file."""
    try:
        clinic.guide.step("dry run")
    except RuntimeError as error:
        clinic.check("`book` is missing" in str(error) and "pols.json" in str(error), str(error))
    else:
        raise AssertionError("a page without its book was not refused")
    path = os.path.join(clinic.directory, "federation", "pols.json")
    with open(path, encoding="utf-8") as file:
        pages = [json.loads(line) for line in file]
    with open(path, "w", encoding="utf-8") as file:
        for record in pages:
            file.write(json.dumps({"book": ANA, **record}, ensure_ascii=False) + "\n")


def run(processes, binary):
    done = set()
    for name, move in (("PostgreSQL", from_postgresql), ("MongoDB", from_mongodb)):
        clinic = move(processes, binary)
        done |= clinic.guide.done
        print(f"moved from Thalamus on {name}: {clinic.checks} checks, {len(clinic.guide.done)} steps, "
              f"{clinic.forms} forms of its records imported")
    left = set(guide.read_blocks()) - done
    check(not left, f"steps of docs/MIGRATION.md that were not run: {sorted(left)}")
    return True

