"""Has `fork_server.py` run a command, passes signals on to it, and ends as it ends.

python -S fork_client.py SOCKET MODULE word …
"""

import json
import os
import signal
import socket
import sys

path, module, *words = sys.argv[1:]
order = {"module": module, "words": words, "directory": os.getcwd(), "environment": dict(os.environ)}
text = json.dumps(order).encode()

with socket.socket(socket.AF_UNIX) as server:
    server.connect(path)
    socket.send_fds(server, [len(text).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(text)
    pid = int.from_bytes(server.recv(8), "big")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    for number in (0, 1, 2):
        os.close(number)  # so that a reader of the command's output sees its end
    code = int.from_bytes(server.recv(8), "big", signed=True)

if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
