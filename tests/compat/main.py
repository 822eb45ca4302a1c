"""Compares a node with the real Thalamus, and moves clinics from it: see tests/compat/run."""
import argparse
import os
import shutil
import sys
import tempfile

import differences
import migration
from servers import PROJECT, Processes


def main():
    parser = argparse.ArgumentParser(prog="tests/compat/run")
    parser.add_argument("--binary", default=os.path.join(PROJECT, "target", "debug", "thalamus-edge"))
    parser.add_argument("--only", choices=("differences", "migration"))
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if not os.path.exists(arguments.binary):
        parser.error(f"{arguments.binary} is missing: cargo build, or --binary")
    parts = {"differences": lambda processes: differences.run(processes, arguments.binary, arguments.show),
             "migration": lambda processes: migration.run(processes, arguments.binary)}
    good = True
    for name, part in parts.items():
        if arguments.only in (None, name):
            good &= run_part(name, part, arguments.keep)
    sys.exit(0 if good else 1)


def run_part(name, part, is_kept):
    directory = tempfile.mkdtemp(prefix=f"compat-{name}.")
    # An unprivileged PostgreSQL lives below it.
    os.chmod(directory, 0o755)
    processes = Processes(directory)
    try:
        good = part(processes)
        print(f"{name}: {'passed' if good else 'FAILED'}")
        return good
    finally:
        processes.end_all()
        if is_kept:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
