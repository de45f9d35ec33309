"""Validate a checkpoint: `python validate.py --ckpt_path RUN --data_dir DIR`; the same as `vitcli validate …`."""

from vitcli.cli import validate_main

if __name__ == "__main__":
    validate_main()
