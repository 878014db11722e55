"""Which of many 64-bit perceptual hashes lie within a few bits of each other: exact, without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet 2012): hashes at most d bits apart agree within d // 4 bits in at
least one of their four 16-bit chunks, so only those need comparing that meet in a table of chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

CHUNKS = 4
CHUNK_BITS = 16
MAX_BITS = 15
BLOCK_PAIRS = 4_000_000
DENSE_SHARE = 0.05


@dataclass(frozen=True)
class NearPairs:
    """Some pairs: places in the two lists, ``int64 [p]`` each, and ``uint8 [p]`` how many bits apart they are."""

    left: np.ndarray
    right: np.ndarray
    bits: np.ndarray


def near_pairs(left: np.ndarray, right: np.ndarray, max_bits: int) -> Iterator[NearPairs]:
    """Every pair of a hash of ``left`` (``uint64 [n]``) and one of ``right`` (``[m]``) at most ``max_bits`` apart.

    They come in blocks that stay small however many pairs there are; a pair may come more than once. ValueError
    unless 0 <= max_bits <= 15.
    """
    if not 0 <= max_bits <= MAX_BITS:
        raise ValueError(f"Hashes are near within 0 to {MAX_BITS} bits, not {max_bits}.")
    if not len(left) or not len(right):
        return
    probes = _probes(max_bits // CHUNKS)
    tables = [_table(right, chunk) for chunk in range(CHUNKS)]
    meetings = sum(_meeting_count(left, table, chunk, probes) for chunk, table in enumerate(tables))
    if meetings > DENSE_SHARE * len(left) * len(right):
        yield from _all_with_all(left, right, max_bits)
        return
    for chunk, table in enumerate(tables):
        for probe in probes:
            yield from _meet(left, right, table, chunk, probe, max_bits)


def _probes(bits: int) -> list[int]:
    """Every 16-bit mask with at most ``bits`` ones."""
    sizes = range(bits + 1)
    return [sum(1 << bit for bit in ones) for size in sizes for ones in combinations(range(CHUNK_BITS), size)]


def _chunk(hashes: np.ndarray, chunk: int) -> np.ndarray:
    return ((hashes >> np.uint64(CHUNK_BITS * chunk)) & np.uint64(0xFFFF)).astype(np.int64)


def _table(hashes: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """The places in order of that chunk, and where each chunk value starts among them (``[2 ** 16 + 1]``)."""
    values = _chunk(hashes, chunk)
    return np.argsort(values, kind="stable"), np.searchsorted(np.sort(values), np.arange(2**CHUNK_BITS + 1))


def _meeting_count(left: np.ndarray, table: tuple[np.ndarray, np.ndarray], chunk: int, probes: list[int]) -> int:
    sizes = np.diff(table[1])
    values = _chunk(left, chunk)
    return sum(int(sizes[values ^ probe].sum()) for probe in probes)


def _meet(
    left: np.ndarray, right: np.ndarray, table: tuple[np.ndarray, np.ndarray], chunk: int, probe: int, max_bits: int
) -> Iterator[NearPairs]:
    places, starts = table
    wanted = _chunk(left, chunk) ^ probe
    first, counts = starts[wanted], starts[wanted + 1] - starts[wanted]
    ends = np.cumsum(counts)
    row = 0
    while row < len(left):
        done = ends[row - 1] if row else 0
        stop = max(row + 1, int(np.searchsorted(ends, done + BLOCK_PAIRS, side="right")))
        some = counts[row:stop]
        ours = np.repeat(np.arange(row, stop), some)
        within = np.arange(len(ours)) - np.repeat(np.cumsum(some) - some, some)
        yield _near_of(left, right, ours, places[np.repeat(first[row:stop], some) + within], max_bits)
        row = stop


def _near_of(left: np.ndarray, right: np.ndarray, ours: np.ndarray, theirs: np.ndarray, max_bits: int) -> NearPairs:
    bits = np.bitwise_count(left[ours] ^ right[theirs])
    near = bits <= max_bits
    return NearPairs(ours[near], theirs[near], bits[near])


def _all_with_all(left: np.ndarray, right: np.ndarray, max_bits: int) -> Iterator[NearPairs]:
    """For hashes so alike that the tables would bring most of them together."""
    step = max(1, BLOCK_PAIRS // len(right))
    for start in range(0, len(left), step):
        bits = np.bitwise_count(left[start : start + step, None] ^ right[None, :])
        ours, theirs = np.nonzero(bits <= max_bits)
        yield NearPairs(ours + start, theirs, bits[ours, theirs])


def nearest(left: np.ndarray, right: np.ndarray, max_bits: int, *, not_same: np.ndarray | None = None):
    """For each hash of ``left``: the place of the nearest of ``right`` and the bits between, ``int64 [n]`` each; -1 for
    both where none is near. Of several as near, the first. ``not_same`` (``int64 [n]``) names a place each row skips.
    """
    best = np.full(len(left), (MAX_BITS + 1) * (len(right) + 1), np.int64)
    for pairs in near_pairs(left, right, max_bits):
        keep = slice(None) if not_same is None else pairs.right != not_same[pairs.left]
        key = pairs.bits[keep].astype(np.int64) * (len(right) + 1) + pairs.right[keep]
        np.minimum.at(best, pairs.left[keep], key)
    found = best < (MAX_BITS + 1) * (len(right) + 1)
    bits, place = np.divmod(best, len(right) + 1)
    return np.where(found, place, -1), np.where(found, bits, -1)


def connected_groups(hashes: np.ndarray, max_bits: int) -> np.ndarray:
    """``int64 [n]``: for each hash the lowest place it is connected with through steps of at most ``max_bits``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unique, place_of = np.unique(hashes, return_inverse=True)
    group = np.arange(len(unique))
    for pairs in near_pairs(unique, unique, max_bits):
        before, after = group[pairs.left], group[pairs.right]
        apart = before != after
        if apart.any():
            edges = (np.ones(int(apart.sum()), np.int8), (before[apart], after[apart]))
            _, label = connected_components(coo_array(edges, shape=(len(unique), len(unique))), directed=False)
            group = label[group]
    lowest = np.full(len(unique), len(hashes))
    np.minimum.at(lowest, group[place_of], np.arange(len(hashes)))
    return lowest[group[place_of]]
