"""How the task of a run lies on its processes: a replica on each (DDP), or a shard of every tensor on each (FSDP2)."""
