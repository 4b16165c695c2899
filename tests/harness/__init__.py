"""What every test of a running server shares: start, wait, stop, sign.

Server starts one basaltd on loopback ports it picked itself, with a root key of its own and a data directory of its own,
and ends it by its process id. S3Case is the base of tests/s3/*_test.py: a bucket of its own for each test, botocore for
the ordinary calls and raw() for the requests no client would send.

Who starts the server of an S3Case: tests/run.py (and tests/run_server.py) export BASALT_ENDPOINT and the AWS_ variables;
a test file run by itself (python3 tests/s3/put_object_test.py) starts one for its own time.
"""
from harness.server import ROOT, Server, build_dir, fresh_dir, free_ports
from harness.s3_case import S3Case, main

__all__ = ["ROOT", "S3Case", "Server", "build_dir", "free_ports", "fresh_dir", "main"]
