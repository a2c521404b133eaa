"""The tokenisation contract: everything about turning text into ids that a model's vectors depend on.

It is saved with a checkpoint and rebuilt from it; two models with equal contracts and tokenizers see equal ids.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Expansion = Literal["off", "fixed", "min"]
Skip = Literal["off", "document", "both"]


@dataclass(frozen=True)
class Contract:
    """How queries and documents become token ids; colbert_lab.text.tokenizer carries it out.

    query_marker, document_marker: the vocabulary strings put right after the leading special token; None for none.
    query_length, document_length: totals in ids, with special tokens and marker; longer text is cut and counted.
    expansion: "fixed" fills every query with mask tokens to query_length ("query augmentation", arXiv 2004.12832,
        3.2), "min" fills only to `expansion_length` and lets longer queries be, "off" fills nothing.
    attend_to_expansion: whether other tokens may attend to the mask tokens (Stanford's attend_to_mask_tokens).
    skip_punctuation: on which side vectors at punctuation ids are dropped after encoding; the papers: "document".

    What only models published elsewhere say (colbert_lab.models.dialects), saved where it is said:
    skip_words: the vocabulary strings that skip_punctuation drops instead of all that punctuation can become.
    query_prompt, document_prompt: words of the text itself, put between the marker and every text.
    """

    query_marker: str | None = "[unused0]"
    document_marker: str | None = "[unused1]"
    query_length: int = 32
    document_length: int = 180
    expansion: Expansion = "fixed"
    expansion_length: int = 32
    attend_to_expansion: bool = False
    skip_punctuation: Skip = "document"
    skip_words: tuple[str, ...] | None = None
    query_prompt: str = ""
    document_prompt: str = ""

    def __post_init__(self):
        if self.skip_words is not None:
            object.__setattr__(self, "skip_words", tuple(self.skip_words))

    @staticmethod
    def problems(**values: Any) -> list[str]:
        """What is wrong with these values taken together, in words; empty when nothing is."""
        found = []
        for side in ("query", "document"):
            length = values.get(f"{side}_length", 32)
            if isinstance(length, int) and length < 4:
                found.append(f"{side}_length={length} leaves no room for text; it must be at least 4")
        target, cap = values.get("expansion_length", 32), values.get("query_length", 32)
        if values.get("expansion") == "min" and isinstance(target, int) and isinstance(cap, int) and target > cap:
            found.append(
                f"expansion_length={target} exceeds query_length={cap}; queries would be filled past their cap"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for a checkpoint; those of published models only where they say some."""
        unsaid = {"skip_words": None, "query_prompt": "", "document_prompt": ""}
        return {name: value for name, value in asdict(self).items() if name not in unsaid or value != unsaid[name]}
