"""Functions that draw dots, images and names of columns into axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression
from sklearn.utils import column_or_1d

Floats = NDArray[np.floating]

MAX_COLUMN_NAMES = 30
"""Maximum number of columns for which their names are written below an axis. More do not fit."""

MAX_NAME_LENGTH = 20
"""Maximum number of characters of a name within axes. Longer names are shortened."""

MAX_CLASSES = 20
"""Maximum number of distinct values for which whole numbers are treated as classes."""


def as_images(rows: Floats, feature_shape: Sequence[int] | None) -> Floats | None:
    """Reshape rows of shape (..., n_features) to images, or return None if they are not images.

    The images have the shape (..., height, width) or (..., height, width, 3). Raises ValueError if
    `feature_shape` does not fit `n_features`.
    """
    if feature_shape is None:
        return None
    n_features = rows.shape[-1]
    try:
        shape = np.empty(n_features).reshape(feature_shape).shape
    except ValueError:
        raise ValueError(
            f"feature_shape must fit rows with {n_features} columns, got {tuple(feature_shape)}."
        ) from None
    if len(shape) == 2:
        shape = 1, *shape
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) == 1:
        return None
    images = np.moveaxis(rows.reshape(*rows.shape[:-1], *shape), -3, -1)
    return images[..., 0] if shape[0] == 1 else images


def draw_images(
    axes: Any, images: Floats, low: Any, high: Any, labels: Any, titles: Any, cmap: str = "gray"
) -> Any:
    """Draw images in a grid, with colors from `low` to `high`, and return the AxesImages.

    `axes` and the result have the shape (n_rows, n_columns), and `images` the shape
    (n_rows, n_columns, height, width) or (n_rows, n_columns, height, width, 3). `labels` has one
    label for each row of the grid. `titles` has one title for each image, or for each image of the
    first row only.
    """
    if images.ndim > 4:  # matplotlib requires colors in [0, 1]
        images = np.clip((images - low) / (high - low or 1), 0, 1)
    artists = np.empty(axes.shape, dtype=object)
    for place, ax in np.ndenumerate(axes):
        artists[place] = ax.imshow(images[place], cmap=cmap, vmin=low, vmax=high)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, title in zip(axes.flat, titles, strict=False):
        ax.set_title(title, size="small")
    return artists


def name_columns(axes: Any, n_features: int, names: Any) -> None:
    """Write the names of columns below the last of several axes, one below the other.

    Nothing but "column" is written if `names` is None or if there are too many columns. Raises
    ValueError if the number of names to write is not that of the columns.
    """
    if names is None or n_features > MAX_COLUMN_NAMES:
        axes[-1].set_xlabel("column")
    else:
        check_column_names(names, n_features)
        for ax in axes:
            ax.set_xticks(range(n_features), [])
        axes[-1].set_xticks(range(n_features), names, rotation=90)


def check_column_names(names: Any, n_features: int) -> None:
    """Raise ValueError if there are names, but not as many as columns."""
    if names is not None and len(names) != n_features:
        raise ValueError(
            f"feature_names must have {n_features} names, one for each column, got {len(names)}."
        )


def name_tips(ax: Any, origin: Floats, tips: Floats, names: Any) -> list[Any]:
    """Write names beside the tips of arrows, of shape (n, 2), that start at `origin`.

    The names stand at the side of the tip that is away from the origin. They are moved up or down
    so that they do not overlap, and the axes are widened so that they contain the names. Long names
    are shortened. Returns the Annotations.
    """
    from matplotlib import patheffects

    ax.update_datalim(tips)
    ax.autoscale_view()
    right = tips[:, 0] >= origin[0]
    text_height, axes_height = 10, ax.bbox.height * 72 / ax.figure.dpi  # in points
    gap = 1.2 * text_height / axes_height * np.ptp(ax.get_ylim())
    heights = tips[:, 1].copy()
    for side in (np.flatnonzero(right == is_right) for is_right in np.unique(right)):
        ordered = side[heights[side].argsort()]
        steps = gap * np.arange(len(ordered))
        # The smallest shifts, in squared terms, that leave a gap between neighbors.
        heights[ordered] = isotonic_regression(heights[ordered] - steps) + steps
    line = {"arrowstyle": "-", "lw": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 0}
    texts = [
        ax.annotate(
            name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…",
            tip,
            (5 if is_right else -5, (height - tip[1]) / gap * 1.2 * text_height),
            textcoords="offset points",
            ha="left" if is_right else "right",
            va="center",
            fontsize="small",
            arrowprops=line | {"relpos": (1 - is_right, 0.5)},
            path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
            zorder=4,
        )
        for name, tip, height, is_right in zip(names, tips, heights, right, strict=True)
    ]
    _widen(ax, texts)
    return texts


def _widen(ax: Any, texts: Any) -> None:
    """Extend the limits of the axes until they contain texts that are placed relative to data."""
    for _ in range(5):  # The texts take a smaller part of wider axes.
        boxes = [text.get_window_extent().transformed(ax.transData.inverted()) for text in texts]
        corners = np.concatenate([box.get_points() for box in boxes])
        ax.update_datalim(corners)
        ax.autoscale_view()


def draw_dots(axes: Any, points: Any, y: Any) -> list[Any]:
    """Draw the same rows as dots into each of several axes, and return the PathCollections.

    `points` holds an array of shape (n_samples, 2) for each axes. `y` determines the colors, as for
    `LatentSpaceDisplay`. Their legend or color bar stands at the right of the last axes.
    """
    y = None if y is None else column_or_1d(y)
    colors, classes = _colors(y)
    scatters = [
        ax.scatter(*dots.T, s=12, linewidths=0, **colors)
        for ax, dots in zip(axes, points, strict=True)
    ]
    if classes is not None:
        handles, _ = scatters[-1].legend_elements(num=None)
        axes[-1].legend(handles, classes, loc="center left", bbox_to_anchor=(1, 0.5))
    elif y is not None:
        axes[-1].figure.colorbar(scatters[-1], ax=axes.tolist(), label="y")
    return scatters


def _colors(y: NDArray[Any] | None) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Return options of `scatter` that color rows by `y`, and the classes.

    The classes are None if `y` is None or holds numbers that are not classes.
    """
    if y is None:
        return {}, None
    classes, class_index = np.unique(y, return_inverse=True)
    n = len(classes)
    if y.dtype.kind in "iuf" and (n > MAX_CLASSES or (classes % 1 > 0).any()):
        return {"c": y}, None
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    palette = colormaps["tab10" if n <= 10 else "tab20"]
    colors = ListedColormap([palette(i % palette.N) for i in range(n)])
    return {"c": class_index, "cmap": colors, "vmin": -0.5, "vmax": n - 0.5}, classes
