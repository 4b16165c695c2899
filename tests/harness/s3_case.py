"""The base class of the S3 tests."""
import http.client
import os
import sys
import unittest
import urllib.parse
import uuid
import xml.etree.ElementTree

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.exceptions

from harness.server import Server

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_client = None


def client(endpoint=None, access_key=None, secret_key=None, **config):
    """A botocore client that sends each request once, by path, and hides no error behind a retry."""
    settings = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}, "connect_timeout": 5,
                "read_timeout": 60, "max_pool_connections": 64, "signature_version": "s3v4", **config}
    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint or os.environ["BASALT_ENDPOINT"], region_name="us-east-1",
        aws_access_key_id=access_key or os.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret_key or os.environ["AWS_SECRET_ACCESS_KEY"], config=botocore.config.Config(**settings))


class Reply:
    """status, headers (names in lower case; the last of equals wins), body; xml() and code for what an S3 error says."""

    def __init__(self, response):
        self.status = response.status
        self.header_list = response.getheaders()
        self.headers = {name.lower(): value for name, value in self.header_list}
        self.body = response.read()

    def xml(self):
        return xml.etree.ElementTree.fromstring(self.body)

    @property
    def code(self):
        if not self.body.lstrip().startswith(b"<"):
            return None
        element = self.xml()
        return element.findtext("Code") or element.findtext(NAMESPACE + "Code")

    def __repr__(self):
        return f"{self.status} {self.header_list} {self.body[:2000]!r}"


class S3Case(unittest.TestCase):
    """self.s3 is a botocore client, self.bucket a fresh bucket that is emptied and removed after the test."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        global _client
        os.environ.pop("AWS_CA_BUNDLE", None)
        if "BASALT_ENDPOINT" not in os.environ:
            raise unittest.SkipTest("no server: run it by tools/dev test one NAME")
        if _client is None or _client.meta.endpoint_url != os.environ["BASALT_ENDPOINT"]:
            _client = client()
        cls.s3 = _client

    def setUp(self):
        self.bucket = self.make_bucket()

    def make_bucket(self, prefix="test"):
        name = f"{prefix}-{uuid.uuid4().hex[:20]}"
        self.s3.create_bucket(Bucket=name)
        self.addCleanup(self.remove_bucket, name)
        return name

    def remove_bucket(self, name):
        try:
            uploads = self.s3.list_multipart_uploads(Bucket=name).get("Uploads", [])
            for upload in uploads:
                self.s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
            for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=name):
                for item in page.get("Contents", []):
                    self.s3.delete_object(Bucket=name, Key=item["Key"])
            self.s3.delete_bucket(Bucket=name)
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucket":
                raise

    def error(self, code, status, function, *args, **kwargs):
        """Calls a client method and expects exactly this S3 error."""
        with self.assertRaises(botocore.exceptions.ClientError) as caught:
            function(*args, **kwargs)
        response = caught.exception.response
        self.assertEqual((response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]), (code, status))
        return response

    def raw(self, method, path, query="", headers=None, body=b"", sign=True, access_key=None, secret_key=None):
        """One request as given. path and query are sent as they are, so they come percent-encoded; sign=True adds a
        SigV4 header over all of it (pass x-amz-content-sha256 to choose the payload hash)."""
        headers = dict(headers or {})
        host = os.environ["BASALT_ENDPOINT"].split("://")[1]
        url = path + ("?" + query if query else "")
        if sign:
            request = botocore.awsrequest.AWSRequest(
                method, os.environ["BASALT_ENDPOINT"] + url, headers=headers, data=body or None)
            keys = botocore.credentials.Credentials(
                access_key or os.environ["AWS_ACCESS_KEY_ID"], secret_key or os.environ["AWS_SECRET_ACCESS_KEY"])
            signer = botocore.auth.S3SigV4Auth(keys, "s3", "us-east-1")
            given = {name.lower(): value for name, value in headers.items()}.get("x-amz-content-sha256")
            if given is not None:
                signer.payload = lambda request: given
            signer.add_auth(request)
            headers = dict(request.headers.items())
        headers.setdefault("Host", host)
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
            if body and not any(name.lower() in ("content-length", "transfer-encoding") for name in headers):
                headers["Content-Length"] = str(len(body))
            elif method in ("PUT", "POST"):
                headers.setdefault("Content-Length", "0")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            return Reply(connection.getresponse())
        finally:
            connection.close()

    @staticmethod
    def quote(key):
        return urllib.parse.quote(key, safe="/~")


def main():
    """For "if __name__ == '__main__'" in a test file: a server of its own around unittest.main."""
    if "BASALT_ENDPOINT" in os.environ:
        unittest.main()
    with Server("one") as server:
        os.environ.update({k: v for k, v in server.env(server.data).items() if k.startswith(("AWS_", "BASALT_"))})
        program = unittest.main(exit=False)
    sys.exit(0 if program.result.wasSuccessful() else 1)
