import json

import numpy as np

from perf.compare_servers import read_binary_answer


def test_the_numbers_after_the_json_are_read() -> None:
    numbers = np.array([0.5, -2.0, 3e-9], np.float32)
    head = {"outputs": [{"name": "embedding", "shape": [1, 3], "parameters": {"binary_data_size": 12}}]}
    np.testing.assert_array_equal(read_binary_answer(json.dumps(head).encode() + numbers.tobytes()), numbers)
