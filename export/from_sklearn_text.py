r"""Text vectorizers of scikit-learn, made ready for skl2onnx: what it converts wrongly is mended or refused.

Measured with skl2onnx 1.20:

token pattern   the default becomes ``[a-zA-Z0-9_]+``, which drops Korean, accents and all else without a word.
                Python's ``\w`` is written out for RE2, the regular expressions of ONNX Runtime's Tokenizer.
n-grams         are split into words by guessing from the vocabulary, wrongly where ``max_features`` or ``min_df``
                removed a word. Vocabulary keys that are tuples of words are taken as they are.
n-gram range    where the vocabulary holds no n-gram of the longest length, the file does not load.
locale          the graph asks the system for en_US.UTF-8, and fails to load where there is none (slim images).
sublinear_tf    see `export.from_sklearn_mends`.

Lower case differs from Python's in a few letters, which have no single lower-case letter or whose form depends on the
place (the Turkish I with a dot, the Greek final sigma): ONNX Runtime has none of these rules. Parity tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from conch.errors import ExportError

LOCALE = "C.UTF-8"

# Python's \w, \d and \s for text, as the inside of an RE2 character class.
_CLASSES = {"w": r"\p{L}\p{N}_", "d": r"\p{Nd}", "s": r"\t-\r\x1c- \x85\p{Z}"}

# One atom that ends in a greedy, open-ended run of \w: it can only end where the word does.
_WHOLE_WORDS = re.compile(r"(?:\\w(?:\{\d+\})?)*\\w(?:\+|\*|\{\d+,\})")


def vectorizers(model: Any) -> Iterator[tuple[str, Any]]:
    """Every fitted text vectorizer in a model, with its place in it, wherever it is nested."""
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

    for place, estimator in estimators(model):
        if isinstance(estimator, HashingVectorizer) or (
            isinstance(estimator, CountVectorizer) and hasattr(estimator, "vocabulary_")
        ):
            yield place, estimator


def takes_text(model: Any) -> bool:
    """Whether the model's own input is a list of texts: a vectorizer comes first, and no choice of columns before."""
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
    from sklearn.pipeline import FeatureUnion, Pipeline

    if isinstance(model, Pipeline):
        first = next((step for _, step in model.steps if step not in ("passthrough", None)), None)
        return takes_text(first)
    if isinstance(model, FeatureUnion):
        return any(takes_text(part) for _, part in model.transformer_list)
    if isinstance(model, CountVectorizer | HashingVectorizer):
        return True
    # Searches, calibration, votes: what they are made of takes what they take.
    inner = [getattr(model, name, None) for name in ("best_estimator_", "estimator")]
    inner += [part[1] for part in getattr(model, "estimators", None) or () if isinstance(part, tuple)]
    return any(takes_text(part) for part in inner if part is not None)


def estimators(model: Any) -> Iterator[tuple[str, Any]]:
    """A model and every estimator in it, with their places: names of steps, or of attributes, joined by "/"."""
    seen: set[int] = set()
    yield from _walk(model, (), seen)


def _walk(value: Any, place: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, Any]]:
    import numpy as np
    from sklearn.base import BaseEstimator

    if isinstance(value, BaseEstimator):
        if id(value) in seen:
            return
        seen.add(id(value))
        yield "/".join(place) or type(value).__name__, value
        for name, attribute in vars(value).items():
            if name in ("steps", "transformer_list", "transformers", "transformers_", "estimators"):
                yield from _walk(attribute, place, seen)
            else:
                yield from _walk(attribute, (*place, name.strip("_")), seen)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(item, (*place, str(name)), seen)
    elif isinstance(value, tuple) and len(value) >= 2 and isinstance(value[0], str):
        yield from _walk(value[1], (*place, value[0]), seen)
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        for item in value if isinstance(value, list | tuple) else value.ravel():
            yield from _walk(item, place, seen)


def prepare(vectorizer: Any, place: str) -> dict[str, str]:
    """Change a vectorizer (a copy of the user's) so that it converts rightly; returns its options for skl2onnx.

    Raises: ExportError, naming the step and the parameter, for what ONNX cannot do.
    """
    _refuse(vectorizer, place)
    try:
        expression = token_expression(vectorizer.token_pattern)
    except ValueError as reason:
        raise ExportError(
            f"the token pattern of step {place} cannot be converted",
            where=f"{place}: token_pattern={vectorizer.token_pattern!r}",
            got=reason,
            fix=r"use a pattern of \w, \d, \s and character classes, as the default (?u)\b\w\w+\b is",
        ) from reason
    pattern = re.compile(vectorizer.token_pattern)
    longest = vectorizer.ngram_range[1]
    if longest > 1 and any(" " in token for token in pattern.findall("a b c, d e")):
        raise _cannot(place, f"token_pattern={vectorizer.token_pattern!r}", "n-grams of tokens that hold spaces")
    words = {gram: tuple(gram.split(" ")) if longest > 1 else (gram,) for gram in vectorizer.vocabulary_}
    lengths = {len(key) for key in words.values()}
    if lengths != set(range(min(lengths), max(lengths) + 1)):
        raise _cannot(place, f"n-grams of {sorted(lengths)} words", "a vocabulary with a length left out")
    vectorizer.vocabulary_ = {words[gram]: index for gram, index in vectorizer.vocabulary_.items()}
    vectorizer.ngram_range = (min(lengths), max(lengths))
    return {"tokenexp": expression, "locale": LOCALE}


def _refuse(vectorizer: Any, place: str) -> None:
    """Raise ExportError for parameters that ONNX has no operator for."""
    from sklearn.feature_extraction.text import HashingVectorizer

    if isinstance(vectorizer, HashingVectorizer):
        raise _cannot(place, "HashingVectorizer", "hashed words", "use TfidfVectorizer, with max_features to bound it")
    analyzer = vectorizer.analyzer
    if analyzer != "word":
        name = analyzer if isinstance(analyzer, str) else getattr(analyzer, "__name__", "a function")
        what = "an analyzer other than 'word'"
        if isinstance(analyzer, str):
            what += " (scikit-learn takes a run of white space for one space, and ONNX's tokenizer cannot)"
        raise _cannot(place, f"analyzer={name}", what)
    for parameter in ("preprocessor", "tokenizer", "strip_accents"):
        value = getattr(vectorizer, parameter)
        if value is not None:
            fix = "normalize texts before they are sent" if parameter == "strip_accents" else "use token_pattern"
            raise _cannot(place, f"{parameter}={getattr(value, '__name__', value)}", f"a {parameter}", fix)
    if vectorizer.input != "content":
        raise _cannot(place, f"input={vectorizer.input!r}", "reading files")
    if vectorizer.stop_words and vectorizer.ngram_range[1] > 1:
        raise _cannot(
            place,
            f"stop_words with ngram_range={vectorizer.ngram_range}",
            "n-grams that skip words",
            "leave stop_words out (max_df does much the same), or use ngram_range=(1, 1)",
        )


def _cannot(place: str, got: str, what: str, fix: str = "train it without, or serve it as Python code") -> ExportError:
    return ExportError(f"step {place} cannot be converted: ONNX has nothing for {what}", where=place, got=got, fix=fix)


def token_expression(pattern: str) -> str:
    r"""A token pattern of Python's `re` in RE2's words, for Unicode text.

    RE2's ``\w``, ``\d``, ``\s`` and ``\b`` know ASCII alone, so classes are written out and ``\b`` is dropped where it
    says nothing: around a greedy run of ``\w``. Raises: ValueError, saying what has no counterpart.
    """
    body = pattern.removeprefix("(?u)")
    inner = body.removeprefix(r"\b")
    inner = inner.removesuffix(r"\b")
    if _WHOLE_WORDS.fullmatch(inner):
        body = inner
    if re.search(r"\((?!\?:)", re.sub(r"\\.", "", body)):
        raise ValueError("groups that capture, lookahead and flags have no counterpart")
    return "".join(_translate(body))


def _translate(body: str) -> Iterator[str]:
    in_class = False
    position = 0
    while position < len(body):
        character = body[position]
        if character == "\\":
            yield _escape(body[position + 1], in_class=in_class)
            position += 2
            continue
        if character == "[" and not in_class:
            in_class = True
        elif character == "]" and in_class and body[position - 1] != "[":
            in_class = False
        yield character
        position += 1


def _escape(letter: str, *, in_class: bool) -> str:
    if letter in _CLASSES:
        return _CLASSES[letter] if in_class else f"[{_CLASSES[letter]}]"
    if letter.lower() in _CLASSES and not in_class:
        return f"[^{_CLASSES[letter.lower()]}]"
    if letter.isalnum() and letter not in "nrtfvx":
        raise ValueError(f"\\{letter} has no counterpart" + (" in a character class" if in_class else ""))
    return "\\" + letter
