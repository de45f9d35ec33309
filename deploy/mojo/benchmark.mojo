"""The program `benchmark ARTIFACT_DIR PIXELS.pam [--threads N]`.

After each line that it reads, it runs the network on the first image once and prints the milliseconds that this took.
So a script can let it take turns with other programs.
"""

from images import read_images
from network import Network
from options import Options
from std.ffi import external_call
from std.sys import exit, stderr
from std.time import perf_counter_ns
from vit import Vit


def main():
    try:
        run()
    except error:
        print("error: " + String(error), file=stderr)
        exit(2)


def run() raises:
    var options = Options("benchmark ARTIFACT_DIR PIXELS.pam [--threads N]")
    var vit = Vit(Network(options.artifact), options.threads)
    var images = read_images(options.pixels)
    while read_line():
        var start = perf_counter_ns()
        _ = vit.logits(images[0])
        print(Float64(perf_counter_ns() - start) / 1e6, flush=True)


def read_line() -> Bool:
    """Skip a line of the standard input; False at its end."""
    while True:
        var letter = external_call["getchar", Int32]()
        if letter < 0 or letter == 10:
            return letter == 10
