"""A ViT of the native format, docs/native.md, for one image at a time."""

from activations import activation_named
from attention import Attention, LEAST
from buffers import Buffer, Floats
from head import Classifier
from linear import Linear, Workspace
from network import Network
from norms import Norm, add, layer_norm
from threads import Threads


struct Sizes(ImplicitlyCopyable, Movable):
    var side: Int  # of a patch
    var rows: Int  # of patches
    var columns: Int
    var channels: Int
    var prefix: Int
    var width: Int
    var inner: Int  # of all heads
    var mlp_dim: Int
    var eps: Float32

    def __init__(out self, network: Network) raises:
        self.side = network.values.size("patch_size")
        self.rows = network.values.size("grid_rows")
        self.columns = network.values.size("grid_columns")
        self.channels = network.values.size("in_channels")
        self.prefix = network.values.size("num_prefix_tokens", 0)
        self.width = network.values.size("embed_dim")
        self.inner = network.values.size("num_heads") * network.values.size("head_dim")
        self.mlp_dim = network.values.size("mlp_dim")
        self.eps = network.values.numbers("norm_eps")[0]

    def patches(self) -> Int:
        return self.rows * self.columns

    def tokens(self) -> Int:
        return self.prefix + self.patches()

    def pixels(self) -> Int:
        """Numbers of a patch."""
        return self.side * self.side * self.channels


struct Block(Copyable, Movable):
    var qkv: Linear
    var proj: Linear
    var fc1: Linear
    var fc2: Linear

    def __init__(out self, network: Network, name: String, sizes: Sizes) raises:
        self.qkv = Linear(network, name + ".qkv", 3 * sizes.inner, sizes.width)
        self.proj = Linear(network, name + ".proj", sizes.width, sizes.inner)
        self.fc1 = Linear(network, name + ".fc1", sizes.mlp_dim, sizes.width)
        self.fc2 = Linear(network, name + ".fc2", sizes.width, sizes.mlp_dim)


struct Vit(Movable):
    var sizes: Sizes
    var scale: List[Float32]  # of pixels, one number per channel
    var shift: List[Float32]
    var norms_pixels: Bool
    var patch: Linear
    var patch_norm: Norm
    var positions: Buffer
    var prefix: Buffer
    var norm_pre: Norm
    var blocks: List[Block]
    var attention: Attention
    var activation: Int
    var norm: Norm
    var norms_pooled: Bool
    var pool: String
    var num_pooled: Int
    var classifier: Classifier
    var work: Workspace
    var cut: Buffer  # the patches of pixels
    var x: Buffer
    var normed: Buffer
    var wide: Buffer

    def __init__(out self, network: Network, threads: Threads) raises:
        require(network, "architecture", "vit")
        require(network, "input", "pixels")
        var sizes = Sizes(network)
        self.sizes = sizes
        self.scale = network.values.numbers("pixel_scale")
        self.shift = network.values.numbers("pixel_shift")
        self.norms_pixels = network.values.flag("norm_patch_pixels")
        self.patch = Linear(network, "patch", sizes.width, sizes.pixels())
        self.patch_norm = Norm(network, "patch_norm", sizes.width, sizes.eps)
        self.positions = network.floats("positions", String(sizes.patches()) + "x" + String(sizes.width))
        self.prefix = Buffer()
        if sizes.prefix > 0:
            self.prefix = network.floats("prefix", String(sizes.prefix) + "x" + String(sizes.width))
        self.norm_pre = Norm(network, "norm_pre", sizes.width, sizes.eps)
        self.blocks = List[Block]()
        for i in range(network.values.size("depth")):
            self.blocks.append(Block(network, "blocks." + String(i), sizes))
        var heads = network.values.size("num_heads")
        self.attention = Attention(heads, sizes.inner // heads, network.values.flag("attend_to_self"))
        self.activation = activation_named(network.values.text("mlp_activation"))
        self.norm = Norm(network, "norm", sizes.width, sizes.eps)
        self.norms_pooled = network.values.flag("norm_pooled")
        self.pool = network.values.text("pool")
        self.num_pooled = network.values.size("num_pooled_tokens") if self.pool == "token" else 1
        self.classifier = Classifier(network, sizes.width)
        self.work = Workspace(threads)
        self.cut = Buffer(4 * sizes.patches() * sizes.pixels())
        self.x = Buffer(4 * sizes.tokens() * sizes.width)
        self.normed = Buffer(4 * sizes.tokens() * max(sizes.width, sizes.inner))
        self.wide = Buffer(4 * sizes.tokens() * max(3 * sizes.inner, sizes.mlp_dim))
        self.check()

    def check(self) raises:
        if self.pool != "token" and self.pool != "avg" and self.pool != "max" and self.pool != "avgmax":
            raise Error("pool '" + self.pool + "' is unknown to this program")
        if self.num_pooled > self.sizes.tokens():
            raise Error("num_pooled_tokens is more than there are tokens")
        if len(self.classifier.heads) > self.num_pooled:
            raise Error("there are more heads than pooled tokens")
        if len(self.scale) != self.sizes.channels or len(self.shift) != self.sizes.channels:
            raise Error("pixel_scale and pixel_shift do not have a number for each channel")

    def logits(mut self, pixels: List[UInt8]) raises -> List[Float32]:
        """pixels (height, width, channels) -> (classes,)."""
        self.embed(pixels)
        for i in range(len(self.blocks)):
            var is_last = i + 1 == len(self.blocks)
            self.run_block(i, self.num_pooled if is_last and self.pool == "token" else self.sizes.tokens())
        return self.classifier.logits(self.pooled(), self.work)

    def embed(mut self, pixels: List[UInt8]) raises:
        """Into the tokens x (prefix + patches, width)."""
        var sizes = self.sizes
        if len(pixels) != sizes.patches() * sizes.pixels():
            raise Error("the image does not have the size that the network takes")
        self.cut_patches(pixels)
        var cut = self.cut.floats()
        if self.norms_pixels:
            layer_norm(cut, sizes.patches(), sizes.pixels(), sizes.eps, cut, self.work.threads)
        var x = self.x.floats()
        var patches = x.unsafe_offset(sizes.prefix * sizes.width)
        self.patch.run(cut, sizes.patches(), patches, self.work)
        self.patch_norm.run(patches, sizes.patches())
        add(patches, self.positions.floats(), sizes.patches() * sizes.width)
        for i in range(sizes.prefix * sizes.width):
            x[unsafe_offset=i] = self.prefix.floats()[unsafe_offset=i]
        self.norm_pre.run(x, sizes.tokens())

    def cut_patches(mut self, pixels: List[UInt8]):
        """Scaled and shifted, (patches, side · side · channels)."""
        var sizes = self.sizes
        var line = sizes.side * sizes.channels
        var to = self.cut.floats()
        for row in range(sizes.rows):
            for column in range(sizes.columns):
                for y in range(sizes.side):
                    var first = ((row * sizes.side + y) * sizes.columns + column) * line
                    for i in range(line):
                        var c = i % sizes.channels
                        var value = Float64(pixels[first + i]) * Float64(self.scale[c]) + Float64(self.shift[c])
                        to[unsafe_offset=i] = Float32(value)
                    to = to.unsafe_offset(line)

    def run_block(mut self, i: Int, needed: Int):
        """Only the first `needed` tokens are computed beyond the keys and values."""
        ref block = self.blocks[i]
        var sizes = self.sizes
        var tokens = sizes.tokens()
        var x = self.x.floats()
        var normed = self.normed.floats()
        var wide = self.wide.floats()
        layer_norm(x, tokens, sizes.width, sizes.eps, normed, self.work.threads)
        block.qkv.run(normed, tokens, wide, self.work)
        self.attention.run(wide, tokens, needed, normed, self.work.threads)
        block.proj.run(normed, needed, x, self.work, adds=True)
        layer_norm(x, needed, sizes.width, sizes.eps, normed, self.work.threads)
        block.fc1.run(normed, needed, wide, self.work, self.activation)
        block.fc2.run(wide, needed, x, self.work, adds=True)

    def pooled(mut self) -> List[List[Float32]]:
        """What each head classifies, (width,)."""
        if not self.norms_pooled:
            self.norm.run(self.x.floats(), self.num_pooled if self.pool == "token" else self.sizes.tokens())
        var result = List[List[Float32]]()
        for number in range(self.num_pooled):
            var vector = self.token(number) if self.pool == "token" else self.patches()
            if self.norms_pooled:
                self.norm.run(Floats(unsafe_from_address=Int(vector.unsafe_ptr())), 1)
            result.append(vector^)
        return result^

    def token(self, number: Int) -> List[Float32]:
        var x = self.x.floats().unsafe_offset(number * self.sizes.width)
        var result = List[Float32](capacity=self.sizes.width)
        for d in range(self.sizes.width):
            result.append(x[unsafe_offset=d])
        return result^

    def patches(self) -> List[Float32]:
        """Mean or maximum of the patches, or the mean of both."""
        var sizes = self.sizes
        var total = List[Float64](length=sizes.width, fill=0)
        var largest = List[Float32](length=sizes.width, fill=LEAST)
        for number in range(sizes.prefix, sizes.tokens()):
            var x = self.x.floats().unsafe_offset(number * sizes.width)
            for d in range(sizes.width):
                total[d] += Float64(x[unsafe_offset=d])
                largest[d] = max(largest[d], x[unsafe_offset=d])
        for d in range(sizes.width):
            var mean = Float32(total[d] / Float64(sizes.patches()))
            if self.pool == "avg":
                largest[d] = mean
            elif self.pool == "avgmax":
                largest[d] = (mean + largest[d]) / 2
        return largest^


def require(network: Network, key: String, value: String) raises:
    """Error unless a key has the only value that this program runs."""
    var given = network.values.text(key)
    if given != value:
        var only = "this program runs networks with " + key + "=" + value + " only"
        raise Error(only + ", and this one has " + key + "=" + given)
