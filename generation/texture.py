"""Texture candidates: which 32x32 cells lie wholly on the object, and what is to be painted around one.

A cell of the labelled object is kept and everything else inpainted, so the picture grows from the object's own
texture. Cells are numbered row by row, ``7 * row + column`` on a 224-pixel mask. numpy only.
"""

from __future__ import annotations

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


def hole_around_cell(cell: int, side: int = 224, *, as_published: bool = False) -> np.ndarray:
    """What to inpaint: ``side x side uint8``, 0 on the kept cell and 255 everywhere else.

    ``as_published`` keeps nothing for the cells of the last column, whose slice is empty in the reference: the
    whole image is then painted anew without any context. ValueError for a cell outside the grid.
    """
    columns = side // CELL
    if side % CELL or not 0 <= cell < columns * columns:
        raise ValueError(f"There is no cell {cell} in a mask of {side} pixels.")
    row, column = divmod(cell, columns)
    hole = np.full((side, side), 255, np.uint8)
    if not (as_published and column == columns - 1):
        hole[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 0
    return hole


def draw_cell(mask: np.ndarray, rng: np.random.Generator) -> int | None:
    """One eligible cell, each as likely as the others, or None when there is none."""
    cells = np.flatnonzero(eligible_cells(mask))
    return int(rng.choice(cells)) if len(cells) else None
