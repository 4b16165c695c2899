#!/usr/bin/python3
"""boto3: its transfer manager (threads, multipart, ranges), paginators, resources, presigned requests, checksums."""
import base64
import hashlib
import io
import os
import secrets
import urllib.request
import zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError


def main():
    bucket = "boto3-" + secrets.token_hex(6)
    # Presigned URLs of this boto3 are SigV2 unless told; there is no SigV2 here.
    s3 = boto3.client("s3", endpoint_url=os.environ["BASALT_ENDPOINT"], config=Config(signature_version="s3v4"))
    s3.create_bucket(Bucket=bucket)
    s3.get_waiter("bucket_exists").wait(Bucket=bucket)

    data = secrets.token_bytes(21 << 20)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(data), bucket, "large", Config=config, ExtraArgs={"Metadata": {"a": "b"}})
    back = io.BytesIO()
    s3.download_fileobj(bucket, "large", back, Config=config)
    assert back.getvalue() == data
    head = s3.head_object(Bucket=bucket, Key="large")
    assert head["ContentLength"] == len(data) and head["Metadata"] == {"a": "b"} and head["ETag"].endswith('-5"'), head
    s3.copy({"Bucket": bucket, "Key": "large"}, bucket, "large-copy", Config=config)
    assert s3.get_object(Bucket=bucket, Key="large-copy")["Body"].read() == data
    part = s3.get_object(Bucket=bucket, Key="large", PartNumber=2)
    assert part["Body"].read() == data[5 << 20:10 << 20] and part["PartsCount"] == 5
    tail = s3.get_object(Bucket=bucket, Key="large", Range="bytes=-10")
    assert tail["Body"].read() == data[-10:] and tail["ResponseMetadata"]["HTTPStatusCode"] == 206

    keys = sorted([f"page/{n:04}" for n in range(250)] + ["page/ä", "page/a b+c%d&<e>", "page//double", "page/./dot/.."],
                  key=lambda key: key.encode())
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for operation in ("list_objects_v2", "list_objects"):
        pages = s3.get_paginator(operation).paginate(Bucket=bucket, Prefix="page/", PaginationConfig={"PageSize": 33})
        listed = [item["Key"] for page in pages for item in page["Contents"]]
        assert listed == keys, (operation, listed[:5], len(listed))
    for key in keys[::50] + keys[-4:]:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(), key

    small = b"checksummed"
    crc32 = base64.b64encode(zlib.crc32(small).to_bytes(4, "big")).decode()
    sha256 = base64.b64encode(hashlib.sha256(small).digest()).decode()
    put = s3.put_object(Bucket=bucket, Key="sum", Body=small, ChecksumAlgorithm="SHA256")
    assert put["ChecksumSHA256"] == sha256, put
    s3.put_object(Bucket=bucket, Key="sum32", Body=small, ChecksumCRC32=crc32)
    got = s3.get_object(Bucket=bucket, Key="sum32", ChecksumMode="ENABLED")
    assert got["Body"].read() == small and got["ChecksumCRC32"] == crc32, got
    got = s3.head_object(Bucket=bucket, Key="sum", ChecksumMode="ENABLED")
    assert got["ChecksumSHA256"] == sha256 and got["ContentLength"] == len(small), got
    wrong = base64.b64encode(b"0000").decode()
    try:
        s3.put_object(Bucket=bucket, Key="bad", Body=small, ChecksumCRC32=wrong)
        raise AssertionError("a wrong checksum was accepted")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "BadDigest", error
    try:
        s3.head_object(Bucket=bucket, Key="bad")
        raise AssertionError("the refused object is there")
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404, error

    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "presigned"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(url, data=small, method="PUT", headers={"Content-Type": ""})) as reply:
        assert reply.status == 200
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "presigned"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as reply:
        assert reply.read() == small

    resource = boto3.resource("s3", endpoint_url=os.environ["BASALT_ENDPOINT"]).Bucket(bucket)
    assert sum(1 for _ in resource.objects.all()) == len(keys) + 5
    resource.objects.all().delete()  # DeleteObjects in batches
    assert not list(resource.objects.all())
    resource.delete()
    print("boto3: all as expected")


if __name__ == "__main__":
    main()
