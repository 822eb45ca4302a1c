"""What clients see of an answer, in the words of the table, and where two answers differ."""
import html.parser
import json
import urllib.parse
from dataclasses import dataclass

from cases import basic
from servers import Answer

#: Compared where both answers have the same status.
HEADERS = ("WWW-Authenticate", "Location", "ETag", "Content-Type")
#: Compared always: what a browser asks of a server before it lets a page of another site use it.
HEADERS_OF_ALL = ("Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers",
                  "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers", "Access-Control-Max-Age")
#: As much of a value as the table shows.
VALUE_LETTERS_MAX = 60


@dataclass
class Seen:
    """What one server did with a case."""
    answer: Answer
    #: What root reads afterwards, and whether the new password works.
    then: Answer = None
    login: str = None


class Inputs(html.parser.HTMLParser):
    """The input fields of a form with their values."""

    def __init__(self, page):
        super().__init__()
        self.fields = {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "input" and "name" in attributes:
            self.fields[attributes["name"]] = attributes.get("value", "")


def address(number):
    """A client's address of its own for each case: failed logins count for each."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


def perform(server, case, id_name, number, root):
    source = address(number)
    headers, body = {**basic(case.login), **case.headers}, case.body_for(id_name) if not case.is_form else None
    if case.is_form:
        body = fill_form(server, case, headers, source)
    try:
        answer = server.ask(case.method, case.path, headers, body, source)
    except (OSError, EOFError) as error:
        answer = Answer(0, {}, repr(error).encode())
    seen = Seen(answer)
    if case.then_read:
        seen.then = server.ask("GET", case.then_read, basic(root))
    if case.then_login:
        account = case.then_login[0]
        status = server.ask("GET", "/people/" + account, basic(case.then_login), source=address(number + 100_000)).status
        seen.login = "works" if status == 200 else "refused"
    return seen


def fill_form(server, case, headers, source):
    """Reads the form as a browser does, and returns what it sends."""
    form = server.ask("GET", case.path, headers, source=source)
    fields = dict(case.body)
    if form.status == 200:
        fields = {"csrf_token": Inputs(form.body.decode()).fields.get("csrf_token", ""), **fields}
    if "set-cookie" in form.headers:
        headers["Cookie"] = form.headers["set-cookie"].split(";")[0]
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    return urllib.parse.urlencode(fields).encode()


def parsed(answer):
    """The JSON of an answer, or None where it is none."""
    if answer.media not in ("application/json", "application/problem+json"):
        return None
    try:
        return answer.json()
    except ValueError:
        return None


def shape(answer):
    if not answer.body:
        return "empty"
    if answer.media == "text/html":
        return "page"
    try:
        value = answer.json()
    except ValueError:
        return "text"
    if isinstance(value, dict):
        return "record"
    if isinstance(value, list):
        if not value:
            return "empty list"
        if all(isinstance(row, dict) for row in value):
            return "list of records"
        if all(isinstance(row, list) and len(row) == 1 for row in value):
            return "list of lists"
        return "list of rows"
    return json.dumps(value) if value is None or isinstance(value, bool) else type(value).__name__


def summary(answer):
    """`404`, or `200 list of records`."""
    if answer.status == 0:
        return "no answer"
    return f"{answer.status}" if answer.status >= 400 else f"{answer.status} {shape(answer)}"


def error_body(answer):
    value = parsed(answer)
    return "{" + ", ".join(sorted(value)) + "}" if isinstance(value, dict) else shape(answer)


def by_id(value):
    """The records of a list of any shape, by id."""
    records = [row[0] if isinstance(row, list) else row for row in value]
    return {record.get("_id", record.get("id")): record for record in records if isinstance(record, dict)}


def short(value):
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= VALUE_LETTERS_MAX else text[:VALUE_LETTERS_MAX] + "…"


def header(answer, name):
    value = answer.headers.get(name.lower())
    if value is None:
        return "none"
    if name in ("Allow", "Access-Control-Allow-Methods"):
        return ", ".join(sorted(part.strip() for part in value.split(",")))
    if name == "ETag":
        return "set"
    return value.split(";")[0] if name == "Content-Type" else value


def differences(upstream, node):
    """Returns what differs: (what, upstream's, the node's), all text."""
    yield from of_answers(upstream.answer, node.answer, "")
    # What a server does not accept it does not store.
    if (upstream.answer.status < 400) == (node.answer.status < 400):
        if upstream.then is not None:
            yield from of_answers(upstream.then, node.then, "then ")
        if upstream.login != node.login:
            yield "then login", upstream.login, node.login


def of_answers(upstream, node, when):
    if summary(upstream) != summary(node):
        yield when + "answer", summary(upstream), summary(node)
    if not when:
        names = HEADERS_OF_ALL + (HEADERS if upstream.status == node.status else ())
        if upstream.status == node.status or max(upstream.status, node.status) < 400:
            names += ("Allow",)
        if summary(upstream) != summary(node) or upstream.status >= 400:
            # Told by the shape of the body, or by what an error is.
            names = [name for name in names if name != "Content-Type"]
        for name in names:
            if header(upstream, name) != header(node, name):
                yield f"{when}header {name}", header(upstream, name), header(node, name)
    if upstream.status >= 400 and node.status >= 400:
        if not when and upstream.body + node.body:
            yield from of_errors(upstream, node)
    elif upstream.status < 400 and node.status < 400:
        yield from of_values(parsed(upstream), parsed(node), when)
        if not when and shape(upstream) == shape(node) == "page":
            names = [", ".join(sorted(Inputs(answer.body.decode()).fields)) or "none" for answer in (upstream, node)]
            if names[0] != names[1]:
                yield "form fields", *names


def of_errors(upstream, node):
    if error_body(upstream) != error_body(node):
        yield "error body", error_body(upstream), error_body(node)
    sentences = [(parsed(answer) or {}).get("error", "") if isinstance(parsed(answer), dict) else ""
                 for answer in (upstream, node)]
    if upstream.status == node.status and sentences[0] and sentences[0] != sentences[1]:
        yield "error sentence", *sentences


def of_values(upstream, node, when):
    if isinstance(upstream, list) and isinstance(node, list):
        ours, theirs = by_id(node), by_id(upstream)
        if list(theirs) != list(ours) and sorted(map(str, theirs)) == sorted(map(str, ours)):
            yield when + "order", "as stored", "by id" if list(ours) == sorted(ours) else "another"
        for name, first, second in (("only there", theirs, ours), ("only here", ours, theirs)):
            if set(first) - set(second):
                yield f"{when}records {name}", str(len(set(first) - set(second))), "0"
        told = set()
        for identifier in sorted(set(theirs) & set(ours), key=str):
            for difference in of_records(theirs[identifier], ours[identifier], when):
                # Values of many records that differ alike are one difference.
                if difference not in told:
                    told.add(difference)
                    yield difference
    elif isinstance(upstream, dict) and isinstance(node, dict):
        yield from of_records(upstream, node, when)
    elif (upstream is None or isinstance(upstream, bool)) and upstream == node:
        return


def of_records(upstream, node, when):
    for name in sorted(set(upstream) | set(node)):
        if name not in node:
            yield f"{when}field {name}", "shown", "absent"
        elif name not in upstream:
            yield f"{when}field {name}", "absent", "shown"
        elif upstream[name] != node[name] or type(upstream[name]) is not type(node[name]):
            yield f"{when}value {name}", short(upstream[name]), short(node[name])
