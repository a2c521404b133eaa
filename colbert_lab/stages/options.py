"""The plain keys of the verbs' configurations, as types: what check() holds them against."""

from dataclasses import dataclass, field
from typing import Literal

from colbert_lab.models.precision import Precision
from colbert_lab.scoring.maxsim import Similarity


@dataclass
class Encode:
    """How texts are encoded: precision, ids a batch (padding included), documents a chunk (committed together)."""

    precision: Precision = "auto"
    batch_tokens: int = 8192
    chunk: int = 1024


@dataclass
class Splits:
    """Which split of the collection plays which part; of several names for test, the first that is there."""

    train: str = "train"
    dev: str = "dev"
    test: str | list[str] = "test"


@dataclass
class Dev:
    """The sample that the best model is chosen by: queries, a pool of documents, and how many training queries are held
    out where the collection has no dev split. queries=0: no sample, the last weights are exported."""

    queries: int = 100
    documents: int = 500
    holdout: int = 100


@dataclass
class Search:
    """Results a query, a file of ids to search among (null: all), and whether a document with the query's own id is
    left out."""

    k: int = 1000
    only: str | None = None
    drop_self: bool = False


@dataclass
class Rerank:
    """How many candidates of a query are scored anew."""

    k: int = 100


@dataclass
class Evaluate:
    """What is measured, from which grade on a document is relevant to binary metrics, and how runs are compared."""

    metrics: list[str] = field(default_factory=list)
    relevance_level: int = 1
    test: Literal["randomisation", "t"] = "randomisation"


@dataclass
class Fidelity:
    """How settings are held against exact: cut-offs of overlap, what ranks them, from which grade on a document is
    relevant to MRR, the paired test, and how many queries are timed one by one, after how many that are not."""

    depths: list[int] = field(default_factory=lambda: [10, 100])
    quality: str = "overlap_100"
    relevance_level: int = 1
    test: Literal["randomisation", "t"] = "randomisation"
    timed: int = 100
    warmup: int = 10


@dataclass
class Cost:
    """What measuring a system's costs takes: queries timed one by one, how many before them that are not, and at most
    how many seconds a system, in which a slow one is timed on fewer."""

    timed: int = 50
    warmup: int = 5
    seconds: float = 30


@dataclass
class Score:
    """How several teachers become one: each normalised per query, and weighted (null: alike)."""

    normalise: Literal["none", "z_score", "min_max"] = "none"
    weights: list[float] | None = None


@dataclass
class Pylate:
    """A table in PyLate's columns to take tuples from (null: none), and which document of a row is its positive."""

    file: str | None = None
    positive: Literal["first", "best"] = "first"


@dataclass
class Export:
    """A file of one epoch's tuples (of PyLate's three tables: a folder, or one of them): where (null: none), in whose
    format, how many documents each."""

    file: str | None = None
    format: Literal["stanford", "pylate"] = "stanford"
    ways: int = 16
    epoch: int = 0


@dataclass
class Convert:
    """Which ids the passages of a Stanford directory get when it is read; at how many bits an index is written as one
    (null: its own), and whether it may be encoded anew for it."""

    ids: Literal["auto", "lines", "numbers"] = "auto"
    bits: Literal[1, 2, 4, 8] | None = None
    reencode: bool = True


@dataclass
class Explain:
    """Documents of a run's query, queries of two runs, the metric that these gained or lost and from which grade on it
    takes a document as relevant, and document tokens in a heat map."""

    top: int = 3
    n: int = 5
    metric: str = "ndcg_10"
    relevance_level: int = 1
    columns: int = 60


@dataclass
class Describe:
    """Among how many texts near duplicates are looked for, and of how many documents tokens are counted, at most."""

    near_limit: int = 30_000
    sample: int = 100_000


@dataclass
class TrackingKeys:
    """Where and under what names runs are told."""

    project: str = "colbert_lab"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    sink: dict | None = None


@dataclass
class Options:
    """Every plain key that some verb has."""

    name: str | None = None
    seed: int = 0
    root: str = "outputs"
    run_dir: str | None = None
    model: str | None = None
    index_dir: str | None = None
    candidates: str | None = None
    run: str | list[str] | None = None
    collection: str | None = None
    model_at: str | None = None
    split: str | None = None
    qrels: str | None = None
    query: str | int | float | bool | None = None
    document: str | int | float | bool | None = None
    query_text: str | None = None
    document_text: str | None = None
    similarity: Similarity = "cosine"
    lexical: bool = True
    single_vector: Literal["mean", "cls"] | None = None
    dry_run: bool = False
    scores: str | None = None
    teachers: str | list[str] | None = None
    sweep_dir: str | None = None
    runs: str | list[str] | None = None
    out: str | None = None
    title: str | None = None
    of: str | None = None
    kind: str | None = None
    match: str | None = None
    sort: str | None = None
    again: bool = False
    probe: dict | None = None
    add: str | None = None
    delete: str | None = None
    artifact: str | None = None
    source: str | None = None
    threads: int | None = None
    devices: int = 1
    encode: Encode = field(default_factory=Encode)
    splits: Splits = field(default_factory=Splits)
    dev: Dev = field(default_factory=Dev)
    search: Search = field(default_factory=Search)
    rerank: Rerank = field(default_factory=Rerank)
    evaluate: Evaluate = field(default_factory=Evaluate)
    grid: dict[str, dict] = field(default_factory=dict)
    systems: dict[str, dict] = field(default_factory=dict)
    seeds: list[str] | None = None
    cross_encoder: str | None = None
    baseline: str | None = None
    corpus: Literal["full", "pool"] = "full"
    share_vectors: bool = True
    cost: Cost = field(default_factory=Cost)
    fidelity: Fidelity = field(default_factory=Fidelity)
    score: Score = field(default_factory=Score)
    pylate: Pylate = field(default_factory=Pylate)
    export: Export = field(default_factory=Export)
    convert: Convert = field(default_factory=Convert)
    explain: Explain = field(default_factory=Explain)
    describe: Describe = field(default_factory=Describe)
    tracking: TrackingKeys = field(default_factory=TrackingKeys)
