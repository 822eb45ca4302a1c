"""Runs the attacks one after the other, each on a node of its own, and says what they did to it."""

import argparse
import os
import resource
import sys
import time
import traceback

import large
import records
import rights
from attacks import ATTACKS as ON_MEMORY_AND_TIME
from attacks import LONG_ONLY
from node import Node, Worker, is_debug

ATTACKS = ON_MEMORY_AND_TIME | large.ATTACKS | records.ATTACKS | rights.ATTACKS
SETTINGS = large.SETTINGS | rights.SETTINGS
#: What a release build has to keep to.
MEMORY_MB_MAX, P99_MS_MAX = 150, 50
#: A debug build takes more; its times, and those of this program beside it on a small machine, tell nothing about speed.
#: What is left is that nobody is kept waiting.
DEBUG_MEMORY_MB_MAX, DEBUG_P99_MS_MAX = 300, 10_000


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binary", default="target/debug/thalamus-edge")
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--only", default="")
    arguments.add_argument("--times", type=int, default=1)
    arguments.add_argument("--list", action="store_true")
    given = arguments.parse_args()
    if given.list:
        print("\n".join(ATTACKS))
        return 0
    names = [name for name in given.only.split(",") if name]
    names = names or [name for name in ATTACKS if not (given.quick and name in LONG_ONLY)]
    unknown = set(names) - set(ATTACKS)
    if unknown:
        print(f"no attack is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    binary = os.path.abspath(given.binary)
    memory_max, time_max = (DEBUG_MEMORY_MB_MAX, DEBUG_P99_MS_MAX) if is_debug(binary) else (MEMORY_MB_MAX, P99_MS_MAX)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{binary}: memory below {memory_max} MB, 99 of 100 answers to others within {time_max} ms")
    print(f"{'attack':<22} {'memory':>8} {'median':>8} {'p99':>8}  what came of it")
    failed = [name for name in names if not attack(name, binary, given, memory_max, time_max)]
    if failed:
        print("failed: " + ", ".join(failed))
    return 1 if failed else 0


def attack(name, binary, given, memory_max, time_max):
    run, with_large, descriptors = ATTACKS[name]
    quick, left = given.quick, []
    node = Node(binary, SETTINGS.get(name), with_large, descriptors=descriptors if quick else None)
    try:
        worker = Worker(node)
        node.forget_memory()
        worker.start()
        time.sleep(0.5)
        try:
            for _ in range(given.times):
                seen, faults = run(node, quick)
                time.sleep(2)
                left.append(f"{node.memory_now():.0f}")
        except Exception:
            seen, faults = {}, [traceback.format_exc()]
        worker.end()
        memory, p99 = node.memory(), worker.p99()
        median = sorted(worker.times)[len(worker.times) // 2] if worker.times else float("inf")
        if not node.is_alive():
            faults.append("the node has ended")
        if memory >= memory_max:
            faults.append(f"{memory:.0f} MB of memory")
        if p99 >= time_max:
            faults.append(f"others wait {p99:.0f} ms")
        if worker.failures:
            faults.append(f"others got {worker.failures[:3]} ({len(worker.failures)} times)")
        if given.times > 1:
            seen = {"left after each": " ".join(left) + " MB", **seen}
        said = ", ".join(f"{what} {figure}" for what, figure in seen.items() if figure)
        print(f"{name:<22} {memory:5.0f} MB {median:5.1f} ms {p99:5.1f} ms  {said}", flush=True)
        for fault in faults:
            print(f"    wrong: {fault}", flush=True)
        return not faults
    finally:
        node.end()


if __name__ == "__main__":
    sys.exit(main())
