"""Serves this folder to the browsers of this machine: `python3 serve.py [PORT]`, then open the address that it prints.

Any web server does. This one also sends the two headers with which browsers let the network use several threads.
"""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: without these, browsers do not share memory between threads
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".txt": "text/plain; charset=utf-8",
    }

    def end_headers(self) -> None:
        for name, value in ISOLATION.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not listed."""


def serve(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of `folder` for this machine only; port 0: one that is free. It answers in `serve_forever`."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))


def main() -> None:
    try:
        server = serve(Path(__file__).parent, int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"cannot listen on that port ({error}); give another: python3 serve.py 8080")
    print(f"http://127.0.0.1:{server.server_port}  (Ctrl+C ends)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
