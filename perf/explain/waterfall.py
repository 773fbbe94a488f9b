"""The mean request as a waterfall: each part a bar that begins where the one before ends. As text, and as a picture."""

from __future__ import annotations

from pathlib import Path

from perf.explain.breakdown import OUTSIDE, Breakdown, Part

COLORS = {
    "queue": "#e0a458",
    "compute_input": "#9ec5e8",
    "compute_infer": "#76b900",
    "compute_output": "#5b8db8",
    "hop": "#c8553d",
    "cache": "#8e6bbf",
    "outside": "#a9adb1",
}
WORDS = {
    "queue": "queue",
    "compute_input": "compute input",
    "compute_infer": "compute infer",
    "compute_output": "compute output",
    "hop": "hop between models",
    "cache": "response cache",
    "outside": "client, network, HTTP",
}


def family(part: Part) -> str:
    """What a part is coloured as."""
    return "outside" if part.kind in OUTSIDE else part.kind


def text_bar(part: Part, whole_ms: float, width: int = 40) -> str:
    """The part's stretch within a line of ``width`` characters; what is shorter than a character is a thin one."""
    if whole_ms <= 0:
        return ""
    begin = min(max(round(part.start_ms / whole_ms * width), 0), width - 1)
    length = part.ms / whole_ms * width
    if length < 0.5:
        return " " * begin + "▏"
    return " " * begin + "█" * max(1, min(round(length), width - begin))


def write_plot(where: Breakdown, title: str, path: Path) -> None:
    """Draw the waterfall into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    parts = where.parts
    whole_ms = max(where.measured_ms, where.sum_ms)
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + 0.32 * (len(parts) + 1)), layout="constrained")
    for row, part in enumerate(parts):
        axes.barh(row, part.ms, left=part.start_ms, color=COLORS[family(part)], height=0.72)
        is_late = part.start_ms + part.ms > 0.8 * whole_ms
        place = min(part.start_ms, part.start_ms + part.ms) if is_late else part.start_ms + part.ms
        axes.annotate(
            f"{part.ms:.2f} ms" if abs(part.ms) >= 0.01 else f"{part.ms:.3f} ms",
            (place, row),
            xytext=(-5 if is_late else 5, 0),
            textcoords="offset points",
            ha="right" if is_late else "left",
            va="center",
            fontsize=8,
            color="#444444",
        )
    axes.axvline(where.measured_ms, color="#333333", linewidth=1, linestyle="--")
    axes.annotate(
        f"measured {where.measured_ms:.2f} ms",
        (where.measured_ms, -0.7),
        xytext=(-5, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=8,
        color="#333333",
    )
    axes.set_yticks(range(len(parts)), [part.label for part in parts], fontsize=8)
    axes.set_ylim(len(parts) - 0.4, -1.1)
    axes.set_xlim(min(0.0, *(part.start_ms + part.ms for part in parts)), whole_ms * 1.04)
    axes.set_xlabel(
        f"ms of the mean request (parts: {where.sum_ms:.2f}, left over: {where.remainder_ms:+.2f})", fontsize=9
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    shown = [key for key in WORDS if any(family(part) == key for part in parts)]
    handles = [Patch(color=COLORS[key], label=WORDS[key]) for key in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
