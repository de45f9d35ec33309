"""The command line of the programs."""

from max.runtime.asyncrt import parallelism_level
from std.sys import argv
from threads import Threads


struct Options(Movable):
    """ARTIFACT_DIR PIXELS.pam [--logits] [--threads N], in any order."""

    var artifact: String
    var pixels: String
    var logits: Bool
    var threads: Threads  # at most one per processor, which is also the default

    def __init__(out self, usage: String) raises:
        self.logits = False
        var most = parallelism_level(None)
        self.threads = Threads(most)
        var words = argv()
        var paths = List[String]()
        var i = 1
        while i < len(words):
            var word = String(words[i])
            i += 1
            if not word.startswith("--"):
                paths.append(word)
            elif word == "--logits":
                self.logits = True
            elif word == "--threads":
                self.threads = Threads(min(most, positive_number(word, String(words[i]) if i < len(words) else "")))
                i += 1
            else:
                raise Error("no option " + word + "; expected: " + usage)
        if len(paths) != 2:
            raise Error("expected: " + usage)
        self.artifact = paths[0]
        self.pixels = paths[1]


def positive_number(option: String, word: String) raises -> Int:
    var is_number = word.byte_length() > 0 and word.byte_length() <= 6
    for letter in word.as_bytes():
        is_number = is_number and letter >= 48 and letter <= 57
    if not is_number or Int(word) == 0:
        raise Error(option + " takes a positive number, not '" + word + "'")
    return Int(word)
