"""The model repositories that Triton's documentation, quick starts and tutorials describe, in our own words.

Each is a mapping from paths to contents (None: a folder), as a reader would put it together from the page that is named
above it. Files of models that the linter does not read are stand-ins; ONNX heads are real. Pages:
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/ and
https://github.com/triton-inference-server/{server,python_backend,tutorials}
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.fakes.documented_python import PYTHON_REPOSITORIES
from tests.fakes.lint_repositories import FLOAT, INT64, STRING, message, number, onnx, tensor, weight

Repository = Mapping[str, "bytes | str | None"]

INT32 = 6

ADD_SUB_IO = """
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
"""
MINIMAL = """
platform: "tensorrt_plan"
max_batch_size: 8
input [
  { name: "input0" data_type: TYPE_FP32 dims: [ 16 ] },
  { name: "input1" data_type: TYPE_FP32 dims: [ 16 ] }
]
output [ { name: "output0" data_type: TYPE_FP32 dims: [ 16 ] } ]
"""
ADD_SUB_ONNX = onnx(
    {"INPUT0": (INT32, ["batch", 16]), "INPUT1": (INT32, ["batch", 16])},
    {"OUTPUT0": (INT32, ["batch", 16]), "OUTPUT1": (INT32, ["batch", 16])},
    ir_version=8,
    opset=13,
)

# getting_started/quickstart.md and docs/examples: what fetch_models.sh leaves.
QUICK_START: Repository = {
    "simple/config.pbtxt": 'name: "simple"\nplatform: "tensorflow_graphdef"\nmax_batch_size: 8\n' + ADD_SUB_IO,
    "simple/1/model.graphdef": "graph",
    "densenet_onnx/config.pbtxt": """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
    reshape { shape: [ 1, 3, 224, 224 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 1000 ]
    reshape { shape: [ 1, 1000, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
""",
    "densenet_onnx/densenet_labels.txt": "tench\ngoldfish\n",
    "densenet_onnx/1/model.onnx": onnx(
        {"data_0": (FLOAT, [1, 3, 224, 224])}, {"fc6_1": (FLOAT, [1, 1000, 1, 1])}, ir_version=3, opset=7
    ),
    "inception_graphdef/config.pbtxt": """
name: "inception_graphdef"
platform: "tensorflow_graphdef"
max_batch_size: 128
input [ { name: "input" data_type: TYPE_FP32 format: FORMAT_NHWC dims: [ 299, 299, 3 ] } ]
output [
  {
    name: "InceptionV3/Predictions/Softmax"
    data_type: TYPE_FP32
    dims: [ 1001 ]
    label_filename: "inception_labels.txt"
  }
]
""",
    "inception_graphdef/inception_labels.txt": "dummy\ntench\n",
    "inception_graphdef/1/model.graphdef": "graph",
    "simple_string/config.pbtxt": (
        'name: "simple_string"\nplatform: "tensorflow_graphdef"\nmax_batch_size: 8\n' + ADD_SUB_IO
    ).replace("TYPE_INT32", "TYPE_STRING"),
    "simple_string/1/model.graphdef": "graph",
    "simple_identity/config.pbtxt": """
name: "simple_identity"
platform: "tensorflow_savedmodel"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]
""",
    "simple_identity/1/model.savedmodel/saved_model.pb": "graph",
}

# user_guide/model_configuration.md: a config with hardly a field, or none at all.
AUTO_COMPLETED: Repository = {
    "onnx_bare/1/model.onnx": ADD_SUB_ONNX,
    "plan_bare/1/model.plan": "engine",
    "savedmodel_bare/1/model.savedmodel/saved_model.pb": "graph",
    "openvino_bare/1/model.xml": "<net/>",
    "openvino_bare/1/model.bin": "weights",
    "onnx_named/config.pbtxt": 'backend: "onnxruntime"\n',
    "onnx_named/1/model.onnx": ADD_SUB_ONNX,
    "plan_batched/config.pbtxt": 'name: "plan_batched"\nplatform: "tensorrt_plan"\ndynamic_batching { }\n',
    "plan_batched/1/model.plan": "engine",
    "onnx_empty/config.pbtxt": "",
    "onnx_empty/1/model.onnx": ADD_SUB_ONNX,
}

VERSIONS = {f"{number}/model.plan": "engine" for number in (1, 2, 3)}

# user_guide/model_repository.md and model_configuration.md, "Version Policy".
VERSION_POLICIES: Repository = {
    **{f"all/{path}": content for path, content in VERSIONS.items()},
    "all/config.pbtxt": MINIMAL + "version_policy: { all { }}\n",
    **{f"latest/{path}": content for path, content in VERSIONS.items()},
    "latest/config.pbtxt": MINIMAL + "version_policy: { latest: { num_versions: 2}}\n",
    **{f"specific/{path}": content for path, content in VERSIONS.items()},
    "specific/config.pbtxt": MINIMAL + "version_policy: { specific: { versions: [1,3]}}\n",
    **{f"default/{path}": content for path, content in VERSIONS.items()},
    "default/config.pbtxt": MINIMAL,
}

# user_guide/model_configuration.md ("Instance Groups"), rate_limiter.md, optimization.md, batcher.md.
SETTINGS: Repository = {
    f"{name}/config.pbtxt": MINIMAL + text
    for name, text in {
        "gpus": "instance_group [ { kind: KIND_GPU gpus: [ 0 ] }, { count: 2 kind: KIND_GPU gpus: [ 1, 2 ] } ]",
        "two_each": "instance_group [ { count: 2 kind: KIND_GPU } ]",
        "host": 'instance_group [ { count: 2 kind: KIND_CPU host_policy: "policy_0" } ]',
        "limited": """
instance_group [
  {
    count: 1
    kind: KIND_GPU
    gpus: [ 0, 1, 2 ]
    rate_limiter {
      resources [ { name: "R1" count: 4 }, { name: "R2" global: True count: 2 } ]
      priority: 2
    }
  }
]
""",
        "profiles": """
instance_group [ { count: 1 kind: KIND_GPU profile: [ "0", "1" ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] }
optimization { cuda { graphs: true } }
""",
        "delayed": "dynamic_batching { max_queue_delay_microseconds: 100 }",
        "ordered": "dynamic_batching { preserve_ordering: true }",
        "queued": """
dynamic_batching {
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1000000 max_queue_size: 64 }
  priority_queue_policy { key: 1 value { allow_timeout_override: true max_queue_size: 8 } }
}
""",
        "cached": "response_cache { enable: true }",
        "capability": 'cc_model_filenames [ { key: "7.5" value: "model.plan" }, { key: "8.0" value: "model.plan" } ]',
        "metrics": 'metric_tags { key: "team" value: "vision" }',
        "agent": """
model_repository_agents {
  agents [ { name: "checksum" parameters { key: "MD5:1/model.plan" value: "d41d8cd98f00b204e9800998ecf8427e" } } ]
}
""",
    }.items()
} | {
    f"{name}/1/model.plan": "engine"
    for name in (
        "gpus two_each host limited profiles delayed ordered queued cached capability metrics agent".split(" ")
    )
}

# optimization.md: execution accelerators of ONNX Runtime; "instance_group [ { count: 2 }]".
ACCELERATED: Repository = {
    "tensorrt_within/config.pbtxt": """
name: "tensorrt_within"
platform: "onnxruntime_onnx"
max_batch_size: 8
optimization { execution_accelerators {
  gpu_execution_accelerator : [ {
    name : "tensorrt"
    parameters { key: "precision_mode" value: "FP16" }
    parameters { key: "max_workspace_size_bytes" value: "1073741824" }}
  ]
}}
dynamic_batching { }
instance_group [ { count: 2 } ]
""",
    "tensorrt_within/1/model.onnx": ADD_SUB_ONNX,
    "openvino_within/config.pbtxt": """
platform: "onnxruntime_onnx"
max_batch_size: 16
optimization { execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }
"""
    + ADD_SUB_IO,
    "openvino_within/1/model.onnx": ADD_SUB_ONNX,
    "threads/config.pbtxt": """
backend: "onnxruntime"
max_batch_size: 8
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "0" } }
"""
    + ADD_SUB_IO,
    "threads/1/model.onnx": ADD_SUB_ONNX,
}

# model_configuration.md ("Model Warmup") with qa/L0_warmup: data files lie in the model's folder `warmup`.
WARMED_UP: Repository = {
    "warm/config.pbtxt": MINIMAL
    + """
model_warmup [
  {
    name : "zero sample"
    batch_size: 1
    inputs { key: "input0" value: { data_type: TYPE_FP32 dims: [ 16 ] zero_data: true } }
    inputs { key: "input1" value: { data_type: TYPE_FP32 dims: [ 16 ] input_data_file: "raw_data" } }
  }
]
""",
    "warm/warmup/raw_data": "0" * 64,
    "warm/1/model.plan": "engine",
}

# ragged_batching.md
RAGGED: Repository = {
    "ragged/config.pbtxt": """
name: "ragged"
platform: "tensorrt_plan"
max_batch_size: 16
input [ { name: "INPUT" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "OUTPUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
batch_input [
  { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "INDEX" data_type: TYPE_FP32 source_input: "INPUT" }
]
dynamic_batching { max_queue_delay_microseconds: 1000 }
""",
    "ragged/1/model.plan": "engine",
}

CONTROLS = """
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
    { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] } ] }
  ]
"""

# architecture.md ("Stateful Models"), implicit_state_management.md.
SEQUENCES: Repository = {
    "simple_sequence/config.pbtxt": """
name: "simple_sequence"
platform: "tensorflow_graphdef"
max_batch_size: 8
sequence_batching { max_sequence_idle_microseconds: 5000000 CONTROLS }
input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { count: 4 kind: KIND_CPU } ]
""".replace("CONTROLS", CONTROLS),
    "simple_sequence/1/model.graphdef": "graph",
    "oldest/config.pbtxt": """
name: "oldest"
platform: "tensorrt_plan"
max_batch_size: 2
sequence_batching {
  direct { max_queue_delay_microseconds: 0 minimum_slot_utilization: 0 }
  CONTROLS
}
input [ { name: "INPUT" data_type: TYPE_FP32 dims: [ 100, 100 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_FP32 dims: [ 10 ] } ]
instance_group [ { count: 2 } ]
""".replace("CONTROLS", CONTROLS).replace(
        "direct { max_queue_delay_microseconds: 0 minimum_slot_utilization: 0 }",
        "oldest { max_candidate_sequences: 4 preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 100 }",
    ),
    "oldest/1/model.plan": "engine",
    "implicit_state/config.pbtxt": """
name: "implicit_state"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "INPUT" data_type: TYPE_INT64 dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_INT64 dims: [ 1 ] } ]
sequence_batching {
  CONTROLS
  state [
    {
      input_name: "INPUT_STATE"
      output_name: "OUTPUT_STATE"
      data_type: TYPE_INT64
      dims: [ -1 ]
      initial_state: { data_type: TYPE_INT64 dims: [ 1 ] data_file: "zeros" name: "start" }
    }
  ]
}
""".replace("CONTROLS", CONTROLS),
    "implicit_state/initial_state/zeros": "0" * 8,
    "implicit_state/1/model.onnx": onnx(
        {
            "INPUT": (INT64, ["batch", 1]),
            "START": (FLOAT, ["batch", 1]),
            "READY": (FLOAT, ["batch", 1]),
            "INPUT_STATE": (INT64, ["batch", "state"]),
        },
        {"OUTPUT": (INT64, ["batch", 1]), "OUTPUT_STATE": (INT64, ["batch", "state"])},
    ),
}

# model_configuration.md: reshape, shape tensors, formats that are not linear.
SHAPES: Repository = {
    "reshaped/config.pbtxt": """
platform: "tensorrt_plan"
max_batch_size: 8
input [ { name: "in" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] } } ]
output [ { name: "out" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] } } ]
""",
    "reshaped/1/model.plan": "engine",
    "shape_tensors/config.pbtxt": """
name: "shape_tensors"
platform: "tensorrt_plan"
max_batch_size: 8
input [
  { name: "input0" data_type: TYPE_FP32 dims: [ 1, 3 ] },
  { name: "input1" data_type: TYPE_INT32 dims: [ 2 ] is_shape_tensor: true }
]
output [ { name: "output0" data_type: TYPE_FP32 dims: [ 1, 3 ] } ]
""",
    "shape_tensors/1/model.plan": "engine",
    "variable/config.pbtxt": """
backend: "onnxruntime"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4, -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4, -1 ] } ]
""",
    "variable/1/model.onnx": onnx({"x": (FLOAT, [4, "n"])}, {"y": (FLOAT, [4, "n"])}),
    "narrower/config.pbtxt": """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4, 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4, -1 ] } ]
""",
    "narrower/1/model.onnx": onnx({"x": (FLOAT, ["b", 4, None])}, {"y": (FLOAT, ["b", 4, None])}),
}

# ensemble_models.md: the image ensemble of the page, its members as the page implies them.
IMAGE_ENSEMBLE: Repository = {
    "ensemble_model/config.pbtxt": """
name: "ensemble_model"
platform: "ensemble"
max_batch_size: 1
input [ { name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "CLASSIFICATION" data_type: TYPE_FP32 dims: [ 1000 ] },
  { name: "SEGMENTATION" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }
]
ensemble_scheduling {
  step [
    {
      model_name: "image_preprocess_model"
      model_version: -1
      input_map { key: "RAW_IMAGE" value: "IMAGE" }
      output_map { key: "PREPROCESSED_OUTPUT" value: "preprocessed_image" }
    },
    {
      model_name: "classification_model"
      model_version: -1
      input_map { key: "FORMATTED_IMAGE" value: "preprocessed_image" }
      output_map { key: "CLASSIFICATION_OUTPUT" value: "CLASSIFICATION" }
    },
    {
      model_name: "segmentation_model"
      model_version: -1
      input_map { key: "FORMATTED_IMAGE" value: "preprocessed_image" }
      output_map { key: "SEGMENTATION_OUTPUT" value: "SEGMENTATION" }
    }
  ]
}
""",
    "ensemble_model/1": None,
    "image_preprocess_model/config.pbtxt": """
name: "image_preprocess_model"
backend: "dali"
max_batch_size: 256
input [ { name: "RAW_IMAGE" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "PREPROCESSED_OUTPUT" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
""",
    "image_preprocess_model/1/model.dali": "pipeline",
    "classification_model/config.pbtxt": """
name: "classification_model"
platform: "tensorrt_plan"
max_batch_size: 64
input [ { name: "FORMATTED_IMAGE" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] } ]
output [ { name: "CLASSIFICATION_OUTPUT" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" } ]
dynamic_batching { }
""",
    "classification_model/labels.txt": "tench\n",
    "classification_model/1/model.plan": "engine",
    "segmentation_model/config.pbtxt": """
name: "segmentation_model"
backend: "onnxruntime"
max_batch_size: 1
input [ { name: "FORMATTED_IMAGE" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] } ]
output [ { name: "SEGMENTATION_OUTPUT" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] } ]
""",
    "segmentation_model/1/model.onnx": onnx(
        {"FORMATTED_IMAGE": (FLOAT, ["n", 3, "h", "w"])}, {"SEGMENTATION_OUTPUT": (FLOAT, ["n", 3, "h", "w"])}
    ),
}

# model_repository.md, onnxruntime_backend: a folder model.onnx for a model with external data.
LARGE_ONNX: Repository = {
    "large/config.pbtxt": 'backend: "onnxruntime"\nmax_batch_size: 8\n' + ADD_SUB_IO,
    "large/1/model.onnx/model.onnx": number(1, 8)
    + message(8, number(2, 13))
    + message(
        7,
        weight("w", "model.onnx.data"),
        tensor(11, "INPUT0", INT32, ["n", 16]),
        tensor(11, "INPUT1", INT32, ["n", 16]),
        tensor(12, "OUTPUT0", INT32, ["n", 16]),
        tensor(12, "OUTPUT1", INT32, ["n", 16]),
    ),
    "large/1/model.onnx/model.onnx.data": "weights",
    "strings/config.pbtxt": """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } } ]
""",
    "strings/1/model.onnx": onnx({"text": (STRING, ["n", 1])}, {"label": (INT64, ["n"])}),
}

REPOSITORIES: Mapping[str, Repository] = {
    "quick start": QUICK_START,
    "auto-completed": AUTO_COMPLETED,
    "version policies": VERSION_POLICIES,
    "settings": SETTINGS,
    "accelerated": ACCELERATED,
    "warmed up": WARMED_UP,
    "ragged": RAGGED,
    "sequences": SEQUENCES,
    "shapes": SHAPES,
    "image ensemble": IMAGE_ENSEMBLE,
    "large onnx": LARGE_ONNX,
    **PYTHON_REPOSITORIES,
}
