"""A node that is attacked: the real binary in a directory of its own, and a user who works with it meanwhile."""

import http.client
import json
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time

from wire import Http1, basic

ROOT = ("tech@local", "correct horse battery")
#: Who works meanwhile, with an account that attacks nobody.
DESK = ("desk@local", "another horse at the desk")
PATIENT = ("ANA001", "a cradle in Milano")
#: A record as the centre may hold one: no client can make it.
LARGE_BYTES = 8_700_000


def is_debug(binary):
    """Whether it is a build whose times and memory tell little."""
    return "debug" in binary


def ask_again(is_debug, ask):
    """Status and text of an answer. A debug build on a busy machine may say 503 and when to come again, as it may to
    anybody: it is asked twice more."""
    for left in (2, 1, 0) if is_debug else (0,):
        status, fields, text = ask()
        if not left or status != 503 or "retry-after" not in fields:
            return status, text
        time.sleep(min(5, int(fields["retry-after"])))


class Node:
    def __init__(self, binary, settings=None, with_large=False, descriptors=None):
        self.binary, self.process = binary, None
        self.is_debug = is_debug(binary)
        self.directory = tempfile.mkdtemp(prefix="attacked.")
        own = {"NODE__NAME": "attacked", "SERVER__LISTEN": "127.0.0.1:0", "ACCOUNTS__BCRYPT_COST": "12",
               "CENTRAL__URI": "", "SERVER__TRUSTED_PROXIES": '["127.0.0.9"]'}
        large = {"API__RECORD_LIMIT_BYTES": "15 MiB", "API__BODY_LIMIT_BYTES": "16 MiB"} if with_large else {}
        self.start({**own, **large, **(settings or {})}, None if with_large else descriptors)
        self.operator("POST", "/users/" + ROOT[0], {"password": ROOT[1], "roles": ["root"], "local": True}, 201)
        self.operator("POST", "/users/" + DESK[0], {"password": DESK[1], "roles": ["root"], "local": True}, 201)
        root = self.client(ROOT)
        person = {"name": "Ana", "lastname": "Betz", "gender": "f", "roles": ["end_user"], "active": True,
                  "password": PATIENT[1]}
        if with_large:
            person["history"] = ["x" * 1000 for _ in range(LARGE_BYTES // 1000)]
        self.done(root, "POST", "/people/" + PATIENT[0], person)
        for number in range(60):
            about = {"name": f"Person {number}", "lastname": "y" * 20_000, "gender": "m"}
            self.done(root, "POST", f"/people/P{number:03}", about)
        self.done(root, "POST", "/personal-documents/d1", {"fedacct": PATIENT[0]})
        if with_large:
            self.stop()
            self.start({**own, **(settings or {})}, descriptors)

    def start(self, settings, descriptors):
        environment = {"PATH": "/usr/bin:/bin", "THALAMUS_EDGE_LOG": "info",
                       "THALAMUS_EDGE__DATA_DIR": self.directory + "/data"}
        environment |= {"THALAMUS_EDGE__" + name: value for name, value in settings.items()}
        self.log = open(self.directory + "/log", "ab+")
        begin = self.log.seek(0, 2)
        limits = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))) if descriptors else None
        self.process = subprocess.Popen([self.binary, "serve"], env=environment, stdout=subprocess.DEVNULL,
                                        stderr=self.log, cwd=self.directory, preexec_fn=limits)
        for _ in range(1200):
            self.log.seek(begin)
            for line in self.log.read().decode(errors="replace").splitlines():
                if line.startswith("listening on https://"):
                    host, port = line.split("//")[1].strip().rsplit(":", 1)
                    self.address = (host, int(port))
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("the node does not start:\n" + open(self.directory + "/log").read())

    def client(self, who, source="127.0.0.1", headers=()):
        return Http1(self.address, source, basic(*who) if who else None, headers)

    def done(self, client, method, path, value):
        body = json.dumps(value).encode()
        status, _, answer = client.ask(method, path, body, [("Content-Type", "application/json")])
        if not 200 <= status < 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:300]!r}")

    def operator(self, method, path, value, expected):
        class Local(http.client.HTTPConnection):
            def connect(inner):
                inner.sock = socket.socket(socket.AF_UNIX)
                inner.sock.connect(self.directory + "/data/control.sock")
        call = Local("localhost")
        call.request(method, path, json.dumps(value), {"Content-Type": "application/json"})
        status = call.getresponse().status
        if status != expected:
            raise RuntimeError(f"{method} {path}: {status}")

    def memory(self):
        """Most resident bytes since the last call of forget_memory, in MB."""
        return self._status("VmHWM")

    def memory_now(self):
        """Resident bytes, in MB."""
        return self._status("VmRSS")

    def _status(self, name):
        try:
            for line in open(f"/proc/{self.process.pid}/status"):
                if line.startswith(name):
                    return int(line.split()[1]) / 1000
        except OSError:
            pass
        return float("inf")

    def log_bytes(self):
        return os.path.getsize(self.directory + "/log")

    def forget_memory(self):
        open(f"/proc/{self.process.pid}/clear_refs", "w").write("5")

    def is_alive(self):
        return self.process.poll() is None

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Worker:
    """A user who has logged in and reads a record every 20 ms, on a connection of their own and in a process of their own: the
    threads of an attack take turns in one interpreter, and a reader among them would wait for those instead of the node."""

    def __init__(self, node):
        self.client, self.times, self.failures = node.client(DESK), [], []
        self.is_debug = node.is_debug
        self.client.ask("GET", "/people/P001")
        context = multiprocessing.get_context("fork")
        self.here, self.there = context.Pipe()
        self.process = context.Process(target=self.run, daemon=True)

    def start(self):
        self.process.start()
        self.there.close()

    def run(self):
        """Until it is told to end, or there is nobody any more who could."""
        self.here.close()
        while not self.there.poll(0.02):
            try:
                status, text = ask_again(self.is_debug, self.read)
                if status != 200:
                    self.failures.append(f"{status} after {self.times[-1]:.1f} ms: {text[:120]!r}")
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))
        self.there.send((self.times, self.failures))

    def read(self):
        begun = time.perf_counter()
        try:
            return self.client.ask("GET", "/people/P001")
        finally:
            self.times.append((time.perf_counter() - begun) * 1000)

    def end(self):
        try:
            self.here.send("end")
            if not self.here.poll(90):
                raise EOFError("no answer for 90 s")
            self.times, self.failures = self.here.recv()
        except (OSError, EOFError) as error:
            self.failures.append(f"the reader: {error!r}")
            self.process.kill()
        self.process.join(10)
        self.client.close()

    def p99(self):
        ordered = sorted(self.times) or [float("inf")]
        return ordered[len(ordered) * 99 // 100]
