"""Passages through the verbs: indexed, searched, updated, re-ranked, killed, and refused where they mean nothing."""

import json
import shutil

import pytest

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ConfigError
from colbert_lab.index.by_document import PassageIndex
from colbert_lab.run import read_trec
from colbert_lab.stages import index as indexing
from colbert_lab.stages import update as updating
from colbert_lab.stages.index import open_index

CUT = ("passages.length=6", "passages.overlap=2")


def run_of(artifact):
    return dict(read_trec(artifact.path / "run.trec.gz"))


@pytest.fixture(scope="module")
def made(lab, chain):
    def make(index, *overrides):
        model = () if index == "bm25" else (f"model={chain['model'].path}",)
        return lab("index", f"index={index}", *model, *overrides).artifact

    return make


@pytest.mark.parametrize("index", ["exact", "residual", "bm25"])
def test_every_index_holds_passages_and_finds_documents(lab, made, index):
    whole, cut = made(index), made(index, *CUT)
    counts = cut.manifest["counts"]
    # 17 words: 1-6, 5-10, 9-14, 13-17.
    assert (counts["documents"], counts["passages"], counts["left_out_passages"]) == (60, 240, 0)
    assert isinstance(open_index(cut), PassageIndex)
    found = run_of(lab("search", f"index_dir={cut.path}").artifact)
    documents = set(open_index(whole).ids)
    assert found
    assert all(set(hits.ids) <= documents for hits in found.values())
    if index != "bm25":
        assert all(len(hits) == 60 for hits in found.values())
    assert "all as they were written" in lab("verify", "!all", f"artifact={cut.path}")


@pytest.mark.parametrize("index", ["exact", "bm25"])
def test_documents_of_one_passage_are_found_as_whole_ones_are(lab, made, index):
    whole, cut = made(index), made(index, "passages.length=500")
    assert cut.manifest["counts"]["passages"] == 60
    assert cut.digest != whole.digest
    found = [run_of(lab("search", f"index_dir={one.path}").artifact) for one in (whole, cut)]
    assert found[0] == found[1]


def test_every_key_changes_the_index_and_a_length_of_null_nothing(lab, made):
    assert set(lab.compose("index")[0].passages) - {"_target_"} == {"length", "overlap", "most"}
    changes = (("passages.length=6",), CUT, ("passages.length=6", "passages.most=2"), ("passages.length=model",))
    assert len({made("exact", *change).digest for change in changes}) == 4
    assert made("exact", "passages.overlap=3") == made("exact")
    counts = made("exact", "passages.length=6", "passages.most=2").manifest["counts"]
    assert (counts["passages"], counts["left_out_passages"], counts["cut_documents"]) == (120, 60, 60)
    counts = made("exact", "passages.length=model").manifest["counts"]
    assert (counts["cut_passages"], counts["cut_tokens"]) == (0, 0)
    # Words of passages are counted by the model's ids when it cuts them.
    assert made("exact", "passages.length=500").manifest["counts"]["cut_passages"] == 0


def test_a_killed_build_goes_on_with_whole_documents(made, fresh_lab, chain, monkeypatch):
    arguments = (f"model={chain['model'].path}", *CUT, "encode.chunk=9")
    expected = made("exact", *CUT).digest
    real, left = indexing.as_vectors, [3]

    def dying(*given):
        prepare = real(*given)

        def prepared(texts, bar):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return prepare(texts, bar)

        return prepared

    monkeypatch.setattr(indexing, "as_vectors", dying)
    with pytest.raises(KeyboardInterrupt):
        fresh_lab("index", *arguments)
    monkeypatch.undo()
    (partial,) = fresh_lab.root.glob("indexes/*.partial")
    done = [json.loads(line)["documents"] for line in (partial / "log" / "encoded.jsonl").read_text().splitlines()]
    # A document of 85 characters is taken for 5 passages: one fits into a chunk of 9.
    assert done == [1, 2, 3]
    assert fresh_lab("index", *arguments).artifact.digest == expected


@pytest.mark.parametrize("moment", [0, 1])
def test_an_update_is_by_document_and_goes_on_after_a_kill(lab, made, fresh_lab, tmp_path, monkeypatch, moment):
    toy = tmp_path / "toy"
    shutil.copytree(lab.toy, toy)
    rows = [json.loads(line) for line in (toy / "corpus.jsonl").read_text().splitlines()]
    rows[0]["text"] = "A lighthouse."
    rows.append({"_id": "new#1", "title": "river", "text": "one two three four five six seven eight nine ten"})
    (toy / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "delete").write_text("d10-0\n")
    (tmp_path / "add").write_text("new#1\nd0-0\n")
    options = [f"add={tmp_path / 'add'}", f"delete={tmp_path / 'delete'}", "data=beir", f"data.root={toy}"]
    arguments = [f"index_dir={made('exact', *CUT).path}", *options, "encode.chunk=1"]
    new = lab("update", *arguments).artifact
    counts = new.manifest["counts"]
    assert [counts[name] for name in ("deleted", "updated", "added", "documents")] == [1, 1, 1, 60]
    # 240 without the four of d10-0 and of d0-0, with one of "river A lighthouse." and three of "new#1".
    assert counts["passages"] == 236
    fresh = lab("index", f"model={new.manifest['inputs']['model']['path']}", *CUT, *options[2:]).artifact
    keep = tmp_path / "keep"
    keep.write_text("\n".join(sorted(open_index(new).ids)))
    found = run_of(lab("search", f"index_dir={new.path}").artifact)
    assert found == run_of(lab("search", f"index_dir={fresh.path}", f"search.only={keep}").artifact)

    left, real = [moment], updating.hash_file

    def dying(path):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(updating, "hash_file", dying)
        with pytest.raises(KeyboardInterrupt):
            fresh_lab("update", *arguments)
    assert fresh_lab("update", *arguments).artifact.digest == new.digest


def test_re_ranking_by_passages_is_searching_them_exactly(lab, made, chain):
    model = f"model={chain['model'].path}"
    candidates = f"candidates={chain['run'].path}"
    whole = lab("rerank", model, candidates, "rerank.k=60").artifact
    cut = lab("rerank", model, candidates, "rerank.k=60", *CUT).artifact
    assert run_of(cut) != run_of(whole)
    assert cut.manifest["counts"]["passages"] == 240
    exact = run_of(lab("search", f"index_dir={made('exact', 'index.dtype=fp32', *CUT).path}").artifact)
    found = run_of(cut)
    for query, hits in exact.items():
        assert dict(found[query]) == pytest.approx(dict(hits), abs=1e-4)
    one = lab("rerank", model, candidates, "rerank.k=60", "passages.length=500").artifact
    assert {q: dict(hits) for q, hits in run_of(one).items()} == {
        q: pytest.approx(dict(hits), abs=1e-4) for q, hits in run_of(whole).items()
    }


def test_the_pipeline_takes_passages(fresh_lab):
    fresh_lab("pipeline", "train.max_steps=0", "passages.length=6", "lexical=false")
    (index,) = (fresh_lab.root / "indexes").iterdir()
    assert Artifact.open(index).manifest["counts"]["passages"] == 180


def test_what_means_nothing_is_refused(lab, made, chain):
    with pytest.raises(ConfigError, match=r"try: passages\.length=180"):
        made("bm25", "passages.length=model")
    with pytest.raises(ConfigError, match="length=0"):
        made("exact", "passages.length=0")
    with pytest.raises(ConfigError, match="holds passages, there is no exact MaxSim"):
        lab("fidelity", f"index_dir={made('exact', *CUT).path}", "!all", f"root={lab.root}", "tracking=none")
    teacher = lab("teacher").artifact
    with pytest.raises(ConfigError, match="a cross-encoder reads whole documents"):
        lab("rerank", f"model={teacher.path}", f"candidates={chain['run'].path}", *CUT)
