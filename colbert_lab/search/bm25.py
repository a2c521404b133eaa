"""Lexical search: BM25 over texts, the baseline of every comparison and the first miner of negatives.

Scores are bm25s's, in Lucene's variant (Kamphuis et al., ECIR 2020); k1 0.9 and b 0.4 are Anserini's defaults.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.run import Hits, Run


class Bm25:
    """An index of N documents in memory: `Bm25(ids, texts).search(query_ids, query_texts, k)`.

    ids: N document ids; texts: their texts in the same order, any iterable, read once. stopwords: a language that bm25s
    knows (`en`), a list of words, or None; stemmer: a Snowball language (`english`) or None.

    Raises ConfigError for a setting out of range or unknown, DataError for no documents, a repeated id, or as many
    texts as ids not given.
    """

    def __init__(
        self,
        ids: Sequence[str],
        texts: Iterable[str],
        k1: float = 0.9,
        b: float = 0.4,
        stopwords: str | Sequence[str] | None = "en",
        stemmer: str | None = "english",
    ):
        if found := bm25_problems(k1, b, stopwords, stemmer):
            raise ConfigError(found, "BM25")
        self._words = Words(stopwords, stemmer)
        self.ids = tuple(ids)
        if not self.ids or len(set(self.ids)) != len(self.ids):
            raise DataError("BM25 needs documents, each with its own id" if self.ids else "BM25 needs documents")
        tokens = self._words.learn(texts)
        if len(tokens) != len(self.ids):
            raise DataError(f"{len(self.ids)} document ids, but {len(tokens)} texts")
        self._weights = weigh(tokens, len(self._words), k1, b)
        self._rows = {document: row for row, document in enumerate(self.ids)}
        # Place of each document in the order of ids, by which equal scores are ordered.
        self._place = np.empty(len(self.ids), dtype=np.int64)
        self._place[sorted(range(len(self.ids)), key=self.ids.__getitem__)] = np.arange(len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, query_ids: Sequence[str], query_texts: Sequence[str], k: int) -> Run:
        """The best k documents for each query, equal scores by document id, ascending.

        Like Lucene, BM25 finds the documents that share a word with the query and no others: where fewer than k do,
        the query has fewer results, and none where its text is empty or unknown. (Filled up with documents of score 0
        a run would owe some of its recall to the order of ids.) ConfigError for k below 1, DataError for repeated
        query ids or as many texts as ids not given.
        """
        if k < 1:
            raise ConfigError(f"k is {k}, it must be at least 1", "the search")
        check_queries(query_ids, query_texts)
        numbers = self._words.numbers(query_texts)
        return Run({query: self._best(words, k) for query, words in zip(query_ids, numbers)}, depth=k)

    def score(self, query: str, ids: Sequence[str]) -> np.ndarray:
        """The scores (float32) of these documents for one query, those that a search gives; 0 where no word is shared.

        DataError for an id that is not in the index.
        """
        try:
            rows = [self._rows[i] for i in ids]
        except KeyError as error:
            raise DataError(f"document {error.args[0]!r} is not in this BM25 index of {len(self)} documents") from error
        return self._weights.scores(self._words.numbers([query])[0])[rows]

    def _best(self, words: list[int], k: int) -> Hits:
        scores = self._weights.scores(words)
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            least = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= least]
        found = found[np.lexsort((self._place[found], -scores[found]))[:k]]
        return Hits(tuple(self.ids[i] for i in found), scores[found].astype(np.float64))


class Words:
    """Texts to numbers of words, stemmed and without stop words, by a vocabulary that grows while documents are read.

    `known` is the vocabulary to go on with, in the order of its numbers. ConfigError for unknown settings.
    """

    def __init__(self, stopwords: str | Sequence[str] | None, stemmer: str | None, known: Sequence[str] = ()):
        self._tokenizer = _tokenizer(stopwords, stemmer)
        numbers = {word: number for number, word in enumerate(known)}
        if stemmer is None:
            self._tokenizer.word_to_id = numbers
        else:
            self._tokenizer.stem_to_sid = numbers

    def __len__(self) -> int:
        return len(self._tokenizer.get_vocab_dict())

    @property
    def known(self) -> list[str]:
        """The vocabulary, in the order of its numbers."""
        return list(self._tokenizer.get_vocab_dict())

    def learn(self, texts: Iterable[str]) -> list[list[int]]:
        """The words of documents; new ones join the vocabulary."""
        return list(self._tokenizer.streaming_tokenize(texts, update_vocab=True, allow_empty=False))

    def numbers(self, texts: Iterable[str]) -> list[list[int]]:
        """The known words of queries."""
        # update_vocab=False still knows new forms of known stems; "never" would not.
        return list(self._tokenizer.streaming_tokenize(texts, update_vocab=False, allow_empty=False))


@dataclass(frozen=True)
class Weights:
    """What every word adds to every document's score: a sparse matrix of N documents by V words, column after column.

    data (float32) and indices (int32), the documents, of word w lie at indptr[w]:indptr[w + 1].
    """

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    documents: int

    def scores(self, words: Sequence[int]) -> np.ndarray:
        """The scores (float32 [N]) of a query of these words; a word that comes twice counts twice."""
        import bm25s

        given = np.asarray(words, dtype=np.int32)
        return bm25s.BM25._compute_relevance_from_scores(
            self.data, self.indptr, self.indices, self.documents, given, np.dtype(np.float32)
        )


def weigh(tokens: Sequence[Sequence[int]], words: int, k1: float, b: float) -> Weights:
    """BM25's weights of documents, given as numbers of words, over a vocabulary of so many."""
    import bm25s

    if not any(map(len, tokens)):
        # The mean length would be a division by 0.
        return Weights(np.empty(0, np.float32), np.empty(0, np.int32), np.zeros(words + 1, np.int64), len(tokens))
    # bm25s sets its logger to DEBUG when imported, which would fill every log that has a handler.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    found = index.build_index_from_ids(list(range(words)), tokens, show_progress=False)
    return Weights(
        found["data"], np.asarray(found["indices"], np.int32), np.asarray(found["indptr"], np.int64), len(tokens)
    )


def bm25_problems(k1: float, b: float, stopwords: str | Sequence[str] | None, stemmer: str | None) -> list[str]:
    """What is wrong with these settings, in words."""
    problems = []
    if k1 < 0:
        problems.append(f"k1 is {k1}, it must be at least 0")
    if not 0 <= b <= 1:
        problems.append(f"b is {b}, it must be between 0 and 1")
    try:
        _tokenizer(stopwords, stemmer)
    except ConfigError as error:
        problems += error.problems
    return problems


def check_queries(query_ids: Sequence[str], query_texts: Sequence[str]) -> None:
    """DataError for repeated query ids, or as many texts as ids not given."""
    if len(query_ids) != len(query_texts) or len(set(query_ids)) != len(query_ids):
        raise DataError(f"{len(query_ids)} query ids must be distinct and match {len(query_texts)} texts")


def _tokenizer(stopwords: str | Sequence[str] | None, stemmer: str | None):
    import Stemmer
    from bm25s.tokenization import Tokenizer

    problems = []
    if stemmer is not None and stemmer not in Stemmer.algorithms():
        problems.append(f"stemmer is {stemmer!r}, it can be null, {', '.join(Stemmer.algorithms())}")
    try:
        words = stopwords if stopwords is None or isinstance(stopwords, str) else list(stopwords)
        tokenizer = Tokenizer(stopwords=words)
    except ValueError as error:
        problems.append(f"stopwords is {stopwords!r}: {error}")
    if problems:
        raise ConfigError(problems, "BM25")
    tokenizer.stemmer = None if stemmer is None else Stemmer.Stemmer(stemmer).stemWord
    return tokenizer
