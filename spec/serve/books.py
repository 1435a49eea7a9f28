# Holds the books of a server that has ended against the work that was done:  books.py REGOLITH STATE_DIR TALLY NAME...
#
# TALLY is what load.py counted of each key, in the order of the names. Every answer has to be charged once and by its
# price, each line of a statement has to add up, and the credit less the charges has to be the balance.
import json
import subprocess
import sys

PRICES = {"create": 10000, "exec": 1000, "status": 1000, "terminate": 1000}
regolith, state, tally, *names = sys.argv[1:]


def ask(*argv):
    return json.loads(subprocess.run([regolith, *argv, "--json", "--state", state], check=True, capture_output=True).stdout)


def check(name, done, account):
    charged, credit, balance = dict.fromkeys(PRICES, 0), 0, 0
    for i, line in enumerate(ask("cost", "--statement", name), 1):
        balance += line["microusd"]
        assert line["seq"] == i and line["balance_microusd"] == balance, line
        if line["op"] == "topup":
            credit += line["microusd"]
            continue
        assert line["microusd"] == -PRICES[line["op"]], line
        charged[line["op"]] += 1
    owed = sum(n * PRICES[op] for op, n in done.items())
    assert charged == done, (name, charged, done)
    assert balance == credit - owed == account["balance_microusd"], (name, credit, owed, account)
    assert account["held_microusd"] == 0, account
    print(f"{name}: {credit / 1e6:.2f} credit - {owed / 1e6:.3f} charged = {balance / 1e6:.3f}; {charged}")


with open(tally, encoding="utf-8") as f:
    counts = json.load(f)
accounts = {a["name"]: a for a in ask("key", "ls")}
assert sorted(accounts) == sorted(names) and len(counts) == len(names)
for key, n in zip(names, counts):
    check(key, n, accounts[key])
print(f"books: right, {sum(sum(n.values()) for n in counts)} charges")
