"""The limit: the same work with no server at all, one process of one thread; several of these are run side by side.

    python -m perf.contenders.bare_onnx

Reads a JSON object a line: {"payloads": [...]} first; then {"answer": n}, which writes the answer to the n-th payload,
or {"duration_s", "warmup_s", "first"}, which writes {"latencies_s"} of the requests that ended after the warm-up.
"""

from __future__ import annotations

import json
import sys
import time

from perf.contenders.handler import SETTINGS, from_json, open_handler


def say(line: str) -> None:
    """A line to whoever asked."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer commands until standard input ends."""
    handler = open_handler()
    payloads = [from_json(each) for each in json.loads(sys.stdin.readline())["payloads"]]
    # Tokens in, numbers out: no JSON is written, and nothing is made of a list.
    once = handler.embed if SETTINGS["workload"] == "text" else lambda each: handler.answer(each[0])
    asked = [[each["text"]] if SETTINGS["workload"] == "text" else [each] for each in payloads]
    for line in sys.stdin:
        command = json.loads(line)
        if "answer" in command:
            say(json.dumps(handler.answer(payloads[command["answer"]])))
            continue
        begin = time.perf_counter() + command["warmup_s"]
        end = begin + command["duration_s"]
        latencies_s: list[float] = []
        turn = command["first"]
        before = time.perf_counter()
        while before < end:
            once(asked[turn % len(asked)])
            after = time.perf_counter()
            if begin <= after < end:
                latencies_s.append(after - before)
            before = after
            turn += 1
        say(json.dumps({"latencies_s": latencies_s}))


if __name__ == "__main__":
    main()
