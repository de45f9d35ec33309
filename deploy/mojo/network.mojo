"""The files of an exported folder, docs/native.md: descriptions in lines of key=value, and tensors."""

from sha256 import sha256
from std.collections import Dict
from std.memory import bitcast

comptime Floats = MutPointer[Float32, MutUntrackedOrigin]


def read_file(path: String) raises -> List[UInt8]:
    try:
        with open(path, "r") as file:
            return file.read_bytes()
    except:
        raise Error("cannot read " + path)


def whole_number(key: String, digits: String) raises -> Int:
    if digits.byte_length() == 0 or digits.byte_length() > 15:
        raise Error(key + " is not a whole number")
    for letter in digits.as_bytes():
        if letter < 48 or letter > 57:
            raise Error(key + " is not a whole number")
    return Int(digits)


struct KeyValues(Copyable, Movable):
    var values: Dict[String, String]

    def __init__(out self, path: String) raises:
        """The lines of a file, the last of which, `checksum`, is the SHA-256 of those before it."""
        self.values = Dict[String, String]()
        var content = read_file(path)
        var text = String()
        for byte in content:
            text += chr(Int(byte))
        var end = text.rfind("checksum=")
        if end < 0 or String(text[byte=end + 9 :]) != sha256(content, end) + "\n":
            raise Error(path + " is damaged: its checksum is another")
        for part in text.split("\n"):
            var line = String(part)
            var equals = line.find("=")
            if equals > 0:
                self.values[String(line[byte=:equals])] = String(line[byte=equals + 1 :])

    def text(self, key: String) raises -> String:
        if key not in self.values:
            raise Error("the key " + key + " is missing")
        return self.values[key]

    def size(self, key: String, least: Int = 1) raises -> Int:
        var value = whole_number(key, self.text(key))
        if value < least or value > 65536:
            raise Error(key + " is out of range")
        return value

    def flag(self, key: String) raises -> Bool:
        return self.size(key, 0) == 1

    def numbers(self, key: String) raises -> List[Float32]:
        var result = List[Float32]()
        for part in self.text(key).split(","):
            result.append(Float32(Float64(String(part))))
        return result^


struct Network(Movable):
    """Of `vitcli export --to native`, after every file was found unchanged."""

    var folder: String
    var artifact: KeyValues
    var values: KeyValues
    var content: List[UInt8]

    def __init__(out self, folder: String) raises:
        self.folder = folder
        self.artifact = KeyValues(folder + "/artifact.txt")
        if self.artifact.text("artifact_version") != "4" or self.artifact.text("format") != "native":
            raise Error(folder + " is not of format native: export the model with --to native")
        for name in ["labels.txt", "model.txt", "model.safetensors"]:
            var path = folder + "/" + String(name)
            var bytes = read_file(path)
            if self.artifact.text("sha256." + String(name)) != sha256(bytes, len(bytes)):
                raise Error(path + " was changed: export the model again, or copy its folder again")
        self.values = KeyValues(folder + "/model.txt")
        if self.values.text("native_version") != "1":
            raise Error("model.txt has version " + self.values.text("native_version") + ", this program reads 1")
        self.content = read_file(folder + "/model.safetensors")

    def floats(self, name: String, shape: String) raises -> Floats:
        """The first number of an F32 tensor of this shape, as in 1152x384."""
        if self.type(name) != "F32":
            raise Error("the tensor " + name + " is not F32")
        return Floats(unsafe_from_address=Int(self.content.unsafe_ptr()) + self.place(name, shape, 4))

    def type(self, name: String) raises -> String:
        """F32, BF16 or I8."""
        for word in self.values.text("tensor." + name).split(" "):
            return String(word)
        raise Error("the tensor " + name + " has no type")

    def matrix(self, name: String, rows: Int, columns: Int) raises -> List[Float32]:
        """The numbers of a tensor of any type; those of I8 are whole numbers."""
        var type = self.type(name)
        var size = 4 if type == "F32" else 2 if type == "BF16" else 1
        var first = self.place(name, String(rows) + "x" + String(columns), size)
        var result = List[Float32](capacity=rows * columns)
        for i in range(rows * columns):
            var bits = UInt32(0)
            for part in range(size):
                bits = bits | (UInt32(self.content[first + i * size + part]) << UInt32(8 * (part + 4 - size)))
            if type == "I8":
                result.append(Float32(Int(bits >> 24) - (256 if bits >> 31 == 1 else 0)))
            else:
                result.append(bitcast[DType.float32, 1](bits))
        return result^

    def length(self, name: String) raises -> Int:
        """Of a tensor of one side."""
        var number = 0
        for word in self.values.text("tensor." + name).split(" "):
            if number == 1:
                return whole_number(name, String(word))
            number += 1
        raise Error("the tensor " + name + " has no shape")

    def place(self, name: String, shape: String, size: Int) raises -> Int:
        """The first byte of a tensor of this shape, whose numbers have `size` bytes."""
        var words = List[String]()
        for part in self.values.text("tensor." + name).split(" "):
            words.append(String(part))
        if len(words) != 4 or words[1] != shape:
            raise Error("the tensor " + name + " is not " + shape)
        var count = size
        for side in shape.split("x"):
            count *= Int(String(side))
        var first = whole_number(name, words[2])
        if whole_number(name, words[3]) != count or first + count > len(self.content) or first % size != 0:
            raise Error("the tensor " + name + " does not lie in its file")
        return first

    def labels(self) raises -> List[String]:
        var result = List[String]()
        with open(self.folder + "/labels.txt", "r") as file:
            for line in file.read().split("\n"):
                result.append(String(line))
        _ = result.pop()
        return result^
