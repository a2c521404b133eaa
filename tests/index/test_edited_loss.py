"""What a residual index loses when half of it was changed, beside one built anew: at most what its docstring states."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.index.residual.index import LOSS_LIKE, LOSS_UNLIKE
from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.ragged import Ragged

DIM, COUNT, TOPICS, DEPTH = 32, 600, 60, 10
SEEDS = range(4)


def drawn(generator, count, topics):
    """Documents (or queries) whose vectors lie about two topics each."""
    lengths = torch.randint(4, 13, (count,), generator=generator)
    document = torch.repeat_interleave(torch.arange(count), lengths)
    own = torch.randint(0, len(topics), (count, 2), generator=generator)
    side = torch.randint(0, 2, (len(document),), generator=generator)
    noise = torch.randn(len(document), DIM, generator=generator) / DIM**0.5
    return Ragged(normalize(topics[own[document, side]] + noise, dim=1), lengths)


def built(folder, kind, documents, ids):
    writer = kind.writer(folder, DIM, "cosine")
    writer.append(ids, documents)
    writer.finish()
    return kind.open(folder)


def overlaps(folder, seed, bits, unlike):
    """overlap@10 with exact of an edited index and of a rebuilt one; and how stale the first says it is."""
    generator = torch.Generator().manual_seed(seed)
    topics, others = (normalize(torch.randn(TOPICS, DIM, generator=generator), dim=1) for _ in range(2))
    old = drawn(generator, COUNT, topics)
    late = drawn(generator, COUNT // 2, others if unlike else topics)
    queries = drawn(generator, 60, torch.cat([topics, others]) if unlike else topics)
    ids, new = [f"d{i}" for i in range(COUNT)], [f"n{i}" for i in range(COUNT // 3)]
    # A sixth deleted, a sixth changed, a third added: of what is there then, the half came later.
    sixth = COUNT // 6
    edited = built(folder / "edited", ResidualIndexKind(bits=bits), old, ids)
    edited.delete(ids[:sixth])
    edited.update(ids[sixth : 2 * sixth], late[:sixth])
    edited.add(new, late[sixth:])
    now = Ragged.cat([old[2 * sixth :], late])
    ids = [*ids[2 * sixth :], *ids[sixth : 2 * sixth], *new]
    assert sorted(edited.ids) == sorted(ids)
    rebuilt = built(folder / "rebuilt", ResidualIndexKind(bits=bits), now, ids)
    names = [f"q{i}" for i in range(len(queries))]
    exact = built(folder / "exact", ExactIndexKind("fp32"), now, ids).search(names, queries, DEPTH)
    shared = []
    for index in (edited, rebuilt):
        run = index.search(names, queries, DEPTH)
        shared.append(np.mean([len({*run[q].ids} & {*exact[q].ids}) / DEPTH for q in names]))
    return *shared, edited.stats()["added_distance"]


@pytest.mark.parametrize("bits", [2, 4])
def test_an_edited_index_is_a_rebuilt_one_within_the_stated_loss(tmp_path, bits):
    loss, distance = {}, {}
    for unlike in (False, True):
        found = np.array([overlaps(tmp_path / f"{unlike}{seed}", seed, bits, unlike) for seed in SEEDS]).mean(0)
        loss[unlike], distance[unlike] = found[1] - found[0], found[2]
        # Else there would be nothing to lose.
        assert found[1] > 0.85
    assert loss[False] <= LOSS_LIKE
    assert loss[True] <= LOSS_UNLIKE
    # What is told of the centroids says which of the two it is.
    assert distance[True] > 1.2 * distance[False]
