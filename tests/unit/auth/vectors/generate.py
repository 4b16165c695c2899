#!/usr/bin/python3
"""Writes botocore_vectors.h: requests as botocore sends them, signed by botocore's S3 signers.

Run it by hand after changing the list below:  ./generate.py > botocore_vectors.h
botocore is the second opinion here: the test accepts each request with our verifier.
"""
import datetime
import sys
import types
from urllib.parse import quote, urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
NOW = datetime.datetime(2026, 11, 21, 2, 21, 0)


class FixedDatetime(datetime.datetime):
    @classmethod
    def utcnow(cls):
        return NOW


botocore.auth.datetime = types.SimpleNamespace(datetime=FixedDatetime, timedelta=datetime.timedelta)

KEYS = [
    "plain.txt", "a/b/c", "with space", "two  spaces", "plus+sign", "semi;colon", "equals=sign", "star*", "tilde~",
    "percent%25", "percent%", "am&per", "quest?ion", "hash#", "at@sign", "colon:", "comma,", "dollar$", "quote'",
    "double\"quote", "paren(1)", "bracket[0]", "brace{}", "pipe|", "back\\slash", "caret^", "tick`", "less<than>",
    "exclam!", "ünïcödé", "日本語/キー", "🙂", "/leading", "double//slash", "dots/../x", "./dot", "trailing/",
    "tab\there", "nul-like%00", "\x01control", "x" * 900, "%2F", "a%2Fb", "é+é é", "-._~", "UPPER",
]
QUERIES = [
    [], [("acl", "")], [("uploads", "")], [("prefix", "a b")], [("prefix", "a+b")], [("prefix", "a/b/")],
    [("prefix", "日本")], [("delimiter", "/"), ("list-type", "2"), ("prefix", "")], [("b", "2"), ("a", "1"), ("c", "3")],
    [("a", "2"), ("a", "1"), ("a", "10")], [("a-b", "1"), ("a", "2")], [("a", "="), ("a=", "x")], [("marker", "*~;:@&,$")],
    [("start-after", "100%")], [("response-content-disposition", "attachment; filename=\"a b+c.txt\"")],
    [("partNumber", "1"), ("uploadId", "a.b_c-d~e==")], [("versionId", "null")], [("A", "1"), ("a", "1"), ("B", "")],
    [("continuation-token", "1/+==%&")], [("é", "ü")],
]
HEADERS = [
    {}, {"x-amz-meta-empty": ""}, {"x-amz-meta-spaces": "a   b    c"}, {"x-amz-meta-utf8": "caf\u00e9"},
    {"Content-Type": "text/plain; charset=utf-8", "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
    {"Range": "bytes=0-9", "If-Match": "\"abc\""}, {"X-Amz-Meta-Mixed-Case": "Value", "x-amz-acl": "private"},
    {"x-amz-copy-source": "/bucket/a%20b?versionId=1"}, {"x-amz-meta-a": "1", "x-amz-meta-a-b": "2", "x-amz-meta-ab": "3"},
]


def c_text(value):
    out = []
    for byte in value.encode("utf-8"):
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif 0x20 <= byte < 0x7F and char != "?":
            out.append(char)
        else:
            out.append("\\%03o" % byte)
    return '"' + "".join(out) + '"'


def emit(request, what):
    parts = urlsplit(request.url)
    raw = request.url.split(parts.netloc, 1)[1]
    path, _, query = raw.partition("?")
    headers = [("host", parts.netloc)] + [(k, v) for k, v in request.headers.items()]
    fields = ", ".join("{%s, %s}" % (c_text(k), c_text(v)) for k, v in headers)
    print("    {%s, %s, %s, %s, {%s}}," % (c_text(what), c_text(request.method), c_text(path), c_text(query), fields))


def sign(method, key, query, headers, presigned, number):
    credentials = Credentials(KEY, SECRET)
    url = "http://localhost:9000/bucket"
    if key is not None:
        url += "/" + quote(key, safe="/~")
    if query:
        # As botocore's rest serializer and its prepared request do: everything but unreserved is encoded.
        url += "?" + "&".join(quote(k, safe="-_.~") + ("=" + quote(v, safe="-_.~") if v or not presigned else "")
                              for k, v in query)
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=b"body" if method == "PUT" and not presigned else b"")
    if presigned:
        signer = botocore.auth.S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=3600)
    else:
        signer = botocore.auth.S3SigV4Auth(credentials, "s3", "us-east-1")
    signer.add_auth(request)
    emit(request, "%s %d" % ("query" if presigned else "header", number))


def main():
    print("// Made by generate.py with botocore %s; do not edit." % botocore.__version__)
    print("// clang-format off\n#pragma once\n\n#include <string_view>\n#include <utility>\n#include <vector>\n")
    print("namespace basalt::auth::vectors {\n")
    print("struct Vector {\n  std::string_view what, method, path, query;")
    print("  std::vector<std::pair<std::string_view, std::string_view>> headers;\n};\n")
    print("constexpr std::string_view kAccessKey = %s;" % c_text(KEY))
    print("constexpr std::string_view kSecretKey = %s;" % c_text(SECRET))
    print("constexpr long long kNowMs = %d;  // %s\n" %
          (int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()) * 1000, NOW.isoformat()))
    print("inline std::vector<Vector> all() {\n  return {")
    number = 0
    for presigned in (False, True):
        for index, key in enumerate(KEYS):
            number += 1
            sign(("GET", "PUT", "HEAD", "DELETE")[index % 4], key, QUERIES[index % len(QUERIES)] if index % 3 == 0 else [],
                 {}, presigned, number)
        for index, query in enumerate(QUERIES):
            number += 1
            sign("GET", None if index % 2 else "key", query, {}, presigned, number)
        for headers in HEADERS:
            number += 1
            sign("PUT", "key", [], headers, presigned, number)
    print("  };\n}\n\n}  // namespace basalt::auth::vectors")


sys.exit(main())
