"""PairwiseModule: an encoder's training step on queries with a positive and negatives. No mathematics of its own."""

from pathlib import Path

import torch

from colbert_lab.models.checkpoint import save_model
from colbert_lab.scoring.maxsim import maxsim, maxsim_grouped
from colbert_lab.training.batches import TrainingBatch, excluded
from colbert_lab.training.gather import gather_documents, gather_objects, rank_offset
from colbert_lab.training.module import RankingModule, Scores


class PairwiseModule(RankingModule):
    """Encode queries and documents, compare their vectors by MaxSim; `model` is a ColBERT, or a SingleVector.

    Where several processes train together and the loss looks at other queries' documents, it sees those of all
    processes, each as its own process encoded it.
    """

    def scores(self, batch: TrainingBatch) -> Scores:
        """All pairs [B, N·w] where the loss looks at other queries' documents, else each query's own [B, w]; fp32."""
        queries, documents = self.model(batch.queries), self.model(batch.documents)
        similarity, query_mask = self.model.similarity, self.model.scored(batch.queries)
        mask = self.model.scored(batch.documents)
        # Out of autocast: similarities in 16 bits would undo the fp32 of the sum.
        with torch.autocast(queries.device.type, enabled=False):
            queries, documents = queries.float(), documents.float()
            if not self.loss.needs_all_pairs:
                grouped = documents.view(len(queries), batch.width, *documents.shape[1:])
                mask = mask.view(len(queries), batch.width, -1)
                return Scores(maxsim_grouped(queries, grouped, query_mask, mask, similarity))
            documents, mask = gather_documents(documents, mask)
            values = maxsim(queries, documents, query_mask, mask, similarity)
        if len(documents) == len(batch.documents.ids):
            return Scores(values, batch.excluded)
        first = rank_offset(batch.size)
        joint = excluded(batch.identities, gather_objects(list(batch.identities)), first)
        return Scores(values, joint.to(values.device), first)

    def export(self, directory: Path) -> None:
        """Write the model's checkpoint into an existing directory."""
        save_model(self.model, directory)
