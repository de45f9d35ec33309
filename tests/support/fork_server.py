"""Starts `python -m MODULE …` in milliseconds: forked from a process that has imported what commands need.

    python -m tests.support.fork_server SOCKET

For each request of `fork_client.py` a keeper is forked, which forks the command and waits for it:

    server  -->  keeper  -->  command, with the client's arguments, environment, directory and standard streams

The keeper tells the client how the command ended; if the client is killed, it kills the command.
A command that ends as it should does what it registered for its end, but does not take down the interpreter, module by
module: that takes longer than most commands.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import threading
from typing import NoReturn

#: slow to import, and used by most commands
LIBRARIES = (
    "torch", "torch._dynamo", "torch.distributed.run", "torch.utils.data", "torchvision",
    "tensorboard.summary.writer.record_writer", "tensorboard.compat.proto.event_pb2",
    "PIL.Image", "rich.console", "typer", "yaml", "pydantic", "safetensors.torch",
)  # fmt: skip


def main() -> None:
    import vitcli

    for name in (*LIBRARIES, *(module.name for module in pkgutil.walk_packages(vitcli.__path__, "vitcli."))):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    gc.freeze()  # what is shared stays shared
    order = serve(sys.argv[1])
    if order is not None:
        run(order)


def serve(path: str) -> dict | None:
    """Fork a keeper and a command for each client; returns in a command, and when standard input is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return None
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return keep(client)


def keep(client: socket.socket) -> dict:
    """Fork the command and report its end to the client; returns in the command only."""
    length, streams, _, _ = socket.recv_fds(client, 8, 3)
    order = json.loads(client.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    pid = os.fork()
    if pid:
        wait(client, pid, streams)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return order


def wait(client: socket.socket, pid: int, streams: list[int]) -> NoReturn:
    """Until the command ends, or the client does."""
    client.sendall(pid.to_bytes(8, "big"))
    for number in (0, 1, 2, *streams):
        os.close(number)  # a reader of the command's output sees its end
    ready, _, _ = select.select([client, os.pidfd_open(pid)], [], [])
    if client in ready:  # its end of the connection is closed
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        client.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
    os._exit(0)


def run(order: dict) -> NoReturn:
    """Become `python -m MODULE …` as the client asked for it."""
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    sys.path[0] = order["directory"]
    sys.argv = ["", *order["words"]]
    code = 0
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()  # as the interpreter does it: waits for threads, and calls what is registered
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
