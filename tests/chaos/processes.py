"""Starts and ends the real processes: one centre, some nodes. Each has a directory of its own below the world's.

Every process is ended by its own pid. Ports come from the kernel, all on 127.0.0.1.
"""
import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pymongo
from pymongo.write_concern import WriteConcern

ROOT = ("ARGBUE111FAV", "freedom")


def free_port():
    """Returns a port that the kernel says is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Processes:
    """All processes of this program that may still run."""

    def __init__(self):
        self.all = []

    def start(self, command, log):
        with open(log, "ab") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       start_new_session=True)
        self.all.append(process)
        return process

    def end_all(self):
        for process in self.all:
            if process.poll() is None:
                process.kill()
        for process in self.all:
            process.wait()
        self.all = []


class Centre:
    """The MongoDB of the federation. Its directory can be copied at any moment and set back later."""

    def __init__(self, processes, directory):
        self.processes, self.directory = processes, directory
        self.data = os.path.join(directory, "centre")
        self.port = free_port()
        self.process = None
        self.executable = os.path.join(os.path.dirname(sys.executable), "secantusd-py")
        self.client = pymongo.MongoClient(
            f"mongodb://127.0.0.1:{self.port}/?directConnection=true", connect=False, retryWrites=False,
            retryReads=True, serverSelectionTimeoutMS=4000, socketTimeoutMS=8000)
        # The server keeps a write through a kill only if it was asked for this.
        self.database = self.client.get_database("federation", write_concern=WriteConcern(w="majority", j=True))

    def start(self):
        self.process = self.processes.start(
            [self.executable, "--host", "127.0.0.1", "--port", str(self.port), "--storage-path", self.data,
             "--log-level", "WARNING"], os.path.join(self.directory, "centre.log"))
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.5).close()
                self.client.admin.command("ping")
                return
            except (OSError, pymongo.errors.PyMongoError):
                if self.process.poll() is not None:
                    raise RuntimeError("the centre ended: see centre.log")
                time.sleep(0.05)
        raise RuntimeError("the centre does not answer")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def copy(self, target):
        """Copies the files while the process stands still, as a snapshot of the file system would."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            shutil.copytree(self.data, target)
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def set_back(self, copy):
        """Puts a copy in the place of the data. The process must be dead."""
        shutil.rmtree(self.data)
        shutil.copytree(copy, self.data)


class Answer:
    """What a node answered: status, parsed body, ETag."""

    def __init__(self, status, body, etag):
        self.status, self.body, self.etag = status, body, etag

    @property
    def good(self):
        return 200 <= self.status < 300


class Node:
    """One thalamus-edge process with its data directory, spoken to over HTTP and its commands only."""

    def __init__(self, processes, directory, name, binary, central_port, continuous):
        self.processes, self.name, self.binary, self.continuous = processes, name, binary, continuous
        self.central_port = central_port
        self.directory = os.path.join(directory, name)
        os.makedirs(self.directory)
        self.data = os.path.join(self.directory, "data")
        self.log = os.path.join(self.directory, "log")
        self.configuration = os.path.join(self.directory, "config.toml")
        self.port = free_port()
        self.process = None
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(
                f'data_dir = "{self.data}"\n[node]\nname = "{name}"\n'
                f'[server]\nlisten = "127.0.0.1:{self.port}"\ntls = false\n[accounts]\nbcrypt_cost = 4\n'
                f'[central]\nuri = "mongodb://127.0.0.1:{central_port}/?directConnection=true"\n'
                f'schedule = "0 0 0 1 1 *"\nverify_schedule = ""\njitter_s = 0\nround_timeout_s = 10\n'
                f'continuous = {"true" if continuous else "false"}\n[backup]\nschedule = ""\n')

    @property
    def runs(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        self.process = self.processes.start(
            [self.binary, "serve", "--config", self.configuration, "--demo"], self.log)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {self.last_log()}")
            try:
                if self.call("GET", "/healthz", timeout=2).status == 200:
                    return
            except (OSError, http.client.HTTPException):
                time.sleep(0.03)
        raise RuntimeError(f"{self.name} does not answer: {self.last_log()}")

    def last_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()[-600:]

    def end(self, sign=signal.SIGKILL):
        if self.runs:
            self.process.send_signal(sign)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def call(self, method, path, body=None, raw=None, headers=None, timeout=15):
        """One request as root. Raises OSError or HTTPException where there is no whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        fields = {"Authorization": "Basic " + base64.b64encode(":".join(ROOT).encode()).decode()}
        fields.update(headers or {})
        data = raw if raw is not None else (None if body is None else json.dumps(body).encode())
        try:
            connection.request(method, path, data, fields)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        try:
            parsed = json.loads(content) if content else None
        except ValueError:
            parsed = content
        return Answer(response.status, parsed, response.getheader("ETag"))

    def command(self, *arguments, timeout=60):
        """Runs a command of the program on this node. Returns exit code and output."""
        result = subprocess.run([self.binary, "--config", self.configuration, *arguments], capture_output=True,
                                text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)
        return result.returncode, result.stdout + result.stderr

    def export(self):
        """Stops the node, exports all records, starts it again. Returns collection -> id -> document."""
        self.end(signal.SIGTERM)
        target = os.path.join(self.directory, "export")
        shutil.rmtree(target, ignore_errors=True)
        code, output = self.command("export", target)
        records = {}
        try:
            if code != 0:
                raise RuntimeError(f"{self.name}: export failed: {output[-300:]}")
            for file in os.listdir(target):
                # Conflicts and deleted bodies are no records.
                if file.endswith(".jsonl") and not file.startswith("edge_"):
                    with open(os.path.join(target, file), encoding="utf-8") as lines:
                        documents = [json.loads(line) for line in lines if line.strip()]
                    records[file[:-6]] = {d["_id"]: d for d in documents if isinstance(d["_id"], str)}
        finally:
            shutil.rmtree(target, ignore_errors=True)
            self.start()
        return records
