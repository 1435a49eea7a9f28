# Clients of a server that will be killed: each makes, uses and ends sandboxes until its connection
# breaks. Prints what was answered and what was not, for the books to be held against.
import http.client
import json
import os
import re
import sys
import threading

HOST, PORT = re.match(r"https?://(.*):(\d+)$", os.environ["SERVE_URL"]).groups()
KEY = os.environ["SERVE_KEYS"].split()[0]
ROUND, CLIENTS = sys.argv[1], int(sys.argv[2])

lock = threading.Lock()
answered, unanswered, creates, lost, ended, wrong = {}, {}, [], [], [], []


def ask(conn, op, body, idem=None):
    headers = {"Authorization": "Bearer " + KEY}
    if idem:
        headers["Idempotency-Key"] = idem
    text = json.dumps(body)
    try:
        conn.request("POST", "/v1/modal/sandbox/" + op, text, headers)
        r = conn.getresponse()
        answer = r.read().decode()
    except (OSError, http.client.HTTPException):
        with lock:
            unanswered[op] = unanswered.get(op, 0) + 1
            if idem:
                lost.append({"key": idem, "request": text})
        return None
    with lock:
        if r.status != 200:
            wrong.append(f"{op}: {r.status} {answer}")
            return None
        answered[op] = answered.get(op, 0) + 1
        if op == "create":
            sb = json.loads(answer)["sandbox_id"]
            creates.append({"id": sb, "key": idem, "request": text, "answer": answer})
        if op == "terminate":
            ended.append(body["sandbox_id"])
        # Whoever waits for the load to have begun reads this.
        if sum(answered.values()) == CLIENTS:
            print("begun", flush=True)
    return json.loads(answer)


def client(n):
    conn = http.client.HTTPConnection(HOST, int(PORT), timeout=60)
    for i in range(40):  # what all rounds make fits in one list
        made = ask(conn, "create", {"timeout": 60, "tags": {"client": str(n)}},
                   f"{ROUND}-{n}-{i}")
        if not made:
            return
        sb = {"sandbox_id": made["sandbox_id"]}
        if not ask(conn, "exec", {**sb, "command": "echo hi"}) or not ask(conn, "status", sb):
            return
        if not ask(conn, "terminate", sb):
            return


threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(json.dumps({"answered": answered, "unanswered": unanswered, "creates": creates, "lost": lost,
                  "ended": ended, "wrong": wrong}))
