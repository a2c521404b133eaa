"""Inverted lists: for each centroid the rows of the documents that have a vector there, ascending and unique.

A list is stored as the gaps between its rows (the first one from -1), each minus one, in bytes of seven bits, the least
significant first, the eighth bit set where more follow: mostly one byte an entry where 4 would be needed.
"""

import numpy as np

from colbert_lab.index.residual.simd import compiled


def build_lists(codes: np.ndarray, offsets: np.ndarray, centroids: int) -> tuple[np.ndarray, np.ndarray]:
    """The lists of codes [T] of documents offsets [R + 1]: bytes end to end uint8, and bytes a list uint32 [K]."""
    sizes = np.zeros(centroids, np.int64)
    _measure(codes, offsets, sizes)
    ends = np.cumsum(sizes)
    lists = np.empty(int(sizes.sum()), np.uint8)
    _write(codes, offsets, ends - sizes, lists)
    return lists, sizes.astype(np.uint32)


@compiled
def _measure(codes, offsets, sizes):
    last = np.full(len(sizes), -1, np.int64)
    for row in range(len(offsets) - 1):
        for token in range(offsets[row], offsets[row + 1]):
            code = codes[token]
            if last[code] != row:
                gap = row - last[code] - 1
                sizes[code] += 1
                while gap >= 128:
                    sizes[code] += 1
                    gap >>= 7
                last[code] = row


@compiled
def _write(codes, offsets, cursors, lists):
    last = np.full(len(cursors), -1, np.int64)
    for row in range(len(offsets) - 1):
        for token in range(offsets[row], offsets[row + 1]):
            code = codes[token]
            if last[code] != row:
                gap = row - last[code] - 1
                while gap >= 128:
                    lists[cursors[code]] = 128 | (gap & 127)
                    cursors[code] += 1
                    gap >>= 7
                lists[cursors[code]] = gap
                cursors[code] += 1
                last[code] = row


@compiled
def best_cells(scores, centroids, vectors, cells, threshold, out):
    """out [vectors, cells] int64 = the centroids of greatest score for each query vector, the lowest of equal ones.

    Those below `threshold` are -1, but for the best.
    """
    values = np.empty((vectors, cells), np.float32)
    values[:] = -np.inf
    out[:] = -1
    least = np.float32(threshold)  # compared in the scores' own precision: 0.4 is not below 0.4
    for row in range(centroids):
        for i in range(vectors):
            score = scores[row, i]
            if score > values[i, cells - 1]:
                at = cells - 1
                while at > 0 and score > values[i, at - 1]:
                    values[i, at] = values[i, at - 1]
                    out[i, at] = out[i, at - 1]
                    at -= 1
                values[i, at] = score
                out[i, at] = row
    for i in range(vectors):
        for at in range(1, cells):
            if values[i, at] < least:
                out[i, at] = -1


@compiled
def rows_of_cells(cells, lists, ends, open_rows, out):
    """Write to out the rows that stand in the lists of cells [n] (-1 is none), each once, and give their number.

    `open_rows` is uint8 [R]: 1 where a row may be taken; taken rows are set to 0 in it.
    """
    count = 0
    for cell in cells:
        if cell < 0:
            continue
        at = ends[cell]
        row = -1
        while at < ends[cell + 1]:
            gap = 0
            shift = 0
            while lists[at] >= 128:
                gap |= np.int64(lists[at] & 127) << shift
                shift += 7
                at += 1
            gap |= np.int64(lists[at]) << shift
            at += 1
            row += gap + 1
            if open_rows[row]:
                open_rows[row] = 0
                out[count] = row
                count += 1
    return count
