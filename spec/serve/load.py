# Many clients at once, over bare sockets:  load.py MODE ...  with SERVE_URL and SERVE_KEYS.
#
#   soak CLIENTS SECONDS   each client creates, runs commands, looks, ends, again and again; then counts what is left.
#                          With SERVE_TALLY it writes there what each key was answered with 200, for books.py
#   streams N              N execs as event streams at once; each has to arrive whole
#   life N                 N times create, exec, terminate by one client; prints the median of microseconds
import asyncio
import json
import os
import random
import re
import resource
import sys
import time

HOST, PORT = re.match(r"http://(.*):(\d+)$", os.environ["SERVE_URL"]).groups()
KEYS = os.environ.get("SERVE_KEYS", "").split()
TALLY = [dict.fromkeys(("create", "exec", "status", "terminate"), 0) for _ in KEYS]  # answers that are charged
BASE = "/v1/marketplace/compute/sandbox/"


class Connection:
    """One kept-alive connection of one key."""

    def __init__(self, key):
        self.key = key
        self.reader = self.writer = None

    async def send(self, method, path, body, accept):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(HOST, int(PORT))
        data = json.dumps(body).encode() if body is not None else b""
        self.writer.write((f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {self.key}\r\n"
                           f"Accept: {accept}\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        return int(head.split(" ", 2)[1]), head.lower()

    async def ask(self, method, path, body=None):
        status, head = await self.send(method, path, body, "application/json")
        text = await self.reader.readexactly(int(re.search(r"content-length: (\d+)", head).group(1)))
        if "connection: close" in head:
            self.close()
        return status, json.loads(text) if "application/json" in head else text.decode()

    async def post(self, op, body):
        status, v = await self.ask("POST", BASE + op, body)
        TALLY[KEYS.index(self.key)][op] += status == 200
        return status, v

    async def stream(self, body):
        """Events of an exec, until the last one."""
        status, head = await self.send("POST", BASE + "exec", body, "text/event-stream")
        assert status == 200, status
        text = b""
        while True:
            size = int(await self.reader.readline(), 16)
            piece = await self.reader.readexactly(size + 2)
            if size == 0:
                break
            text += piece[:-2]
        return [(m[0].decode(), json.loads(m[1])) for m in re.findall(rb"event: (\w+)\ndata: (.*)\n\n", text)]

    def close(self):
        if self.writer:
            self.writer.close()
        self.writer = None


async def created(c, counts, **fields):
    """A sandbox, waiting as long as there is no room, or too little time."""
    while True:
        status, v = await c.post("create", {"timeout": 300, **fields})
        if status == 200:
            return v["sandbox_id"]
        assert status == 503 and v["error"]["code"] in ("capacity", "engine_unavailable"), (status, v)
        counts[v["error"]["code"]] = counts.get(v["error"]["code"], 0) + 1
        await asyncio.sleep(random.random())


async def live(n, key, end, counts):
    c, rng = Connection(key), random.Random(n)
    while time.time() < end:
        sb = await created(c, counts, tags={"client": str(n)})
        for i in range(rng.randint(1, 4)):
            status, v = await c.post("exec", {"sandbox_id": sb, "command": ["echo", f"{n}.{i}"]})
            assert status == 200 and v["stdout"] == f"{n}.{i}\n" and v["exit_code"] == 0, (status, v)
            counts["exec"] = counts.get("exec", 0) + 1
            await asyncio.sleep(rng.random() * 2)
        status, v = await c.post("status", {"sandbox_id": sb})
        assert status == 200 and v["status"] == "running" and v["commands_executed"] == i + 1, (status, v)
        if rng.random() < 0.1:  # some leave without a word
            c.close()
            c = Connection(key)
        status, v = await c.post("terminate", {"sandbox_id": sb})
        assert status == 200, (status, v)
        counts["life"] = counts.get("life", 0) + 1
    c.close()


async def metric(name):
    c = Connection("")
    _, text = await c.ask("GET", "/metrics")
    c.close()
    return float(re.search(rf"\n{name} (\S+)", text).group(1))


async def soak(clients, seconds):
    counts, end = {}, time.time() + seconds
    warm = None

    async def watch():
        nonlocal warm
        while time.time() < end:
            await asyncio.sleep(min(10, seconds / 4))
            rss, alive = await metric("regolith_process_resident_bytes"), await metric("regolith_sandboxes")
            if warm is None and time.time() > end - seconds / 2:
                warm = rss
            print(f"{seconds - (end - time.time()):6.0f} s  {alive:5.0f} sandboxes  {rss / 2**20:6.1f} MiB  {counts}", flush=True)
    await asyncio.gather(watch(), *[live(i, KEYS[i % len(KEYS)], end, counts) for i in range(clients)])
    made, ended = await metric("regolith_sandboxes_created_total"), await metric("regolith_sandboxes_ended_total")
    alive, rss = await metric("regolith_sandboxes"), await metric("regolith_process_resident_bytes")
    print(f"created {made:.0f}, ended {ended:.0f}, alive {alive:.0f}, {rss / 2**20:.1f} MiB (half-way {warm / 2**20:.1f}), {counts}")
    assert made == ended == counts["life"] and alive == 0, "a sandbox is lost"
    assert await metric("regolith_execs") == 0
    assert rss < warm * 1.25 + 32 * 2**20, "memory grows"
    if os.environ.get("SERVE_TALLY"):
        with open(os.environ["SERVE_TALLY"], "w", encoding="utf-8") as f:
            json.dump(TALLY, f)
    print("ok")


async def streams(n):
    owner = Connection(KEYS[0])
    boxes = [await created(owner, {}) for _ in range(10)]

    async def one(i):
        c = Connection(KEYS[0])
        events = await c.stream({"sandbox_id": boxes[i % 10], "command": f"echo a{i}; sleep 3; echo b{i}; exit {i % 200}"})
        c.close()
        text = "".join(v["data"] for name, v in events if name == "stdout")
        assert text == f"a{i}\nb{i}\n" and events[-1][1]["exit_code"] == i % 200, events
    begin = time.time()
    await asyncio.gather(*[one(i) for i in range(n)])
    print(f"{n} streaming execs at once, all whole, in {time.time() - begin:.1f} s")
    for sb in boxes:
        await owner.post("terminate", {"sandbox_id": sb})


async def life(n):
    c, times = Connection(KEYS[0]), []
    for i in range(n + 1):
        begin = time.perf_counter()
        sb = (await c.post("create", {"timeout": 60}))[1]["sandbox_id"]
        _, v = await c.post("exec", {"sandbox_id": sb, "command": ["/usr/bin/true"]})
        assert v["exit_code"] == 0
        await c.post("terminate", {"sandbox_id": sb})
        if i > 0:
            times.append((time.perf_counter() - begin) * 1e6)
    c.close()
    print(f"{sorted(times)[len(times) // 2]:.1f}")


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    mode, args = sys.argv[1], [int(a) for a in sys.argv[2:]]
    asyncio.run({"soak": soak, "streams": streams, "life": life}[mode](*args))
