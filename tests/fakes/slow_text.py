"""A model that generates text word by word, so slowly that there is time to do something in the middle."""

# The tensors of Triton's vLLM backend. The prompt is "WORDS PAUSE_S"; it notes in a file beside it what became of each
# request: "done" or "cancelled".
SOURCE = """
    import json
    import threading
    import time
    from pathlib import Path

    import numpy as np
    import triton_python_backend_utils as pb_utils

    FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    NOTES = Path(__file__).parent / "notes.txt"


    def texts(*items):
        return np.array([item.encode() for item in items], dtype=object)


    class TritonPythonModel:
        def initialize(self, args):
            self.version = args["model_version"]

        def execute(self, requests):
            for request in requests:
                threading.Thread(target=self.answer, args=(request.get_response_sender(), self.prompt(request))).start()

        def prompt(self, request):
            tensor = pb_utils.get_input_tensor_by_name(request, "text_input")
            return tensor.as_numpy().ravel()[0].decode()

        def answer(self, sender, prompt):
            if prompt.startswith("fail"):
                error = pb_utils.TritonError("too long: 9 tokens, and the context holds 4")
                sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)
                return
            words, pause_s = prompt.split()
            for number in range(1, int(words) + 1):
                if sender.is_cancelled():
                    self.note("cancelled")
                    sender.send(flags=FINAL)
                    return
                last = number == int(words)
                sender.send(pb_utils.InferenceResponse([
                    pb_utils.Tensor("text_output", texts(f"word{number} ")),
                    pb_utils.Tensor("finish_reason", texts("stop" if last else "")),
                    pb_utils.Tensor("num_input_tokens", np.array([3], dtype=np.uint32)),
                    pb_utils.Tensor("num_output_tokens", np.array([1], dtype=np.uint32)),
                ]))
                time.sleep(float(pause_s))
            self.note("done")
            sender.send(flags=FINAL)

        def note(self, what):
            with NOTES.open("a") as file:
                file.write(what + "\\n")
"""

CONFIG = """
    name: "NAME"
    backend: "python"
    max_batch_size: 0
    model_transaction_policy { decoupled: true }
    input [
      { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
      { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
      { name: "sampling_parameters" data_type: TYPE_STRING dims: [ 1 ] optional: true },
      { name: "chat" data_type: TYPE_STRING dims: [ 1 ] optional: true },
      { name: "exclude_input_in_output" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
      { name: "return_finish_reason" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
      { name: "return_num_input_tokens" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
      { name: "return_num_output_tokens" data_type: TYPE_BOOL dims: [ 1 ] optional: true }
    ]
    output [
      { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] },
      { name: "finish_reason" data_type: TYPE_STRING dims: [ -1 ] },
      { name: "num_input_tokens" data_type: TYPE_UINT32 dims: [ -1 ] },
      { name: "num_output_tokens" data_type: TYPE_UINT32 dims: [ -1 ] }
    ]
    instance_group { count: 1 kind: KIND_CPU }
"""
