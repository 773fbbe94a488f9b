from collections.abc import Callable

import pytest

from conch.lint.config_edit import edited
from conch.lint.config_text import comments, field_names
from conch.model_config import ModelConfigMessage, parse

TEXT = """\
# our model
name: "a"  # as the folder
max_batch_size: 8 # eight
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }, # the picture
  { name: "z" data_type: TYPE_INT8 dims: 1 dims: 2 } ]
dynamic_batching { preferred_batch_size: [4, 16] }
instance_group {
  # one card
  kind: KIND_GPU
}
parameters { key: "a" value { string_value: "#1" } } ;
"""

Edit = Callable[[ModelConfigMessage], object]


def after(edit: Edit, text: str = TEXT) -> str:
    old, new = parse(text), parse(text)
    edit(new)
    result = edited(text, old, new)
    assert parse(result.text) == new
    assert result.comments_kept
    return result.text


def set_value(path: str, value: object) -> Edit:
    """An edit of one scalar, by a path such as "instance_group.0.kind"."""

    def edit(config: ModelConfigMessage) -> None:
        *parents, name = path.split(".")
        target = config
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else getattr(target, parent)
        if isinstance(value, list):
            getattr(target, name)[:] = value
        else:
            setattr(target, name, value)

    return edit


@pytest.mark.parametrize(
    ("edit", "old", "new"),
    [
        (set_value("name", "b"), 'name: "a"  # as', 'name: "b"  # as'),
        (set_value("max_batch_size", 0), "max_batch_size: 8 #", "max_batch_size: 0 #"),
        (set_value("input.0.dims", [4]), "dims: [ -1, 4 ]", "dims: [4]"),
        (set_value("input.1.dims", [7]), "dims: 1 dims: 2", "dims: [7] "),
        (set_value("input.0.name", 'it"s'), 'name: "x"', 'name: "it\\"s"'),
        (set_value("instance_group.0.kind", 2), "kind: KIND_GPU\n", "kind: KIND_CPU\n"),
        (set_value("instance_group.0.count", 2), "kind: KIND_GPU\n", "kind: KIND_GPU\n  count: 2\n"),
        (set_value("input.0.optional", True), "4 ] }, #", "4 ] optional: true }, #"),
        (lambda c: c.ClearField("dynamic_batching"), "dynamic_batching { preferred_batch_size: [4, 16] }\n", ""),
        (set_value("backend", "onnxruntime"), '"#1" } } ;\n', '"#1" } } ;\nbackend: "onnxruntime"\n'),
        (set_value("dynamic_batching.preferred_batch_size", []), " preferred_batch_size: [4, 16]", " "),
    ],
)
def test_only_what_differs_is_touched(edit: Edit, old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert after(edit) == TEXT.replace(old, new)


def test_a_new_parameter_leaves_the_others() -> None:
    text = after(lambda c: c.parameters["b"].__setattr__("string_value", "2"))
    assert text.startswith(TEXT)
    assert text.endswith('parameters {\n  key: "b"\n  value {\n    string_value: "2"\n  }\n}\n')


def test_a_text_without_a_last_newline_is_added_to() -> None:
    assert after(set_value("backend", "python"), 'name: "a"') == 'name: "a"\nbackend: "python"\n'


def test_strings_side_by_side_are_one_value() -> None:
    assert after(set_value("name", "b"), "name: 'a' \"b\" # both\n") == 'name: "b" # both\n'


def test_an_empty_text_is_added_to() -> None:
    assert after(set_value("name", "a"), "") == 'name: "a"\n'


def test_a_comment_that_goes_with_its_field_is_told_of() -> None:
    old, new = parse(TEXT), parse(TEXT)
    del new.input[1]
    result = edited(TEXT, old, new)
    assert parse(result.text) == new
    assert not result.comments_kept


def test_comments_are_told_from_strings() -> None:
    found = comments(TEXT + 'backend: "#no" # yes')
    assert [(c.text, c.line) for c in found] == [
        ("our model", 1),
        ("as the folder", 2),
        ("eight", 3),
        ("the picture", 4),
        ("one card", 8),
        ("yes", 12),
    ]


def test_the_fields_that_are_written_are_known() -> None:
    assert field_names("max_batch_size: 0 # name: 1\ninput { name: 'x' }") == {"max_batch_size", "input"}
    assert field_names("{{{") == frozenset()
