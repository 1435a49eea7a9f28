# What the server promises, one function each:  checks.py NAME...  Prints "ok NAME" or "failed NAME"
# and why. Needs SERVE_URL and SERVE_KEYS (two keys with credit); image and network
# of a create are the server's defaults.
import base64
import json
import os
import random
import re
import socket
import sys
import threading
import time
import traceback

from client import BASE, COMPUTE, DOC, HOST, KEYS, PORT, Client, check_answer, dial, error_code, raw, read_all

import requests

A = Client(0)


def stamp(text):
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def life_cycle():
    created = A.post("create", {"timeout": 120})
    sb = created["sandbox_id"]
    assert re.fullmatch(r"sb_[0-9a-z]{10}", sb), sb
    assert created["status"] == "running" and created["state"] == "started", created
    assert stamp(created["expires_at"]) - stamp(created["created_at"]) == 120, created
    assert created["config"]["timeout"] == 120 and created["config"]["cpu"] == 1
    assert created["config"]["memory"] == 1024
    r = A.exec(sb, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (r["exit_code"], r["returncode"], r["stdout"], r["stderr"]) == (3, 3, "out\n", "err\n")
    assert r["reason"] == "exited" and isinstance(r["duration_ms"], int), r
    r = A.exec(sb, "echo a | wc -c; echo kept > /tmp/f")
    assert r["stdout"].strip() == "2" and r["exit_code"] == 0, r
    assert A.exec(sb, "cat /tmp/f")["stdout"] == "kept\n"
    st = A.post("status", {"sandbox_id": sb})
    assert st["commands_executed"] == 3 and st["status"] == "running", st
    assert st["created_at"] == created["created_at"]
    assert A.terminate(sb) == {"sandbox_id": sb, "status": "terminated"}
    # The other name of the same.
    r = A.ask("POST", "/v1/modal/sandbox/create", {"timeout": 60})
    assert r.status_code == 200
    r = A.ask("POST", "/v1/modal/sandbox/terminate", {"sandbox_id": r.json()["sandbox_id"]})
    assert r.status_code == 200


def defaults():
    r = A.ask("POST", COMPUTE + "/create")  # no body at all
    assert r.status_code == 200 and r.json()["config"]["timeout"] == 300, r.text
    A.terminate(r.json()["sandbox_id"])


def exit_codes():
    sb = A.create(timeout=60)
    rows = [("exit 0", {}, 0, "exited", None), ("exit 255", {}, 255, "exited", None),
            ("nosuchcommand", {}, 127, "exited", None), (["nosuchcommand"], {}, 127, "exited", None),
            (["/etc/passwd"], {}, 126, "exited", None),
            ("kill -9 $$", {}, 137, "signal", "SIGKILL"), ("kill -TERM $$", {}, 143, "signal", "SIGTERM"),
            ("echo so far; sleep 30", {"timeout": 0.3}, 124, "timeout", None),
            ("head -c 200000 /dev/zero", {"max_output": "1KiB", "on_overflow": "kill"}, 137,
             "output_limit", None)]
    for command, fields, code, reason, signal in rows:
        r = A.exec(sb, command, **fields)
        got = (r["exit_code"], r["returncode"], r["reason"], r.get("signal"))
        assert got == (code, code, reason, signal), (command, r)
        if reason == "timeout":
            assert r["stdout"] == "so far\n" and 250 <= r["duration_ms"] < 25000, r
    small = A.create(timeout=60, memory=128)
    r = A.exec(small, "tail /dev/zero")
    assert (r["exit_code"], r["reason"]) == (137, "oom"), r
    A.terminate(small)
    A.terminate(sb)


def fields_of_exec():
    sb = A.create(timeout=60, env={"BOX": "1"})
    r = A.exec(sb, ["sh", "-c", "cat; pwd; echo $X$BOX"], stdin="in\n", cwd="/tmp", env={"X": "y"})
    assert r["stdout"] == "in\n/tmp\ny1\n", r
    every = bytes(range(256))
    r = A.exec(sb, ["cat"], stdin=base64.b64encode(every).decode(), encoding="base64")
    assert base64.b64decode(r["stdout"]) == every and r["encoding"] == "base64", r
    r = A.exec(sb, r"printf 'a\377b\303\251'")
    assert r["stdout"] == "a\ufffdb\u00e9" and "encoding" not in r, r
    r = A.exec(sb, ["printf", "%s|", "a b", "", "$X", "c\nd"])
    assert r["stdout"] == "a b||$X|c\nd|", r
    assert error_code(A.exec(sb, "true", cwd="/nowhere", status=400)) == "invalid_argument"
    r = A.exec(sb, "for i in 1 2 3 4 5 6; do head -c 1000 /dev/zero | tr '\\0' $i; done", max_output="2KiB")
    assert r["truncated"] == {"stdout": True, "stderr": False} and r["stdout_bytes"] == 6000, r
    assert len(r["stdout"]) == 2048 and r["stdout"][0] == "1" and r["stdout"][-1] == "6"
    A.terminate(sb)


def error_matrix():
    done, late, idle = A.create(timeout=60), A.create(timeout=1), A.create(timeout=60, idle_timeout=1)
    A.terminate(done)
    time.sleep(1.7)
    for sb, status, code, reason in [(done, 410, "sandbox_terminated", "terminated"),
                                     (late, 408, "sandbox_timeout", "sandbox_timeout"),
                                     (idle, 408, "sandbox_timeout", "sandbox_timeout")]:
        assert error_code(A.exec(sb, "true", status=status)) == code
        st = A.post("status", {"sandbox_id": sb})
        assert (st["status"], st["state"], st["reason"]) == ("terminated", "terminated", reason), st
        assert error_code(A.post("terminate", {"sandbox_id": sb}, status=status)) == code
        r = A.ask("DELETE", "/v1/sandboxes/" + sb)
        assert r.status_code == 200 and r.json()["state"] == "terminated", r.text
    for op in ("exec", "status", "terminate"):
        body = {"sandbox_id": "sb_nosuchbox0"}
        if op == "exec":
            body["command"] = "true"
        assert error_code(A.post(op, body, status=404)) == "sandbox_not_found"
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/tunnels"), ("POST", "/snapshot")]:
        assert A.ask(method, "/v1/sandboxes/sb_nosuchbox0" + path).status_code == 404


def in_flight():
    """An exec in flight when its sandbox ends is an error that has what was printed."""
    for how, status, code, reason in [("terminate", 410, "sandbox_terminated", "terminated"),
                                      ("life", 408, "sandbox_timeout", "sandbox_timeout")]:
        sb = A.create(timeout=60 if how == "terminate" else 1)
        if how == "terminate":
            threading.Timer(0.4, lambda: Client(0).terminate(sb)).start()
        r = A.exec(sb, "echo so far; sleep 30", status=status)
        assert r["error"]["code"] == code and r["stdout"] == "so far\n", r
        assert r["reason"] == reason and 200 <= r["duration_ms"] < 25000, r


def wrong_arguments():
    sb = A.create(timeout=60)
    rows = [("create", {"timout": 3}, "timout"), ("create", {"timeout": 86401}, "timeout"),
            ("create", {"timeout": 0}, "timeout"), ("create", {"timeout": 1.5}, "timeout"),
            ("create", {"timeout": "soon"}, "timeout"), ("create", {"timeout": None, "cpu": 0.01}, "cpu"),
            ("create", {"cpu": 2}, "cpu"), ("create", {"memory": 64}, "memory"),
            ("create", {"memory": 2048}, "memory"), ("create", {"gpu": "B52"}, "gpu"),
            ("create", {"image": ""}, "image"), ("create", {"image": 7}, "image"),
            ("create", {"tags": {"a": 1}}, "tags"), ("create", {"unencrypted_ports": [0]}, "unencrypted_ports"),
            ("create", {"env": {"A=B": "c"}}, "env"), ("create", {"network": "wide"}, "network"),
            ("exec", {"command": "true"}, "sandbox_id"), ("exec", {"sandbox_id": sb}, "command"),
            ("exec", {"sandbox_id": sb, "command": ""}, "command"),
            ("exec", {"sandbox_id": sb, "command": []}, "command"),
            ("exec", {"sandbox_id": sb, "command": ["a", 1]}, "command"),
            ("exec", {"sandbox_id": sb, "command": {"a": 1}}, "command"),
            ("exec", {"sandbox_id": sb, "command": "x", "encoding": "latin1"}, "encoding"),
            ("exec", {"sandbox_id": sb, "command": "x", "stdin": "*", "encoding": "base64"}, "stdin"),
            ("exec", {"sandbox_id": sb, "command": "x", "stream": True}, "stream"),
            ("exec", {"sandbox_id": sb, "command": "x", "max_output": "11MiB"}, "max_output"),
            ("status", {}, "sandbox_id"), ("status", {"sandbox_id": sb, "x": 1}, "x"),
            ("terminate", {"sandbox_id": 5.5}, "sandbox_id")]
    for op, body, field in rows:
        e = A.post(op, body, status=400)["error"]
        assert e["code"] == "invalid_argument", (op, body, e)
        assert e.get("field", "").startswith(field), (op, body, e)
    A.terminate(sb)
    denied = [{"image": "dir:/tmp"}, {"image": "dir:/"}, {"volumes": [{"source": "/etc", "target": "/x"}]},
              {"volumes": [{"source": "secret", "target": "/x"}]}]
    for body in denied:
        r = A.ask("POST", COMPUTE + "/create", body)
        assert r.status_code in (400, 403), (body, r.text)
    assert error_code(A.ask("POST", COMPUTE + "/create", {"gpu": "T4"})) == "capacity"


def post_text(text, path=COMPUTE + "/create", **headers):
    data = text if isinstance(text, bytes) else text.encode()
    head = {"Authorization": "Bearer " + KEYS[0], "Content-Type": "application/json", **headers}
    r = requests.post(BASE + path, data=data, headers=head, timeout=60, verify=False)
    check_answer("POST", path, r.status_code, r.headers["Content-Type"], r.content)
    return r


def bad_json():
    rows = ["{", "}", "nil", "[]", "1", '"x"', "null", "true", "{'timeout': 3}", '{"timeout": 3,}',
            '{"timeout": 3} x', '{"timeout": 3}{"timeout": 4}', '{"timeout": 3, "timeout": 4}',
            '{"tags": {"a": "1", "a": "2"}}', '{"timeout": 03x}', '{"timeout": "\\u0000"}',
            '{"a\\u0000b": 1}', "[" * 100000, '{"a":' * 100000, '{"tags":' * 70 + "1" + "}" * 70,
            '{"entrypoint": [' + "0," * 300000 + "0]}", '{"timeout": 1e999}', '{"timeout": -0}',
            b"\xff\xfe{", b'{"image": "\xff"}', b"\x00", '{"timeout": 3']
    for text in rows:
        r = post_text(text)
        assert r.status_code == 400 and error_code(r) == "invalid_argument", (text[:60], r.text)


def sizes():
    """A body of exactly the most is read, one byte more is not; so is an answer."""
    most = 10485760
    start, end = b'{"timeout": 60, "nosuch": "', b'"}'
    body = start + b"x" * (most - len(start) - len(end)) + end
    r = post_text(body)
    assert r.status_code == 400 and r.json()["error"]["field"] == "nosuch", r.text[:300]
    r = post_text(body + b" ")
    assert r.status_code == 413 and error_code(r) == "payload_too_large", r.text

    def pieces():
        for at in range(0, len(body) + 1, 65536):
            yield (body + b" ")[at:at + 65536]
    head = {"Authorization": "Bearer " + KEYS[0]}
    r = requests.post(BASE + COMPUTE + "/create", data=pieces(), headers=head, timeout=60, verify=False)
    assert r.status_code == 413, r.text
    sb = A.create(timeout=60)
    for command, fields in [("head -c 20000000 /dev/zero | tr '\\0' x", {}),
                            ("head -c 9000000 /dev/zero", {"max_output": 9000000 // 1048576}),
                            ("head -c 9000000 /dev/urandom; head -c 9000000 /dev/urandom >&2", {}),
                            ("head -c 20000000 /dev/urandom", {"encoding": "base64"})]:
        r = A.ask("POST", COMPUTE + "/exec", {"sandbox_id": sb, "command": command, **fields})
        assert r.status_code == 200 and len(r.content) <= 10000000, (command, len(r.content))
        assert r.json()["truncated"]["stdout"], command
    assert A.exec(sb, "tr -d '\\n' | wc -c", stdin="y" * 9000000)["stdout"].strip() == "9000000"
    A.terminate(sb)


def head_of(path, *headers, method="POST", key=True):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if key:
        lines.append("Authorization: Bearer " + KEYS[0])
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def lies():
    """Lengths that lie, and requests that two readers could read differently: one error, the end."""
    path = COMPUTE + "/status"
    body = b'{"sandbox_id": "sb_1"}'
    smuggled = head_of("/healthz", method="GET")
    rows = [head_of(path, f"Content-Length: {len(body)}", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
            head_of(path, "Content-Length: 3", f"Content-Length: {len(body)}") + body,
            head_of(path, "Content-Length: 3, 4") + body,
            head_of(path, "Transfer-Encoding: identity") + body,
            head_of(path, "Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
            head_of(path, "Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n",
            head_of(path, "Content-Length : 3") + body,
            head_of(path, "X: y\r\n Transfer-Encoding: chunked") + body,
            head_of(path, "Transfer-Encoding: chunked") + b"16\r\n" + body + b"x\r\n0\r\n\r\n",
            head_of(path, "Transfer-Encoding: chunked") + b"-1\r\n",
            head_of(path, "Content-Length: -1"), head_of(path, "Content-Length: 1e3"),
            head_of(path, "Content-Length: 18446744073709551617"),
            head_of(path, "Host: y"), b"GET / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\n\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", head_of("/" + "a" * 9000, method="GET"),
            head_of("/", *[f"X-{i}: y" for i in range(100)], method="GET"),
            head_of("/", "X: " + "y" * 20000, method="GET")]
    for data in rows:
        answers = raw(data + smuggled)
        assert len(answers) == 1, (data[:200], answers)
        status, text = answers[0]
        assert 400 <= status < 600 and status != 500, (data[:200], answers)
        check_answer("POST", "/nowhere", status, "application/json", text)
    # Less than it says, then nothing: whoever waits for the rest is not answered, and nobody waits.
    s = dial()
    s.sendall(head_of(path, "Content-Length: 1000") + body)
    assert requests.get(BASE + "/healthz", verify=False).status_code == 200
    s.close()
    # More than it says is the next request.
    answers = raw(head_of(path, f"Content-Length: {len(body)}") + body +
                  head_of("/healthz", "Connection: close", method="GET"))
    assert [a[0] for a in answers] == [404, 200], answers


def who_may():
    for key in (None, "", "sk-", "sk-wrong", KEYS[0] + "x", KEYS[0][:-1], "x" * 5000):
        head = {} if key is None else {"Authorization": "Bearer " + key}
        for method, path in [("POST", COMPUTE + "/create"), ("GET", "/v1/sandboxes"), ("GET", "/v1/sandboxes/x")]:
            r = requests.request(method, BASE + path, headers=head, timeout=20, verify=False)
            assert r.status_code == 401 and error_code(r) == "unauthorized", (key, r.text)
            assert r.headers["WWW-Authenticate"] == "Bearer"
            assert KEYS[0] not in r.text
            check_answer(method, path, 401, r.headers["Content-Type"], r.content)
    r = requests.post(BASE + COMPUTE + "/create", auth=("user", KEYS[0]), verify=False)
    assert r.status_code == 401
    # No key, no body: it is not even read.
    s = dial()
    s.sendall(head_of(COMPUTE + "/create", "Content-Length: 1000000", key=False))
    assert b" 401 " in read_all(s)[:20]


def tenants():
    b = Client(1)
    sb = A.create(timeout=60, tags={"t": "a"}, name="mine")
    for op in ("exec", "status", "terminate"):
        body = {"sandbox_id": sb}
        if op == "exec":
            body["command"] = "true"
        theirs = b.post(op, body, status=404)
        never = b.post(op, {**body, "sandbox_id": "sb_0000000000"}, status=404)
        assert json.dumps(theirs).replace(sb, "ID") == json.dumps(never).replace("sb_0000000000", "ID")
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/tunnels"), ("POST", "/snapshot")]:
        assert b.ask(method, "/v1/sandboxes/" + sb + path).status_code == 404
    assert sb not in b.ask("GET", "/v1/sandboxes").text
    other = b.create(timeout=60, name="mine")
    assert error_code(A.post("create", {"name": "mine"}, status=409)) == "conflict"
    b.terminate(other)
    assert A.post("status", {"sandbox_id": sb})["status"] == "running"
    A.terminate(sb)


def lists():
    ids = [A.create(timeout=60, tags={"run": str(i // 2), "all": "yes=no"}, app_id="lists") for i in range(4)]

    def got(query):
        r = A.ask("GET", "/v1/sandboxes?" + query)
        assert r.status_code == 200, r.text
        return [v["sandbox_id"] for v in r.json()["sandboxes"]]
    assert got("app_id=lists") == ids
    assert got("app_id=lists&tag=run=1") == ids[2:]
    assert got("tag=run%3D0&tag=all%3Dyes%3Dno") == ids[:2]
    assert got("tag=run=7") == []
    assert got("app_id=lists&limit=3") == ids[:3]
    assert A.ask("GET", "/v1/sandboxes?app_id=lists&limit=3").json()["has_more"] is True
    assert got("app_id=lists&limit=3&after=" + ids[2]) == ids[3:]
    A.terminate(ids[0])
    assert got("app_id=lists") == ids[1:]
    # Nobody takes a place that is lost for the end.
    for lost in (ids[0], "sb_0000000000"):
        r = A.ask("GET", "/v1/sandboxes?app_id=lists&after=" + lost)
        assert r.status_code == 400 and r.json()["error"]["field"] == "after", r.text
    assert got("app_id=lists&state=terminated&after=" + ids[0]) == []
    assert got("app_id=lists&state=terminated") == ids[:1]
    assert got("app_id=lists&state=running") == ids[1:]
    for bad in ("tag=x", "limit=0", "limit=x", "limit=5000", "nosuch=1", "tag=%zz", "app_id=%00"):
        r = A.ask("GET", "/v1/sandboxes?" + bad)
        assert r.status_code == 400, (bad, r.text)
    for sb in ids[1:]:
        assert A.ask("DELETE", "/v1/sandboxes/" + sb).status_code == 200


def second_family():
    r = A.ask("POST", "/v1/sandboxes", {"timeout": 60, "cpu": 0.5, "memory": 256, "idle_timeout": 30,
                                        "tags": {"a": "b"}, "entrypoint": ["sleep", "100"]})
    assert r.status_code == 201, r.text
    v = r.json()
    assert v["state"] in ("started", "ready") and v["cpu"] == 0.5 and v["memory"] == 256, v
    assert v["entrypoint"] == ["sleep", "100"] and v["tags"] == {"a": "b"}, v
    sb = v["sandbox_id"]
    assert A.ask("GET", "/v1/sandboxes/" + sb).json()["timeout"] == 60
    assert A.exec(sb, "echo both")["stdout"] == "both\n"
    assert A.ask("GET", f"/v1/sandboxes/{sb}/tunnels").json() == {"sandbox_id": sb, "tunnels": []}
    r = A.ask("POST", f"/v1/sandboxes/{sb}/snapshot", {})
    assert r.status_code in (201, 501), r.text
    r = A.ask("DELETE", "/v1/sandboxes/" + sb)
    assert r.status_code == 200 and r.json()["state"] == "terminated"
    assert A.ask("GET", "/v1/sandboxes/" + sb).json()["state"] == "terminated"
    # An entrypoint that ends by itself ends its sandbox.
    r = A.ask("POST", "/v1/sandboxes", {"timeout": 60, "entrypoint": ["sh", "-c", "sleep 0.2; exit 4"]})
    sb = r.json()["sandbox_id"]
    for _ in range(100):
        v = A.ask("GET", "/v1/sandboxes/" + sb).json()
        if v["state"] == "finished":
            break
        time.sleep(0.05)
    assert v["state"] == "finished" and v["returncode"] == 4, v


def ports():
    """A port that a sandbox was made with is reached on the server's loopback, from when it says ready."""
    sb = A.ask("POST", "/v1/sandboxes", {"timeout": 60, "unencrypted_ports": [8000, 9000], "ready": {"tcp": 8000},
                                         "entrypoint": ["python3", "-m", "http.server", "-d", "/tmp", "8000"]}).json()
    assert sb["unencrypted_ports"] == [8000, 9000] and sb["state"] in ("started", "ready"), sb
    path = "/v1/sandboxes/" + sb["sandbox_id"]
    until(lambda: A.ask("GET", path).json()["state"] == "ready")
    assert A.post("status", {"sandbox_id": sb["sandbox_id"]})["status"] == "running"
    first, second = A.ask("GET", path + "/tunnels").json()["tunnels"]
    assert (first["port"], first["encrypted"], second["port"]) == (8000, False, 9000), first
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", first["url"]) and first["url"] != second["url"], first
    A.exec(sb["sandbox_id"], "echo here > /tmp/page")
    direct = requests.Session()
    direct.trust_env = False
    assert direct.get(first["url"] + "/page", timeout=20).text == "here\n"
    assert Client(1).ask("GET", path + "/tunnels").status_code == 404
    assert A.ask("DELETE", path).status_code == 200
    assert A.ask("GET", path + "/tunnels").json()["tunnels"] == []
    try:
        direct.get(first["url"], timeout=20)
        raise AssertionError("it is still reached")
    except requests.ConnectionError:
        pass
    r = A.ask("POST", "/v1/sandboxes", {"encrypted_ports": [8000]})
    assert r.status_code == 501 and error_code(r) == "unsupported", r.text


def snapshot():
    """Needs an image that is not the machine's own. What is kept is for the same key alone."""
    sb = A.create(timeout=60)
    A.exec(sb, "echo kept > /srv/f")
    kept = A.ask("POST", f"/v1/sandboxes/{sb}/snapshot", {})
    assert kept.status_code == 201, kept.text
    image = kept.json()["image"]
    r = A.ask("POST", "/v1/sandboxes", {"timeout": 60, "image": image})
    assert r.status_code == 201 and r.json()["image"] == image, r.text
    assert A.exec(r.json()["sandbox_id"], "cat /srv/f")["stdout"] == "kept\n"
    A.terminate(r.json()["sandbox_id"])
    r = Client(1).ask("POST", COMPUTE + "/create", {"image": image})
    assert r.status_code == 404 and error_code(r) == "image_not_found", r.text
    assert error_code(A.ask("POST", f"/v1/sandboxes/{sb}/snapshot", {"name": "mine"})) == "denied"
    A.terminate(sb)
    r = A.ask("POST", f"/v1/sandboxes/{sb}/snapshot", {})
    assert r.status_code == 410 and error_code(r) == "sandbox_terminated", r.text


def events(r, at_once=1):
    name, found = None, []
    for line in r.iter_lines(chunk_size=at_once):
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line.startswith(b"data: "):
            found.append((time.time(), name, json.loads(line[6:])))
    return found


def stream(sb, command, **fields):
    return requests.post(BASE + COMPUTE + "/exec", stream=True, timeout=60, verify=False,
                         headers={"Authorization": "Bearer " + KEYS[0], "Accept": "text/event-stream"},
                         json={"sandbox_id": sb, "command": command, **fields})


def check_exit(v):
    from client import _validate
    _validate({"$ref": "#/components/schemas/ExecExit"}, v)


def streams():
    sb = A.create(timeout=60)
    r = stream(sb, "echo one; sleep 0.5; echo two >&2; sleep 0.5; exit 5")
    assert r.status_code == 200 and r.headers["Content-Type"] == "text/event-stream"
    got = events(r)
    assert [(n, v.get("data")) for _, n, v in got[:2]] == [("stdout", "one\n"), ("stderr", "two\n")], got
    assert got[1][0] - got[0][0] > 0.3, "it came when it was printed"
    assert got[2][1] == "exit" and got[2][2]["exit_code"] == 5 and got[2][2]["reason"] == "exited", got
    check_exit(got[2][2])
    # Characters that chunks cut in two are whole again.
    got = events(stream(sb, r"printf '\303'; sleep 0.2; printf '\251\342\202'; sleep 0.2; printf '\254\377'"))
    assert "".join(v["data"] for _, n, v in got if n == "stdout") == "\u00e9\u20ac\ufffd", got
    got = events(stream(sb, r"printf '\303'; sleep 0.2; printf '\251'", encoding="base64"))
    assert b"".join(base64.b64decode(v["data"]) for _, n, v in got if n == "stdout") == b"\xc3\xa9", got
    # More than any answer holds, all of it.
    got = events(stream(sb, "head -c 30000000 /dev/zero | tr '\\0' z"), 1 << 20)
    assert sum(len(v["data"]) for _, n, v in got if n == "stdout") == 30000000
    assert got[-1][2]["stdout_bytes"] == 30000000
    # An error before anything ran is an ordinary answer.
    r = stream("sb_nosuchbox0", "true")
    assert r.status_code == 404 and error_code(r) == "sandbox_not_found"
    r = stream(sb, "true", cwd="/nowhere")
    assert r.status_code == 400, r.text
    # Its sandbox ends while it runs.
    r = stream(sb, "echo on; sleep 30")
    threading.Timer(0.4, lambda: Client(0).terminate(sb)).start()
    got = events(r)
    assert got[-1][1] == "exit" and got[-1][2]["reason"] == "terminated", got


def running_execs():
    for line in requests.get(BASE + "/metrics", verify=False).text.splitlines():
        if line.startswith("regolith_execs "):
            return float(line.split()[1])
    raise AssertionError("no regolith_execs")


def eventually(what, seconds=10):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("never happened")


def vanishing():
    """A client that hangs up ends its command; its sandbox lives on."""
    sb = A.create(timeout=60)
    for accept in ("*/*", "text/event-stream"):
        body = json.dumps({"sandbox_id": sb, "command": "echo begun; sleep 50"}).encode()
        s = dial()
        s.sendall(head_of(COMPUTE + "/exec", f"Content-Length: {len(body)}", "Accept: " + accept) + body)
        eventually(lambda: running_execs() == 1)
        s.close()
        eventually(lambda: running_execs() == 0)
    assert A.exec(sb, "echo on")["stdout"] == "on\n"
    A.terminate(sb)


def slow_readers():
    """Answers that nobody takes do not pile up, and nobody else waits for them."""
    sb = A.create(timeout=120)
    body = json.dumps({"sandbox_id": sb, "command": "head -c 9900000 /dev/zero | tr '\\0' x",
                       "max_output": 9}).encode()
    lazy = []
    for _ in range(40):
        s = dial()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(head_of(COMPUTE + "/exec", f"Content-Length: {len(body)}") + body)
        lazy.append(s)
    eventually(lambda: running_execs() == 0, 60)
    took = time.time()
    assert A.exec(sb, "echo quick")["stdout"] == "quick\n"
    assert time.time() - took < 5
    held = float(re.search(r"\nregolith_http_held_bytes (\S+)", requests.get(BASE + "/metrics", verify=False).text).group(1))
    assert held <= 300e6, held
    for s in lazy:
        s.close()
    A.terminate(sb)


def output_memory():
    """With --output-memory 16MiB: what runs holds a quarter of it, cut in the middle, and another key has its own."""
    sb, n = A.create(timeout=120), 8
    got = []

    def go(i):
        got.append(Client(0).exec(sb, f"printf first; head -c 4900000 /dev/zero | tr '\\0' x; printf last; "
                                      f"touch /tmp/printed{i}; until [ -e /tmp/go ]; do sleep 0.05; done"))
    threads = [threading.Thread(target=go, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    until(lambda: A.exec(sb, "ls /tmp/printed* | wc -l")["stdout"].strip() == str(n), 60)
    held = until(lambda: float(re.search(r"\nregolith_output_held_bytes (\S+)", requests.get(
        BASE + "/metrics", verify=False).text).group(1)))
    assert 4 << 20 <= held <= 7 << 20, held  # a quarter, and the one that doubled last
    b = Client(1)
    other = b.create(timeout=60)
    r = b.exec(other, "head -c 1000000 /dev/zero | tr '\\0' y")
    assert len(r["stdout"]) == 1000000 and not r["truncated"]["stdout"], r["truncated"]
    b.terminate(other)
    A.exec(sb, "touch /tmp/go")
    for t in threads:
        t.join()
    assert len(got) == n
    for r in got:
        assert r["exit_code"] == 0 and r["stdout_bytes"] == 4900009, r["stdout_bytes"]
        assert r["stdout"].startswith("first") and r["stdout"].endswith("last")
    assert any(r["truncated"]["stdout"] for r in got)
    assert sum(len(r["stdout"]) for r in got) < 8 << 20
    A.terminate(sb)


def half_open():
    """Ten thousand connections that never finish their request, and one that does."""
    many, n = [], 10000
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(n, hard - 200)
    sb = A.create(timeout=120)
    for i in range(n):
        s = socket.socket()
        s.connect((HOST, PORT))
        if i % 2:
            s.send(b"POST " + COMPUTE.encode() + b"/create HTTP/1.1\r\nHost: x\r\n")
        many.append(s)
    took = time.time()
    for _ in range(20):
        assert Client(0).exec(sb, "echo on")["stdout"] == "on\n"
    assert time.time() - took < 10, time.time() - took
    A.terminate(sb)
    for s in many:
        s.close()


def fuzz():
    """Whatever is sent, the answer is one of ours, or none; and the server is there afterwards."""
    rng = random.Random(int(os.environ.get("SERVE_SEED", 7)))
    body = b'{"sandbox_id": "sb_1234567890", "command": ["true"], "timeout": 3}'
    seeds = [head_of(COMPUTE + "/exec", f"Content-Length: {len(body)}", "Content-Type: application/json") + body,
             head_of(COMPUTE + "/status", "Transfer-Encoding: chunked") + b"5\r\n{\"san\r\n1b\r\ndbox_id\": \"sb_1234567890\"}\r\n0\r\n\r\n",
             head_of("/v1/sandboxes?tag=a=b&limit=3", method="GET"),
             head_of("/healthz", method="GET", key=False) * 3]
    bits = [b"\r\n", b"\n", b"\0", b" ", b":", b"chunked", b"Content-Length: 1\r\n", b"\xff", b"{", b"0\r\n\r\n", b"\"", b"%"]
    for _ in range(600):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            what = rng.randrange(4)
            if what == 0:
                data[at] = rng.randrange(256)
            elif what == 1:
                del data[at:at + rng.randint(1, 20)]
            elif what == 2:
                data[at:at] = rng.choice(bits)
            else:
                data[at:at] = data[rng.randrange(len(data)):][:30]
            if not data:
                data = bytearray(b"x")
        for status, text in raw(bytes(data), finish=True):
            assert status != 500 and 200 <= status < 600, (bytes(data), status)
            if status >= 400:
                check_answer("POST", "/nowhere" if status in (400, 404, 405, 408, 413, 414, 417, 431, 501, 503, 505)
                             else COMPUTE + "/exec", status, "application/json", text)
    life_cycle()


def open_paths():
    for path, kind in [("/healthz", "application/json"), ("/readyz", "application/json"),
                       ("/openapi.json", "application/json"), ("/metrics", "text/plain"), ("/", "text/")]:
        r = requests.get(BASE + path, timeout=20, verify=False)
        assert r.status_code == 200 and r.headers["Content-Type"].startswith(kind), (path, r.headers)
        check_answer("GET", path, 200, r.headers["Content-Type"], r.content)
        h = requests.head(BASE + path, timeout=20, verify=False)
        assert h.status_code == 200 and h.content == b"", path
    r = requests.put(BASE + "/healthz", verify=False)
    assert r.status_code == 405 and r.headers["Allow"] == "GET", r.headers
    assert requests.get(BASE + COMPUTE + "/create", verify=False).headers["Allow"] == "POST"
    assert requests.get(BASE + "/healthz?x=1", verify=False).status_code == 400
    assert requests.get(BASE + "/nowhere", verify=False).status_code == 404
    assert requests.get(BASE + "/v1/sandboxes/a/b", verify=False).status_code == 404
    assert post_text(b"x", **{"Content-Encoding": "gzip"}).status_code == 415
    assert DOC["openapi"].startswith("3.1")


def metrics():
    sb = A.create(timeout=60)
    A.exec(sb, "true")
    text = requests.get(BASE + "/metrics", verify=False).text
    assert KEYS[0] not in text and sb not in text
    names = set()
    for line in text.splitlines():
        if line.startswith("# "):
            assert re.fullmatch(r"# (HELP|TYPE) regolith_[a-z_]+ .+", line), line
            names.add(line.split()[2])
            continue
        m = re.fullmatch(r"(regolith_[a-z_]+)(\{[a-z_]+=\"[^\"]*\"(,[a-z_]+=\"[^\"]*\")*\})? [0-9.e+-]+", line)
        assert m, line
        assert re.sub("_(bucket|sum|count)$", "", m.group(1)) in names, line
    assert 'regolith_http_requests_total{method="POST",route="/sandbox/exec",status="2xx"}' in text, text
    assert re.search(r"\nregolith_sandboxes [1-9]", text)
    A.terminate(sb)


def idempotency():
    b = Client(1)
    key = f"k{random.random()}"

    def create(body, key, who=A, status=200):
        return who.post("create", body, status=status, headers={"Idempotency-Key": key})
    one = create({"timeout": 60}, key)
    two = create({"timeout": 60}, key)
    assert one == two
    r = A.ask("POST", COMPUTE + "/create", {"timeout": 60}, headers={"Idempotency-Key": key})
    assert r.headers.get("Idempotency-Replayed") == "true"
    assert error_code(create({"timeout": 61}, key, status=409)) == "conflict"
    assert create({"timeout": 60}, key, who=b)["sandbox_id"] != one["sandbox_id"]
    sb = one["sandbox_id"]
    body = {"sandbox_id": sb, "command": "echo x >> /tmp/n; wc -l < /tmp/n"}
    for _ in range(3):
        r = A.post("exec", body, headers={"Idempotency-Key": "x" + key})
        assert r["stdout"].strip() == "1", r
    assert A.post("status", {"sandbox_id": sb})["commands_executed"] == 1
    # A refusal is an answer too; a failure that nothing came of is not.
    bad = {"timeout": 0}
    assert create(bad, "b" + key, status=400) == create(bad, "b" + key, status=400)
    # Two at once: one runs, the other is told.
    slow = {"sandbox_id": sb, "command": "sleep 0.6; echo done"}
    got = []

    def go():
        r = Client(0).ask("POST", COMPUTE + "/exec", slow, headers={"Idempotency-Key": "s" + key})
        got.append(r.status_code)
    threads = [threading.Thread(target=go) for _ in range(2)]
    for t in threads:
        t.start()
        time.sleep(0.2)
    for t in threads:
        t.join()
    assert sorted(got) == [200, 409], got
    for k in ("", "k" * 256):
        r = A.ask("POST", COMPUTE + "/create", {}, headers={"Idempotency-Key": k})
        assert r.status_code == 400, (k, r.text)
    r = A.ask("POST", COMPUTE + "/status", {"sandbox_id": sb}, headers={"Idempotency-Key": "k"})
    assert r.status_code == 400
    # A client that vanishes keeps its create, and finds it again.
    data = json.dumps({"timeout": 50}).encode()
    s = dial()
    s.sendall(head_of(COMPUTE + "/create", f"Content-Length: {len(data)}", "Content-Type: application/json",
                      "Idempotency-Key: v" + key) + data)
    time.sleep(0.01)
    s.close()
    time.sleep(0.5)
    r = A.session.post(BASE + COMPUTE + "/create", data=data, verify=False,
                       headers={"Authorization": "Bearer " + KEYS[0], "Idempotency-Key": "v" + key})
    assert r.status_code == 200 and r.headers.get("Idempotency-Replayed") == "true", r.text
    A.terminate(sb)


def connections():
    """One connection takes many requests, and requests do not wait for each other's answers."""
    s = requests.Session()
    s.trust_env = False
    s.verify = False
    for _ in range(50):
        assert s.get(BASE + "/healthz").status_code == 200
    answers = raw(head_of("/healthz", method="GET") * 20 + head_of("/healthz", "Connection: close", method="GET"))
    assert [a[0] for a in answers] == [200] * 21
    # HTTP/1.0 clients are answered in their way.
    assert raw(b"GET /healthz HTTP/1.0\r\n\r\n")[0][0] == 200


def page_data():
    sb = A.create(timeout=60, tags={"page": "yes"})
    execs = "/v1/sandboxes/" + sb + "/execs"
    assert A.ask("GET", execs).json() == {"sandbox_id": sb, "execs": []}
    A.exec(sb, ["printf", "a b\\0\\377"])
    stream(sb, "echo streamed; seq 10000 >&2; exit 7").text
    A.exec(sb, "true", cwd="/nowhere", status=400)
    got = A.ask("GET", execs).json()["execs"]
    assert [x.get("exit_code") for x in got] == [None, 7, 0], got
    assert got[0]["reason"] == "invalid_argument" and not got[0]["running"], got[0]
    assert got[1]["stdout"] == "streamed\n" and got[1]["truncated"] and len(got[1]["stderr"]) == 8192
    assert got[2]["command"] == "printf 'a b\\0\\377'", got[2]
    waiting = threading.Thread(target=lambda: Client(0).exec(sb, "echo begun; sleep 1"))
    waiting.start()
    until(lambda: A.ask("GET", execs).json()["execs"][0]["running"])
    waiting.join()
    for i in range(25):
        A.exec(sb, f"echo {i}")
    got = A.ask("GET", execs).json()["execs"]
    assert len(got) == 20 and got[0]["stdout"] == "24\n", [x["stdout"] for x in got]
    assert Client(1).ask("GET", execs).status_code == 404
    mine = [b for b in A.ask("GET", "/v1/console").json()["sandboxes"] if b["sandbox_id"] == sb]
    assert mine[0]["tags"] == {"page": "yes"} and mine[0]["commands_executed"] == 29, mine
    assert all(b["sandbox_id"] != sb for b in Client(1).ask("GET", "/v1/console").json()["sandboxes"])
    costs = A.ask("GET", "/v1/costs?hours=2").json()["costs"]
    assert costs and all(c["tier"] == "CPU" for c in costs), costs
    for bad in ("hours=0", "hours=745", "hours=x", "days=1"):
        assert error_code(A.ask("GET", "/v1/costs?" + bad).json()) == "invalid_argument"
    A.terminate(sb)


def until(fn, seconds=20):
    end = time.monotonic() + seconds
    while not (value := fn()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
    return value


def run(name):
    try:
        globals()[name]()
        print(f"ok {name}", flush=True)
    except BaseException:
        print(f"failed {name}: {traceback.format_exc()}", flush=True)


if __name__ == "__main__":
    os.environ.pop("REQUESTS_CA_BUNDLE", None)  # goes before verify=False
    os.environ.pop("CURL_CA_BUNDLE", None)
    requests.packages.urllib3.disable_warnings()
    for check in sys.argv[1:]:
        run(check)
