"""A line between a node and the centre that can be good, cut, silent, late, slow or down."""
import random
import socket
import threading
import time

MODES = ("pass", "cut", "swallow", "late", "slow", "down")


class Relay:
    """Listens on a port of its own and passes bytes to the centre, as well as its mode lets it.

    pass     as it comes
    cut      answers end after some bytes, and the line with them
    swallow  requests arrive, some answers do not
    late     the line breaks, what was asked arrives seconds later all the same
    slow     every piece waits a little
    down     nobody listens
    """

    def __init__(self, target, seed):
        self.target, self.mode, self.random = target, "pass", random.Random(seed)
        self.sockets = set()
        self.lock = threading.Lock()
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode):
        """Changes the mode, also for the connections that are open."""
        self.mode = mode
        if mode == "down":
            self.break_all()

    def break_all(self):
        with self.lock:
            sockets = list(self.sockets)
        for one in sockets:
            self._end(one)

    def close(self):
        self.mode = "down"
        # Closing alone would not wake the thread that accepts.
        self._end(self.listener)
        self.listener.close()
        self.break_all()

    @staticmethod
    def _end(one):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.mode == "down":
                near.close()
                continue
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        try:
            far = socket.create_connection(("127.0.0.1", self.target), 3)
            far.settimeout(None)
        except OSError:
            near.close()
            return
        with self.lock:
            self.sockets |= {near, far}
        asking = threading.Thread(target=self._requests, args=(near, far), daemon=True)
        asking.start()
        self._answers(near, far)
        asking.join()
        with self.lock:
            self.sockets -= {near, far}
        near.close()
        far.close()

    def _requests(self, near, far):
        try:
            while data := near.recv(65536):
                if self.mode == "late" and self.random.random() < 0.3:
                    self._end(near)
                    time.sleep(self.random.uniform(0.3, 3))
                    far.sendall(data)
                    time.sleep(0.5)
                    break
                if self.mode == "slow":
                    time.sleep(self.random.random() * 0.06)
                far.sendall(data)
        except OSError:
            pass
        self._end(far)

    def _answers(self, near, far):
        left = self.random.randrange(200, 12000)
        try:
            while data := far.recv(65536):
                if self.mode == "cut":
                    left -= len(data)
                    if left < 0:
                        near.sendall(data[:max(0, len(data) + left)])
                        break
                if self.mode == "swallow" and self.random.random() < 0.3:
                    break
                if self.mode == "slow":
                    time.sleep(self.random.random() * 0.06)
                near.sendall(data)
        except OSError:
            pass
        self._end(near)
