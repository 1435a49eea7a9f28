"""TCP as fast as it goes:  wire.py serve ADDRESS | wire.py in|out ADDRESS SECONDS

The server sends to who says "in" and takes from who says "out". A client prints MiB/s, as the receiving side counts.
"""
import socket
import sys
import threading
import time

PORT, CHUNK = 5201, bytes(1 << 20)


def receive(s):
    """Bytes until the end."""
    room, total = bytearray(1 << 20), 0
    while n := s.recv_into(room):
        total += n
    return total


def attend(s):
    with s:
        if s.recv(3) != b"in\n":
            s.sendall(b"%d\n" % receive(s))
            return
        try:
            while True:
                s.sendall(CHUNK)
        except OSError:
            pass


def client(way, address, seconds):
    s = socket.create_connection((address, PORT))
    s.sendall(b"in\n" if way == "in" else b"out")
    start, total, room = time.monotonic(), 0, bytearray(1 << 20)
    while time.monotonic() - start < seconds:
        if way == "in":
            total += s.recv_into(room)
        else:
            s.sendall(CHUNK)
    if way == "out":
        s.shutdown(socket.SHUT_WR)
        total = int(s.recv(100))
    print(f"{total / (1 << 20) / (time.monotonic() - start):.1f}")


if sys.argv[1] == "serve":
    server = socket.create_server((sys.argv[2], PORT))
    print("up", flush=True)
    while True:
        threading.Thread(target=attend, args=(server.accept()[0],), daemon=True).start()
else:
    client(sys.argv[1], sys.argv[2], float(sys.argv[3]))
