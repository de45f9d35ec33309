"""The program `classify ARTIFACT_DIR PIXELS.pam [--logits] [--threads N]`: the most probable classes, or all numbers.

PIXELS.pam is what the network sees of one image or more, as `pixels ARTIFACT_DIR IMAGE...` of deploy/cpp writes it.
"""

from images import read_images
from network import Network
from options import Options
from std.math import exp
from std.sys import exit, stderr
from vit import Vit

comptime MOST = 5


def main():
    try:
        run()
    except error:
        print("error: " + String(error), file=stderr)
        exit(2)


def run() raises:
    var options = Options("classify ARTIFACT_DIR PIXELS.pam [--logits] [--threads N]")
    var network = Network(options.artifact)
    var labels = network.labels()
    var is_softmax = network.artifact.text("activation") == "softmax"
    var vit = Vit(network, options.threads)
    if not options.logits and not is_softmax:
        raise Error("this program runs networks of one class per image; --logits shows the numbers of others")
    var images = read_images(options.pixels)
    for number in range(len(images)):
        var logits = vit.logits(images[number])
        if len(labels) != len(logits):
            raise Error("labels.txt has another number of classes than the network")
        if options.logits:
            for logit in logits:
                print(Float64(logit))  # whose digits, unlike those of a Float32, are always all that are needed
            continue
        if len(images) > 1:
            print("image", number + 1)
        show(labels, logits)


def show(labels: List[String], logits: List[Float32]):
    var largest = logits[0]
    for logit in logits:
        largest = max(largest, logit)
    var total = Float32(0)
    for logit in logits:
        total += exp(logit - largest)
    var shown = List[Bool](length=len(logits), fill=False)
    for _ in range(min(MOST, len(logits))):
        var best = -1
        for i in range(len(logits)):
            if not shown[i] and (best < 0 or logits[i] > logits[best]):
                best = i
        shown[best] = True
        print(exp(logits[best] - largest) / total, "", labels[best])
