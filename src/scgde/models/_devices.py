"""Training on several devices: which of Lightning's ways work for a model of groups."""

from __future__ import annotations

from typing import Any

#: Each process runs the same script and keeps all weights. Others (spawn, fork, notebook, sharded weights) lose what
#: the processes hold besides the weights, or have no averages of them.
STRATEGIES = ("ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")


def chosen_devices(devices: int | list[int] | str, strategy: Any = "auto", num_nodes: int = 1) -> dict[str, Any]:
    """Devices and strategy for Lightning's trainer: one device unless several are asked for.

    Raises
    ------
    ValueError
        For strategies that do not work here.
    """
    devices = 1 if devices == "auto" else devices
    single = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
    if single and num_nodes == 1:
        strategy = strategy if strategy in STRATEGIES else "auto"
    elif strategy == "auto":
        strategy = "ddp"
    elif isinstance(strategy, str) and strategy not in STRATEGIES:
        msg = f"strategy={strategy!r} cannot train this model. Pass strategy='ddp', and run a script, not a notebook."
        raise ValueError(msg)
    return {"devices": devices, "strategy": strategy, "num_nodes": num_nodes}
