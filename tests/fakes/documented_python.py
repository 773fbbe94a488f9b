"""Documented repositories of the Python backend, of backends written in Python, and of PyTorch; see
`documented_repositories`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.fakes.lint_repositories import FLOAT, onnx

Repository = Mapping[str, "bytes | str | None"]

ADD_SUB = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])

    def execute(self, requests):
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
            sums, differences = (a + b).astype(np.float32), (a - b).astype(np.float32)
            out = [pb_utils.Tensor("OUTPUT0", sums), pb_utils.Tensor("OUTPUT1", differences)]
            responses.append(pb_utils.InferenceResponse(output_tensors=out))
        return responses
"""
ADD_SUB_CONFIG = """
name: "NAME"
backend: "python"
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] } ]
input [ { name: "INPUT1" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUTPUT1" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [{ kind: KIND_CPU }]
"""

# python_backend: examples add_sub, pytorch, jax, bls, decoupled, auto_complete.
PYTHON_EXAMPLES: Repository = {
    "add_sub/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "add_sub"),
    "add_sub/1/model.py": ADD_SUB,
    "pytorch/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "pytorch"),
    "pytorch/1/model.py": "import torch\nfrom torch import nn\n" + ADD_SUB,
    "jax/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "jax"),
    "jax/1/model.py": "import jax.numpy as jnp\n" + ADD_SUB,
    "bls_sync/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "bls_sync").replace(
        "output", 'input [ { name: "MODEL_NAME" data_type: TYPE_STRING dims: [ 1 ] } ]\noutput', 1
    ),
    "bls_sync/1/model.py": ADD_SUB,
    "bls_async/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "bls_async"),
    "bls_async/1/model.py": "import asyncio\n" + ADD_SUB.replace("def execute", "async def execute"),
    "repeat_int32/config.pbtxt": """
name: "repeat_int32"
backend: "python"
max_batch_size: 0
model_transaction_policy {
  decoupled: True
}
input [
  { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] },
  { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] }
]
output [
  { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
]
instance_group [{ kind: KIND_CPU }]
""",
    "repeat_int32/1/model.py": "import threading\nimport time\n" + ADD_SUB,
    "batch_auto_complete/1/model.py": ADD_SUB,
    "nobatch_auto_complete/config.pbtxt": 'name: "nobatch_auto_complete"\nbackend: "python"\n',
    "nobatch_auto_complete/1/model.py": ADD_SUB,
    "custom_metrics/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "custom_metrics"),
    "custom_metrics/1/model.py": ADD_SUB,
}

# python_backend, "Creating Custom Execution Environments" and "Building Custom Python Backend Stub".
EXECUTION_ENVIRONMENT: Repository = {
    "model_a/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "model_a")
    + """
parameters: {
  key: "EXECUTION_ENV_PATH",
  value: {string_value: "$$TRITON_MODEL_DIRECTORY/python3.6.tar.gz"}
}
""",
    "model_a/1/model.py": "import pandas as pd\n" + ADD_SUB,
    "model_a/python3.6.tar.gz": "packed",
    "model_a/triton_python_backend_stub": "stub",
}

# python_backend, examples/preprocessing: decode an image in Python, classify it in TensorRT.
PREPROCESSING: Repository = {
    "preprocess/config.pbtxt": """
name: "preprocess"
backend: "python"
max_batch_size: 256
input [ { name: "INPUT_0" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "OUTPUT_0" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
instance_group [{ kind: KIND_CPU }]
""",
    "preprocess/1/model.py": "import io\nimport torchvision\nfrom PIL import Image\n" + ADD_SUB,
    "resnet50_trt/config.pbtxt": """
name: "resnet50_trt"
platform: "tensorrt_plan"
max_batch_size: 128
input [ { name: "input" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] } ]
output [ { name: "output" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" } ]
""",
    "resnet50_trt/labels.txt": "tench\n",
    "resnet50_trt/1/model.plan": "engine",
    "ensemble_python_resnet50/config.pbtxt": """
name: "ensemble_python_resnet50"
platform: "ensemble"
max_batch_size: 128
input [ { name: "INPUT" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_FP32 dims: [ 1000 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "preprocess"
      model_version: -1
      input_map { key: "INPUT_0" value: "INPUT" }
      output_map { key: "OUTPUT_0" value: "preprocessed_image" }
    },
    {
      model_name: "resnet50_trt"
      model_version: -1
      input_map { key: "input" value: "preprocessed_image" }
      output_map { key: "output" value: "OUTPUT" }
    }
  ]
}
""",
    "ensemble_python_resnet50/1": None,
}

# tutorials: Conceptual_Guide Parts 1, 2 and 5: a detector and a recognizer, then both in an ensemble.
TEXT_IN_PICTURES: Repository = {
    "text_detection/config.pbtxt": """
name: "text_detection"
backend: "onnxruntime"
max_batch_size : 256
input [ { name: "input_images:0" data_type: TYPE_FP32 dims: [ -1, -1, -1, 3 ] } ]
output [
  { name: "feature_fusion/Conv_7/Sigmoid:0" data_type: TYPE_FP32 dims: [ -1, -1, -1, 1 ] },
  { name: "feature_fusion/concat_3:0" data_type: TYPE_FP32 dims: [ -1, -1, -1, 5 ] }
]
""".replace("256", "0"),
    "text_detection/1/model.onnx": onnx(
        {"input_images:0": (FLOAT, ["n", "h", "w", 3])},
        {
            "feature_fusion/Conv_7/Sigmoid:0": (FLOAT, ["n", "h", "w", 1]),
            "feature_fusion/concat_3:0": (FLOAT, ["n", "h", "w", 5]),
        },
        ir_version=7,
        opset=11,
    ),
    "text_recognition/config.pbtxt": """
name: "text_recognition"
backend: "onnxruntime"
max_batch_size : 8
input [ { name: "input.1" data_type: TYPE_FP32 dims: [ 1, 32, 100 ] } ]
output [ { name: "308" data_type: TYPE_FP32 dims: [ 26, 37 ] } ]
instance_group [ { count: 2 kind: KIND_GPU } ]
dynamic_batching { }
""",
    "text_recognition/1/model.onnx": onnx(
        {"input.1": (FLOAT, ["n", 1, 32, 100])}, {"308": (FLOAT, ["n", 26, 37])}, ir_version=7, opset=11
    ),
    "detection_preprocessing/config.pbtxt": """
name: "detection_preprocessing"
backend: "python"
max_batch_size: 256
input [ { name: "detection_preprocessing_input" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "detection_preprocessing_output" data_type: TYPE_FP32 dims: [ -1, -1, 3 ] } ]
instance_group [ { kind: KIND_CPU } ]
""",
    "detection_preprocessing/1/model.py": "import cv2\n" + ADD_SUB,
    "postprocessing/config.pbtxt": """
name: "postprocessing"
backend: "python"
max_batch_size: 256
input [
  { name: "input_1" data_type: TYPE_FP32 dims: [ -1, -1, 1 ] },
  { name: "input_2" data_type: TYPE_FP32 dims: [ -1, -1, 5 ] },
  { name: "input_3" data_type: TYPE_FP32 dims: [ -1, -1, 3 ] }
]
output [ { name: "cropped" data_type: TYPE_FP32 dims: [ 1, 32, 100 ] } ]
""",
    "postprocessing/1/model.py": "import cv2\n" + ADD_SUB,
    "ensemble_model/config.pbtxt": """
name: "ensemble_model"
platform: "ensemble"
max_batch_size: 8
input [ { name: "input_image" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "characters" data_type: TYPE_FP32 dims: [ 26, 37 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "detection_preprocessing"
      model_version: -1
      input_map { key: "detection_preprocessing_input" value: "input_image" }
      output_map { key: "detection_preprocessing_output" value: "preprocessed_image" }
    },
    {
      model_name: "text_detection"
      model_version: -1
      input_map { key: "input_images:0" value: "preprocessed_image" }
      output_map { key: "feature_fusion/Conv_7/Sigmoid:0" value: "Sigmoid:0" },
      output_map { key: "feature_fusion/concat_3:0" value: "concat_3:0" }
    },
    {
      model_name: "postprocessing"
      model_version: -1
      input_map { key: "input_1" value: "Sigmoid:0" }
      input_map { key: "input_2" value: "concat_3:0" }
      input_map { key: "input_3" value: "preprocessed_image" }
      output_map { key: "cropped" value: "cropped_images" }
    },
    {
      model_name: "text_recognition"
      model_version: -1
      input_map { key: "input.1" value: "cropped_images" }
      output_map { key: "308" value: "characters" }
    }
  ]
}
""",
    "ensemble_model/1": None,
}

# tutorials: Quick_Deploy/PyTorch and JAX, HuggingFace.
QUICK_DEPLOY: Repository = {
    "resnet50/config.pbtxt": """
name: "resnet50"
platform: "pytorch_libtorch"
max_batch_size : 0
input [ { name: "input__0" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] reshape { shape: [ 1, 3, 224, 224 ] } } ]
output [
  { name: "output__0" data_type: TYPE_FP32 dims: [ 1, 1000, 1, 1 ] reshape { shape: [ 1, 1000 ] } }
]
""",
    "resnet50/1/model.pt": "torchscript",
    "several/config.pbtxt": """
backend: "pytorch"
max_batch_size: 8
input [
  { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 16 ] },
  { name: "INPUT__1" data_type: TYPE_FP32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 16 ] },
  { name: "OUTPUT__1" data_type: TYPE_FP32 dims: [ 16 ] }
]
parameters: { key: "DISABLE_OPTIMIZED_EXECUTION" value: { string_value: "true" } }
parameters: { key: "INFERENCE_MODE" value: { string_value: "true" } }
""",
    "several/1/model.pt": "torchscript",
    "python_vit/config.pbtxt": """
name: "python_vit"
backend: "python"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_FP32 dims: [-1, -1, -1] } ]
output [ { name: "label" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { kind: KIND_GPU } ]
""",
    "python_vit/1/model.py": "from transformers import ViTFeatureExtractor, ViTModel\n" + ADD_SUB,
    "persimmon8b/config.pbtxt": """
backend: "python"
parameters: {
  key: "huggingface_model",
  value: {string_value: "adept/persimmon-8b-base"}
}
input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
""",
    "persimmon8b/1/model.py": "import torch\nimport transformers\n" + ADD_SUB,
}

# tutorials: Conceptual_Guide Part 7; vllm_backend; fil_backend; dali_backend; a backend of one's own.
OTHER_BACKENDS: Repository = {
    "iterative/config.pbtxt": """
backend: "python"
max_batch_size: 8
input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ 1 ] } ]
model_transaction_policy { decoupled: True }
sequence_batching {
  iterative_sequence : true
  oldest { }
  max_sequence_idle_microseconds: 400000000
}
instance_group [ { count: 1 kind: KIND_GPU } ]
""",
    "iterative/1/model.py": ADD_SUB,
    "vllm_model/config.pbtxt": """
backend: "vllm"
# The usage of device is deferred to the vLLM engine
instance_group [ { count: 1 kind: KIND_MODEL } ]
""",
    "vllm_model/1/model.json": '{"model": "facebook/opt-125m", "gpu_memory_utilization": 0.5}',
    "xgboost/config.pbtxt": """
backend: "fil"
max_batch_size: 32768
input [ { name: "input__0" data_type: TYPE_FP32 dims: [ 500 ] } ]
output [ { name: "output__0" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [{ kind: KIND_AUTO }]
parameters [
  { key: "model_type" value: { string_value: "xgboost_json" } },
  { key: "output_class" value: { string_value: "true" } }
]
dynamic_batching { }
""",
    "xgboost/1/xgboost.json": '{"learner": {"parameters": []}}',
    "identity.identity/1/model.identity": "model",
    "identity_fp32/config.pbtxt": """
name: "identity_fp32"
backend: "identity"
max_batch_size: 64
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
""",
    "identity_fp32/1": None,
    "identity_fp32/libtriton_identity.so": "library",
    "custom_config/config.pbtxt": ADD_SUB_CONFIG.replace("NAME", "custom_config"),
    "custom_config/configs/h100.pbtxt": ADD_SUB_CONFIG.replace("NAME", "custom_config"),
    "custom_config/1/model.py": ADD_SUB,
}

# tensorrtllm_backend: inflight_batcher_llm, shortened to the tensors that every client sends.
LANGUAGE_MODEL: Repository = {
    "preprocessing/config.pbtxt": """
name: "preprocessing"
backend: "python"
max_batch_size: 64
input [
  { name: "QUERY" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "REQUEST_OUTPUT_LEN" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "END_ID" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
]
output [
  { name: "INPUT_ID" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "REQUEST_INPUT_LEN" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "OUT_REQUEST_OUTPUT_LEN" data_type: TYPE_INT32 dims: [ 1 ] }
]
parameters { key: "tokenizer_dir" value: { string_value: "/models/tokenizer" } }
instance_group [ { count: 1 kind: KIND_CPU } ]
""",
    "preprocessing/1/model.py": "from transformers import AutoTokenizer\n" + ADD_SUB,
    "tensorrt_llm/config.pbtxt": """
name: "tensorrt_llm"
backend: "tensorrtllm"
max_batch_size: 64
model_transaction_policy { decoupled: true }
dynamic_batching { preferred_batch_size: [ 64 ] max_queue_delay_microseconds: 100 }
input [
  { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true },
  { name: "input_lengths" data_type: TYPE_INT32 dims: [ 1 ] reshape: { shape: [ ] } },
  { name: "request_output_len" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "end_id" data_type: TYPE_INT32 dims: [ 1 ] reshape: { shape: [ ] } optional: true }
]
output [ { name: "output_ids" data_type: TYPE_INT32 dims: [ -1, -1 ] } ]
instance_group [ { count: 1 kind : KIND_CPU } ]
""",
    "tensorrt_llm/1": None,
    "postprocessing/config.pbtxt": """
name: "postprocessing"
backend: "python"
max_batch_size: 64
input [ { name: "TOKENS_BATCH" data_type: TYPE_INT32 dims: [ -1, -1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_STRING dims: [ -1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
""",
    "postprocessing/1/model.py": "from transformers import AutoTokenizer\n" + ADD_SUB,
    "ensemble/config.pbtxt": """
name: "ensemble"
platform: "ensemble"
max_batch_size: 64
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "end_id" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "preprocessing"
      model_version: -1
      input_map { key: "QUERY" value: "text_input" }
      input_map { key: "REQUEST_OUTPUT_LEN" value: "max_tokens" }
      output_map { key: "INPUT_ID" value: "_INPUT_ID" }
      output_map { key: "REQUEST_INPUT_LEN" value: "_REQUEST_INPUT_LEN" }
      output_map { key: "OUT_REQUEST_OUTPUT_LEN" value: "_REQUEST_OUTPUT_LEN" }
    },
    {
      model_name: "tensorrt_llm"
      model_version: -1
      input_map { key: "input_ids" value: "_INPUT_ID" }
      input_map { key: "input_lengths" value: "_REQUEST_INPUT_LEN" }
      input_map { key: "request_output_len" value: "_REQUEST_OUTPUT_LEN" }
      input_map { key: "end_id" value: "end_id" }
      output_map { key: "output_ids" value: "_TOKENS_BATCH" }
    },
    {
      model_name: "postprocessing"
      model_version: -1
      input_map { key: "TOKENS_BATCH" value: "_TOKENS_BATCH" }
      output_map { key: "OUTPUT" value: "text_output" }
    }
  ]
}
""",
    "ensemble/1": None,
}

PYTHON_REPOSITORIES: Mapping[str, Repository] = {
    "python examples": PYTHON_EXAMPLES,
    "execution environment": EXECUTION_ENVIRONMENT,
    "preprocessing": PREPROCESSING,
    "text in pictures": TEXT_IN_PICTURES,
    "quick deploy": QUICK_DEPLOY,
    "other backends": OTHER_BACKENDS,
    "language model": LANGUAGE_MODEL,
}
