"""HTTP/1 and HTTP/2 as an attacker speaks them: only as much as is needed, and nothing that keeps to rules by itself."""

import base64
import select
import socket
import ssl
import struct
import time

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
#: Status codes with an entry of their own in HPACK's static table (RFC 7541, appendix A).
STATIC_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
#: Huffman codes of digits (RFC 7541, appendix B).
DIGITS = {"00000": "0", "00001": "1", "00010": "2", "011001": "3", "011010": "4", "011011": "5", "011100": "6",
          "011101": "7", "011110": "8", "011111": "9"}


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def connect(address, source, alpn, timeout=20):
    """A TLS connection from one of this machine's addresses."""
    raw = socket.create_connection(address, timeout=timeout, source_address=(source, 0))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    try:
        return context.wrap_socket(raw)
    except OSError:
        raw.close()
        raise


class Http1:
    """A polite client that keeps its connection."""

    def __init__(self, address, source="127.0.0.1", auth=None, headers=()):
        self.address, self.source, self.auth, self.headers = address, source, auth, list(headers)
        self.line = None

    def ask(self, method, path, body=b"", headers=()):
        """(status, headers, body); opens the connection anew if it has ended."""
        for is_last in (False, True):
            try:
                if self.line is None:
                    self.line = connect(self.address, self.source, "http/1.1", timeout=60)
                return self._ask(method, path, body, headers)
            except (OSError, EOFError):
                self.close()
                if is_last:
                    raise

    def _ask(self, method, path, body, headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        if self.auth:
            lines.append(f"Authorization: {self.auth}")
        lines += [f"{name}: {value}" for name, value in [*self.headers, *headers]]
        if body or method not in ("GET", "DELETE"):
            lines.append(f"Content-Length: {len(body)}")
        self.line.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return self.answer()

    def answer(self):
        text = b""
        while b"\r\n\r\n" not in text:
            some = self.line.recv(65536)
            if not some:
                raise EOFError
            text += some
        head, rest = text.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        status = int(first.split()[1])
        if fields.get("transfer-encoding") == "chunked":
            rest = self._chunks(rest)
        elif status not in (204, 304):
            length = int(fields.get("content-length", 0))
            while len(rest) < length:
                some = self.line.recv(65536)
                if not some:
                    raise EOFError
                rest += some
        if fields.get("connection") == "close":
            self.close()
        return status, fields, rest

    def _chunks(self, rest):
        body = b""
        while True:
            while b"\r\n" not in rest:
                rest += self._more()
            size, rest = rest.split(b"\r\n", 1)
            length = int(size, 16)
            while len(rest) < length + 2:
                rest += self._more()
            body, rest = body + rest[:length], rest[length + 2:]
            if length == 0:
                return body

    def _more(self):
        some = self.line.recv(65536)
        if not some:
            raise EOFError
        return some

    def close(self):
        if self.line is not None:
            self.line.close()
            self.line = None


class Http2:
    """A connection whose windows, streams and silences are the caller's own affair."""

    def __init__(self, address, source, window=65535, auth=None, headers=(), connection_window=0):
        self.auth, self.headers = auth, list(headers)
        self.line = connect(address, source, "h2")
        if self.line.selected_alpn_protocol() != "h2":
            raise RuntimeError("the node speaks no HTTP/2")
        self.next, self.text, self.status, self.bytes, self.ended = 1, b"", {}, {}, set()
        # What may still be sent, on the whole connection (stream 0) and on each stream.
        self.room, self.stream_room = {0: 65535}, 65535
        self.is_over, self.resets = False, set()
        # select() knows no more than 1,024 files.
        self.poll = select.poll()
        self.poll.register(self.line, select.POLLIN)
        # No dynamic table, so that status codes can be read without one.
        settings = struct.pack("!HIHIHI", 1, 0, 2, 0, 4, window)
        first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings)
        if connection_window:
            first += frame(WINDOW, 0, 0, struct.pack("!I", connection_window))
        self.send(first)

    def send(self, text):
        try:
            self.line.sendall(text)
        except OSError:
            self.is_over = True

    def begin(self, method, path, fields=(), has_body=False, auth=None, packed=b"", is_whole=True):
        """Begins a request, with further fields as they are packed; returns its stream."""
        stream, self.next = self.next, self.next + 2
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *fields,
                  *self.headers]
        if auth or self.auth:
            fields.append(("authorization", auth or self.auth))
        block = b"".join(b"\x00" + text(name) + text(value) for name, value in fields) + packed
        self.send(frame(HEADERS, (END_HEADERS if is_whole else 0) | (0 if has_body else END_STREAM), stream, block))
        return stream

    def data(self, stream, body, is_end=False):
        """As much of it as the node has room for; returns how much that was."""
        own = self.room.setdefault(stream, self.stream_room)
        most = max(0, min(len(body), own, self.room[0], 16384))
        if most or not body:
            self.room[0] -= most
            self.room[stream] -= most
            self.send(frame(DATA, END_STREAM if is_end and most == len(body) else 0, stream, body[:most]))
        return most

    def trailers(self, stream, fields):
        """Ends the request's body with fields."""
        block = b"".join(b"\x00" + text(name) + text(value) for name, value in fields)
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))

    def listen(self, seconds=0.0):
        """Takes what has come: status codes, bytes and ends of streams. Sends no window back."""
        until = time.monotonic() + seconds
        while not self.is_over:
            left = max(0.0, until - time.monotonic())
            if not self.line.pending() and not self.poll.poll(left * 1000):
                return
            try:
                some = self.line.recv(65536)
            except OSError:
                some = b""
            if not some:
                self.is_over = True
                return
            self.text += some
            self._frames()

    def _frames(self):
        while len(self.text) >= 9:
            length = int.from_bytes(self.text[:3], "big")
            if len(self.text) < 9 + length:
                return
            kind, flags, stream = self.text[3], self.text[4], int.from_bytes(self.text[5:9], "big")
            body, self.text = self.text[9:9 + length], self.text[9 + length:]
            if kind == HEADERS and stream not in self.status:
                self.status[stream] = status_of(body)
            elif kind == DATA:
                self.bytes[stream] = self.bytes.get(stream, 0) + length
            elif kind == WINDOW:
                self.room[stream] = self.room.get(stream, self.stream_room) + int.from_bytes(body[:4], "big")
            elif kind == SETTINGS and not flags & ACK:
                for at in range(0, length, 6):
                    if body[at:at + 2] == b"\0\x04":
                        self.stream_room = int.from_bytes(body[at + 2:at + 6], "big")
                self.send(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, body))
            if kind == RST:
                self.resets.add(stream)
            if kind == RST or kind in (DATA, HEADERS) and flags & END_STREAM:
                self.ended.add(stream)

    def await_all(self, streams, seconds):
        until = time.monotonic() + seconds
        while not self.is_over and not set(streams) <= self.ended and time.monotonic() < until:
            self.listen(0.05)

    def close(self):
        self.line.close()


def frame(kind, flags, stream, body):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def text(words):
    words = words.encode()
    length = len(words)
    if length < 127:
        return bytes([length]) + words
    out, rest = b"\x7f", length - 127
    while rest >= 128:
        out, rest = out + bytes([rest % 128 + 128]), rest // 128
    return out + bytes([rest]) + words


def status_of(block):
    """The status, which h2 writes first, behind changes of the table's size."""
    at = 0
    while block[at] & 0xE0 == 0x20:
        at += 1
    first = block[at]
    if first & 0x80:
        return STATIC_STATUS.get(first & 0x7F, 0)
    length, is_huffman = block[at + 1] & 0x7F, block[at + 1] & 0x80
    value = block[at + 2:at + 2 + length]
    if not is_huffman:
        return int(value)
    bits, digits, code = "".join(f"{byte:08b}" for byte in value), "", ""
    for bit in bits:
        code += bit
        if code in DIGITS and len(digits) < 3:
            digits, code = digits + DIGITS[code], ""
    return int(digits)
