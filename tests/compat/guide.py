"""The commands of docs/MIGRATION.md: each block of commands has a comment before it that names the step."""
import itertools
import json
import os
import re
import shutil
import subprocess

from servers import PROJECT

DOCUMENT = os.path.join(PROJECT, "docs", "MIGRATION.md")
MARK = re.compile(r"<!-- (step: )?(.*) -->")


def read_blocks(path=DOCUMENT):
    """Returns the marked blocks by name: the commands of steps, and the lines of configurations."""
    blocks, name, lines = {}, None, []
    with open(path, encoding="utf-8") as file:
        for line in [*file, "end\n"]:
            mark = MARK.fullmatch(line.strip())
            if name and not mark and (line.startswith("    ") or not line.strip()):
                lines.append(line[4:].rstrip("\n"))
                continue
            if line.startswith("    "):
                raise ValueError(f"{path}: a block without a comment that names its step: {line.strip()}")
            if name:
                blocks[name] = "\n".join(lines).strip() + "\n"
            name, lines = mark[2] if mark else None, []
            if name in blocks:
                raise ValueError(f"{path}: two blocks are called {name}")
    return blocks


def read_added_names(path=DOCUMENT):
    """Returns the names that the document says to add to GET, by role."""
    with open(path, encoding="utf-8") as file:
        lines = iter([line.strip() for line in file])
    for line in lines:
        if line == "| role | to `GET` |":
            next(lines)
            break
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return {re.search("`(.*?)`", row)[1]: json.loads(f"[{row.split('`')[3]}]") for row in rows}


class Guide:
    """Does what the document says, in a directory that stands for the machine of a clinic."""

    def __init__(self, node, directory, environment):
        self.node, self.directory = node, directory
        self.blocks, self.done = read_blocks(), set()
        self.programs = os.path.join(directory, "bin")
        os.makedirs(self.programs)
        os.symlink(node.binary, os.path.join(self.programs, "thalamus-edge"))
        self.environment = {**environment, "PATH": f"{self.programs}:/usr/local/bin:/usr/bin:/bin",
                            "THALAMUS_EDGE_CONFIG": node.configuration}

    def add_program(self, name, lines):
        path = os.path.join(self.programs, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(lines)
        os.chmod(path, 0o755)

    def place(self, text):
        """The directories of the test in the place of the machine's."""
        for known in ("/etc/thalamus-edge", "/opt/gnuhealth"):
            text = text.replace(known, self.directory + known)
        return text

    def configuration(self, name):
        self.done.add(name)
        return self.place(self.blocks[name])

    def step(self, name):
        """Runs the commands of a step, and returns what they print. `systemctl` starts and stops the node itself."""
        self.done.add(name)
        output, waiting = "", []
        for line in [*self.place(self.blocks[name]).splitlines(), ""]:
            if line in ("systemctl stop thalamus-edge", "systemctl start thalamus-edge"):
                output += self.shell(waiting)
                waiting = []
                self.node.start() if "start" in line else self.node.stop()
            else:
                waiting.append(line)
        return output + self.shell(waiting)

    def shell(self, lines):
        script = "\n".join(lines).strip()
        if not script:
            return ""
        done = subprocess.run([shutil.which("bash"), "-euo", "pipefail", "-c", script], cwd=self.directory, text=True,
                              capture_output=True, env=self.environment, stdin=subprocess.DEVNULL, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(f"{script}\nended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout + done.stderr
