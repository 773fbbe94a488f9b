"""Text models of Hugging Face as pipelines: text_tokenizer, the model as one graph, a postprocess where one is needed.

task                   graph                                          public outputs
embeddings             token model, pooling, dense, length 1          embedding FP32 [d]
text-classification    the model with its head -> logits              label, score, scores
token-classification   the model with its head -> logits per token    entities
rerank                 the model with its head and its activation     score FP32 [1]

The reference is the torch module on transformers' own tokenizer; the answers of the whole are held to transformers' and
sentence-transformers' definitions of each task.
"""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from conch.errors import ExportError
from conch.tensor_spec import Array, ModelSignature, TensorSpec
from export.from_huggingface_checkpoint import Checkpoint, check_files, load_model, provenance, read_json, weights_notes
from export.from_huggingface_classes import class_answer, classify_activation, labels
from export.from_huggingface_pooling import SentenceEncoder, read_plan
from export.from_huggingface_samples import read_pairs, read_texts, strings
from export.from_huggingface_tokenizer import Tokenizer, open_tokenizer
from export.from_huggingface_torch import run, to_torch, writer
from export.options import ExportOptions
from export.python_parts import TEXT, TEXT_PAIR, classify_part, labels_file
from export.quiet import quiet
from export.source import PipelineParts, PythonPart, Reference, Source, Tensors

Tensor = Any

# The name of the graph's output: `embedding` is the name of a value inside BERT's graph, and ONNX forbids it twice.
EMBEDDING_OUTPUT = "sentence_embedding"
RERANK_OUTPUT = "relevance"

# A sample as long as the model allows is worth running, up to here; beyond, it costs minutes and shows nothing new.
LONGEST_SAMPLE = 512


def load_embeddings(checkpoint: Checkpoint, options: ExportOptions) -> Source:
    """A sentence embedding model: `text` -> `embedding`. Raises: ExportError."""
    plan = read_plan(checkpoint.folder)
    at = replace(checkpoint, folder=plan.transformer)
    check_files(at.folder, tokenizer=True)
    config = read_json(plan.transformer, "config.json")
    auto_class = "AutoModelForTextEncoding" if config.get("is_encoder_decoder") else "AutoModel"
    # A pooler is a head for another task: masked language models come without one, and nothing here uses it.
    encoder = load_model(at, auto_class, "embeddings", optional_weights="pooler.")
    tokenizer = open_tokenizer(
        plan.transformer, encoder, _arguments(encoder), max_length=plan.max_length, lowercase=plan.lowercase
    )
    module = SentenceEncoder(encoder, plan).eval()
    texts = read_texts(options.samples)
    size = module(**to_torch(tokenizer.encode(texts[:1]))).shape[1]
    signature = ModelSignature(
        tokenizer.inputs, (TensorSpec(EMBEDDING_OUTPUT, "FP32", (size,)),), options.max_batch_size
    )
    pipeline = PipelineParts(
        inputs=(TEXT,),
        outputs=("embedding",),
        requests=_text_requests(texts, tokenizer),
        preprocess=tokenizer_part(tokenizer, options),
        model_output_map={EMBEDDING_OUTPUT: "embedding"},
        reference=lambda request: {"embedding": run(module, tokenizer.encode(read_strings(request["text"])))[0]},
    )
    more = {"pooling": "+".join(plan.modes), "normalize": plan.normalize, "prompt": plan.prompt}
    notes = [f"sentence-transformers puts {plan.prompt!r} before every text of this model: send it with the text"]
    return _source(
        checkpoint, "embeddings", module, tokenizer, signature, pipeline, options, more, notes if plan.prompt else ()
    )


def load_text_classification(checkpoint: Checkpoint, options: ExportOptions) -> Source:
    """A text classifier: `text` -> `label`, `score`, `scores`. Raises: ExportError."""
    check_files(checkpoint.folder, tokenizer=True)
    model = load_model(checkpoint, "AutoModelForSequenceClassification", "text-classification")
    tokenizer = open_tokenizer(checkpoint.folder, model, _arguments(model))
    names = labels(model.config)
    activation = classify_activation(model.config)
    texts = read_texts(options.samples)
    module = Logits(model).eval()
    signature = ModelSignature(tokenizer.inputs, (TensorSpec("logits", "FP32", (len(names),)),), options.max_batch_size)

    def reference(request: Tensors) -> dict[str, Array]:
        logits = run(module, tokenizer.encode(read_strings(request["text"])))[0]
        return class_answer(logits, names, activation, with_label=options.rules is None)

    pipeline = PipelineParts(
        inputs=(TEXT,),
        outputs=("label", "score", "scores"),
        requests=_text_requests(texts, tokenizer),
        preprocess=tokenizer_part(tokenizer, options),
        postprocess=classify_part(names, activation, options),
        reference=reference,
    )
    more = {"labels": len(names), "activation": activation}
    return _source(checkpoint, "text-classification", module, tokenizer, signature, pipeline, options, more)


def load_token_classification(checkpoint: Checkpoint, options: ExportOptions) -> Source:
    """A tagger: `text` -> `entities`, a JSON list with character offsets. Raises: ExportError."""
    check_files(checkpoint.folder, tokenizer=True)
    model = load_model(checkpoint, "AutoModelForTokenClassification", "token-classification")
    tokenizer = open_tokenizer(checkpoint.folder, model, _arguments(model))
    names = labels(model.config)
    texts = read_texts(options.samples)
    module = Logits(model).eval()
    logits = TensorSpec("logits", "FP32", (-1, len(names)))
    offsets = TensorSpec("offsets", "INT64", (-1, 2))
    pipeline = PipelineParts(
        inputs=(TEXT,),
        outputs=("entities",),
        requests=_text_requests(texts, tokenizer),
        preprocess=tokenizer_part(tokenizer, options, offsets=offsets),
        postprocess=PythonPart(
            role="postprocess",
            backend="token_classify",
            signature=ModelSignature(
                (logits, *(t for t in tokenizer.inputs if t.name in ("input_ids", "attention_mask")), offsets, TEXT),
                (TensorSpec("entities", "BYTES", (1,)),),
                options.max_batch_size,
            ),
            assets={"labels.txt": labels_file(names)},
        ),
        reference=entity_reference(model, tokenizer, names) if options.precision == "fp32" else None,
    )
    signature = ModelSignature(tokenizer.inputs, (logits,), options.max_batch_size)
    more = {"labels": len(names)}
    return _source(checkpoint, "token-classification", module, tokenizer, signature, pipeline, options, more)


def load_rerank(checkpoint: Checkpoint, options: ExportOptions) -> Source:
    """A cross-encoder: `text`, `text_pair` -> `score`. Raises: ExportError."""
    check_files(checkpoint.folder, tokenizer=True)
    model = load_model(checkpoint, "AutoModelForSequenceClassification", "rerank")
    if model.config.num_labels != 1:
        raise ExportError(
            "a reranker gives one number for a pair of texts",
            where=checkpoint.folder,
            got=f"{model.config.num_labels} labels: {', '.join(labels(model.config)[:5])}",
            expected="num_labels 1",
            fix="export a classifier with --task text-classification",
        )
    tokenizer = open_tokenizer(checkpoint.folder, model, _arguments(model), pairs=True)
    pairs = read_pairs(options.samples)
    activation = rerank_activation(model.config)
    module = Relevance(model, activation).eval()
    signature = ModelSignature(tokenizer.inputs, (TensorSpec(RERANK_OUTPUT, "FP32", (1,)),), options.max_batch_size)

    def reference(request: Tensors) -> dict[str, Array]:
        encoded = tokenizer.encode(read_strings(request["text"]), read_strings(request["text_pair"]))
        return {"score": run(module, encoded)[0]}

    pipeline = PipelineParts(
        inputs=(TEXT, TEXT_PAIR),
        outputs=("score",),
        requests=tuple({"text": strings(a), "text_pair": strings(b)} for a, b in pairs),
        preprocess=tokenizer_part(tokenizer, options, pairs=True),
        model_output_map={RERANK_OUTPUT: "score"},
        reference=reference,
    )
    more = {"activation": type(activation).__name__.lower()}
    return _source(checkpoint, "rerank", module, tokenizer, signature, pipeline, options, more)


class Logits(torch.nn.Module):  # type: ignore[misc]
    """A model with a head, returning its logits alone: [b, classes], or [b, n, classes] for taggers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Tokens [b, n] -> logits."""
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).logits


class Relevance(Logits):
    """A cross-encoder with its activation: [b, 1]."""

    def __init__(self, model: Any, activation: Any) -> None:
        super().__init__(model)
        self.activation = activation

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Tokens of pairs [b, n] -> scores [b, 1]."""
        return self.activation(super().forward(input_ids, attention_mask, token_type_ids))


def entity_reference(model: Any, tokenizer: Tokenizer, names: Sequence[str]) -> Reference | None:
    """transformers' own pipeline with the strategy "simple", in the form of `entities`; None for labels it misreads.

    Its texts are put together from tokens, ours are cut from the original, without white space around them.
    """
    from transformers import TokenClassificationPipeline

    # In the schemes BIOES and BILOU, single tokens and last ones have prefixes that transformers takes for a kind.
    if any(name[:2] in ("S-", "U-", "E-", "L-") for name in names):
        return None
    with quiet():
        tagger = TokenClassificationPipeline(model=model, tokenizer=tokenizer.inner, aggregation_strategy="simple")

    def reference(request: Tensors) -> dict[str, Array]:
        answers = []
        for text in read_strings(request["text"]):
            with quiet():
                found = tagger(text)
            spans = [(row, *_trim(text, row["start"], row["end"])) for row in found]
            entities = [
                {
                    "label": row["entity_group"],
                    "score": float(row["score"]),
                    "start": start,
                    "end": end,
                    "text": text[start:end],
                }
                for row, start, end in spans
                if start < end
            ]
            answers.append(json.dumps(entities, ensure_ascii=False))
        return {"entities": strings(*answers)}

    return reference


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without the white space at its ends."""
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def rerank_activation(config: Any) -> Any:
    """What sentence-transformers applies to a cross-encoder's one logit: what the config names, or else a sigmoid.

    Raises: ExportError when the config names what torch.nn does not have.
    """
    named = (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
    named = named or getattr(config, "sbert_ce_default_activation_function", None) or "Sigmoid"
    kind = getattr(torch.nn, str(named).rsplit(".", 1)[-1], None)
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        raise ExportError("the reranker's activation is not one of torch.nn", where="config.json", got=named)
    return kind()


def tokenizer_part(
    tokenizer: Tokenizer, options: ExportOptions, *, pairs: bool = False, offsets: TensorSpec | None = None
) -> PythonPart:
    """The preprocess of every text model: text -> the model's inputs, and offsets where they are asked for."""
    outputs = (*tokenizer.inputs, offsets) if offsets is not None else tokenizer.inputs
    parameters = {"max_length": str(tokenizer.max_length), "outputs": ",".join(t.name for t in outputs)}
    if pairs:
        parameters["pairs"] = "true"
    return PythonPart(
        role="preprocess",
        backend="text_tokenizer",
        signature=ModelSignature((TEXT, TEXT_PAIR) if pairs else (TEXT,), outputs, options.max_batch_size),
        parameters=parameters,
        assets={"tokenizer.json": tokenizer.asset()},
        packages=(tokenizer.package,),
    )


def read_strings(array: Array) -> list[str]:
    """The values of a STRING tensor [b, 1]."""
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in array.ravel().tolist()]


def _arguments(model: Any) -> tuple[str, ...]:
    names = inspect.signature(model.forward).parameters
    return tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in names)


def _long_text(texts: Sequence[str], tokenizer: Tokenizer) -> str | None:
    """The texts in a row, often enough to be longer than the model reads: it must be cut as the source cuts it."""
    if tokenizer.max_length > LONGEST_SAMPLE:
        return None
    once = " ".join(texts)
    times = 1 + tokenizer.max_length // max(1, len(once.split()))
    return " ".join([once] * times)


def _text_requests(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Mapping[str, Array], ...]:
    long = _long_text(texts, tokenizer)
    return tuple({"text": strings(text)} for text in (*texts, *([long] if long else [])))


def _encode_pairs(tokenizer: Tokenizer, rows: Sequence[tuple[str, str]]) -> dict[str, Array]:
    return tokenizer.encode([first for first, _ in rows], [second for _, second in rows])


def _source(
    checkpoint: Checkpoint,
    task: str,
    module: Any,
    tokenizer: Tokenizer,
    signature: ModelSignature,
    pipeline: PipelineParts,
    options: ExportOptions,
    more: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Source:
    """What the text tasks have in common: samples of the model, its reference, its writer, where it comes from."""
    names = [spec.name for spec in signature.outputs]

    def reference(tensors: Tensors) -> dict[str, Array]:
        return dict(zip(names, run(module, tensors), strict=True))

    def encode(path: Path | None, rows: slice) -> dict[str, Array]:
        if TEXT_PAIR in pipeline.inputs:
            return _encode_pairs(tokenizer, read_pairs(path)[rows])
        return tokenizer.encode(read_texts(path)[rows])

    def one_by_one(path: Path | None) -> list[dict[str, Array]]:
        count = len(read_pairs(path) if TEXT_PAIR in pipeline.inputs else read_texts(path))
        return [encode(path, slice(index, index + 1)) for index in range(count)]

    samples = one_by_one(options.samples)
    if options.max_batch_size > 1 and len(samples) > 1:
        # A padded batch, from the middle, where lengths are everyday ones: this is to see the mask work.
        start = len(samples) // 4
        samples.append(encode(options.samples, slice(start, start + min(3, options.max_batch_size))))
    long = _long_text([str(array) for request in pipeline.requests for array in request["text"].ravel()], tokenizer)
    if long is not None:
        samples.append(tokenizer.encode([long]))
    return Source(
        provenance={
            **provenance(checkpoint, task, next(module.children())),
            "max_length": tokenizer.max_length,
            **more,
        },
        signature=signature,
        reference=reference,
        samples=samples,
        write=writer(module, samples[0], signature),
        pipeline=pipeline,
        infer_arguments=_pair_arguments(pipeline),
        notes=(*weights_notes(checkpoint), *notes),
        read_samples=one_by_one,
        dynamic_batching=not merging_hurts(options),
    )


def _pair_arguments(pipeline: PipelineParts) -> str:
    """What follows `conch infer NAME` for a pair; other inputs tell it themselves."""
    if TEXT_PAIR not in pipeline.inputs:
        return ""
    first, second = (str(pipeline.requests[0][spec.name][0, 0]) for spec in (TEXT, TEXT_PAIR))
    return f"--text {shlex.quote(first)} --text-pair {shlex.quote(second)}"


def merging_hurts(options: ExportOptions) -> bool:
    """Whether requests are better left apart: dynamic int8 scales a batch by its largest value, whoever sent that.

    An answer would depend on what was merged with it. Nor is it faster: int8 runs on CPUs, which gain nothing from
    larger batches (all-MiniLM-L6-v2 on two cores, 8 connections: 4.8 ms of CPU time a request merged, 3.6 ms apart).
    """
    return options.precision == "int8" and options.calibration is None


LOADERS: Mapping[str, Callable[[Checkpoint, ExportOptions], Source]] = {
    "embeddings": load_embeddings,
    "text-classification": load_text_classification,
    "token-classification": load_token_classification,
    "rerank": load_rerank,
}
