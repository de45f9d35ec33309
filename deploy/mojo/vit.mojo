"""A ViT of the native format, docs/native.md, for one image at a time."""

from head import Classifier, read_linear
from kernels import Floats, LEAST, Linear, activate, add, at, attention, layer_norm, require_activation, scale_and_shift
from network import Network


def require(network: Network, key: String, value: String) raises:
    """Error unless a key has the only value that this program runs."""
    if network.values.text(key) != value:
        raise Error("this program runs networks with " + key + "=" + value + " only, and this one has " + key + "=" + network.values.text(key))


struct Vit(Movable):
    var network: Network
    var patch: Linear
    var blocks: List[Linear]  # qkv, proj, fc1, fc2 of each
    var classifier: Classifier
    var activation: String
    var attends_to_self: Bool
    var pool: String
    var num_pooled: Int
    var side: Int
    var rows: Int
    var columns: Int
    var channels: Int
    var prefix: Int
    var width: Int
    var heads: Int
    var head_dim: Int
    var mlp_dim: Int
    var eps: Float32

    def __init__(out self, var network: Network) raises:
        require(network, "architecture", "vit")
        require(network, "input", "pixels")
        self.side = network.values.size("patch_size")
        self.rows = network.values.size("grid_rows")
        self.columns = network.values.size("grid_columns")
        self.channels = network.values.size("in_channels")
        self.prefix = network.values.size("num_prefix_tokens", 0)
        var tokens = self.prefix + self.rows * self.columns
        self.width = network.values.size("embed_dim")
        self.heads = network.values.size("num_heads")
        self.head_dim = network.values.size("head_dim")
        self.mlp_dim = network.values.size("mlp_dim")
        self.eps = network.values.numbers("norm_eps")[0]
        self.activation = network.values.text("mlp_activation")
        require_activation(self.activation)
        self.attends_to_self = network.values.flag("attend_to_self") or tokens == 1
        self.pool = network.values.text("pool")
        if self.pool != "token" and self.pool != "avg" and self.pool != "max" and self.pool != "avgmax":
            raise Error("pool '" + self.pool + "' is unknown to this program")
        self.num_pooled = network.values.size("num_pooled_tokens") if self.pool == "token" else 1
        if self.num_pooled > tokens:
            raise Error("num_pooled_tokens is more than there are tokens")
        var inner = self.heads * self.head_dim
        self.patch = read_linear(network, "patch", self.width, self.side * self.side * self.channels)
        self.blocks = List[Linear]()
        for i in range(network.values.size("depth")):
            var name = "blocks." + String(i)
            self.blocks.append(read_linear(network, name + ".qkv", 3 * inner, self.width))
            self.blocks.append(read_linear(network, name + ".proj", self.width, inner))
            self.blocks.append(read_linear(network, name + ".fc1", self.mlp_dim, self.width))
            self.blocks.append(read_linear(network, name + ".fc2", self.width, self.mlp_dim))
        self.classifier = Classifier(network, self.width)
        if len(self.classifier.heads) > self.num_pooled:
            raise Error("there are more heads than pooled tokens")
        self.network = network^

    def logits(self, pixels: List[UInt8]) raises -> List[Float32]:
        """pixels (height, width, channels) -> (classes,)."""
        var tokens = self.prefix + self.rows * self.columns
        var x = self.embedded(pixels)
        var count = tokens * self.width
        var normed = List[Float32](length=tokens * max(self.width, self.heads * self.head_dim), fill=0)
        var wide = List[Float32](length=tokens * max(3 * self.heads * self.head_dim, self.mlp_dim), fill=0)
        var narrow = List[Float32](length=count, fill=0)
        for i in range(0, len(self.blocks), 4):
            layer_norm(at(x), tokens, self.width, self.eps, at(normed))
            self.blocks[i].run(at(normed), tokens, at(wide))
            attention(at(wide), tokens, self.heads, self.head_dim, self.attends_to_self, at(normed))
            self.blocks[i + 1].run(at(normed), tokens, at(narrow))
            add(at(x), at(narrow), count)
            layer_norm(at(x), tokens, self.width, self.eps, at(normed))
            self.blocks[i + 2].run(at(normed), tokens, at(wide))
            activate(self.activation, at(wide), tokens * self.mlp_dim)
            self.blocks[i + 3].run(at(wide), tokens, at(narrow))
            add(at(x), at(narrow), count)
        return self.classifier.logits(self.pooled(x, tokens))

    def embedded(self, pixels: List[UInt8]) raises -> List[Float32]:
        """The tokens (prefix + patches, width)."""
        var scale = self.network.values.numbers("pixel_scale")
        var shift = self.network.values.numbers("pixel_shift")
        var patches = self.rows * self.columns
        if len(pixels) != patches * self.patch.inputs or len(scale) != self.channels or len(shift) != self.channels:
            raise Error("the image does not have the size that the network takes")
        var cut = List[Float32](capacity=len(pixels))
        for row in range(self.rows):
            for column in range(self.columns):
                for y in range(self.side):
                    var line = (row * self.side + y) * self.columns * self.side + column * self.side
                    for i in range(self.side * self.channels):
                        var c = i % self.channels
                        cut.append(Float32(pixels[line * self.channels + i]) * scale[c] + shift[c])
        if self.network.values.flag("norm_patch_pixels"):
            layer_norm(at(cut), patches, self.patch.inputs, self.eps, at(cut))
        var x = List[Float32](length=(self.prefix + patches) * self.width, fill=0)
        var after = at(x).unsafe_offset(self.prefix * self.width)
        self.patch.run(at(cut), patches, after)
        _ = cut^  # a list ends after its last use, and a pointer to it is none
        self.norm_if("patch_norm", after, patches)
        var positions = self.network.floats("positions", String(patches) + "x" + String(self.width))
        add(after, positions, patches * self.width)
        if self.prefix > 0:
            add(at(x), self.network.floats("prefix", String(self.prefix) + "x" + String(self.width)), self.prefix * self.width)
        self.norm_if("norm_pre", at(x), self.prefix + patches)
        return x^

    def pooled(self, mut x: List[Float32], tokens: Int) raises -> List[List[Float32]]:
        """What each head classifies, (width,)."""
        var is_after = self.network.values.flag("norm_pooled")
        if not is_after:
            self.norm_if("norm", at(x), tokens)
        var result = List[List[Float32]]()
        for number in range(self.num_pooled):
            var vector = self.token(x, number) if self.pool == "token" else self.patches(x, tokens)
            if is_after:
                self.norm_if("norm", at(vector), 1)
            result.append(vector^)
        return result^

    def token(self, x: List[Float32], number: Int) -> List[Float32]:
        var result = List[Float32](capacity=self.width)
        for d in range(self.width):
            result.append(x[number * self.width + d])
        return result^

    def patches(self, x: List[Float32], tokens: Int) -> List[Float32]:
        """Mean or maximum of the patches, or the mean of both."""
        var mean = List[Float32](length=self.width, fill=0)
        var largest = List[Float32](length=self.width, fill=LEAST)
        for token in range(self.prefix, tokens):
            for d in range(self.width):
                mean[d] += x[token * self.width + d] / Float32(tokens - self.prefix)
                largest[d] = max(largest[d], x[token * self.width + d])
        if self.pool == "avg":
            return mean^
        if self.pool == "max":
            return largest^
        for d in range(self.width):
            mean[d] = (mean[d] + largest[d]) / 2
        return mean^

    def norm_if(self, name: String, x: Floats, rows: Int) raises:
        """Norm `name` of each row, if the network has it."""
        if not self.network.values.flag(name):
            return
        layer_norm(x, rows, self.width, self.eps, x)
        var shape = String(self.width)
        scale_and_shift(x, rows, self.width, self.network.floats(name + ".weight", shape), self.network.floats(name + ".bias", shape))
