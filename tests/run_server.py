#!/usr/bin/python3
"""run_server.py [--data DIR] [--no-io-uring] [--server-arg ARG]... -- COMMAND...

Starts a basaltd of its own, runs COMMAND with BASALT_ENDPOINT, BASALT_ADMIN, BASALT_DATA and the AWS_ variables in its
environment, stops the server and exits with COMMAND's status (or 1 if the server did not end well).
"""
import argparse
import os
import subprocess
import sys

from harness.server import ROOT, Server


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--no-io-uring", action="store_true")
    parser.add_argument("--server-arg", action="append", default=[])
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    launcher = [str(ROOT / "tests/tools/no_io_uring.py")] if args.no_io_uring else []
    with Server("run_server", data=args.data, args=args.server_arg, launcher=launcher) as server:
        settings = server.env(server.data)
        env = {k: v for k, v in os.environ.items() if k != "AWS_CA_BUNDLE"}
        env.update({k: v for k, v in settings.items() if k.startswith(("AWS_", "BASALT_"))})
        return subprocess.run(args.command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
