"""The records and accounts that every server is filled with: Thalamus's demonstration, and some for each case.

A record is written once, with its id under `_id`. 0.9.4 and the node that is compared with it keep dates as dates;
0.9.18, which stores JSON, and the node beside it have the same dates as text.
"""
import datetime
import json
import os

from bson import json_util

#: bcrypt of the demonstration's two passwords with little work, so that a thousand logins take seconds.
PASSWORD, HASH = "gnusolidario", "$2b$04$cMOi2j4O2EUF6SeayEbj9e.LBd75RGhiAsI.SrcShAOOSi8DzyZRG"
ROOT_PASSWORD, ROOT_HASH = "freedom", "$2b$04$rOQnQGX.7X3qUzjlyxuFVOk4Sy5GZAVkuTGZVZ4xU2ikozvQ1dDfe"
#: One with letters that Latin-1 and UTF-8 write differently.
ACCENTED, ACCENTED_HASH = "contraseña", "$2b$04$Smi2tSCesKH2XynTHFbvPumA2xA2qB/1HXIKicLfL7bAuCI5btNBm"

ANA, CAMERON, ADMIN = "ESPGNU777ORG", "ITAPYT999HON", "ARGBUE111FAV"
BIRTH, CERTIFICATE, PICTURE = ("119b352e-8e4f-4847-9f05-53462cf94f10", "919c352f-7e4f-5341-7c22-8423acf76b32",
                               "8789981f-4e31-48d5-8eb8-1774dac8b8f6")
#: Somebody without pages, somebody with one, and somebody with a role that the rules do not know.
NO_BOOK, NEIGHBOUR, NEW_ROLE = "NOBOOK0001", "NEIGHBOUR1", "OWNROLE001"
#: A person who has a document with its bytes, which only PostgreSQL's table has a place for.
PICTURED, BYTES = "PICTURED01", "\\xffd8ff"


def person(account, name, roles=("end_user",), **more):
    return {"_id": account, "name": name, "lastname": "Betz", "gender": "f",
            "dob": datetime.datetime(1985, 10, 4, 13, 5), "marital_status": "married", "ethnicity": "latino",
            "education": "tertiary", "profession": "teacher", "password": HASH, "roles": list(roles), "active": True,
            **more}


def without(record, *fields):
    return {name: value for name, value in record.items() if name not in fields}


def page(identifier, book, **more):
    return {"_id": identifier, "book": book, "page_date": datetime.datetime(1985, 10, 4, 13, 5), "age": "0m 0y 0d",
            "page_type": "medical", "medical_context": "birth", "relevance": "important", "summary": "Birth",
            "info": "Ana was born in Italy in 1985", "node": "Milano General Hospital", "active": True, **more}


class Records:
    """All records, by their collection in MongoDB. Cases add theirs."""

    def __init__(self):
        # Not in the order of their ids: lists show which order a server has.
        self.people = [
            person(CAMERON, "Cameron", ("end_user", "health_professional"), lastname="Cordara"),
            person(ANA, "Ana"), person(ADMIN, "Admin", ("root",), lastname="Root", password=ROOT_HASH),
            person(NO_BOOK, "Noemi"), person(NEIGHBOUR, "Nina"), person(NEW_ROLE, "Inés", ("end_user", "archivist")),
            person(PICTURED, "Pia")]
        self.pages = [page(CERTIFICATE, ANA, page_type="biographical", summary="Birth Certificate"), page(BIRTH, ANA),
                      page("nina-1", NEIGHBOUR), page("pia-1", PICTURED)]
        self.documents = [{"_id": PICTURE, "fedacct": ANA, "pol": BIRTH, "type": "picture", "extension": "jpg",
                           "description": "Picture at birth", "active": True}]
        self.pictures = [{"_id": "picture-1", "fedacct": PICTURED, "pol": "pia-1", "type": "picture", "extension": "jpg"}]
        self.units = [{"_id": "unit-1", "name": "House", "address": {"street": "Via Roma", "number": 5}}]
        self.institutions = [{"_id": "hospital-1", "name": "Milano General Hospital", "beds": 120}]

    def collections(self):
        return {"people": self.people, "pols": self.pages, "personal_document": self.documents,
                "domiciliary_unit": self.units, "institution": self.institutions}

    def fill_mongo(self, mongo):
        for name, records in self.collections().items():
            mongo.database[name].insert_many(records)

    def fill_postgres(self, postgres, schema):
        """Makes the tables of the package and fills them as its import_pg.py does: `id` stands in the document too."""
        with open(schema, encoding="utf-8") as file:
            postgres.psql(file.read())
        def rows(records, *keys):
            return [[record["_id"], *[record[key] for key in keys], as_text(record)] for record in records]
        postgres.insert("people", ["id", "data"], rows(self.people))
        postgres.insert("pols", ["id", "book", "data"], rows(self.pages, "book"))
        postgres.insert("personal_docs", ["id", "fedacct", "pol", "data"], rows(self.documents, "fedacct", "pol"))
        pictures = rows(self.pictures, "fedacct", "pol")
        postgres.insert("personal_docs", ["id", "fedacct", "pol", "data", "document"], [[*row, BYTES] for row in pictures])
        postgres.insert("dus", ["id", "data"], rows(self.units))
        postgres.insert("institutions", ["id", "data"], rows(self.institutions))

    def fill_node(self, node, with_dates):
        directory = os.path.join(node.directory, "import")
        # A directory of bytes, though it is empty: these documents have none.
        os.makedirs(os.path.join(directory, "content"))
        for name, records in self.collections().items():
            with open(os.path.join(directory, name + ".jsonl"), "w", encoding="utf-8") as file:
                for record in records:
                    record = record if with_dates else {"_id": record["_id"], **without(as_text(record), "id")}
                    # As mongoexport writes it.
                    file.write(json_util.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
        if not with_dates:
            with open(os.path.join(directory, "personal_docs.jsonl"), "w", encoding="utf-8") as file:
                for record in self.pictures:
                    row = {"id": record["_id"], "fedacct": record["fedacct"], "pol": record["pol"], "document": BYTES,
                           "data": as_text(record)}
                    file.write(json.dumps(row) + "\n")
        node.command("import", directory)
        node.start()
        node.command("user", "add", ADMIN, "--role", "root")


def as_text(record):
    """The record as 0.9.18 stores it: `id`, and dates as text."""
    def simple(value):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime.datetime) else value
    return {"id" if name == "_id" else name: simple(value) for name, value in record.items()}


def json_bytes(value):
    return json.dumps(value, ensure_ascii=False).encode()
