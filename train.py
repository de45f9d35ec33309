"""Train a recipe: `python train.py -c recipes/fastvit_t8.yaml --data_dir DIR`; the same as `vitcli train …`."""

from vitcli.cli import train_main

if __name__ == "__main__":
    train_main()
