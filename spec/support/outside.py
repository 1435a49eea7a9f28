#!/usr/bin/env python3
"""An outside for networks to reach: HTTP, UDP echo and names, in one process.

outside.py ADDRESS HOST [ADDRESS6]: serves HTTP on ports 8000 and 8443 (a GET answers with its path, a POST
with its length), echoes UDP on 9000, and answers names on port 53 of both addresses by UDP and TCP: everything
in the zone below; any other name is answered with NXDOMAIN. Answers over 4096 bytes are cut in UDP. Who sends the datagram "stranger" to 9000 gets "port N", its own as seen
from here, and before that "STRANGER" from another port. Prints "ready".
"""
import http.server
import socket
import struct
import sys
import threading

HERE = sys.argv[1]
HOST = sys.argv[2]  # an address of the machine itself
ZONE = {
    "outside.test": [HERE],
    "www.outside.test": [HERE],
    "other.test": [HERE],
    "rebind.test": ["127.0.0.1"],
    "machine.test": [HOST],
    "metadata.test": ["169.254.169.254"],
    "many.test": [f"198.51.100.{i}" for i in range(100)],
    "more.test": [f"198.51.{i >> 8}.{i & 255}" for i in range(300)],
    "most.test": [f"198.51.{i >> 8}.{i & 255}" for i in range(4000)],
}
asked = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        if self.path.startswith("/bytes/"):
            self.answer(b"x" * int(self.path[7:]))
        elif self.path == "/asked":
            self.answer("\n".join(asked).encode())
        else:
            self.answer(b"got " + self.path.encode())

    def do_POST(self):
        left, total = int(self.headers["Content-Length"]), 0
        while left > 0:
            data = self.rfile.read(min(left, 1 << 20))
            left -= len(data)
            total += len(data)
        self.answer(str(total).encode())


def name_of(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += query[at] + 1
    return ".".join(labels).lower(), at + 1


def answer_to(query):
    name, end = name_of(query)
    asked.append(name)
    found = ZONE.get(name)
    head = query[:2] + struct.pack(">HHHHH", 0x8180 if found else 0x8183, 1, len(found or []), 0, 0)
    return head + query[12:end + 4] + b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(a) for a in found or [])


def cut(answer):
    """What of a long answer is sent by UDP: its question, and that there is more."""
    if len(answer) <= 4096:
        return answer
    return answer[:2] + b"\x83\x80" + answer[4:6] + bytes(6) + answer[12:name_of(answer)[1] + 4]


def names(family, address):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((address, 53))
    while True:
        query, peer = s.recvfrom(4096)
        s.sendto(cut(answer_to(query)), peer)


def names_by_tcp(family, address):
    s = socket.create_server((address, 53), family=family)
    while True:
        c = s.accept()[0]
        with c, c.makefile("rb") as f:
            size = f.read(2)
            if len(size) == 2:
                answer = answer_to(f.read(int.from_bytes(size, "big")))
                c.sendall(len(answer).to_bytes(2, "big") + answer)


def echo():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((HERE, 9000))
    while True:
        data, peer = s.recvfrom(65536)
        if data == b"stranger":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((HERE, 0))
                stranger.sendto(b"STRANGER", peer)
            data = b"port %d" % peer[1]
        s.sendto(data, peer)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


servers = [Server((HERE, port), Handler) for port in (8000, 8443)]
addresses = [(socket.AF_INET, HERE)] + [(socket.AF_INET6, a) for a in sys.argv[3:]]
for target, args in ([(serve, a) for serve in (names, names_by_tcp) for a in addresses] +
                     [(echo, ())] + [(s.serve_forever, ()) for s in servers]):
    threading.Thread(target=target, args=args, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
