"""The score cache: what was added comes back to the bit, torn commits do not, another teacher's file is refused."""

import fcntl
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.mining.score_cache import ScoreCache, pair_key, pair_keys

TEACHER = "0123456789abcdef" * 4


def keys_of(*numbers):
    return pair_keys(TEACHER, [f"q{n}" for n in numbers], [f"d{n}" for n in numbers])


def scores_of(*numbers):
    return np.array(numbers, dtype=np.float32)


@pytest.fixture
def cache(tmp_path):
    return ScoreCache(tmp_path / "cache", TEACHER)


@given(batches=st.lists(st.lists(st.tuples(st.integers(0, 20), st.floats(width=32, allow_nan=False)), max_size=8)))
@settings(max_examples=25, deadline=None)
def test_it_is_a_dictionary_in_which_the_first_score_counts(tmp_path_factory, batches):
    directory, expected = tmp_path_factory.mktemp("cache"), {}
    for batch in batches:
        batch = [(n, s) for n, s in batch if np.isfinite(s)]
        ScoreCache(directory, TEACHER).add(keys_of(*(n for n, _ in batch)), scores_of(*(s for _, s in batch)))
        for number, score in batch:
            expected.setdefault(number, score)
    scores, found = ScoreCache(directory, TEACHER).lookup(keys_of(*range(22)))
    assert {n for n in range(22) if found[n]} == expected.keys()
    assert np.isnan(scores[~found]).all()
    assert all(scores[n] == np.float32(s) for n, s in expected.items())


def test_what_is_named_by_a_key():
    assert len(pair_key(TEACHER, "", "")) == 16
    pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("c", "ab")]
    assert len({pair_key(TEACHER, *pair) for pair in pairs} | {pair_key(TEACHER[:-1], "ab", "c")}) == 6
    assert pair_keys(TEACHER, *zip(*pairs)).tolist() == [pair_key(TEACHER, *pair) for pair in pairs]
    # Another name would leave every cache that there is without use.
    assert pair_key(TEACHER, "a river", "the stöne bridge").hex() == "7ef0df75b7882c88f3e34c898ba9bc36"


def test_a_key_that_ends_in_zero_bytes_is_itself(cache):
    keys = np.frombuffer(b"\x01" + b"\x00" * 15 + b"\x01\x00\x01" + b"\x00" * 13, dtype="V16")
    cache.add(keys[:1], scores_of(7))
    assert cache.lookup(keys)[1].tolist() == [True, False]


def test_keys_that_begin_alike_are_told_apart(cache):
    # Eight equal bytes, then a number; the number 2 is added twice, and 4 never.
    def keys(*numbers):
        return np.frombuffer(b"".join(b"12345678" + n.to_bytes(8, "big") for n in numbers), dtype="V16")

    cache.add(keys(3, 2, 1), scores_of(30, 20, 10))
    cache.add(keys(2, 0), scores_of(21, 0))
    scores, found = cache.lookup(keys(4, 0, 1, 2, 3, 2, 4))
    assert found.tolist() == [False, True, True, True, True, True, False]
    assert scores[found].tolist() == [0, 10, 20, 30, 20]


def test_what_is_known_is_read_once(cache, monkeypatch):
    cache.add(keys_of(*range(50)), scores_of(*range(50)))
    known, read = cache.known(), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *given: read.append(1) or pread(*given))
    for number in range(60):
        scores, found = known.lookup(keys_of(number))
        assert (found.tolist(), scores[found].tolist()) == ([number < 50], [number] * (number < 50))
    assert not read
    assert len(known) == 50
    # Whoever has read the file need not read it again to add to it: the header only.
    (again := ScoreCache(cache.path.parent, TEACHER)).known()
    read.clear()
    again.add(keys_of(60), scores_of(60))
    assert len(read) == 1
    cache.add(keys_of(70), scores_of(70))
    assert not known.lookup(keys_of(70))[1].any(), "known is what was there"
    assert cache.lookup(keys_of(70))[0].tolist() == [70]


def test_a_torn_commit_never_counts_and_is_cut_off(cache):
    cache.add(keys_of(1, 2), scores_of(1, 2))
    whole = cache.path.read_bytes()
    cache.add(keys_of(3, 4, 5), scores_of(3, 4, 5))
    second = cache.path.read_bytes()
    assert len(second) - len(whole) == 20 + 3 * 20
    for size in [*range(0, len(whole), 9), len(whole) - 1, *range(len(whole), len(second), 7), len(second) - 1]:
        cache.path.write_bytes(second[:size])
        again = ScoreCache(cache.path.parent, TEACHER)
        known = [1, 2] if size >= len(whole) else []
        assert again.lookup(keys_of(1, 2, 3))[1].tolist() == [bool(known)] * 2 + [False]
        again.add(keys_of(3, 4, 5), scores_of(3, 4, 5))
        assert again.lookup(keys_of(1, 2, 3, 4, 5))[0].tolist()[2:] == [3, 4, 5]
        if known:
            assert cache.path.read_bytes() == second, size


def test_a_last_commit_of_the_right_length_with_other_bytes_is_torn_too(cache):
    cache.add(keys_of(1), scores_of(1))
    cache.add(keys_of(2), scores_of(2))
    content = bytearray(cache.path.read_bytes())
    content[-1] ^= 1
    cache.path.write_bytes(content)
    assert ScoreCache(cache.path.parent, TEACHER).lookup(keys_of(1, 2))[1].tolist() == [True, False]


def test_a_change_in_the_middle_is_told(cache):
    cache.add(keys_of(1), scores_of(1))
    cache.add(keys_of(2), scores_of(2))
    content = bytearray(cache.path.read_bytes())
    content[-41] ^= 1  # the last byte of the first record: the second commit has 20 + 20 bytes
    cache.path.write_bytes(content)
    with pytest.raises(ArtifactError, match="was changed at byte"):
        ScoreCache(cache.path.parent, TEACHER).lookup(keys_of(1))


def test_another_teachers_file_is_refused(cache):
    cache.add(keys_of(1), scores_of(1))
    for key in (TEACHER[:16] + "0" * 48, TEACHER[:16], TEACHER + "0"):
        other = ScoreCache(cache.path.parent, key)
        assert other.path == cache.path
        with pytest.raises(ArtifactError, match="another teacher"):
            other.lookup(keys_of(1))
        with pytest.raises(ArtifactError, match="another teacher"):
            other.add(keys_of(2), scores_of(2))
    assert cache.lookup(keys_of(1))[1].all()
    with pytest.raises(DataError, match=r"key '\.\./away'"):
        ScoreCache(cache.path.parent, "../away")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused_and_nothing_is_written(cache, bad):
    with pytest.raises(DataError, match="1 of 2 scores are not finite"):
        cache.add(keys_of(1, 2), scores_of(1, bad))
    assert not cache.path.exists()
    with pytest.raises(DataError, match="2 keys, but 1 scores"):
        cache.add(keys_of(1, 2), scores_of(1))


def test_a_file_that_was_removed_meanwhile_is_begun_again(cache):
    cache.add(keys_of(1, 4, 5), scores_of(1, 4, 5))
    cache.path.unlink()
    ScoreCache(cache.path.parent, TEACHER).add(keys_of(2), scores_of(2))
    cache.add(keys_of(3), scores_of(3))
    assert cache.lookup(keys_of(1, 2, 3))[1].tolist() == [False, True, True]
    cache.path.unlink()
    cache.add(keys_of(1), scores_of(1))
    assert cache.lookup(keys_of(1, 2, 3))[1].tolist() == [True, False, False]


def test_processes_wait_for_each_other(cache):
    cache.add(keys_of(1), scores_of(1))
    other = threading.Thread(target=lambda: ScoreCache(cache.path.parent, TEACHER).add(keys_of(2), scores_of(2)))
    # The lock is the open file's and not the process's: a thread that opens the file waits as a process would.
    with cache.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join(60)
    cache.add(keys_of(3), scores_of(3))
    assert cache.lookup(keys_of(1, 2, 3))[0].tolist() == [1, 2, 3], "what another added meanwhile is kept"
