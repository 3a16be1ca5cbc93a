"""The picture of `make benchmark`: bytes moved against time, and how time grows."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

COLOURS = {"fp32": "tab:blue", "bf16": "tab:green", "int8": "tab:orange", "int4": "tab:red"}


def draw(content: dict, path: Path) -> None:
    """Draw the points of a run: a step under its roof, the bandwidth, and steps by frame, clips and layers."""
    machine, points = content["machine"], content["points"]
    figure, (roof, frames, clips, layers) = plt.subplots(1, 4, figsize=(18, 4.5), layout="constrained")
    bandwidth = machine["bandwidth, GB/s"]
    most = max(point["bytes"] for point in points) / 1e9
    roof.plot([0, most], [0, most / bandwidth * 1e3], color="black", label=f"memory: {bandwidth:.0f} GB/s")
    for rung, colour in COLOURS.items():
        own = [point for point in points if point["rung"] == rung]
        roof.scatter([p["bytes"] / 1e9 for p in own], [p["seconds"] * 1e3 for p in own], color=colour, label=rung)
        for axes, key in ((frames, "frame"), (clips, "batch"), (layers, "layers")):
            others = {"frame": 100, "batch": 1, "layers": 24}
            del others[key]
            line = [p for p in own if all(p[name] == value for name, value in others.items())]
            line.sort(key=lambda point: point[key])
            if len(line) > 1:
                axes.plot([p[key] for p in line], [p["seconds"] * 1e3 for p in line], "o-", color=colour, label=rung)
    roof.axhline(20, color="grey", linestyle=":", label="real time: 50 steps a second")
    titles = ("gigabytes that a step moves", "frames written", "clips at once", "layers of small's width")
    for axes, title in zip((roof, frames, clips, layers), titles, strict=True):
        axes.set(xlabel=title, ylabel="milliseconds a step", xlim=(0, None), ylim=(0, None))
        axes.legend(loc="lower right", fontsize="small")
    figure.suptitle(f"musicgen-small's shape with guidance on {machine['processor']}, {machine['threads']} threads")
    figure.savefig(path, dpi=120)
    plt.close(figure)
