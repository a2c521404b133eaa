"""index=bm25: the scores of search/bm25.py, kept without texts; edits weigh every word anew."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.index.lexical import Bm25Index, Bm25IndexKind
from colbert_lab.search.bm25 import Bm25, Words

TEXTS = {
    "a": "wings of an aircraft in flow",
    "b": "the flow around wings; flowing wings",
    "c 1": "",
    "d": "of the",
    "é": "plate heat transfer and the plate",
}


def build(folder, texts=TEXTS, chunk=100, **options):
    kind = Bm25IndexKind(**options)
    folder.mkdir(exist_ok=True)
    ids = list(texts)
    for first in range(kind.writer(folder).documents, len(ids), chunk):
        # A writer of its own for each chunk, as after a kill.
        kind.writer(folder).append(ids[first : first + chunk], [texts[i] for i in ids[first : first + chunk]])
    kind.writer(folder).finish()
    return kind.open(folder)


@pytest.mark.parametrize(
    "options", [{}, {"stemmer": None}, {"stopwords": None}, {"stopwords": ["wings"]}, {"k1": 2.0, "b": 0.9}], ids=str
)
def test_it_scores_as_bm25_in_memory(tmp_path, options):
    queries = {"q": "winged flow", "p": "the heat of a plate plate", "n": "zebra", "e": ""}
    expected = Bm25(list(TEXTS), TEXTS.values(), **options).search(list(queries), list(queries.values()), 3)
    made = build(tmp_path, **options)
    assert dict(made.search(list(queries), list(queries.values()), 3)) == dict(expected)
    assert len(made) == 5
    assert made.stats()["tokens"] == sum(map(len, Words(*_settings(options)).learn(TEXTS.values())))


def _settings(options):
    return options.get("stopwords", "en"), options.get("stemmer", "english")


def test_every_parameter_changes_scores(tmp_path):
    def scores(number, **options):
        found = build(tmp_path / str(number), **options).search(["q"], ["the winged flow of wings"], 9)
        return [(i, round(score, 6)) for i, score in found["q"]]

    variants = [{}, {"k1": 2.0}, {"b": 0.0}, {"stopwords": None}, {"stemmer": None}]
    found = [scores(number, **options) for number, options in enumerate(variants)]
    assert all(found.count(one) == 1 for one in found)


def test_chunks_leave_no_trace_and_no_text_is_kept(tmp_path):
    build(tmp_path / "a")
    build(tmp_path / "b", chunk=1)
    files = [{f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]
    assert not any(b"aircraft in" in content for content in files[0].values())


@settings(max_examples=10, deadline=None)
@given(edits=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "wing", "flow wing", "of", "heat"]))))
def test_edited_is_rebuilt(tmp_path_factory, edits):
    root = tmp_path_factory.mktemp("edited")
    held = {"a": "wing heat", "z": "flow"}
    made = build(root / "a", held)
    for document, text in edits:
        if document in held and text == "of":
            made.delete([document])
            del held[document]
        elif document in held:
            made.update([document], [text])
            held[document] = text
        else:
            made.add([document], [text])
            held[document] = text
    queries = ["wing", "flow heat wing"]
    assert sorted(made.ids) == sorted(held)
    expected = build(root / "b", held).search(["p", "q"], queries, 3)
    assert dict(made.search(["p", "q"], queries, 3)) == dict(expected)
    assert dict(Bm25Index(root / "a").search(["p", "q"], queries, 3)) == dict(expected)
    made.verify()


def test_only_these_documents(tmp_path):
    made = build(tmp_path)
    whole = dict(made.search(["q"], ["wings flow plate"], 9)["q"])
    assert set(whole) == {"a", "b", "é"}
    assert dict(made.search(["q"], ["wings flow plate"], 9, only=["é", "c 1"])["q"]) == {"é": whole["é"]}
    with pytest.raises(DataError, match="'x' is the first"):
        made.search(["q"], ["wings"], 9, only=["x"])


def test_nothing_to_find(tmp_path):
    made = build(tmp_path / "words", {"a": "", "b": "of"})
    assert len(made.search(["q"], ["flow"], 9)["q"]) == 0
    assert len(build(tmp_path / "documents", {}).search(["q"], ["flow"], 9)["q"]) == 0
    made = build(tmp_path / "left", {"a": "wing"})
    made.delete(["a"])
    assert len(made.search(["q"], ["wing"], 9)["q"]) == len(made) == 0
    assert made.stats()["tokens"] == 0


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Bm25IndexKind(k1=-1, b=2, stemmer="klingon")
    assert len(caught.value.problems) == 3
    made = build(tmp_path)
    for arguments, error in (((0,), "k=0"), ((1, None, object()), "try: probe=auto")):
        with pytest.raises(ConfigError, match=error):
            made.search(["q"], ["wing"], *arguments)
    with pytest.raises(DataError, match="'a' is the first; update them instead"):
        made.add(["a"], ["wing"])
    (weights,) = tmp_path.glob("data-*.npy")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ArtifactError, match=weights.name):
        made.verify()
