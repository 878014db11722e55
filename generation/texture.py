"""Texture candidates: which 32x32 cells lie wholly on the object, and what is to be painted around one.

A cell of the labelled object is kept and everything else inpainted, so the picture grows from the object's own
texture. Cells are numbered row by row, ``7 * row + column`` on a 224-pixel mask. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CELL = 32


def eligible_cells(mask: np.ndarray) -> np.ndarray:
    """Whether each cell is object throughout: bool ``[rows * columns]`` for an ``HxW uint8`` mask.

    Every pixel must be 255; :func:`~generation.masking.postprocess.binarise` a mask with greys first. No cell
    at all means that the source has no texture candidate. ValueError when cells do not tile the mask.
    """
    height, width = mask.shape
    if height % CELL or width % CELL:
        raise ValueError(f"Cells of {CELL} pixels do not tile a mask of {width} x {height}.")
    return (mask == 255).reshape(height // CELL, CELL, width // CELL, CELL).all(axis=(1, 3)).ravel()


def hole_around_cell(cell: int, side: int | tuple[int, int] = 224, *, as_published: bool = False) -> np.ndarray:
    """What to inpaint: ``HxW uint8``, 0 on the kept cell and 255 everywhere else.

    ``side`` is that of a square, or height and width; what the last whole cells leave over at the right and the
    bottom is hole. ``as_published`` keeps nothing for the cells of the last column, whose slice is empty in the
    reference: the whole image is then painted anew without any context. ValueError for a cell outside the grid.
    """
    height, width = (side, side) if isinstance(side, int) else side
    rows, columns = height // CELL, width // CELL
    if not 0 <= cell < rows * columns:
        raise ValueError(f"There is no cell {cell} in a mask of {width} x {height}.")
    row, column = divmod(cell, columns)
    hole = np.full((height, width), 255, np.uint8)
    if not (as_published and column == columns - 1):
        hole[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 0
    return hole


def draw_cell(mask: np.ndarray, rng: np.random.Generator, taken: Sequence[int] = ()) -> int | None:
    """One eligible cell that is not ``taken``, each as likely as the others, or None when there is none.

    The mask may have any size: only whole cells count, from the top left corner.
    """
    height, width = (CELL * (length // CELL) for length in mask.shape)
    cells = np.setdiff1d(np.flatnonzero(eligible_cells(mask[:height, :width])), taken)
    return int(rng.choice(cells)) if len(cells) else None
