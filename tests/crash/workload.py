"""What runs on the recording disk, and what must hold of it in any crash state.

Every thread owns keys (or a bucket) of its own, so its operations on a key have an order. After each answer it reads the
recorder's sequence number: the operation's stamp. In the state at entry u a key must hold the last operation with a stamp
of at most u, or one that came after it and was not answered yet. What an operation that broke off has done is settled by
reading the key again: that answer is an acknowledgement too, because no read may show what a crash could undo."""
import base64
import hashlib
import http.client
import os
import random
import threading

from raw_s3 import RawS3, Refused

KIB, MIB = 1 << 10, 1 << 20
KEYS_PER_WORKER = 14
KEPT_PER_WORKER = 3  # of them, seldom written
WORKERS = 8
BUCKET = "crash"
PART_BYTES_MIN = 5 * MIB  # of every part but the last
DEFAULT_TYPE = "binary/octet-stream"  # of an object whose PUT named none


class Slot:
    """History of one name: entries [stamp of the acknowledgement or None, state, until]. State None is absence, else what a
    client sees. An entry without a stamp was never answered; it can show in states before `until`."""

    def __init__(self, entries=None):
        self.entries = entries or [[0, None, None]]

    @property
    def now(self):
        """The acknowledged state; only the owner asks, and has nothing in flight."""
        return next(state for stamp, state, _ in reversed(self.entries) if stamp is not None)

    def begin(self, state):
        self.entries.append([None, state, None])

    def acked(self, stamp, state=None):
        self.entries[-1][0] = stamp
        if state is not None:
            self.entries[-1][1] = state

    def refused(self):
        self.entries.pop()

    def allowed(self, until):
        base = max(i for i, (stamp, _, _) in enumerate(self.entries) if stamp is not None and stamp <= until)
        states = [self.entries[base][1]]
        for stamp, state, limit in self.entries[base + 1:]:
            if limit is None or until < limit:
                states.append(state)
            if stamp is not None:
                break
        return states


class Model:
    def __init__(self):
        self.objects = {}  # "bucket/key" -> Slot of object_state()
        self.buckets = {}  # name -> Slot of True
        self.uploads = {}  # "bucket/key?id" -> {"parts": [[stamp, number, etag]], "begun": stamp, "ended": last stamp before
        #                     its completion was asked for, or None}
        self.lock = threading.Lock()

    def slot(self, table, name):
        with self.lock:
            return table.setdefault(name, Slot())

    def to_json(self):
        return {"objects": {k: v.entries for k, v in self.objects.items()},
                "buckets": {k: v.entries for k, v in self.buckets.items()}, "uploads": self.uploads}

    @classmethod
    def from_json(cls, data):
        model = cls()
        model.objects = {k: Slot(v) for k, v in data["objects"].items()}
        model.buckets = {k: Slot(v) for k, v in data["buckets"].items()}
        model.uploads = data["uploads"]
        return model

    def stamps(self):
        slots = [*self.objects.values(), *self.buckets.values()]
        return sorted({entry[0] for slot in slots for entry in slot.entries if entry[0]})


def content(seed, size):
    return random.Random(seed).randbytes(size)


def object_state(body, etag, meta="", tags=(), kind=DEFAULT_TYPE):
    return {"md5": hashlib.md5(body).hexdigest(), "size": len(body), "etag": etag, "meta": meta, "tags": tag_digest(tags), "type": kind}


def tag_digest(tags):
    """Of (key, value) pairs, in any order; "" for none. Tags are long, and there are thousands of states."""
    text = "&".join(f"{key}={value}" for key, value in sorted(tags))
    return hashlib.md5(text.encode()).hexdigest() if text else ""


class Broken(Exception):
    """The connection broke: the server was killed, or ended."""


class Owner(threading.Thread):
    """A thread with keys or buckets of its own."""

    def __init__(self, number, rng, model, seq_fd):
        super().__init__(daemon=True)
        self.number, self.rng, self.model, self.seq_fd = number, rng, model, seq_fd
        self.operations = 0
        self.problems = []
        self.open = []  # slots whose last operation was not answered: (slot, path)
        self.s3 = self.stop = self.phase = None

    def begin(self, server, stop, phase):
        super().__init__(daemon=True)
        self.s3 = RawS3(server.s3_port, server.access_key, server.secret_key)
        self.stop, self.phase = stop, phase

    def run(self):
        try:
            self.settle()
            while not self.stop.is_set():
                self.step()
        except Broken:
            if not self.stop.wait(5):
                self.problems.append(f"thread {self.number}: the connection broke while the server ran")
        except Exception as error:  # every surprise ends the recording
            self.problems.append(f"thread {self.number}: {error!r}")
        finally:
            self.s3.close()

    def stamp(self):
        return int(os.pread(self.seq_fd, 64, 0))

    def call(self, *args, **kwargs):
        try:
            return self.s3.request(*args, **kwargs)
        except (OSError, http.client.HTTPException) as error:
            raise Broken from error

    def write(self, slot, path, state, *args, etag_of=None, **kwargs):
        """One operation that gives the slot the state; False if it was refused whole (503)."""
        slot.begin(state)
        self.open.append((slot, path))
        try:
            answer = self.call(*args, **kwargs)
        except Refused as refused:
            if refused.answer.status != 503:
                raise
            slot.refused()
            self.open.pop()
            return False
        if etag_of is not None:
            state = dict(state, etag=etag_of(answer))
        slot.acked(self.stamp(), state)
        self.open.pop()
        self.operations += 1
        return True

    def settle(self):
        """After a kill: reads what the operations that broke off have done."""
        for slot, path in self.open:
            if "/" in path:
                seen = read_object(self.s3, path)
            else:
                seen = True if self.call("HEAD", path, expect=None).status == 200 else None
            stamp = self.stamp()
            state = slot.entries[-1][1]
            happened = same(seen, state)
            if not happened and not same(seen, slot.now):
                self.problems.append(f"{path}: {seen} after a kill, neither {slot.now} nor {state}")
            if happened:
                slot.acked(stamp, seen)
            else:
                slot.entries[-1][2] = stamp
        self.open.clear()

    def step(self):
        raise NotImplementedError


class ObjectWorker(Owner):
    def __init__(self, number, rng, model, seq_fd):
        super().__init__(number, rng, model, seq_fd)
        self.keys = [f"{BUCKET}/{number}/{i}" for i in range(KEYS_PER_WORKER)]

    def slot(self, path):
        return self.model.slot(self.model.objects, path)

    def key(self):
        """Bodies that live on where all around them is garbage: those are what collection moves."""
        if self.rng.random() < 0.04:
            return self.rng.choice(self.keys[:KEPT_PER_WORKER])
        return self.rng.choice(self.keys[KEPT_PER_WORKER:])

    def step(self):
        phase = self.phase()
        if phase == "records":
            # Long records without bodies: log segments that nothing keeps but the checkpoint that is still to come.
            action = self.rng.choices((self.put_record, self.delete), (90, 10))[0]
        elif phase == "burst":
            # So much at a time that two batches of the log are under way at once.
            action = self.put_for_log
        else:
            action = self.rng.choices((self.put, self.delete, self.delete_many, self.multipart, self.copy),
                                      (70, 10, 4, 3, 10))[0]
        action()

    def put(self):
        path = self.key()
        # In the index, in the log, in a bulk segment, in a file of its own.
        low, high = self.rng.choices(((0, 512), (513, 8 * KIB), (60 * KIB, 128 * KIB), (128 * KIB + 1, 900 * KIB),
                                      (MIB, 2 * MIB)), (20, 35, 30, 8, 3))[0]
        self.put_body(path, self.rng.randint(low, high))

    def put_for_log(self):
        self.put_body(self.key(), self.rng.randint(90 * KIB, 128 * KIB))

    def put_body(self, path, size):
        body = content(self.rng.getrandbits(48), size)
        described, headers = self.description()
        state = object_state(body, hashlib.md5(body).hexdigest(), **described)
        self.write(self.slot(path), path, state, "PUT", path, headers=headers, body=body)

    def description(self):
        """What goes with a body: (for object_state, header fields). Half of the objects have none of it, one in eight has tags."""
        if self.rng.random() < 0.5:
            return {}, {}
        described = {"meta": self.rng.randbytes(8).hex(), "kind": f"text/{self.rng.randbytes(4).hex()}"}
        headers = {"x-amz-meta-v": described["meta"], "content-type": described["kind"]}
        if self.rng.random() < 0.25:
            described["tags"] = [(f"k{i}", self.rng.randbytes(6).hex()) for i in range(self.rng.randint(1, 3))]
            headers["x-amz-tagging"] = "&".join(f"{key}={value}" for key, value in described["tags"])
        return described, headers

    def put_record(self):
        path = self.rng.choice(self.keys[KEPT_PER_WORKER:])
        meta = self.rng.randbytes(900).hex()
        tags = [(f"{i}{'k' * 120}", self.rng.randbytes(125).hex()) for i in range(10)]
        kind = f"application/{self.rng.randbytes(4).hex()}"
        state = object_state(b"", hashlib.md5(b"").hexdigest(), meta, tags, kind)
        self.write(self.slot(path), path, state, "PUT", path, headers={
            "x-amz-meta-v": meta, "content-type": kind, "x-amz-tagging": "&".join(f"{key}={value}" for key, value in tags)})

    def delete(self):
        path = self.key()
        self.write(self.slot(path), path, None, "DELETE", path)

    def delete_many(self):
        paths = self.rng.sample(self.keys, 3)
        keys = "".join(f"<Object><Key>{path.split('/', 1)[1]}</Key></Object>" for path in paths)
        body = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        for path in paths:
            self.slot(path).begin(None)
            self.open.append((self.slot(path), path))
        answer = self.call("POST", BUCKET, {"delete": ""}, {"content-md5": digest}, body)
        if answer.all("Error/Key"):
            raise Refused("POST", "?delete", answer)
        stamp = self.stamp()
        for path in paths:
            self.slot(path).acked(stamp)
        self.open.clear()
        self.operations += 1

    def multipart(self):
        path = self.rng.choice(self.keys)
        sizes = [self.rng.randint(1, 300 * KIB)]
        if self.rng.random() < 0.3:
            sizes.insert(0, PART_BYTES_MIN)
        described, headers = self.description()
        upload_id = self.call("POST", path, {"uploads": ""}, headers).all("UploadId")[0]
        upload = {"begun": self.stamp(), "parts": [], "ended": None}
        with self.model.lock:
            self.model.uploads[f"{path}?{upload_id}"] = upload
        whole, digests = b"", b""
        for number, size in enumerate(sizes, 1):
            part = content(self.rng.getrandbits(48), size)
            answer = self.call("PUT", path, {"partNumber": number, "uploadId": upload_id}, body=part)
            upload["parts"].append([self.stamp(), number, answer.etag])
            whole, digests = whole + part, digests + hashlib.md5(part).digest()
        upload["ended"] = self.stamp()
        if self.rng.random() < 0.15:
            self.call("DELETE", path, {"uploadId": upload_id})
            return
        parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>\"{etag}\"</ETag></Part>" for _, n, etag in upload["parts"])
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        state = object_state(whole, f"{hashlib.md5(digests).hexdigest()}-{len(sizes)}", **described)
        self.write(self.slot(path), path, state, "POST", path, {"uploadId": upload_id}, body=body)

    def copy(self):
        sources = [path for path in self.keys if self.slot(path).now is not None]
        path = self.rng.choice(self.keys)
        if not sources or path in sources[:1]:
            return
        source = self.rng.choice([one for one in sources if one != path] or sources)
        if source == path:
            return
        # The tag of a copy is the server's to choose (its source may be a multipart object), but then it must stay.
        self.write(self.slot(path), path, dict(self.slot(source).now, etag=None), "PUT", path,
                   headers={"x-amz-copy-source": f"/{source}"}, etag_of=lambda answer: answer.all("ETag")[0].strip('"'))


class BucketWorker(Owner):
    """Makes a bucket, puts some objects, empties and deletes it, makes it again: nothing old may show."""

    def step(self):
        name = f"cycle-{self.number}"
        bucket = self.model.slot(self.model.buckets, name)
        if bucket.now is None and not self.write(bucket, name, True, "PUT", name):
            return
        paths = self.rng.sample([f"{name}/{i}" for i in range(6)], 3)
        for path in paths:
            sizes = (0, 300) if self.phase() == "records" else (0, 300, 3000, 90 * KIB, 200 * KIB)
            body = content(self.rng.getrandbits(48), self.rng.choice(sizes))
            state = object_state(body, hashlib.md5(body).hexdigest())
            self.write(self.model.slot(self.model.objects, path), path, state, "PUT", path, body=body)
        if self.rng.random() < 0.3:
            return
        for path, slot in list(self.model.objects.items()):
            if path.startswith(name + "/") and slot.now is not None:
                if not self.write(slot, path, None, "DELETE", path):
                    return
        self.write(bucket, name, None, "DELETE", name)


def read_object(s3, path):
    """The state that a client sees, as object_state() has it; raises on anything but the object or its absence."""
    answer = s3.request("GET", path, expect=None)
    if answer.status == 404 and answer.code in ("NoSuchKey", "NoSuchBucket"):
        return None
    if answer.status != 200:
        raise Refused("GET", path, answer)
    tags = ()
    if (count := int(answer.headers.get("x-amz-tagging-count", 0))) > 0:
        listed = s3.request("GET", path, {"tagging": ""})
        tags = list(zip(listed.all("TagSet/Tag/Key"), listed.all("TagSet/Tag/Value"), strict=True))
        if len(tags) != count:
            raise Refused("GET", f"{path}?tagging", listed)
    return {"md5": hashlib.md5(answer.body).hexdigest(), "size": len(answer.body), "etag": answer.etag,
            "meta": answer.headers.get("x-amz-meta-v", ""), "tags": tag_digest(tags), "type": answer.headers.get("content-type", "")}


def same(seen, state):
    if not isinstance(seen, dict) or not isinstance(state, dict):
        return seen == state
    return all(state[name] is None or seen[name] == state[name] for name in state)


def check(server, model, until):
    """Everything that was acknowledged, against a server that runs on the state at `until`; returns the problems."""
    s3 = RawS3(server.s3_port, server.access_key, server.secret_key)
    problems = []
    present = {}
    for name, slot in model.buckets.items():
        exists = s3.request("HEAD", name, expect=None).status == 200
        present[name] = exists
        if (True if exists else None) not in slot.allowed(until):
            problems.append(f"bucket {name} is {'there' if exists else 'lost'}")
    holds = {}
    for path, slot in model.objects.items():
        allowed = slot.allowed(until)
        try:
            seen = read_object(s3, path)
        except (Refused, OSError, http.client.HTTPException) as error:
            problems.append(f"{path}: {error!r}; expected {allowed}")
            continue
        holds[path] = seen
        if not any(same(seen, state) for state in allowed):
            kind = "lost" if seen is None else "back from the dead" if allowed == [None] else "wrong"
            problems.append(f"{path} is {kind}: {seen}, allowed {allowed}")
    for name, exists in present.items():
        if not exists:
            continue
        listed = s3.list_keys(name)
        if sorted(set(listed)) != listed:
            problems.append(f"listing of {name} is out of order or has a key twice")
        expected = {path.split("/", 1)[1] for path, seen in holds.items() if seen is not None and path.startswith(name + "/")}
        for key in set(listed) ^ expected:
            if f"{name}/{key}" in holds or key in listed:
                problems.append(f"listing of {name}: {key} is {'listed but not there' if key in listed else 'there but not listed'}")
    for name, upload in model.uploads.items():
        # One whose completion or abort was not asked for before the cut is still there, with the parts that were acknowledged.
        if upload["begun"] > until or (upload["ended"] is not None and upload["ended"] <= until):
            continue
        path, upload_id = name.split("?")
        wanted = {(str(number), etag) for stamp, number, etag in upload["parts"] if stamp <= until}
        answer = s3.request("GET", path, {"uploadId": upload_id}, expect=None)
        found = set(zip(answer.all("Part/PartNumber"), [tag.strip('"') for tag in answer.all("Part/ETag")])) \
            if answer.status == 200 else None
        if found is None:
            problems.append(f"upload {name} is lost with its parts {wanted}: {answer.status} {answer.code}")
        elif not wanted <= found:
            problems.append(f"upload {name} has the parts {found}, acknowledged were {wanted}")
    # And it goes on from here.
    for name in [name for name, exists in present.items() if exists][:1]:
        s3.request("PUT", f"{name}/after", body=b"after the crash")
        if s3.request("GET", f"{name}/after").body != b"after the crash":
            problems.append("what is written after the crash is not read")
    s3.close()
    return problems
