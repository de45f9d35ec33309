"""What `vitcli doctor` looks at: packages, the machine, devices. Nothing here imports torch into this process."""
