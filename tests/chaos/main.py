"""Runs worlds of chaos and judges them. See the file `run` for how to call it."""
import argparse
import os
import random
import signal
import sys
import time

import selftest
import settling
from checker import Check
from plan import THEMES, Plan
from world import World

WORST_FIRST = ("misplaced", "invented", "silently overwritten", "lost", "not equal", "says up to date", "not quiet")


def arguments():
    parser = argparse.ArgumentParser(prog="tests/chaos/run", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed and print its whole story")
    parser.add_argument("--from", type=int, dest="first", help="the first of many seeds (by default a random one)")
    parser.add_argument("--seconds", type=float, default=60, help="begin new seeds for so long (60)")
    parser.add_argument("--nodes", type=int, default=4, help="most nodes of a world (4)")
    parser.add_argument("--binary", default="target/debug/thalamus-edge", help="the program to be tried")
    parser.add_argument("--only", help="of a seed do only these actions, as in 3,7-9")
    parser.add_argument("--minimize", action="store_true", help="look for the few actions of a seed that suffice")
    parser.add_argument("--themes", default=",".join(THEMES), help="what may go wrong, by default all: %(default)s")
    parser.add_argument("--without", default="", help="themes to leave out")
    parser.add_argument("--kind", help="the kind of complaint to minimize for, as in 'not equal'")
    parser.add_argument("--keep", action="store_true", help="keep the directories with data and logs")
    parser.add_argument("--selftest", action="store_true", help="check the checker")
    options = parser.parse_args()
    options.themes = [theme for theme in options.themes.split(",") if theme not in options.without.split(",")]
    return options


def numbers(text):
    """Reads 3,7-9 as the set of 3, 7, 8, 9."""
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def judge(seed, options, only=None):
    """Runs one world. Returns its history, its plan and the complaints."""
    plan = Plan(seed, options.nodes, options.themes)
    if only is not None:
        plan.actions = [action for action in plan.actions if action["number"] in only]
    world = World(plan, os.path.abspath(options.binary), options.keep)
    try:
        world.begin()
        world.run()
        settling.settle(world)
        complaints = Check(world.history, settling.observe(world)).run()
        if not complaints and plan.verify_at_end:
            settling.verify(world)
            complaints = Check(world.history, settling.observe(world)).run()
    finally:
        world.end()
        if options.keep:
            print(f"kept: {world.directory}")
    return world.history, plan, complaints


def describe(seed, plan, history, complaints, whole):
    """Prints the complaints of one seed, with the story of each record."""
    print(f"seed {seed}: {plan.nodes} nodes, {sum(plan.continuous)} of them continuous, "
          f"themes {', '.join(plan.themes)}")
    if whole:
        for action in plan.actions:
            print("  plan", action)
        lines = sorted(history.story + [(event.start, event.line()) for event in history.events])
        for _, line in lines:
            print(" ", line)
    told = set()
    for complaint in sorted(complaints, key=lambda c: c.record):
        print(f"seed {seed} {complaint.kind.upper()} {'/'.join(complaint.record)} "
              f"{'.'.join(complaint.path)} {complaint.value}: {complaint.text}")
        if not whole and complaint.record not in told:
            told.add(complaint.record)
            for line in history.story_of(complaint.record, complaint.owner):
                print("    ", line)


def trial_text(kept, start, size):
    """Returns the numbers of the actions that could not be left out."""
    return ",".join(map(str, kept[start:start + size]))


def minimize(seed, options):
    """Leaves out actions as long as a complaint of the first kind remains."""
    history, plan, complaints = judge(seed, options)
    if not complaints:
        print(f"seed {seed}: nothing to complain about")
        return 0
    kinds = {complaint.kind for complaint in complaints}
    print(f"seed {seed}: {len(plan.actions)} actions, {', '.join(sorted(kinds))}", flush=True)
    kind = options.kind or next(k for k in WORST_FIRST if k in kinds)
    kept = [action["number"] for action in plan.actions]
    if kind not in kinds:
        print(f"seed {seed}: nothing {kind} this time")
        return 1
    # First without the clients' work on other records: that halves most plans at once.
    first = next(complaint for complaint in complaints if complaint.kind == kind)
    wanted = {first.record[1], first.owner} | {e.owner for e in history.events if e.record == first.record}
    trial = [action["number"] for action in plan.actions
             if action["do"] not in ("client", "legacy") or action["id"] in wanted]
    tried, _, found = judge(seed, options, set(trial))
    if any(complaint.kind == kind for complaint in found):
        kept, history, complaints = trial, tried, found
        print(f"  {len(kept)} actions suffice", flush=True)
    size = max(1, len(kept) // 2)
    while True:
        start, shorter = 0, False
        while start < len(kept):
            trial = kept[:start] + kept[start + size:]
            tried, _, found = judge(seed, options, set(trial))
            if any(complaint.kind == kind for complaint in found):
                kept, history, complaints, shorter = trial, tried, found, True
                print(f"  {len(kept)} actions suffice", flush=True)
            else:
                start += size
                print(f"  needs some of {trial_text(kept, start - size, size)}", flush=True)
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    print(f"--seed {seed} --nodes {options.nodes} --themes {','.join(options.themes)} "
          f"--only {','.join(map(str, kept))}")
    for action in plan.actions:
        if action["number"] in kept:
            print("  plan", action)
    describe(seed, plan, history, [c for c in complaints if c.kind == kind], False)
    return 1


def many(options):
    """Runs seed after seed until time is up. Returns the numbers of passed and failed worlds."""
    seed = options.first if options.first is not None else random.randrange(1, 1000000)
    end = time.monotonic() + options.seconds
    passed, failed, kinds = 0, [], {}
    while time.monotonic() < end:
        begin = time.monotonic()
        history, plan, complaints = judge(seed, options)
        if complaints:
            failed.append(seed)
            describe(seed, plan, history, complaints, False)
        else:
            passed += 1
        for kind in {complaint.kind for complaint in complaints}:
            kinds.setdefault(kind, []).append(seed)
        print(f"seed {seed}: {'FAILED' if complaints else 'passed'}, {len(history.events)} events, {plan.nodes} nodes, "
              f"{', '.join(plan.themes)}, {time.monotonic() - begin:.1f} s", flush=True)
        seed += 1
    for kind, seeds in sorted(kinds.items()):
        print(f"{kind}: seeds {', '.join(map(str, seeds))}")
    return passed, len(failed)


def stop(sign, _):
    """Ends the program through its `finally` blocks, which end the processes. A second signal must not break in."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + sign)


def main():
    options = arguments()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)
    sys.stdout.reconfigure(line_buffering=True)
    passed, failed = selftest.run()
    if options.selftest or failed:
        print(f"{passed} passed, {failed} failed")
        return 1 if failed else 0
    if options.minimize:
        return minimize(options.seed, options)
    if options.seed is not None:
        only = numbers(options.only) if options.only else None
        history, plan, complaints = judge(options.seed, options, only)
        describe(options.seed, plan, history, complaints, True)
        passed, failed = (0, 1) if complaints else (1, 0)
    else:
        passed, failed = many(options)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
