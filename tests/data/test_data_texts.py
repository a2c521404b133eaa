"""Texts: ids of any kind find their rows, hash collisions included; nothing is lost in the Arrow file."""

import pickle

import numpy as np
import pytest

from colbert_lab.data import texts as module
from colbert_lab.data.texts import DuplicateId, Texts, write_texts
from colbert_lab.errors import DataError

ODD = ["a b", "x/y", "007", "7", "é", "日本", "tab\tid", "percent%20", "line\u2028separator", " lead", "id"]


def written(path, pairs) -> Texts:
    write_texts(path, pairs)
    return Texts(path, "the corpus of test")


def test_odd_ids_and_texts_come_back(tmp_path):
    pairs = [(id, f"text of {id}\u2028\x85\nsecond line") for id in ODD]
    texts = written(tmp_path, pairs)
    assert texts.all_ids() == ODD
    assert texts.get(ODD[::-1]) == [text for _, text in pairs][::-1]
    assert [texts.row(id) for id in ODD] == list(range(len(ODD)))
    assert "07" not in texts
    assert 7 not in texts
    with pytest.raises(DataError, match=r"'07' is no id in the corpus of test"):
        texts.row("07")
    with pytest.raises(DataError, match="'nope'"):
        texts.get(["007", "nope"])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 2500])
def test_rows_slices_and_lengths(tmp_path, count):
    texts = written(tmp_path, ((f"d{i}", "x" * (i % 50)) for i in range(count)))
    assert len(texts) == count
    assert texts[:] == ["x" * (i % 50) for i in range(count)]
    assert texts[np.arange(count)[::-1]] == texts[:][::-1]
    assert texts.characters.tolist() == [i % 50 for i in range(count)]
    assert texts.find(["d0", "zz"]).tolist() == [0 if count else -1, -1]
    with pytest.raises(IndexError):
        texts[[count]]
    assert pickle.loads(pickle.dumps(texts))[:] == texts[:]


def test_ids_with_equal_hashes_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "hash_text", lambda text: len(text))
    texts = written(tmp_path, [("aa", "1"), ("bb", "2"), ("c", "3"), ("dd", "4")])
    assert texts.get(["dd", "bb", "aa", "c"]) == ["4", "2", "1", "3"]
    assert texts.find(["ee"]).tolist() == [-1]
    with pytest.raises(DuplicateId) as error:
        write_texts(tmp_path / "again", [("aa", ""), ("bb", ""), ("cc", ""), ("bb", "")])
    assert error.value.rows == (1, 3)


def test_equal_texts_have_equal_content_hashes(tmp_path):
    texts = written(tmp_path, [("1", "same"), ("2", "other"), ("3", "same")])
    assert texts.content[0] == texts.content[2] != texts.content[1]
