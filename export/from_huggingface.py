"""A Hugging Face checkpoint, from a folder or a hub, as a pipeline: preprocess, the model as one graph, postprocess.

Finds the checkpoint and hands it to the task's own loader; torch and transformers are imported there, not here.
"""

from __future__ import annotations

import os

from conch.errors import ExportError, nearest
from export.options import ExportOptions
from export.source import Source

TEXT_TASKS = ("embeddings", "text-classification", "token-classification", "rerank")
IMAGE_TASKS = ("image-classification",)
TASKS = (*TEXT_TASKS, *IMAGE_TASKS)


def load(path_or_id: str, task: str, options: ExportOptions) -> Source:
    """Load a checkpoint for a task. ``path_or_id`` is a folder or a hub's id. Raises: ExportError.

    Nothing of the checkpoint is run: remote code is refused, pickled weights are read by torch's weights-only loader.
    """
    if task not in TASKS:
        close = nearest(task, TASKS)
        raise ExportError(
            f"there is no task {task}",
            got=task,
            expected=", ".join(TASKS),
            fix=f"did you mean {close}?" if close else None,
        )
    if options.max_batch_size < 1:
        raise ExportError(
            "the parts of this pipeline pass batches to each other",
            where="--max-batch-size",
            got=options.max_batch_size,
            expected="1 or more",
        )
    # A tokenizer that was used before a fork warns at length when a child process starts, as the trial server does.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from export.from_huggingface_checkpoint import find

    checkpoint = find(path_or_id)
    if task in IMAGE_TASKS:
        from export.from_huggingface_image import load_image_classification

        return load_image_classification(checkpoint, options)
    from export.from_huggingface_text import LOADERS

    return LOADERS[task](checkpoint, options)
