"""A ViT of the native format, docs/native.md, for one image at a time."""

from kernels import Floats, Linear, add, at, attention, gelu, layer_norm, scale_and_shift
from network import Network


def require(network: Network, key: String, value: String) raises:
    """Error unless a key has the only value that this program runs."""
    if network.values.text(key) != value:
        raise Error("this program runs networks with " + key + "=" + value + " only, and this one has " + key + "=" + network.values.text(key))


def linear(network: Network, name: String, outputs: Int, inputs: Int) raises -> Linear:
    var type = network.type(name + ".weight")
    var weight = network.matrix(name + ".weight", outputs, inputs)
    var scale = List[Float32]()
    if type == "I8":
        var given = network.floats(name + ".scale", String(outputs))
        for j in range(outputs):
            scale.append(given[unsafe_offset=j])
    return Linear(weight, network.floats(name + ".bias", String(outputs)), scale^, outputs, inputs, type)


struct Vit(Movable):
    var network: Network
    var patch: Linear
    var blocks: List[Linear]  # qkv, proj, fc1, fc2 of each
    var head: Linear
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
        require(network, "mlp_activation", "gelu")
        require(network, "attend_to_self", "1")
        require(network, "head_layers", "1")
        for key in ["norm_patch_pixels", "patch_norm", "norm_pre", "pre_logits", "distilled", "fine_tune"]:
            require(network, String(key), "0")
        var pool = network.values.text("pool")
        if pool != "token" and pool != "avg":
            raise Error("this program runs networks with pool=token or avg only, and this one has pool=" + pool)
        self.side = network.values.size("patch_size")
        self.rows = network.values.size("grid_rows")
        self.columns = network.values.size("grid_columns")
        self.channels = network.values.size("in_channels")
        self.prefix = network.values.size("num_prefix_tokens", 0)
        self.width = network.values.size("embed_dim")
        self.heads = network.values.size("num_heads")
        self.head_dim = network.values.size("head_dim")
        self.mlp_dim = network.values.size("mlp_dim")
        self.eps = network.values.numbers("norm_eps")[0]
        var inner = self.heads * self.head_dim
        self.patch = linear(network, "patch", self.width, self.side * self.side * self.channels)
        self.head = linear(network, "head", network.values.size("num_classes"), self.width)
        self.blocks = List[Linear]()
        for i in range(network.values.size("depth")):
            var name = "blocks." + String(i)
            self.blocks.append(linear(network, name + ".qkv", 3 * inner, self.width))
            self.blocks.append(linear(network, name + ".proj", self.width, inner))
            self.blocks.append(linear(network, name + ".fc1", self.mlp_dim, self.width))
            self.blocks.append(linear(network, name + ".fc2", self.width, self.mlp_dim))
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
            attention(at(wide), tokens, self.heads, self.head_dim, at(normed))
            self.blocks[i + 1].run(at(normed), tokens, at(narrow))
            add(at(x), at(narrow), count)
            layer_norm(at(x), tokens, self.width, self.eps, at(normed))
            self.blocks[i + 2].run(at(normed), tokens, at(wide))
            gelu(at(wide), tokens * self.mlp_dim)
            self.blocks[i + 3].run(at(wide), tokens, at(narrow))
            add(at(x), at(narrow), count)
        var pooled = self.pooled(x, tokens)
        var result = List[Float32](length=self.head.outputs, fill=0)
        self.head.run(at(pooled), 1, at(result))
        _ = pooled^
        return result^

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
        var x = List[Float32](length=(self.prefix + patches) * self.width, fill=0)
        var after = at(x).unsafe_offset(self.prefix * self.width)
        self.patch.run(at(cut), patches, after)
        _ = cut^  # a list ends after its last use, and a pointer to it is none
        var positions = self.network.floats("positions", String(patches) + "x" + String(self.width))
        add(after, positions, patches * self.width)
        if self.prefix > 0:
            add(at(x), self.network.floats("prefix", String(self.prefix) + "x" + String(self.width)), self.prefix * self.width)
        return x^

    def pooled(self, mut x: List[Float32], tokens: Int) raises -> List[Float32]:
        var is_after = self.network.values.flag("norm_pooled")
        var has_norm = self.network.values.flag("norm")
        if has_norm and not is_after:
            self.norm(at(x), tokens)
        var result = List[Float32](length=self.width, fill=0)
        var first = 0
        var last = 1
        if self.network.values.text("pool") == "avg":
            first = self.prefix
            last = tokens
        for token in range(first, last):
            for d in range(self.width):
                result[d] += x[token * self.width + d] / Float32(last - first)
        if has_norm and is_after:
            self.norm(at(result), 1)
        return result^

    def norm(self, x: Floats, rows: Int) raises:
        layer_norm(x, rows, self.width, self.eps, x)
        var shape = String(self.width)
        scale_and_shift(x, rows, self.width, self.network.floats("norm.weight", shape), self.network.floats("norm.bias", shape))
