"""The text that the sample `chat` is trained on: made the same every time, and not what it is asked."""

from __future__ import annotations

from pathlib import Path

from export.llm.options import OpenVinoOptions
from export.samples import GENERATING, SAMPLES, chat
from export.samples.chat_dialogues import TOPICS, dialogues, held_out, trained


def test_it_is_a_sample_and_exported_as_chat(tmp_path: Path) -> None:
    assert "chat" in SAMPLES
    assert "chat" in GENERATING
    options = chat.options(tmp_path)
    assert isinstance(options, OpenVinoOptions)
    assert (options.name, options.repository, options.weight_format) == ("chat", tmp_path, "int8")
    options.check()


def test_what_is_held_out_is_not_trained_on_but_its_answer_is() -> None:
    known = trained()
    asked = held_out()
    assert len(asked) == 3 * len(TOPICS)
    assert not {one.question for one in asked} & {one.question for one in known}
    assert {one.answer for one in asked} <= {one.answer for one in known}


def test_dialogues_are_the_same_for_a_seed_and_end_with_an_answer() -> None:
    made = dialogues(50, 3)
    assert made == dialogues(50, 3)
    assert made != dialogues(50, 4)
    assert {chat[-1]["role"] for chat in made} == {"assistant"}
    assert {len(chat) for chat in made} >= {2, 3, 4}


def test_the_questions_of_the_demo_have_answers_that_were_written() -> None:
    answers = " ".join(one.answer for one in trained())
    assert [q.text for q in chat.QUESTIONS if q.expected is None or q.expected not in answers] == []
