"""Cells in the trainer of sentence-transformers (`pip install "sentence-transformers[train]"`).

    python examples/sentence_transformers_trainer.py

Its losses take no cell ids: every other pair of a batch is a negative. So each batch comes from one cell,
`cells_per_batch=1`, and all have the full size (`min_batch_size=batch_size`), because in several processes
the trainer hands whole batches to the ranks in turn, which does not work with shorter ones. The trainer calls
`set_epoch`.
"""

import tempfile

import numpy as np

from overtone import CellBatchSampler, Partition, next_partition

EPOCHS = 2


def main() -> None:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    class CellTrainer(SentenceTransformerTrainer):
        partition: Partition

        def get_batch_sampler(self, dataset, batch_size, drop_last, **others):
            if dataset is not self.train_dataset:
                return super().get_batch_sampler(dataset, batch_size, drop_last, **others)
            sampler = CellBatchSampler(
                self.partition, batch_size, seed=self.args.seed, cells_per_batch=1, min_batch_size=batch_size
            )
            print(sampler.coverage())
            return sampler

    words = [f"word{number}" for number in range(50)]
    draws = np.random.default_rng(0)
    pairs = {side: [" ".join(draws.choice(words, 6)) for _ in range(400)] for side in ("anchor", "positive")}
    model = SentenceTransformer(modules=[tiny_embedding(words)])  # the one that you have
    partition, _ = next_partition("concat", [model.encode(pairs["anchor"])], n_clusters=5, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = CellTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=16,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
            ),
            train_dataset=Dataset.from_dict(pairs),
            loss=MultipleNegativesRankingLoss(model),
        )
        trainer.partition = partition
        trainer.train()


def tiny_embedding(words: list[str]):
    """A mean of word vectors, so that nothing need be downloaded."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[UNK]", *words])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return StaticEmbedding(tokenizer, embedding_dim=16)


if __name__ == "__main__":
    main()
