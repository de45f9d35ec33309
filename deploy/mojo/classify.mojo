"""The program `classify ARTIFACT_DIR PIXELS.pam [--logits]`: the most probable classes of images, or all numbers.

PIXELS.pam is what the network sees of one image or more, as `pixels ARTIFACT_DIR IMAGE...` of deploy/cpp writes it.
"""

from network import Network, read_file, whole_number
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
    if len(words) == 3 and not is_softmax:
        raise Error("this program runs networks of one class per image; --logits shows the numbers of others")
    var images = read_images(String(words[2]))
    for number in range(len(images)):
        var logits = vit.logits(images[number])
        if len(labels) != len(logits):
            raise Error("labels.txt has another number of classes than the network")
        if len(words) == 4:
            for logit in logits:
                print(logit)
            continue
        if len(images) > 1:
            print("image", number + 1)
        show(labels, logits)


def read_images(path: String) raises -> List[List[UInt8]]:
    """The pixels of each image of a PAM file; their number is compared with the network's later."""
    var content = read_file(path)
    var images = List[List[UInt8]]()
    var next = 0
    while next < len(content) or len(images) == 0:
        var line = read_line(content, next)
        if line != "P7":
            raise Error(path + " is not a PAM file, as `pixels` of deploy/cpp writes it")
        var count = 1
        while line != "ENDHDR" and next < len(content):
            for key in ["WIDTH ", "HEIGHT ", "DEPTH "]:
                if line.startswith(String(key)):
                    var side = whole_number(path, String(line[byte = String(key).byte_length() :]))
                    count *= min(side, len(content))
                    count = min(count, len(content))  # the file has fewer numbers than that
            next += line.byte_length() + 1
            line = read_line(content, next)
        next += line.byte_length() + 1
        if next + count > len(content):
            raise Error(path + " is truncated")
        var pixels = List[UInt8](capacity=count)
        for i in range(next, next + count):
            pixels.append(content[i])
        images.append(pixels^)
        next += count
    return images^


def read_line(content: List[UInt8], first: Int) -> String:
    """The characters before the next end of a line; at most 80, and none at the end of the file."""
    var line = String()
    for i in range(first, min(len(content), first + 80)):
        if content[i] == 10:
            break
        line += chr(Int(content[i]))
    return line^


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
