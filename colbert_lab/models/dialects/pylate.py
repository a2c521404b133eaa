"""PyLate's checkpoints and Sentence Transformers' MultiVectorEncoder: modules.json, each module in a directory.

    ""                  Transformer: the backbone; sentence_bert_config.json, where a MultiVectorEncoder has lengths
                        and expansion
    1_Dense             the projection; several bias-free ones without activation are multiplied into one
    2_MultiVectorMask   a MultiVectorEncoder's skiplist
    3_Normalize         a MultiVectorEncoder's
    config_sentence_transformers.json   prompts; and what PyLate has to say: prefixes, lengths, expansion, skiplist

PyLate puts a marker's id behind the leading special token, Sentence Transformers its words before the text.
"""

import string
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from colbert_lab.errors import ArtifactError
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.dialects import stanford
from colbert_lab.models.dialects.dense import folded
from colbert_lab.models.dialects.files import (
    Record,
    load_parts,
    marker,
    positions,
    prompted,
    read_json,
    skipping,
    tensors,
)
from colbert_lab.models.projection import linear
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
# Keys that only PyLate writes into SETTINGS.
_PYLATE_KEYS = {
    "query_prefix",
    "document_prefix",
    "query_length",
    "document_length",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "skiplist_words",
}
_READ = ("Transformer", "Dense", "MultiVectorMask", "Normalize", "HierarchicalTokenPooling")
_TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


def load(directory: Path, of_pylate: bool) -> ColBERT:
    """The model of a directory with modules.json; keys that it lacks have the defaults of PyLate, or say nothing."""
    assumed: list[str] = []
    modules = _modules(directory)
    settings = Record.read(directory / SETTINGS, assumed)
    backbone, tokenizer = load_parts(modules["Transformer"][0])
    hidden = backbone.config.hidden_size
    weight = folded(modules["Dense"], hidden, of_pylate)
    if weight is None and of_pylate:
        raise ArtifactError(f"{directory / MODULES} lists no Dense; PyLate would add a projection of random weights")
    dim = hidden if weight is None else weight.shape[0]
    if settings.get("embedding_size", int, dim, quiet=True) != dim:
        raise settings.refused(
            "embedding_size", f"the last Dense gives {dim} dimensions; PyLate would add a random one"
        )
    rows = backbone.get_input_embeddings().num_embeddings
    _check_tail(directory, modules, of_pylate)
    fields = _lengths(settings, modules, tokenizer, positions(backbone, tokenizer), of_pylate)
    fields |= _skiplist(settings, modules, tokenizer, of_pylate, fields)
    fields |= _prompts(settings, tokenizer, rows, of_pylate)
    if problems := Contract.problems(**fields):
        raise ArtifactError(f"{directory}: {'; '.join(problems)}")
    if settings.get("similarity_fn_name", str, "", quiet=True) == "meanmaxsim":
        assumed.append("similarity_fn_name=maxsim; it is meanmaxsim, which ranks alike: a query's sum over its vectors")
    tokens = ColBERTTokenizer(tokenizer, Contract(**fields))
    model = ColBERT(backbone, tokens, None if weight is None else linear(weight), "cosine", {"assumed": assumed})
    model.similarity = _agreed(directory, modules["Transformer"][0], model)
    return model


def kinds(directory: Path) -> list[str]:
    """The last names of the modules' types, in order; none where there is no modules.json."""
    if not (directory / MODULES).is_file():
        return []
    return [str(module.get("type")).rpartition(".")[2] for module in _listed(directory)]


def dialect_of(directory: Path) -> Literal["PyLate", "Sentence Transformers"] | None:
    """Whose late-interaction model a directory with modules.json is; None for one that is none, a bi-encoder's say."""
    settings = Record.read(directory / SETTINGS).values
    if settings.get("model_type") == "MultiVectorEncoder":
        return "Sentence Transformers"
    pylates = any(str(module.get("type")).startswith("pylate.") for module in _listed(directory))
    return "PyLate" if pylates or settings.get("model_type") == "ColBERT" or _PYLATE_KEYS & settings.keys() else None


def _listed(directory: Path) -> list[dict[str, Any]]:
    listed = read_json(directory / MODULES)
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ArtifactError(f"{directory / MODULES} should hold a list of modules")
    return listed


def _modules(directory: Path) -> dict[str, list[Path]]:
    """The directories of the modules of each kind; types are looked up by name, nothing is imported."""
    found: dict[str, list[Path]] = {kind: [] for kind in _READ}
    listed = _listed(directory)
    order = []
    for number, module in enumerate(listed):
        package, _, kind = str(module.get("type")).rpartition(".")
        path = Path(str(module.get("path") or ""))
        if kind not in _READ or package.partition(".")[0] not in ("sentence_transformers", "pylate"):
            raise ArtifactError(
                f"{directory / MODULES}: type of module {number} is {module.get('type')!r}; only {', '.join(_READ)} of "
                "sentence_transformers and pylate are read"
            )
        if path.is_absolute() or ".." in path.parts:
            raise ArtifactError(f"{directory / MODULES}: path of module {number} is {str(path)!r}, outside of it")
        found[kind].append(directory / path)
        order.append(kind)
    if order[:1] != ["Transformer"] or order.count("Transformer") != 1 or order != sorted(order, key=_place):
        raise ArtifactError(
            f"{directory / MODULES}: type runs {', '.join(order) or 'over nothing'}; what is read is one Transformer, "
            "then any Dense, then mask and normalisation"
        )
    return found


def _place(kind: str) -> int:
    return {"Transformer": 0, "Dense": 1, "HierarchicalTokenPooling": 3}.get(kind, 2)


def _check_tail(directory: Path, modules: dict[str, list[Path]], of_pylate: bool) -> None:
    """ArtifactError where vectors would not be of unit length, or would be pooled."""
    if not modules["Normalize"] and not of_pylate:
        raise ArtifactError(f"{directory / MODULES} lists no Normalize; models of ours give vectors of unit length")
    for place in modules["Normalize"]:
        record = Record.read(place / "config.json")
        for key in ("module_input_name", "module_output_name"):
            if record.get(key, str, "token_embeddings", quiet=key == "module_output_name") != "token_embeddings":
                raise record.refused(key, "only token_embeddings are read")
    for place in modules["HierarchicalTokenPooling"]:
        record = Record.read(place / "config.json")
        if record.get("pool_factor", int, 2) != 1:
            raise record.refused("pool_factor", "models of ours do not pool; take the module out, and pool the index")


def _lengths(
    settings: Record,
    modules: dict[str, list[Path]],
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    of_pylate: bool,
) -> dict[str, Any]:
    """Lengths and expansion: as the Transformer's own file says, else as PyLate's keys do."""
    own = _own(modules["Transformer"][0])
    if own.get("do_lower_case", bool) and tokenizer.tokenize("River") != tokenizer.tokenize("river"):
        raise own.refused("do_lower_case", "its tokenizer tells letter case apart")
    lengths = {}
    for key, default in (("query_length", 32), ("document_length", 180)):
        fallback = (default if limit is None else min(default, limit)) if of_pylate else limit
        length = own.get(key, int)
        # Where queries are expanded, their length is the expansion's.
        length = settings.get(key, int, fallback, quiet=not of_pylate) if length is None else length
        if length is None:
            raise own.refused(key, "its tokenizer and its backbone know no limit either")
        lengths[key] = length
    if "query_expansion" in own.values or "query_expansion" in settings.values:
        record = own if "query_expansion" in own.values else settings
        expansion = record.get("query_expansion", dict)
    elif of_pylate and settings.get("do_query_expansion", bool, True):
        attend = settings.get("attend_to_expansion_tokens", bool, False)
        record, expansion = settings, {"strategy": "fixed", "attend": attend, "length": lengths["query_length"]}
    else:
        expansion = None
    if expansion is None:
        return {**lengths, "expansion": "off"}
    said = Record(record.file, expansion)
    strategy, length = said.get("strategy", str), said.get("length", int)
    if strategy not in ("fixed", "min") or length is None:
        raise record.refused("query_expansion", "fixed or min, with a length, were expected")
    if tokenizer.mask_token is None or said.get("token", str, tokenizer.mask_token, quiet=True) != tokenizer.mask_token:
        raise record.refused("query_expansion", f"only the mask token ({tokenizer.mask_token}) is read")
    if strategy == "fixed":
        lengths["query_length"] = length
    else:
        lengths["expansion_length"] = length
    return {**lengths, "expansion": strategy, "attend_to_expansion": said.get("attend", bool, False, quiet=True)}


def _own(place: Path) -> Record:
    """The Transformer's own settings; ArtifactError where they ask for other ids or vectors than a text's."""
    record = Record.read(next((f for name in _TRANSFORMER_FILES if (f := place / name).is_file()), place))
    if record.get("transformer_task", str, "feature-extraction", quiet=True) != "feature-extraction":
        raise record.refused("transformer_task", "only feature-extraction is read")
    if record.get("processing_kwargs", dict):
        raise record.refused("processing_kwargs", "they change the ids of a text")
    if record.get("module_output_name", str, "token_embeddings", quiet=True) != "token_embeddings":
        raise record.refused("module_output_name", "only token_embeddings are read")
    modality = record.get("modality_config", dict)
    if modality is not None and (
        set(modality) != {"text"} or (modality["text"] or {}).get("method_output_name") != "last_hidden_state"
    ):
        raise record.refused("modality_config", "only the last hidden state of plain text is read")
    return record


def _skiplist(
    settings: Record,
    modules: dict[str, list[Path]],
    tokenizer: PreTrainedTokenizerBase,
    of_pylate: bool,
    fields: dict[str, Any],
) -> dict[str, Any]:
    if modules["MultiVectorMask"]:
        record = Record.read(modules["MultiVectorMask"][-1] / "config.json")
        if record.get("keep_only_token_ids", list):
            raise record.refused("keep_only_token_ids", "models of ours keep all but a skiplist")
        tasks = record.get("skiplist_tasks", list, ["document"], quiet=True)
        side = {(): "off", ("document",): "document", ("document", "query"): "both"}.get(tuple(sorted(tasks)))
        if side is None:
            raise record.refused("skiplist_tasks", "documents, or documents and queries, were expected")
        words = record.get("skiplist_words", list, [], quiet=True)
    elif of_pylate:
        words, side = settings.get("skiplist_words", list), "document"
        if words is None:
            words = list(string.punctuation)
            settings.assumed.append(f"skiplist_words=ASCII punctuation, which {SETTINGS} does not say")
    elif fields["expansion"] != "off" and not fields["attend_to_expansion"]:
        raise ArtifactError(f"{settings.file.parent / MODULES} lists no MultiVectorMask; expansion would not be scored")
    else:
        words, side = [], "off"
    return skipping(tokenizer, words, side, settings.assumed)


def _prompts(settings: Record, tokenizer: PreTrainedTokenizerBase, rows: int, of_pylate: bool) -> dict[str, Any]:
    """Markers and prompts. PyLate's prefix is a marker; of other words before a text one may be."""
    said = {key: value or "" for key, value in settings.get("prompts", dict, {}, quiet=True).items()}
    texts = {
        "query": said.get("query", ""),
        "document": next((said[key] for key in ("document", "passage", "corpus") if key in said), ""),
    }
    found: dict[str, Any] = {}
    for side, display in (("query", "[Q] "), ("document", "[D] ")):
        key, text = f"{side}_prefix", texts[side]
        if of_pylate or key in settings.values:
            prefix = settings.get(key, str, display if of_pylate and key not in settings.values else "", quiet=False)
            string_ = marker(settings, key, prefix, tokenizer, rows)
            prompt = text.removeprefix(prefix)
        else:
            string_, prompt = prompted(tokenizer, text)
        found |= {f"{side}_marker": string_, f"{side}_prompt": prompt}
    return found


def _agreed(directory: Path, backbone: Path, model: ColBERT) -> str:
    """The similarity; ArtifactError where Stanford's files lie there too and say otherwise than the modules."""
    inline = tensors(backbone, {stanford.MAP}).get(stanford.MAP)
    if inline is not None and (model.projection is None or not inline.float().equal(model.projection.weight.data)):
        raise ArtifactError(f"{directory}: {stanford.MAP} beside the backbone differs from the projection of its Dense")
    if not (directory / stanford.METADATA).is_file():
        return "cosine"
    record, tokens = stanford.metadata(directory), model.tokenizer
    contract, ids = tokens.contract, tokens.tokenizer.convert_tokens_to_ids
    known = {
        "dim": model.dim,
        "query_maxlen": contract.query_length if contract.expansion == "fixed" else None,
        "doc_maxlen": contract.document_length,
        "attend_to_mask_tokens": contract.attend_to_expansion,
        "mask_punctuation": contract.skip_punctuation != "off",
    }
    for side, key in (("query", "query_token_id"), ("document", "doc_token_id")):
        value, own = record.get(key, str), getattr(contract, f"{side}_marker")
        known[key] = value if value is not None and own is not None and ids(value) == ids(own) else own
    for key, value in known.items():
        said = record.values.get(key)
        if said is not None and said != value:
            raise record.refused(key, f"by {MODULES} and {SETTINGS} it is {value!r}: they contradict each other")
    return stanford.check_scoring(record)
