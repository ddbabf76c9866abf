"""`classes.py CLASS…`: SQLAlchemy's tests of each class (or test) in a process of pytest of its own, on a server of its own.

Environment as in `peer.py`, whose ways it uses itself: the server's address is an argument of this pytest.
"""

import os
import subprocess
import sys

import peer

DBURI = "--dburi=mysql+pymysql://scott:tiger@{host}:3306/test?charset=utf8mb4"


def main():
    server = peer.Peer()
    for unit in sys.argv[1:]:
        server.fresh()
        # Its reset is this one's; the process has no server of its own to run.
        environment = {**os.environ, "PEER_RESET_S": str(server.reset_s), "PEER_UNIT": unit}
        call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "peer", unit.split("::")[0], "--backend-only",
                DBURI.format(host=os.environ["SHOP_DB_HOST"])]
        subprocess.run(call, env=environment, check=False)
    server.pytest_sessionfinish()


if __name__ == "__main__":
    main()
