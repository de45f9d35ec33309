"""The last layers of a ViT: what makes logits of the pooled tokens."""

from activations import GELU, NONE, TANH
from buffers import Floats
from linear import Linear, Workspace
from network import Network


def of_one(layer: Linear, x: List[Float32], mut work: Workspace, activation: Int = NONE) -> List[Float32]:
    """(inputs,) -> (outputs,)"""
    var result = List[Float32](length=layer.outputs, fill=0)
    layer.run(at(x), 1, at(result), work, activation)
    return result^


def at(numbers: List[Float32]) -> Floats:
    return Floats(unsafe_from_address=Int(numbers.unsafe_ptr()))


struct Head(Copyable, Movable):
    """One linear layer, or two with GELU between them."""

    var layers: List[Linear]

    def __init__(out self, network: Network, name: String, inputs: Int) raises:
        self.layers = List[Linear]()
        var count = network.values.size("head_layers")
        if count > 2:
            raise Error("head_layers is not 1 or 2")
        var width = inputs
        var last = name
        if count == 2:
            last = name + ".fc2"
            width = network.length(name + ".fc1.bias")
            self.layers.append(Linear(network, name + ".fc1", width, inputs))
        self.layers.append(Linear(network, last, network.length(last + ".bias"), width))

    def outputs(self) -> Int:
        return self.layers[len(self.layers) - 1].outputs

    def logits(self, x: List[Float32], mut work: Workspace) -> List[Float32]:
        if len(self.layers) == 1:
            return of_one(self.layers[0], x, work)
        return of_one(self.layers[1], of_one(self.layers[0], x, work, GELU), work)


struct Classifier(Copyable, Movable):
    """Heads for one pooled token, or for the two of a distilled network, and the layers before and after them."""

    var pre_logits: List[Linear]  # none or one
    var heads: List[Head]
    var fine_tune: List[Linear]  # none or one

    def __init__(out self, network: Network, width: Int) raises:
        var inputs = width
        self.pre_logits = List[Linear]()
        if network.values.flag("pre_logits"):
            inputs = network.length("pre_logits.bias")
            self.pre_logits.append(Linear(network, "pre_logits", inputs, width))
        self.heads = List[Head]()
        self.heads.append(Head(network, "head", inputs))
        if network.values.flag("distilled"):
            self.heads.append(Head(network, "head_dist", inputs))
        var outputs = self.heads[0].outputs()
        if self.heads[len(self.heads) - 1].outputs() != outputs:
            raise Error("the two heads have different numbers of outputs")
        self.fine_tune = List[Linear]()
        if network.values.flag("fine_tune"):
            self.fine_tune.append(Linear(network, "fine_tune", network.values.size("num_classes"), outputs))

    def logits(self, pooled: List[List[Float32]], mut work: Workspace) -> List[Float32]:
        """One vector (width,) for each head -> (classes,)."""
        var result = List[Float32](length=self.heads[0].outputs(), fill=0)
        for i in range(len(self.heads)):
            var x = pooled[i].copy()
            if len(self.pre_logits) == 1:
                x = of_one(self.pre_logits[0], x, work, TANH)
            var found = self.heads[i].logits(x, work)
            for j in range(len(found)):
                result[j] += found[j] / Float32(len(self.heads))
        if len(self.fine_tune) == 1:
            result = of_one(self.fine_tune[0], result, work)
        return result^
