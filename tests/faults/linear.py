#!/usr/bin/python3
"""Linearizability per key, list-after-write per bucket, and one winner of 32.

64 clients on a few keys put (plain, If-Match, If-None-Match: *), delete, get and head; every value is unique, so a read names the
write that it saw. All calls and answers are recorded with their times. Between rounds, and with --kills in the middle of one, the
server is killed and started again; a call whose connection ended without an answer happened before that end or never (the server it
was sent to is dead), one that timed out at any time since or never. Afterwards the history of each key is checked: is there an order of the operations, each between its call and its answer, in which every answer is right?
(Wing and Gong's search with Lowe's memory; a key's history falls into short pieces at moments when nothing is under way.)

The set workload: writers put keys that nobody else writes, each followed by a listing that must show them, and all that was
acknowledged before the listing began and not deleted; what was deleted before it began must not be there.

The winner: 32 clients put the same absent key with If-None-Match: *; exactly one gets 200, the others 412 or 409.

linear.py [--operations N] [--clients N] [--kills N] [--seed N] [--io threads] [--save FILE]
"""
import argparse
import hashlib
import json
import multiprocessing
import random
import sys
import threading
import time

from faults.wire import S3, Broken, NotSent, TimedOut
from harness.server import Server

BUCKET, LISTED = "linear", "listed"
PROCESSES = 4
KEYS = 160
ABSENT = None
UNKNOWN = float("inf")  # the end of a call that may still happen
NO_SERVER_SECONDS = 120  # without a connection: then it does not come back any more


class Violation(Exception):
    pass


# --- The clients. A record of the history: [key, kind, argument, result, begin, end]; times of CLOCK_MONOTONIC, which all processes share.
#   ("put", value, condition)   result "ok", "failed" (412, or 404 of If-Match on an absent key), or "unknown"
#   ("delete",)                 "ok" or "unknown"
#   ("get",)                    the value, or ABSENT

def run_clients(connection, seed, clients, operations, keys, epoch):
    """One process: its clients are threads, each of which makes as many operations, not counting those that were certainly not carried out
    (no connection, or refused). Sends the history back."""
    history, problems, lock = [], [], threading.Lock()

    def run(number):
        rng = random.Random(f"{seed}/{epoch}/{number}")
        s3 = S3(*connection, timeout=30)
        mine, known, turn, connected, sent = [], {}, 0, time.monotonic(), True
        while len(mine) < operations and not problems:
            turn += 1
            if sent:
                connected = time.monotonic()
            sent = True
            key = rng.choice(keys)
            kind = rng.choices(("put", "match", "absent", "delete", "get", "head"), (22, 16, 10, 10, 34, 8))[0]
            value = f"{epoch}.{number}.{turn}"
            begin = time.monotonic_ns()
            try:
                if kind in ("get", "head"):
                    answer = s3.get(BUCKET, key) if kind == "get" else s3.head(BUCKET, key)
                    if answer.status not in (200, 404) or (answer.status == 404 and kind == "get" and answer.code != "NoSuchKey"):
                        problems.append(f"{kind} {key}: {answer.status} {answer.code}")
                        raise Broken(str(answer.status))
                    # A HEAD sees the ETag only; resolve_heads finds the value.
                    seen = ABSENT if answer.status == 404 else answer.body.decode() if kind == "get" else "etag:" + answer.etag
                    if kind == "get" and seen is not ABSENT:
                        known[key] = (answer.etag, seen)
                    mine.append([key, "get", None, seen, begin, time.monotonic_ns()])
                    continue
                if kind == "delete":
                    answer = s3.delete(BUCKET, key)
                    result = "ok" if answer.status == 204 else "unknown"
                    mine.append([key, "delete", None, result, begin, time.monotonic_ns() if result == "ok" else UNKNOWN])
                    continue
                condition = None
                if kind == "match":
                    # What was seen last: an If-Match with a fresh value has a chance, with an old one it must fail.
                    tag, condition = known.get(key, ("0" * 32, "nothing"))
                    answer = s3.put(BUCKET, key, value.encode(), if_match=f'"{tag}"')
                elif kind == "absent":
                    condition = ABSENT
                    answer = s3.put(BUCKET, key, value.encode(), if_none_match="*")
                else:
                    answer = s3.put(BUCKET, key, value.encode())
                if answer.status == 200:
                    result = "ok"
                    known[key] = (answer.etag, value)
                elif kind != "put" and answer.status in (404, 412):
                    result = "failed"
                elif answer.status == 409 or answer.code == "SlowDown":
                    continue  # refused before anything was done
                else:
                    result = "unknown"
                mine.append([key, kind, (value, condition), result, begin, time.monotonic_ns() if result != "unknown" else UNKNOWN])
            except NotSent:
                if time.monotonic() - connected > NO_SERVER_SECONDS:
                    problems.append(f"no connection for {NO_SERVER_SECONDS} s")
                sent = False
                time.sleep(0.05)  # the server is being started again
            except Broken as error:
                if kind not in ("get", "head"):
                    argument = None if kind == "delete" else (value, condition if kind != "put" else None)
                    mine.append([key, kind, argument, "unknown", begin, UNKNOWN if isinstance(error, TimedOut) else time.monotonic_ns()])
        s3.close()
        with lock:
            history.extend(mine)

    threads = [threading.Thread(target=run, args=(number,)) for number in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return history, problems


def client_process(pipe, *arguments):
    pipe.send(run_clients(*arguments))
    pipe.close()


# --- The checker

def step(state, operation):
    """The state behind the operation if it is applied to `state`, or Violation's marker."""
    kind, argument, result = operation[1], operation[2], operation[3]
    if kind == "get":
        return state if result == state else WRONG
    if kind == "delete":
        return ABSENT
    value, condition = argument
    holds = kind == "put" or (state == condition if kind == "match" else state is ABSENT)
    if result == "failed":
        return WRONG if holds else state
    if result == "ok":
        return value if holds else WRONG
    return value if holds else state  # unknown: carried out, it changes something or not


WRONG = object()


def check_piece(states, operations):
    """All states in which the operations can end, begun in any of `states`. Of those without an answer the ones that ended may have no
    effect; the others may have it later: they are returned with the state, as still open. states: set of (state, frozenset of open unknown operations' indices)."""
    operations = sorted(operations, key=lambda o: o[4])
    done_all = (1 << len(operations)) - 1
    # An open operation may stay so for ever: where the same was reached with more of them open, this adds nothing.
    seen, visited = {}, 0
    stack = sorted(((0, state, opened) for state, opened in states), key=lambda item: len(item[2]))

    def callable_now(done):
        """What may come next: all that was called before any other that is left has ended; and when that is."""
        left = [(i, o) for i, o in enumerate(operations) if not done >> i & 1]
        first_end = min((o[5] for _, o in left), default=UNKNOWN)
        return [(i, o) for i, o in left if o[4] <= first_end], first_end

    while stack:
        done, state, opened = stack.pop()
        # What changes nothing and is right here comes at once: in any order in which it comes later it can be moved to the front.
        while True:
            following, first_end = callable_now(done)
            unchanged = sum(1 << i for i, o in following if (o[1] == "get" or o[3] == "failed") and step(state, o) is not WRONG)
            if not unchanged:
                break
            done |= unchanged
        known = seen.setdefault((done, state), [])
        if any(opened <= other for other in known):
            continue
        known[:] = [other for other in known if not other <= opened] + [opened]
        visited += 1
        if visited > 1_000_000:
            raise RuntimeError("a piece of a history is too long to check")
        if done == done_all:
            continue
        for index in opened:
            after = step(state, unknowns[index])
            if after != state and unknowns[index][4] <= first_end:
                stack.append((done, after, opened - {index}))
        for i, operation in following:
            after = step(state, operation)
            if after is not WRONG:
                stack.append((done | 1 << i, after, opened))
            if operation[3] == "unknown" and after != state:
                stack.append((done | 1 << i, state, opened))  # it did not happen
    return {(state, opened) for (done, state), known in seen.items() if done == done_all for opened in known}


unknowns = []  # of the key under check


def check_key(key, operations):
    """Violation, if no order explains the answers."""
    unanswered = [o for o in operations if o[5] == UNKNOWN]
    seen = {o[3] for o in operations if o[1] == "get"} | {o[2][1] for o in operations if o[1] == "match"}
    # Most that were not answered and whose value nobody saw did not happen: without them first, which is much quicker.
    unknowns[:] = [o for o in unanswered if o[1] != "delete" and o[2][0] in seen]
    try:
        return search(key, operations)
    except Violation:
        if len(unknowns) == len(unanswered):
            raise
    unknowns[:] = unanswered
    return search(key, operations)


def search(key, operations):
    answered = sorted((o for o in operations if o[5] != UNKNOWN), key=lambda o: o[4])
    states, piece, latest, longest = {(ABSENT, frozenset(range(len(unknowns))))}, [], 0, 0

    def flush():
        nonlocal states, piece
        if not piece:
            return
        reached = check_piece(states, piece)
        if not reached:
            lines = "\n".join(f"  {o[4]} - {o[5]}: {o[1]} {o[2]} -> {o[3]}" for o in piece)
            raise Violation(f"key {key}: no order of these explains their answers, begun from one of "
                            f"{[s for s, _ in list(states)[:5]]}, open {unknowns[:5]}:\n{lines}")
        states, piece = reached, []

    for operation in answered:
        if operation[4] > latest:
            flush()
        piece.append(operation)
        longest = max(longest, len(piece))
        latest = max(latest, operation[5])
    flush()
    return longest


def resolve_heads(history):
    """HEAD's ETags become the values they belong to, also where the put was never answered: an ETag is the MD5 of its value. One of a value that
    nobody wrote stays as it is, and no order explains it."""
    value_of = {(o[0], hashlib.md5(o[2][0].encode()).hexdigest()): o[2][0] for o in history if o[1] in ("put", "match", "absent")}
    for operation in history:
        if operation[1] == "get" and isinstance(operation[3], str) and operation[3].startswith("etag:"):
            operation[3] = value_of.get((operation[0], operation[3][5:]), operation[3])
    return history


def check_history(history):
    by_key = {}
    for operation in resolve_heads(history):
        by_key.setdefault(operation[0], []).append(operation)
    longest = 0
    for key, operations in by_key.items():
        longest = max(longest, check_key(key, operations))
    return len(by_key), longest


def self_test():
    """The checker finds what it should: each of these histories is wrong, and right with one answer changed."""
    def check(*operations):
        try:
            check_history([list(o) for o in operations])
            return True
        except Violation:
            return False
    first = ["k", "put", ("a", None), "ok", 0, 10]
    cases = [
        (("k", "get", None, ABSENT, 20, 30), ("k", "get", None, "a", 20, 30)),  # a lost write
        (("k", "get", None, "b", 20, 30), ("k", "get", None, "a", 20, 30)),  # a value nobody wrote
        (("k", "absent", ("b", ABSENT), "ok", 20, 30), ("k", "absent", ("b", ABSENT), "failed", 20, 30)),
        (("k", "match", ("b", "z"), "ok", 20, 30), ("k", "match", ("b", "a"), "ok", 20, 30)),
        (("k", "get", None, "etag:" + "0" * 32, 20, 30), ("k", "get", None, "etag:" + hashlib.md5(b"a").hexdigest(), 20, 30)),
    ]
    for wrong, right in cases:
        if check(first, wrong) or not check(first, right):
            raise RuntimeError(f"the checker is wrong about {wrong} or {right}")
    stale = [["k", "put", ("b", None), "ok", 20, 60], ["k", "get", None, "b", 30, 35], ["k", "get", None, "a", 40, 45]]
    late = [["k", "put", ("b", None), "unknown", 20, UNKNOWN], ["k", "get", None, "a", 30, 35], ["k", "get", None, "b", 40, 45]]
    if check(first, *stale) or not check(first, *late):
        raise RuntimeError("the checker does not see a stale read or an open write")
    cut = ["k", "put", ("b", None), "unknown", 20, 60]
    for reads, right in (("ab", False), ("bb", True), ("aa", True), ("ba", False)):
        gets = [["k", "get", None, value, 70 + 10 * i, 75 + 10 * i] for i, value in enumerate(reads)]
        if check(first, cut, *gets) != right:
            raise RuntimeError("the checker is wrong about a write that was cut")
    # Dirty reads: what was seen of a write that was never answered is gone later, seen by a GET or a HEAD.
    for seen in ("b", "etag:" + hashlib.md5(b"b").hexdigest()):
        dirty = [late[0], ["k", "get", None, seen, 40, 45]]
        if not check(first, *dirty) or check(first, *dirty, ["k", "get", None, "a", 50, 55]):
            raise RuntimeError("the checker does not see a dirty read")


# --- The three workloads

def registers(server, args):
    rng = random.Random(args.seed)
    keys = [f"key/{number}" for number in range(KEYS)]
    rounds = args.kills + 1
    per_client = -(-args.operations // (args.clients * rounds))  # rounded up: at least what was asked for
    history = []
    begin = time.monotonic()
    for epoch in range(rounds):
        workers = []
        for process in range(PROCESSES):
            ours, theirs = multiprocessing.Pipe(False)
            worker = multiprocessing.Process(target=client_process, daemon=True, args=(
                theirs, (server.host, server.access_key, server.secret_key), args.seed,
                range(process, args.clients, PROCESSES), per_client, keys, epoch))
            worker.start()
            workers.append((worker, ours))
        if epoch < args.kills:
            # In the middle of the round; the clients go on against the server that comes back.
            time.sleep(rng.uniform(0.3, 1.2))
            server.kill()
            server.start()
        for worker, pipe in workers:
            some, problems = pipe.recv()
            history += some
            if problems:
                raise Violation(f"{problems[0]} (and {len(problems) - 1} more)")
            worker.join()
    took = time.monotonic() - begin
    unknown = sum(o[3] == "unknown" and o[1] != "get" for o in history)
    if args.save:
        with open(args.save, "w") as file:
            json.dump(history, file)
    begin = time.monotonic()
    if len(history) < args.operations:
        raise Violation(f"only {len(history)} of {args.operations} operations were made")
    count, longest = check_history(history)
    print(f"linear: {len(history)} operations of {args.clients} clients on {count} keys in {took:.0f} s, {args.kills} kills, {unknown} "
          f"without an answer; longest piece {longest}; checked in {time.monotonic() - begin:.0f} s: linearizable", flush=True)


def listing(server, args):
    """Threads of one process; what is acknowledged is known to all under a lock."""
    writers, turns = 8, max(5, min(200, args.operations // 1000))
    lock = threading.Lock()
    there, gone, problems = set(), set(), []
    listings = [0]

    def write(number):
        s3 = S3.of(server)
        rng = random.Random(f"{args.seed}/{number}")
        mine = []
        try:
            for turn in range(turns):
                key = f"{rng.randrange(100):02}/{number}/{turn}"
                if s3.put(LISTED, key, b"x").status != 200:
                    raise Broken(f"put {key}")
                with lock:
                    there.add(key)
                mine.append(key)
                if rng.random() < 0.3:
                    old = mine.pop(rng.randrange(len(mine)))
                    with lock:
                        there.discard(old)
                    if s3.delete(LISTED, old).status != 204:
                        raise Broken(f"delete {old}")
                    with lock:
                        gone.add(old)
                with lock:
                    must, must_not = set(there), set(gone)
                shown = [item[0] for item in s3.list(LISTED, max_keys=rng.choice((7, 100, 1000)))]
                listings[0] += 1
                # A key that somebody began to delete meanwhile may be missing.
                with lock:
                    missing = (must & there) - set(shown)
                if missing or must_not & set(shown) or shown != sorted(set(shown)):
                    problems.append(f"missing {sorted(missing)[:3]}, deleted but shown {sorted(must_not & set(shown))[:3]}, "
                                    f"in order {shown == sorted(set(shown))}")
        except Broken as broken:
            problems.append(str(broken))
        s3.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Violation(f"list after write: {problems[0]} (and {len(problems) - 1} more)")
    print(f"linear: {listings[0]} listings beside {writers} writers of {writers * turns} keys: every acknowledged key shown, no deleted one",
          flush=True)


def winners(server, rounds=20, contenders=32):
    for number in range(rounds):
        barrier, answers = threading.Barrier(contenders), []

        def contend(me, key=f"winner/{number}", barrier=barrier, answers=answers):
            s3 = S3.of(server)
            s3.head(BUCKET, key)  # the connection is there when it counts
            barrier.wait()
            answer = s3.put(BUCKET, key, f"{me}".encode(), if_none_match="*")
            answers.append((answer.status, answer.code, me))
            s3.close()

        threads = [threading.Thread(target=contend, args=(me,)) for me in range(contenders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [me for status, _, me in answers if status == 200]
        lost = [code for status, code, _ in answers if status in (409, 412)]
        body = S3.of(server).get(BUCKET, f"winner/{number}").body
        if len(won) != 1 or len(won) + len(lost) != contenders or body != f"{won[0]}".encode():
            raise Violation(f"{contenders} writers with If-None-Match: {answers}, the object is {body}")
    print(f"linear: {rounds} times {contenders} writers with If-None-Match: *, one winner each time", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--io")
    parser.add_argument("--save", help="the history, as JSON")
    args = parser.parse_args()
    self_test()
    print(f"linear: seed {args.seed}", flush=True)
    server = Server("linear", args=["--io", args.io] if args.io else [])
    server.start()
    s3 = S3.of(server)
    for bucket in (BUCKET, LISTED):
        s3.create_bucket(bucket)
    s3.close()
    try:
        registers(server, args)
        listing(server, args)
        winners(server)
    except (Violation, Broken, RuntimeError) as error:
        print(f"linear: seed {args.seed}: {error}\n{server.log_tail(5)}")
        return 1
    server.stop()
    server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
