"""Shim."""

from vitcli.data.transforms import build_train_transform


def build_views(aug, num_views, *, in_channels=3):
    return [build_train_transform(aug, in_channels=in_channels)] * num_views
