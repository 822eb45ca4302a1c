"""The servers that are compared: PostgreSQL and the MongoDB of the tests, Thalamus 0.9.18 and 0.9.4, a node.

Each runs on 127.0.0.1 on a port from the kernel, with its files below one temporary directory, and is ended by its
own pid. Nothing is installed on the machine and nothing of it is used but programs.
"""
import glob
import http.client
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pymongo

PROJECT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TARGET = os.path.join(PROJECT, "target")
#: Debian's PostgreSQL: unpacked by tests/compat/run, or installed on this machine.
UNPACKED = os.path.join(TARGET, "postgresql")
POSTGRES_PLACES = ("/usr/lib/postgresql/*/bin", UNPACKED + "/usr/lib/postgresql/*/bin")
#: PostgreSQL refuses to run as root.
UNPRIVILEGED = "nobody"


def free_port():
    """Returns a port that the kernel says is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Processes:
    """All processes of this program that may still run."""

    def __init__(self, directory):
        self.directory, self.all = directory, []

    def start(self, name, command, **options):
        log = os.path.join(self.directory, name + ".log")
        with open(log, "ab") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       start_new_session=True, **options)
        self.all.append(process)
        return process

    def wait_for(self, process, name, is_ready):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {self.last_log(name)}")
            try:
                if is_ready():
                    return
            except (OSError, http.client.HTTPException, pymongo.errors.PyMongoError):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{name} does not answer: {self.last_log(name)}")

    def last_log(self, name):
        return self.whole_log(name)[-1500:]

    def whole_log(self, name):
        with open(os.path.join(self.directory, name + ".log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def end(self, process, sign=signal.SIGTERM):
        if process.poll() is None:
            process.send_signal(sign)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()

    def end_all(self):
        # The databases began first and end last.
        for process in reversed(self.all):
            self.end(process, signal.SIGINT if "postgres" in str(process.args[0]) else signal.SIGTERM)


class Postgres:
    """A cluster of its own, reached by a socket of 127.0.0.1 without a password."""

    def __init__(self, processes):
        self.processes = processes
        found = [os.path.dirname(file) for place in POSTGRES_PLACES for file in sorted(glob.glob(place + "/initdb"))]
        if not found:
            raise RuntimeError("no PostgreSQL: tests/compat/run unpacks Debian's")
        self.bin, self.port = found[0], free_port()
        self.environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PGHOST": "127.0.0.1",
                            "PGPORT": str(self.port), "PGUSER": "gnuhealth", "PGCONNECT_TIMEOUT": "10"}
        self.server_options = {}
        if os.getuid() == 0:
            account = pwd.getpwnam(UNPRIVILEGED)
            self.server_options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.make_readable()
        libraries = self.libraries()
        if libraries:
            self.environment["LD_LIBRARY_PATH"] = libraries

    def make_readable(self):
        """Copies an unpacked PostgreSQL where the unprivileged account may read it, if it may not here."""
        if not self.server_options or not self.bin.startswith(UNPACKED):
            return
        test = subprocess.run(["test", "-x", os.path.join(self.bin, "initdb")], check=False, **self.server_options)
        if test.returncode:
            copy = os.path.join(self.processes.directory, "postgresql")
            shutil.copytree(UNPACKED, copy, symlinks=True)
            os.chmod(copy, 0o755)
            self.bin = os.path.join(copy, os.path.relpath(self.bin, UNPACKED))

    def libraries(self):
        """Where the libraries of an unpacked PostgreSQL are; empty if it is installed."""
        root = self.bin[:self.bin.find("/usr/lib/postgresql")]
        found = [file for place in ("/usr/lib", "/lib") for file in glob.glob(f"{root}{place}/*/lib*.so.*")] if root else []
        return ":".join(sorted({os.path.dirname(file) for file in found}))

    def start(self):
        directory = os.path.join(self.processes.directory, "postgres")
        os.mkdir(directory)
        if self.server_options:
            os.chown(directory, self.server_options["user"], self.server_options["group"])
        data = os.path.join(directory, "data")
        subprocess.run([os.path.join(self.bin, "initdb"), "-D", data, "-U", "gnuhealth", "--auth=trust", "-E", "UTF8",
                        "--locale=C.UTF-8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, env=self.environment,
                       cwd=directory, **self.server_options)
        process = self.processes.start(
            "postgres", [os.path.join(self.bin, "postgres"), "-D", data, "-p", str(self.port), "-h", "127.0.0.1",
                         "-k", directory, "-F"], env=self.environment, cwd=directory, **self.server_options)
        # Who connects while it starts gets an error.
        self.processes.wait_for(process, "postgres", lambda: self.try_psql("SELECT 1", "postgres").returncode == 0)
        self.psql("CREATE DATABASE federation", database="postgres")

    def try_psql(self, script, database):
        return subprocess.run([self.psql_program(), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database], input=script,
                              text=True, capture_output=True, env=self.environment, check=False)

    def psql_program(self):
        return os.path.join(self.bin, "psql")

    def psql(self, script, database="federation"):
        """Runs a script of psql, and returns what it prints."""
        done = self.try_psql(script, database)
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr[-1500:]}")
        return done.stdout

    def insert(self, table, columns, rows):
        """Adds rows: text, None or, for JSON, whatever json.dumps writes."""
        lines = []
        for row in rows:
            cells = [r"\N" if cell is None else cell if isinstance(cell, str) else json.dumps(cell) for cell in row]
            lines.append("\t".join(cell if cell == r"\N" else cell.replace("\\", "\\\\").replace("\t", "\\t")
                                   .replace("\n", "\\n") for cell in cells))
        self.psql(f"COPY {table} ({', '.join(columns)}) FROM STDIN;\n" + "\n".join(lines) + "\n\\.\n")


class Mongo:
    """The MongoDB of the tests."""

    def __init__(self, processes, name="mongo"):
        self.processes, self.name, self.port = processes, name, free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        self.client = pymongo.MongoClient(self.uri, connect=False, serverSelectionTimeoutMS=4000)
        self.database = self.client.federation

    def start(self):
        server = os.path.join(os.path.dirname(sys.executable), "secantusd-py")
        process = self.processes.start(
            self.name, [server, "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "WARNING",
                        "--storage-path", os.path.join(self.processes.directory, self.name)])
        self.processes.wait_for(process, self.name, lambda: self.client.admin.command("ping"))


class Server:
    """Something that answers HTTP on a port of 127.0.0.1."""

    def __init__(self, processes, name):
        self.processes, self.name, self.port, self.process = processes, name, free_port(), None
        #: How TLS is checked; None for plain HTTP.
        self.context = None

    def wait(self):
        self.processes.wait_for(self.process, self.name, lambda: self.ask("GET", "/", {}).status > 0)

    def ask(self, method, path, headers, body=None, source="127.0.0.1", timeout=30):
        """One request on a connection of its own, from an address of this machine. Returns an Answer."""
        place = {"host": "127.0.0.1", "port": self.port, "timeout": timeout, "source_address": (source, 0)}
        connection = (http.client.HTTPSConnection(**place, context=self.context) if self.context
                      else http.client.HTTPConnection(**place))
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if body is not None or method in ("POST", "PATCH", "PUT"):
                connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders()
            if body is not None and not self.is_refused_early(connection, body):
                connection.send(body)
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()},
                          response.read())
        finally:
            connection.close()


    @staticmethod
    def is_refused_early(connection, body):
        """Whether a large body is refused by its length. A client that goes on sending may lose that answer."""
        return len(body) > 1_000_000 and bool(select.select([connection.sock], [], [], 1)[0])


class Answer:
    """Status, headers (names in lower case) and bytes."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def media(self):
        return self.headers.get("content-type", "").split(";")[0].strip()

    def json(self):
        return json.loads(self.body)


class Thalamus(Server):
    """The package as PyPI has it, in a copy whose configuration names the database, run with gunicorn as its README says."""

    def __init__(self, processes, version, settings, environment=None):
        super().__init__(processes, "thalamus-" + version)
        self.settings, self.environment = settings, environment or {}
        venv = os.path.join(TARGET, "thalamus-" + version)
        self.gunicorn = os.path.join(venv, "bin", "gunicorn")
        package, = glob.glob(os.path.join(venv, "lib", "python3*", "site-packages", "thalamus"))
        self.directory = os.path.join(processes.directory, self.name)
        shutil.copytree(package, self.directory)
        #: The rules that the package brings.
        self.shipped_roles = os.path.join(package, "etc", "roles.cfg")

    def start(self, roles=None):
        if roles is not None:
            shutil.copy(roles, os.path.join(self.directory, "etc", "roles.cfg"))
        with open(os.path.join(self.directory, "etc", "thalamus.cfg"), "a", encoding="utf-8") as file:
            for name, value in self.settings.items():
                file.write(f"\n{name} = {value!r}\n")
        self.restart()

    def restart(self):
        self.process = self.processes.start(
            self.name, [self.gunicorn, "--bind", f"127.0.0.1:{self.port}", "--workers", "1", "thalamus:app"],
            cwd=self.directory, env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **self.environment})
        self.wait()


class Node(Server):
    """A thalamus-edge with a configuration of its own. `sections` are lines of TOML."""

    def __init__(self, processes, name, binary, sections):
        super().__init__(processes, name)
        self.binary = os.path.abspath(binary)
        self.directory = os.path.join(processes.directory, name)
        os.mkdir(self.directory)
        self.configuration = os.path.join(self.directory, "config.toml")
        self.configure(f'[server]\nlisten = "127.0.0.1:{self.port}"\ntls = false\n' + sections)

    def configure(self, sections):
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(f'data_dir = "{self.directory}/data"\n' + sections)

    def start(self):
        self.process = self.processes.start(self.name, [self.binary, "serve", "--config", self.configuration],
                                            env={"PATH": "/usr/bin:/bin"})
        self.wait()

    def stop(self):
        self.processes.end(self.process)

    def whole_log(self):
        return self.processes.whole_log(self.name)

    def try_command(self, *arguments, stdin="", cwd=None):
        environment = {"PATH": "/usr/bin:/bin", "THALAMUS_EDGE_CONFIG": self.configuration}
        return subprocess.run([self.binary, *arguments], capture_output=True, text=True, input=stdin, env=environment,
                              timeout=120, cwd=cwd, check=False)

    def command(self, *arguments, stdin="", cwd=None):
        """Runs a command of the program on this node, and returns what it prints."""
        done = self.try_command(*arguments, stdin=stdin, cwd=cwd)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.returncode} {(done.stdout + done.stderr)[-1500:]}")
        return done.stdout
