"""The requests that are compared. A case has a route, a method, and labels that say in the words of the table who asks,
about whom, and with which body.

Cases that write have people and pages of their own, so that no case depends on another; cases that list come first.
"""
import base64
import itertools
from dataclasses import dataclass, field

import bodies
from people import (ACCENTED, ACCENTED_HASH, ADMIN, ANA, BIRTH, CAMERON, NEW_ROLE, NEIGHBOUR, NO_BOOK, PASSWORD, PICTURED, ROOT_PASSWORD, json_bytes,
                    page, person)

PERSON, BOOK, PAGE = "/people/{person_id}", "/pols/{person_id}", "/pols/{person_id}/{page_id}"
PEOPLE, LOGIN, FORM = "/people", "/login", "/password/{person_id}"
DOCUMENTS, OF_PERSON, OF_PAGE = ("/personal-documents", "/personal_docs/{person_id}",
                                 "/personal_docs/{person_id}/{page_id}")
UNITS, INSTITUTIONS, WELCOME = "/domiciliary-units", "/institutions", "/"
#: Every route that one of the two documents, and what is none.
ROUTES = (WELCOME, LOGIN, PEOPLE, PERSON, BOOK, PAGE, DOCUMENTS, OF_PERSON, OF_PAGE, UNITS, INSTITUTIONS, FORM)
METHODS = ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS")

STAFF = {"health_professional": (CAMERON, PASSWORD), "root": (ADMIN, ROOT_PASSWORD)}
#: Authorization as no client should send it.
BROKEN_HEADERS = {"credentials that are no base64": "Basic !!!", "credentials without a colon": "Basic QU5B",
                  "another scheme": "Bearer abcdef"}
#: Strangers who are in fact let in.
LET_IN = ("account without roles", "name in lower case")
#: Parameters of lists, of which Thalamus looks at none.
QUERIES = {"limit=1": "limit=1", "limit=0": "limit=0", "limit=x": "limit=x", "after=B": "after=B", "q=ana": "q=ana",
           "q of 200 letters": "q=" + "x" * 200, "person": "person=" + ANA, "an unknown name": "_=1"}
#: Headers of requests that read.
READ_HEADERS = {"If-None-Match of any version": {"If-None-Match": "*"}, "If-Match of another version": {"If-Match": '"x"'},
                "Range": {"Range": "bytes=0-5"}, "Accept of nothing": {"Accept": "application/json;q=0"},
                "X-Emergency-Reason": {"X-Emergency-Reason": "a reason of length"}, "Expect": {"Expect": "100-continue"},
                "X-HTTP-Method-Override": {"X-HTTP-Method-Override": "DELETE"}, "Accept-Language": {"Accept-Language": "es"}}


def labels_of(stranger):
    return (stranger,) if stranger in LET_IN else (stranger, "login fails")


@dataclass
class Case:
    route: str
    method: str
    labels: tuple
    path: str
    #: One of None, an account with its password, or the text of the header.
    login: object = None
    #: Bytes, or a function of the name that the id has in bodies of that version, `id` or `_id`.
    body: object = None
    headers: dict = field(default_factory=dict)
    #: A path to read afterwards as root, and an account with the password that it should have then.
    then_read: str = None
    then_login: tuple = None
    #: Whether it is the form for a browser, which is read first for its token.
    is_form: bool = False

    def body_for(self, id_name):
        return self.body(id_name) if callable(self.body) else self.body

    def title(self):
        return f"{self.method} {self.route} ({', '.join(self.labels)})"


def basic(login):
    if isinstance(login, str):
        return {"Authorization": login}
    if login is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


def path_of(route, account, identifier):
    return route.replace("{person_id}", account).replace("{page_id}", identifier)


class Cases:
    """Makes the cases, and the records that they need."""

    def __init__(self, records):
        self.records, self.numbers = records, itertools.count(1)
        self.reading, self.writing = [], []
        self.make_reads()
        self.make_parameters()
        self.make_matrix()
        self.make_people()
        self.make_pages()
        self.make_forms()

    @property
    def all(self):
        return self.reading + self.writing

    def new_person(self, roles=("end_user",), **more):
        account = f"CASE{next(self.numbers):05}"
        self.records.people.append(person(account, "Carla", roles, **more))
        return account

    def strangers(self):
        """Who should hardly get in, each with an account of its own: failed logins at one account are slowed down."""
        yield "no login", None, ANA
        yield "unknown account", (f"NOSUCH{next(self.numbers):05}", PASSWORD), ANA
        for who, password in (("wrong password", "wrong password"), ("empty password", ""),
                              ("password longer than 72 bytes", "x" * 73)):
            account = self.new_person()
            yield who, (account, password), account
        for who, field in (("account without password", "password"), ("account without roles", "roles")):
            account = self.new_person()
            del self.records.people[-1][field]
            yield who, (account, PASSWORD), account
        account = self.new_person(active=False)
        yield "inactive account", (account, PASSWORD), account
        account = self.new_person()
        yield "name in lower case", (account.lower(), PASSWORD), account
        account = self.new_person()
        yield "NUL in the name", (account + "\0", PASSWORD), account
        for who, header in BROKEN_HEADERS.items():
            yield who, header, ANA

    def new_page(self, book):
        identifier = f"page-{next(self.numbers):05}"
        self.records.pages.append(page(identifier, book))
        return identifier

    def read(self, route, who, login, account, identifier=BIRTH, *labels, method="GET", **more):
        self.reading.append(Case(route, method, (who, *labels), path_of(route, account, identifier), login, **more))

    def write(self, *arguments, **more):
        self.writing.append(Case(*arguments, **more))

    def make_reads(self):
        callers = {"end_user": (ANA, PASSWORD), "role unknown to the rules": (NEW_ROLE, PASSWORD), **STAFF}
        for route in ROUTES:
            for method in ("GET", "HEAD", "OPTIONS"):
                for who, login, account in self.strangers():
                    # The welcome page is for everybody.
                    labels = labels_of(who)[1:] if route != WELCOME else ()
                    self.read(route, who, login, account, BIRTH, *labels, method=method)
                for who, login in callers.items():
                    self.read(route, who, login, ANA, BIRTH, "own" if who == "end_user" else "of another", method=method)
            if "{person_id}" not in route:
                continue
            for who, login in callers.items():
                self.read(route, who, login, NO_BOOK, "no-such-page", "of another", "nothing there")
                self.read(route, who, login, NEIGHBOUR, "nina-1", "of another", "a neighbour")
                self.read(route, who, login, "NOSUCH0001", "no-such-page", "no such person")
                self.read(route, who, login, ANA.lower(), BIRTH, "person in lower case")
                self.read(route, who, login, "A%20B%3Cx%3E", "%3Cscript%3E", "id with other signs")
                self.read(route, who, login, "A" * 300, "b" * 300, "id of 300 letters")
            self.read(route, "end_user", (NO_BOOK, PASSWORD), NO_BOOK, "no-such-page", "own", "nothing there")
        # A page of another through one's own book, and through a third one.
        self.read(PAGE, "end_user", (NO_BOOK, PASSWORD), NO_BOOK, BIRTH, "own", "page of another book")
        for who, login in STAFF.items():
            self.read(PAGE, who, login, NO_BOOK, BIRTH, "page of another book")
        for who, login in {"no login": None, **callers}.items():
            fails = ("login fails",) if login is None else ()
            for path in ("/nowhere", "/people/A/b/c", "/static/nothing", "/console"):
                self.reading.append(Case("no route", "GET", (who, *fails), path, login))
            for route, path in ((PEOPLE, "/people/"), (PERSON, f"/people/{ANA}/"), (BOOK, f"/pols/{ANA}/"),
                                (PAGE, f"/pols/{ANA}/{BIRTH}/")):
                self.reading.append(Case(route, "GET", (who, *fails, "slash at the end"), path, login))
            self.reading.append(Case(PERSON, "GET", (who, *fails, "two slashes"), f"//people/{ANA}", login))
            self.reading.append(Case(PERSON, "GET", (who, *fails, "query"), f"/people/{ANA}?x=1", login))
            self.reading.append(Case("no route", "GET", (who, *fails, "style sheet"), "/static/style.css", login))
            for label, path in (("two slashes before the person", f"/people//{ANA}"), ("NUL in the path", f"/people/{ANA}%00"),
                                ("path that is no UTF-8", "/people/%ff"), ("slash in the id", "/people/..%2fpeople")):
                self.reading.append(Case(PERSON, "GET", (who, *fails, label), path, login))
            self.reading.append(Case(OF_PERSON, "GET", (who, *fails, "documents with bytes"), f"/personal_docs/{PICTURED}",
                                     login))
        for route, path in ((PEOPLE, "/people"), (PERSON, f"/people/{ANA}")):
            for accept in ("text/html", "application/xml"):
                self.reading.append(Case(route, "GET", ("root", f"Accept: {accept}"), path, STAFF["root"],
                                         headers={"Accept": accept}))
            origin = {"Origin": "https://portal.example.org"}
            self.reading.append(Case(route, "GET", ("root", "Origin of another site"), path, STAFF["root"], headers=origin))
            labels = ("no login", "Origin of another site", "preflight")
            asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
            self.reading.append(Case(route, "OPTIONS", labels, path, None, headers={**origin, **asked}))

    def make_parameters(self):
        """Parameters and headers of requests that read, and names and passwords in other codings."""
        callers = {"end_user": (ANA, PASSWORD), "role unknown to the rules": (NEW_ROLE, PASSWORD), **STAFF}
        for who, login in callers.items():
            subject = "own" if who == "end_user" else "of another"
            for label, query in QUERIES.items():
                for route in (PEOPLE, UNITS, INSTITUTIONS, DOCUMENTS):
                    self.reading.append(Case(route, "GET", (who, "query " + label), f"{route}?{query}", login))
                self.reading.append(Case(BOOK, "GET", (who, subject, "query " + label), f"/pols/{ANA}?{query}", login))
            for label, headers in READ_HEADERS.items():
                self.reading.append(Case(PERSON, "GET", (who, subject, label), f"/people/{ANA}", login, headers=headers))
        self.records.people.append(person("ACCENTED01", "Anita", password=ACCENTED_HASH))
        for label, scheme, coding in (("password in Latin-1", "Basic", "latin-1"), ("password in UTF-8", "Basic", "utf-8"),
                                      ("scheme in lower case", "basic", "utf-8")):
            login = scheme + " " + base64.b64encode(f"ACCENTED01:{ACCENTED}".encode(coding)).decode()
            self.reading.append(Case(PERSON, "GET", ("end_user", "own", label), "/people/ACCENTED01", login))

    def make_matrix(self):
        """Every method that writes, on every route, by everybody, with an empty object."""
        for route in ROUTES:
            for method in ("POST", "PATCH", "PUT", "DELETE"):
                for who, login, account in self.strangers():
                    subject = self.new_person() if account == ANA else account
                    self.empty_object(route, method, who, login, subject, *labels_of(who)[1:])
                for who, login in {"role unknown to the rules": (NEW_ROLE, PASSWORD), **STAFF}.items():
                    self.empty_object(route, method, who, login, self.new_person(), "of another")
                subject = self.new_person()
                self.empty_object(route, method, "end_user", (subject, PASSWORD), subject, "own")
                self.empty_object(route, method, "end_user", (ANA, PASSWORD), self.new_person(), "of another")
                self.empty_object(route, method, "root", STAFF["root"], f"NEW{next(self.numbers):05}", "no such person")
        for who, login in STAFF.items():
            subject = self.new_person(active=False)
            self.empty_object(PERSON, "DELETE", who, login, subject, "inactive")

    def empty_object(self, route, method, who, login, account, *labels):
        has_page = route == PAGE and "no such person" not in labels
        identifier = self.new_page(account) if has_page else "no-such-page"
        path = path_of(route, account, identifier)
        more = {"then_read": path} if route in (PERSON, PAGE) else {}
        self.write(route, method, (who, *labels, "empty object"), path, login, b"{}", is_form=False, **more)

    def make_people(self):
        for who, login in STAFF.items():
            for label, body, more in bodies.NEW_PEOPLE:
                number = next(self.numbers)
                account = more.get("account", "NEW{}").replace("{}", f"{number:05}").replace("{letter}", who[0].upper())
                stored = more.get("stored", account).replace("{}", f"{number:05}")
                self.person("POST", who, login, account, "new person", label, body, more, stored)
            for label, body, more in bodies.KNOWN_PEOPLE:
                account = self.new_person()
                path = account.lower() if more.get("folds") else account
                self.person("POST", who, login, path, "person exists", label, body, more, account)
            for label, body, more in bodies.CHANGES:
                account = self.new_person()
                path = account.lower() if more.get("folds") else account
                self.person("PATCH", who, login, path, "of another", label, body, more, account)
            account = f"NEW{next(self.numbers):05}"
            self.person("PATCH", who, login, account, "no such person", "a field", lambda *_: {"name": "X"}, {}, account)
        for label, body, more in bodies.CHANGES:
            account = self.new_person()
            path = account.lower() if more.get("folds") else account
            self.person("PATCH", "end_user", (account, PASSWORD), path, "own", label, body, more, account)
        account = self.new_person()
        self.person("PATCH", "end_user", (ANA, PASSWORD), account, "of another", "a field", lambda *_: {"name": "X"}, {},
                    account)

    def person(self, method, who, login, in_path, subject, label, body, more, stored):
        password = more.get("password")
        self.write(PERSON, method, (who, subject, label), "/people/" + in_path, login, bodies.encoder(body, in_path, None),
                   headers=more.get("headers", {}), then_read="/people/" + stored,
                   then_login=(stored, password) if password else None)

    def make_pages(self):
        def callers():
            account = self.new_person()
            yield "end_user", (account, PASSWORD), account, "own"
            for who, login in STAFF.items():
                yield who, login, self.new_person(), "of another"
        for label, body, more in bodies.NEW_PAGES:
            for who, login, account, subject in callers():
                identifier = more.get("page", "new-{}").replace("{}", f"{next(self.numbers):05}")
                if more.get("exists"):
                    identifier = self.new_page(self.new_person() if more["exists"] == "elsewhere" else account)
                if more.get("exists") == "as sent":
                    self.records.pages[-1] = {"_id": identifier, "book": account, **bodies.HMIS_PAGE}
                account = "NOSUCH0002" if more.get("nobody") else account.lower() if more.get("folds") else account
                if more.get("nobody") and who == "end_user":
                    continue
                self.page("POST", who, login, account, identifier, subject, label, body, more)
        for label, body, more in bodies.PAGE_CHANGES:
            for who, login, account, subject in callers():
                identifier = "no-such-page" if more.get("absent") else self.new_page(
                    self.new_person() if more.get("elsewhere") else account)
                self.page("PATCH", who, login, account, identifier, subject, label, body, more)
        for who, login, account, subject in callers():
            identifier = f"new%2F{next(self.numbers):05}"
            self.page("POST", who, login, account, identifier, subject, "slash in the id", bodies.NEW_PAGES[0][1], {})
        account = self.new_person()
        self.page("POST", "end_user", (ANA, PASSWORD), account, f"new-{next(self.numbers):05}", "of another", "a page",
                  bodies.NEW_PAGES[0][1], {})
        identifier = self.new_page(account)
        self.page("PATCH", "end_user", (ANA, PASSWORD), account, identifier, "of another", "a field",
                  lambda *_: {"summary": "X"}, {})
        # Records that others refer to, and the route that lists them.
        self.write(BOOK, "POST", ("root", "of another", "a page"), f"/pols/{account}", STAFF["root"], json_bytes({}))

    def page(self, method, who, login, account, identifier, subject, label, body, more):
        path = f"/pols/{account}/{identifier}"
        self.write(PAGE, method, (who, subject, label), path, login, bodies.encoder(body, account, identifier),
                   headers=more.get("headers", {}), then_read=path)

    def make_forms(self):
        for label, fields, password in bodies.FORMS:
            account = self.new_person()
            self.write(FORM, "POST", ("end_user", "own", label), f"/password/{account}", (account, PASSWORD), fields,
                       then_login=(account, password), is_form=True)
            account = self.new_person()
            self.write(FORM, "POST", ("root", "of another", label), f"/password/{account}", STAFF["root"], fields,
                       then_login=(account, password), is_form=True)
        account = self.new_person()
        fields = bodies.FORMS[0][1]
        self.write(FORM, "POST", ("end_user", "of another", "new password twice"), f"/password/{account}", (ANA, PASSWORD),
                   fields, is_form=True)
        self.write(FORM, "POST", ("root", "no such person", "new password twice"), "/password/NOSUCH0003", STAFF["root"],
                   fields, is_form=True)

