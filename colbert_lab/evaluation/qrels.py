"""Relevance judgements in files: TREC's four columns, and BEIR's three with a header; plain or .gz."""

from pathlib import Path

from colbert_lab.errors import DataError
from colbert_lab.run import create_text, numbered_lines

HEADER = ("query-id", "corpus-id", "score")


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade, in the file's order.

    The first line tells the format: three columns separated by tabs (`query-id corpus-id score`, BEIR; a header is
    skipped), or four by blanks (`qid 0 docid grade`, TREC). DataError, with file and line, for other columns, a grade
    that is no integer, and a pair judged twice with different grades.
    """
    path = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    beir: bool | None = None
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        first = beir is None
        if first:
            beir = len(line.split("\t")) == 3
        query, document, text = _columns(line, beir, f"{path}:{number}")
        try:
            grade = int(text)
        except ValueError as error:
            if first and beir:
                continue
            raise DataError(f"{path}:{number}: the grade {text!r} is not an integer") from error
        if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
            raise DataError(
                f"{path}:{number}: document {document!r} of query {query!r} has grade {grade}, "
                f"an earlier line says {qrels[query][document]}"
            )
    if not qrels:
        raise DataError(f"{path} holds no judgements")
    return qrels


def write_qrels(qrels: dict[str, dict[str, int]], path: str | Path) -> None:
    """Write judgements: BEIR's format for names in .tsv or .tsv.gz, otherwise TREC's.

    DataError for an id that the format cannot hold (with a blank in TREC's, a tab or a line's end in BEIR's).
    """
    path = Path(path)
    beir = path.name.removesuffix(".gz").endswith(".tsv")
    with create_text(path) as handle:
        if beir:
            handle.write("\t".join(HEADER) + "\n")
        for query, judged in qrels.items():
            for document, grade in judged.items():
                for name in (query, document):
                    _check(name, beir, path)
                columns = (query, document, str(grade)) if beir else (query, "0", document, str(grade))
                handle.write(("\t" if beir else " ").join(columns) + "\n")


def _columns(line: str, beir: bool, where: str) -> tuple[str, str, str]:
    columns = line.rstrip("\r\n").split("\t") if beir else line.split()
    if len(columns) != (3 if beir else 4):
        expected = "3 columns separated by tabs (BEIR)" if beir else "4 columns (TREC), or 3 separated by tabs (BEIR)"
        raise DataError(f"{where}: judgements have {expected}, this line {len(columns)}: {line.strip()!r}")
    return (columns[0], columns[1], columns[2]) if beir else (columns[0], columns[2], columns[3])


def _check(name: str, beir: bool, path: Path) -> None:
    unfit = not name.strip() or any(c in name for c in "\t\r\n") if beir else name.split() != [name]
    if unfit:
        where = "a .tsv file of judgements" if beir else "TREC's format of judgements (.tsv allows blanks)"
        raise DataError(f"{path}: the id {name!r} cannot be written to {where}")
