"""The program `classify ARTIFACT_DIR PIXELS.pam [--logits]`: the most probable classes of an image, or all numbers.

PIXELS.pam is what the network sees of an image, as `pixels ARTIFACT_DIR IMAGE` of deploy/cpp writes it.
"""

from network import Network, read_file
from std.math import exp
from std.sys import argv, exit, stderr
from vit import Vit

comptime MOST = 5


def main():
    try:
        run()
    except error:
        print("error: " + String(error), file=stderr)
        exit(2)


def run() raises:
    var words = argv()
    if len(words) < 3 or len(words) > 4 or (len(words) == 4 and String(words[3]) != "--logits"):
        raise Error("expected: classify ARTIFACT_DIR PIXELS.pam [--logits]")
    var network = Network(String(words[1]))
    var labels = network.labels()
    var is_softmax = network.artifact.text("activation") == "softmax"
    var vit = Vit(network^)
    var logits = vit.logits(read_pixels(String(words[2])))
    if len(labels) != len(logits):
        raise Error("labels.txt has another number of classes than the network")
    if len(words) == 4:
        for logit in logits:
            print(logit)
        return
    if not is_softmax:
        raise Error("this program runs networks of one class per image; --logits shows the numbers of others")
    show(labels, logits)


def read_pixels(path: String) raises -> List[UInt8]:
    """The pixels of a PAM file; its size is compared with the network's later."""
    var content = read_file(path)
    var end = String("ENDHDR\n").as_bytes()
    for start in range(min(len(content) - len(end), 200)):
        var same = True
        for i in range(len(end)):
            if content[start + i] != end[i]:
                same = False
        if same and content[0] == 80 and content[1] == 55:
            var pixels = List[UInt8](capacity=len(content))
            for i in range(start + len(end), len(content)):
                pixels.append(content[i])
            return pixels^
    raise Error(path + " is not a PAM file, as `pixels` of deploy/cpp writes it")


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
