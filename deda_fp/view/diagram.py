"""One iteration of DEDA-FP as a drawing: best response, average policy, flow (paper, Fig. 1)."""

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from deda_fp.view import plots

BOXES = (  # title, symbol, how it is learned, colour
    ("1  best response", r"$\pi^*_k$", "deep reinforcement learning\nagainst the frozen population", plots.PALETTE[0]),
    ("2  average policy", r"$\bar\pi_k$", "behavioural cloning\nof all best responses so far", plots.PALETTE[2]),
    ("3  population", r"$\bar G_k$", "normalizing flow, fitted to\nagents who follow the average", plots.LEARNED),
)
ARROWS = ("states and\nactions, in $M_{SL}$", "simulated\nagents")
BACK = r"density $\bar G_k(t, x)$ and samples: the crowd of the next best response,  $k \to k + 1$"


def loop() -> Figure:
    """The three steps of iteration k, and what they hand on."""
    fig, axes = plots.panels(1, 1, width=10.4, height=3.1)
    ax = axes[0, 0]
    ax.set(xlim=(0, 10.4), ylim=(-0.15, 3))
    ax.axis("off")
    width, gap = 2.5, 1.35
    for i, (title, symbol, how, colour) in enumerate(BOXES):
        left = 0.1 + i * (width + gap)
        style = dict(boxstyle="round,pad=0.02,rounding_size=0.12", linewidth=2, edgecolor=colour)
        ax.add_patch(FancyBboxPatch((left, 0.95), width, 1.85, facecolor=(*colour[:3], 0.12), **style))
        middle = left + width / 2
        ax.text(middle, 2.55, title, ha="center", va="center", fontsize=13, fontweight="bold")
        ax.text(middle, 2.05, symbol, ha="center", va="center", fontsize=20)
        ax.text(middle, 1.37, how, ha="center", va="center", fontsize=10.5)
        if i < len(ARROWS):
            ends = (left + width + 0.06, 1.87), (left + width + gap - 0.06, 1.87)
            ax.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=20, linewidth=2, color=plots.GREY))
            ax.text(left + width + gap / 2, 2.12, ARROWS[i], ha="center", va="bottom", fontsize=9)
    first, last = 0.1 + width / 2, 0.1 + 2 * (width + gap) + width / 2
    path = dict(arrowstyle="-|>", mutation_scale=20, linewidth=2, color=plots.GREY, shrinkA=0, shrinkB=0)
    bent = "bar,fraction=-0.075"
    ax.add_patch(FancyArrowPatch((last, 0.9), (first, 0.9), connectionstyle=bent, **path))
    ax.text((first + last) / 2, 0.02, BACK, ha="center", va="center", fontsize=11)
    return fig
