"""pydocs: docstrings of packages become known-item search, the same on every machine, without leaks between splits."""

import pytest

from colbert_lab.data.near_duplicates import first_of_kind
from colbert_lab.data.pydocs import PyDocs
from colbert_lab.data.source import prepare
from colbert_lab.errors import DataError

PACKAGES = ["networkx", "torchmetrics"]


@pytest.fixture(scope="module")
def source() -> PyDocs:
    return PyDocs(PACKAGES, documents=250, megabytes=2)


def test_documents_queries_and_splits(source, tmp_path):
    made = prepare(source, tmp_path)
    assert len(made.corpus) == len(made.queries) == 250
    seen: dict[str, str] = {}
    for split in made.splits:
        for query, judged in made.qrels(split).items():
            ((document, grade),) = judged.items()
            assert (query, grade) == (f"q:{document}", 1)
            assert seen.setdefault(document.split("::")[0], split) == split
    sizes = [len(made.qrels(split)) for split in ("train", "dev", "test")]
    assert sum(sizes) == 250
    assert sizes[0] > 150 > sizes[2] > 20
    words = [len(text.split()) for text in made.queries[:]]
    assert min(words) >= 4
    assert max(words) <= 40


def test_the_same_again(source):
    again = PyDocs(list(reversed(PACKAGES)), documents=250, megabytes=2)
    assert list(again.documents()) == list(source.documents())
    assert again.fingerprint() == source.fingerprint() != PyDocs(PACKAGES, documents=249, megabytes=2).fingerprint()


def test_a_package_that_is_not_there():
    with pytest.raises(DataError, match="'nonesuch' is not installed"):
        PyDocs(["nonesuch"]).fingerprint()


def test_near_duplicates_go_and_others_stay():
    base = "the quick brown fox jumps over the lazy dog while the cat sleeps on the warm window sill all day long"
    texts = [base, base.upper() + "!", base.replace("cat", "bird"), "a text about something else entirely", "short", ""]
    assert first_of_kind(texts, words=5, similarity=0.5) == [True, False, False, True, True, True]
