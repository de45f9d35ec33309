"""The files of an exported folder, docs/native.md: descriptions in lines of key=value, and tensors."""

from buffers import Buffer, Floats, Numbers
from sha256 import sha256
from std.collections import Dict


@fieldwise_init
struct Matrix(ImplicitlyCopyable, Movable):
    """The numbers of a tensor, where the file was read to."""

    var type: DType
    var rows: Int
    var columns: Int
    var address: Int

    def at[type: DType](self) -> Numbers[type]:
        return Numbers[type](unsafe_from_address=self.address)


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

    def floats(self, name: String, shape: String, extra: Int = 0) raises -> Buffer:
        """A copy of an F32 tensor of this shape, as in 1152x384, with some zeros after it."""
        if self.type(name) != "F32":
            raise Error("the tensor " + name + " is not F32")
        var first = self.place(name, shape, 4)
        var count = 1
        for side in shape.split("x"):
            count *= Int(String(side))
        var result = Buffer(4 * (count + extra))
        var to = result.floats()
        var given = Floats(unsafe_from_address=Int(self.content.unsafe_ptr()) + first)
        for i in range(count):
            to[unsafe_offset=i] = given[unsafe_offset=i]
        return result^

    def matrix(self, name: String, rows: Int, columns: Int) raises -> Matrix:
        """A tensor of any type, which lies in this network."""
        var type = self.type(name)
        if type != "F32" and type != "BF16" and type != "I8":
            raise Error("the tensor " + name + " has the type " + type + ", which is unknown to this program")
        var size = 4 if type == "F32" else 2 if type == "BF16" else 1
        var first = self.place(name, String(rows) + "x" + String(columns), size)
        var of = DType.float32 if type == "F32" else DType.bfloat16 if type == "BF16" else DType.int8
        return Matrix(of, rows, columns, Int(self.content.unsafe_ptr()) + first)

    def type(self, name: String) raises -> String:
        """F32, BF16 or I8."""
        for word in self.values.text("tensor." + name).split(" "):
            return String(word)
        raise Error("the tensor " + name + " has no type")

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
