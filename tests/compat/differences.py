"""Sends every case to all servers and compares what they did with the table of docs/COMPATIBILITY.md."""
import json
import os
import threading
import time
from collections import Counter

import answers
import mutations
import table
from cases import STAFF, Cases
from people import Records
from servers import PROJECT, Mongo, Node, Postgres, Thalamus

DOCUMENT = os.path.join(PROJECT, "docs", "COMPATIBILITY.md")
ROLES = os.path.join(PROJECT, "etc", "roles.cfg")
#: Complaints that are printed in full.
SHOWN_MAX = 300
#: Cases that are named for each row that is too wide.
HIDDEN_SHOWN_MAX = 12
SECTIONS = '[accounts]\nbcrypt_cost = 4\nroles_file = "{roles}"\n[backup]\nschedule = ""\n'


def write_roles(path):
    """The node's rules as both lines of Thalamus read them: `global` is a text there."""
    with open(ROLES, encoding="utf-8") as file:
        roles = json.load(file)
    for role in roles:
        role["permissions"]["global"] = "True" if role["permissions"]["global"] else "False"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(roles, file)


def start_all(processes, binary, records):
    """Starts everything, filled alike. Returns the servers by version: (Thalamus, node, name of the id in bodies)."""
    roles = os.path.join(processes.directory, "roles.cfg")
    write_roles(roles)
    postgres, mongo = Postgres(processes), Mongo(processes)
    postgres.start()
    mongo.start()
    today = Thalamus(processes, "0.9.18", {}, postgres.environment)
    older = Thalamus(processes, "0.9.4", {"MONGO_URI": f"mongodb://127.0.0.1:{mongo.port}/federation"})
    records.fill_postgres(postgres, os.path.join(today.directory, "demo", "federation_schema.sql"))
    records.fill_mongo(mongo)
    today.start(roles)
    older.start(roles)
    servers = {}
    for thalamus, name, id_name, with_dates in ((today, "0.9.18", "id", False), (older, "0.9.4", "_id", True)):
        node = Node(processes, "node-" + name, binary, SECTIONS.format(roles=roles))
        records.fill_node(node, with_dates)
        servers[name] = (thalamus, node, id_name)
    return servers


def ask_all(servers, cases):
    """Returns what each server did with each case. All servers are asked at the same time, each in one order."""
    results, failures = {}, []

    def run(server, id_name):
        try:
            results[server.name] = [answers.perform(server, case, id_name, number, STAFF["root"])
                                    for number, case in enumerate(cases)]
        except Exception as error:  # told by the thread that waits
            failures.append(f"{server.name}: {error!r}")

    threads = [threading.Thread(target=run, args=(server, id_name))
               for thalamus, node, id_name in servers.values() for server in (thalamus, node)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError("; ".join(failures))
    return results


def describe(seen):
    return f"{seen.answer.status} {dict(seen.answer.headers)} {seen.answer.body[:300]!r}"


def run(processes, binary, is_showing):
    """Compares. Returns whether every difference has a row and every row a difference."""
    began = time.monotonic()
    rows, records = table.read_rows(DOCUMENT), Records()
    cases = Cases(records).all
    servers = start_all(processes, binary, records)
    ready = time.monotonic()
    results = ask_all(servers, cases)
    unexplained, hiding, count, equal = [], {}, 0, 0
    for version, (thalamus, node, _) in servers.items():
        for case, upstream, ours in zip(cases, results[thalamus.name], results[node.name]):
            found = [table.Difference(version, case, *difference) for difference in answers.differences(upstream, ours)]
            equal += not any(difference.what == "answer" for difference in found)
            for difference in found:
                count += 1
                has_row = table.explain(rows, difference)
                if not has_row:
                    unexplained.append(difference)
                if is_showing:
                    print("row:" if has_row else "NO ROW:", difference)
                    print(f"    {describe(upstream)}\n    {describe(ours)}")
            for row, refusal in mutations.hidden(rows, version, case, *map(answers.summary, (upstream.answer, ours.answer))):
                hiding.setdefault((row.line, refusal), []).append(case)
            if ours.answer.status >= 500 or ours.answer.status == 0:
                unexplained.append(table.Difference(version, case, "answer", "-", describe(ours)))
    print_unexplained(unexplained)
    print("differences by row (0.9.18, 0.9.4):")
    for row in rows:
        print(f"  {row.used['0.9.18']:5} {row.used['0.9.4']:5}  {row}")
    stale = [(row, column, option) for row in rows for column, option in row.stale()]
    for row, column, option in stale:
        print(f"wrong: line {row.line} of docs/COMPATIBILITY.md: {column}: no difference is {option!r}: {row}")
    for (line, refusal), found in sorted(hiding.items(), key=lambda item: item[0]):
        labels = "; ".join(sorted({", ".join(case.labels) for case in found})[:HIDDEN_SHOWN_MAX])
        print(f"wrong: line {line} of docs/COMPATIBILITY.md would hide {refusal} where the node takes {len(found)} cases: "
              f"{labels}")
    print(f"{len(cases)} requests compared with each of 2 versions in {time.monotonic() - ready:.0f} s (and "
          f"{ready - began:.0f} s to begin): {equal} of {2 * len(cases)} pairs of answers have the same status and shape, "
          f"{count} differences, {len(rows)} rows, {len(unexplained)} differences without a row, {len(stale)} cells without "
          f"a difference, {len(hiding)} refusals that rows would hide")
    return not unexplained and not stale and not hiding


def print_unexplained(unexplained):
    kinds = Counter((d.version, d.case.route, d.case.method, d.what, d.upstream, d.node) for d in unexplained)
    shown = Counter()
    for difference in unexplained:
        kind = (difference.version, difference.case.route, difference.case.method, difference.what, difference.upstream,
                difference.node)
        if shown[kind] == 0 and len(shown) < SHOWN_MAX:
            print(f"wrong: no row for {difference} ({kinds[kind]} times)")
        shown[kind] += 1
    if len(kinds) > SHOWN_MAX:
        print(f"wrong: and {len(kinds) - SHOWN_MAX} other kinds of differences without a row")
