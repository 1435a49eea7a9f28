# A client of the server under test that believes nothing: each answer has to be one that the
# server's own /openapi.json describes for that path, method and status, and objects of the second
# family have to fit the Modal schema as well.
import json
import os
import re
import socket
import ssl

import jsonschema
import requests

BASE = os.environ["SERVE_URL"]
KEYS = os.environ.get("SERVE_KEYS", "").split()
COMPUTE = "/v1/marketplace/compute/sandbox"
HOST, PORT = re.match(r"https?://(.*):(\d+)$", BASE).groups()
PORT = int(PORT)

# The sandbox of the Modal schema, as it is published.
with open(os.path.join(os.path.dirname(__file__), "modal-sandbox.json"), encoding="utf-8") as _f:
    MODAL = jsonschema.Draft202012Validator(json.load(_f))

_session = requests.Session()
_session.trust_env = False
DOC = _session.get(BASE + "/openapi.json", verify=False).json()
_resolver = jsonschema.RefResolver("", DOC)
_validators = {}


def _deref(v):
    while isinstance(v, dict) and "$ref" in v:
        v = _resolver.resolve(v["$ref"])[1]
    return v


def _operation(method, path):
    for pattern, item in DOC["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", pattern), path):
            item = _deref(item)
            if method.lower() in item:
                return pattern, item[method.lower()]
    return None, None


def _validate(schema, value):
    key = json.dumps(schema, sort_keys=True)
    if key not in _validators:
        _validators[key] = jsonschema.Draft202012Validator(schema, resolver=_resolver)
    _validators[key].validate(value)


ERROR = {"$ref": "#/components/schemas/Error"}


def check_answer(method, path, status, content_type, body):
    """Fails unless this is an answer that the server said it would give."""
    assert len(body) <= 10_000_000, len(body)
    path = path.split("?")[0]
    pattern, op = _operation(method, path)
    kind = content_type.split(";")[0]
    if op is None or str(status) not in op["responses"]:
        # No such path, a wrong method, what is no HTTP: an error of the one shape.
        assert status in (400, 404, 405, 408, 413, 414, 417, 431, 501, 503, 505), (path, status)
        _validate(ERROR, json.loads(body))
        return
    content = _deref(op["responses"][str(status)])["content"]
    assert kind in content, (path, status, kind)
    if kind != "application/json":
        return
    value = json.loads(body)
    _validate(content[kind]["schema"], value)
    if pattern.startswith("/v1/sandboxes") and status < 300:
        for v in value.get("sandboxes", [value] if "state" in value else []):
            MODAL.validate(v)


class Client:
    def __init__(self, key=0):
        self.key = KEYS[key]
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = False

    def ask(self, method, path, body=None, **options):
        headers = {"Authorization": "Bearer " + self.key}
        headers.update(options.pop("headers", {}))
        r = self.session.request(method, BASE + path, headers=headers, json=body, timeout=60,
                                 **options)
        check_answer(method, path, r.status_code, r.headers.get("Content-Type", ""), r.content)
        return r

    def post(self, op, body, status=200, **options):
        r = self.ask("POST", COMPUTE + "/" + op, body, **options)
        assert r.status_code == status, (op, body, r.status_code, r.text)
        return r.json()

    def create(self, **fields):
        return self.post("create", fields)["sandbox_id"]

    def exec(self, sandbox_id, command, status=200, **fields):
        return self.post("exec", {"sandbox_id": sandbox_id, "command": command, **fields}, status)

    def terminate(self, sandbox_id):
        return self.post("terminate", {"sandbox_id": sandbox_id})


def error_code(r):
    return (r if isinstance(r, dict) else r.json())["error"]["code"]


def dial():
    s = socket.create_connection((HOST, PORT), timeout=30)
    if BASE.startswith("https"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        s = context.wrap_socket(s)
    return s


def read_all(s):
    out = b""
    while True:
        try:
            data = s.recv(1 << 16)
        except ConnectionResetError:
            break
        if not data:
            break
        out += data
    return out


def raw(data, **options):
    """Sends bytes, reads until the server closes; its answers as (status, body) pairs."""
    s = dial()
    try:
        s.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass
    if options.get("finish"):
        s.shutdown(socket.SHUT_WR)
    text = read_all(s)
    s.close()
    answers = []
    while text:
        m = re.match(rb"HTTP/1\.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n", text, re.S)
        if not m and text.startswith(b"HTTP/1.1 100"):
            text = text[25:]
            continue
        assert m, text[:200]
        length = re.search(rb"(?i)content-length: (\d+)", m.group(2))
        end = m.end() + int(length.group(1))
        answers.append((int(m.group(1)), text[m.end():end]))
        text = text[end:]
    return answers
