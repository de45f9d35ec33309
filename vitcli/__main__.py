"""`python -m vitcli …` and `torchrun -m vitcli …`."""

from vitcli.cli import main

main()
