"""The recipe keys that a trained network knows better than a recipe, grouped by what they describe."""

from vitcli.recipe.schema import OWN_KEYS
from vitcli.weights.preprocessing import KEYS

#: how the network is built
ARCHITECTURE = ("model", "layer_scale_init", *OWN_KEYS)
#: how an image becomes the network's input: its shape, and what weights of any project may state
PREPROCESSING = ("image_resize", "in_channels", *KEYS)
#: what was learned, which decides how the network is evaluated
LEARNING = ("task",)
#: the arithmetic that evaluation simulates
ARITHMETIC = ("quantize",)
#: the images that the network was trained and evaluated on
DATA = ("dataset", "data_dir", "train_split", "val_split", "batch_size", "val_batch_size")
