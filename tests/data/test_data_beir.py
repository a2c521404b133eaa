"""BEIR folders: plain and .gz alike, odd ids and separators kept, and every fault named with file and line."""

import gzip
import json

import pytest

from colbert_lab.data.beir import BeirFolder
from colbert_lab.data.source import prepare
from colbert_lab.errors import DataError

CORPUS = [
    {"_id": "007", "title": "T", "text": "one\u2028two\x85three"},
    {"_id": "a b/ç", "text": "no title"},
    {"_id": 7, "title": None, "text": "x"},
]
QUERIES = [{"_id": "q 1", "text": "?"}]
QRELS = "query-id\tcorpus-id\tscore\nq 1\ta b/ç\t1\nq 1\t007\t0\n"


@pytest.fixture
def folder(tmp_path):
    """write(corpus=..., queries=..., qrels=..., zipped=...) -> the folder."""

    def write(corpus=None, queries=None, qrels=QRELS, zipped=False, where="folder"):
        root = tmp_path / where
        files = {
            "corpus.jsonl": corpus if corpus is not None else lines(CORPUS),
            "queries.jsonl": queries if queries is not None else lines(QUERIES),
            "qrels/test.tsv": qrels,
        }
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            file = root / (name + ".gz" if zipped else name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(gzip.compress(data) if zipped else data)
        return root

    return write


def lines(entries) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def test_plain_gz_windows_and_blank_lines_are_the_same_collection(folder, tmp_path):
    plain = prepare(BeirFolder(folder(where="plain"), name="x"), tmp_path / "1")
    zipped = prepare(BeirFolder(folder(zipped=True, where="zipped"), name="x"), tmp_path / "2")
    windows = lines(CORPUS).replace("\n", "\r\n") + "\r\n"
    other = folder(b"\xef\xbb\xbf" + windows.encode(), qrels=QRELS.split("\n", 1)[1], where="windows")
    assert plain.digest == zipped.digest == prepare(BeirFolder(other, name="x"), tmp_path / "3").digest
    assert plain.corpus.all_ids() == ["007", "a b/ç", "7"]
    assert plain.corpus[[0, 1]] == ["T one\u2028two\x85three", "no title"]
    assert plain.qrels("test") == {"q 1": {"a b/ç": 1, "007": 0}}


def test_the_fingerprint_is_of_the_content(folder, tmp_path):
    memo = tmp_path / "memo.json"
    root = folder()
    before = BeirFolder(root).fingerprint(memo)
    assert BeirFolder(root).fingerprint(memo) == before == BeirFolder(root).fingerprint()
    assert len(json.loads(memo.read_text())) == 3
    (root / "qrels/test.tsv").write_text(QRELS.replace("\t0", "\t2"))
    assert BeirFolder(root).fingerprint(memo) != before


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"corpus": lines(CORPUS[:1]).encode() + b'{"_id": "\xe9"}\n'}, r"corpus.jsonl:2: not UTF-8 \(byte 0xe9"),
        ({"corpus": lines(CORPUS).encode("utf-16")}, "corpus.jsonl:1: not UTF-8"),
        ({"corpus": lines(CORPUS)[:-5]}, "corpus.jsonl:3: not a line of JSON"),
        ({"corpus": '["a"]\n'}, "corpus.jsonl:1: expected a JSON object"),
        ({"corpus": '{"id": "a", "text": ""}\n'}, 'corpus.jsonl:1: "_id" is missing; there are: id, text'),
        ({"corpus": '{"_id": null, "text": ""}\n'}, 'corpus.jsonl:1: the "_id" must be a string'),
        ({"corpus": '{"_id": "a", "text": ["x"]}\n'}, 'corpus.jsonl:1: "text" must be a string'),
        (
            {"corpus": lines([CORPUS[0], CORPUS[0]])},
            "jsonl:2: the id '007' was there before, at .*jsonl:1",
        ),
        ({"qrels": "q 1 007 1\n"}, r"test.tsv:1: expected 3 columns separated by tabs .* found 1"),
        ({"qrels": QRELS + "q 1\t7\tyes\n"}, "test.tsv:4: the grade 'yes' is not an integer"),
        ({"qrels": QRELS + "q1\t7\t1\n"}, "test.tsv:4: the query 'q1' is judged"),
    ],
)
def test_faults_are_named_with_file_and_line(folder, tmp_path, faults, message):
    with pytest.raises(DataError, match=message):
        prepare(BeirFolder(folder(**faults)), tmp_path)


def test_missing_and_damaged_files_say_what_was_expected(folder, tmp_path):
    with pytest.raises(DataError, match=r"is no folder; expected one with corpus.jsonl"):
        BeirFolder(tmp_path / "nowhere")
    root = folder(zipped=True)
    file = root / "corpus.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"corpus.jsonl.gz:\d+: the compressed file is damaged or cut short"):
        prepare(BeirFolder(root), tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"neither corpus.jsonl nor corpus.jsonl.gz; it holds: qrels, queries.jsonl.gz"):
        prepare(BeirFolder(root), tmp_path)
    (root / "qrels/test.tsv").write_text(QRELS)
    with pytest.raises(DataError, match="the same split"):
        BeirFolder(root).splits()


@pytest.mark.parametrize(
    ("name", "documents", "queries"),
    [
        ("scifact", 5183, {"train": (809, 919), "test": (300, 339)}),
        ("nfcorpus", 3633, {"train": (2590, 110575), "dev": (324, 11385), "test": (323, 12334)}),
        ("cranfield", 1400, {"train": (150, 1228), "test": (75, 609), "all": (225, 1837)}),
    ],
)
def test_published_counts(shared, tmp_path, name, documents, queries):
    made = prepare(BeirFolder(shared / name), tmp_path)
    assert len(made.corpus) == documents
    found = {split: made.qrels(split) for split in made.splits}
    assert {split: (len(q), sum(map(len, q.values()))) for split, q in found.items()} == queries
    if name == "cranfield":
        assert made.artifact.manifest["counts"]["empty_documents_shown"] == ["471", "995"]
