#!/usr/bin/python3
"""docker-registry (distribution 2.8) with Basalt as its storage: pushes an image by the registry's HTTP API in each of
the ways docker does (one PUT; POST, PATCHes, PUT), restarts the registry, pulls everything back, compares digests."""
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import secrets
import subprocess
import time
import urllib.parse

import boto3

from harness.server import free_ports

SCRATCH = pathlib.Path(os.environ["SCRATCH"])
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    def __init__(self, bucket):
        self.port = free_ports(1)[0]
        self.config = SCRATCH / "registry.yml"
        self.log = SCRATCH / "registry.log"
        # JSON is YAML.
        self.config.write_text(json.dumps({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {
                "s3": {"accesskey": os.environ["AWS_ACCESS_KEY_ID"], "secretkey": os.environ["AWS_SECRET_ACCESS_KEY"],
                       "region": "us-east-1", "regionendpoint": os.environ["BASALT_ENDPOINT"], "bucket": bucket,
                       "secure": False, "v4auth": True, "rootdirectory": "/registry", "chunksize": 5 << 20},
                "delete": {"enabled": True},
                "redirect": {"disable": True},
            },
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }))
        self.process = None

    def __enter__(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", str(self.config)], stdout=log, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError):
                if self.call("GET", "/v2/")[0] == 200:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("docker-registry did not start:\n" + self.log.read_text()[-3000:])

    def __exit__(self, kind, value, trace):
        self.process.terminate()
        self.process.wait(20)
        if kind is not None:
            print(self.log.read_text()[-3000:])

    def call(self, method, url, body=b"", **headers):
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, parts.path + ("?" + parts.query if parts.query else ""), body,
                               {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def expect(self, status, *args, **headers):
        answer = self.call(*args, **headers)
        assert answer[0] == status, (args[:2], answer)
        return answer

    def push_blob(self, data, chunks):
        _, headers, _ = self.expect(202, "POST", "/v2/image/blobs/uploads/")
        location, step = headers["location"], -(-len(data) // chunks) if chunks else 0
        for begin in range(0, len(data) if chunks else 0, step or 1):
            piece = data[begin:begin + step]
            _, headers, _ = self.expect(202, "PATCH", location, piece, Content_Type="application/octet-stream",
                                        Content_Range=f"{begin}-{begin + len(piece) - 1}")
            location = headers["location"]
        tail = location + ("&" if "?" in location else "?") + "digest=" + digest(data)
        _, headers, _ = self.expect(201, "PUT", tail, b"" if chunks else data, Content_Type="application/octet-stream")
        assert headers["docker-content-digest"] == digest(data)


def main():
    bucket = "registry-" + secrets.token_hex(6)
    s3 = boto3.client("s3", endpoint_url=os.environ["BASALT_ENDPOINT"])
    s3.create_bucket(Bucket=bucket)
    image_config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    layers = [secrets.token_bytes(1000), secrets.token_bytes(300_000), secrets.token_bytes(13 << 20)]
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(image_config),
                   "digest": digest(image_config)},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(layer),
                    "digest": digest(layer)} for layer in layers],
    }).encode()
    registry = Registry(bucket)
    with registry:
        registry.push_blob(image_config, 0)
        registry.push_blob(layers[0], 0)
        registry.push_blob(layers[1], 3)
        registry.push_blob(layers[2], 2)
        _, headers, _ = registry.expect(201, "PUT", "/v2/image/manifests/latest", manifest, Content_Type=MANIFEST)
        assert headers["docker-content-digest"] == digest(manifest)
    with registry:
        _, _, body = registry.expect(200, "GET", "/v2/image/manifests/latest", Accept=MANIFEST)
        assert body == manifest
        for blob in [image_config, *layers]:
            _, headers, _ = registry.expect(200, "HEAD", f"/v2/image/blobs/{digest(blob)}")
            assert int(headers["content-length"]) == len(blob)
            _, _, body = registry.expect(200, "GET", f"/v2/image/blobs/{digest(blob)}")
            assert body == blob
        _, _, body = registry.expect(206, "GET", f"/v2/image/blobs/{digest(layers[2])}", Range="bytes=6000000-6000099")
        assert body == layers[2][6000000:6000100]
        assert json.loads(registry.expect(200, "GET", "/v2/image/tags/list")[2])["tags"] == ["latest"]
        assert json.loads(registry.expect(200, "GET", "/v2/_catalog")[2])["repositories"] == ["image"]
        registry.expect(202, "DELETE", f"/v2/image/manifests/{digest(manifest)}")
        registry.expect(404, "GET", "/v2/image/manifests/latest", Accept=MANIFEST)
    print("docker-registry: all as expected")


if __name__ == "__main__":
    main()
