"""The options of vLLM's engine that model.json may hold, and what is wrong with those that a user gives.

Names are the fields of vLLM's AsyncEngineArgs that its releases 0.10 and 0.11 share: those of NVIDIA's images since
25.10. The backend passes model.json on as it is, so that a wrong name is found when the model is loaded, on the GPU.
Sources: https://docs.vllm.ai/en/v0.10.1.1/api/vllm/engine/arg_utils.html and
https://github.com/triton-inference-server/vllm_backend
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conch.errors import ExportError, nearest

# The release of NVIDIA's image that the options are checked for.
IMAGE = "nvcr.io/nvidia/tritonserver:25.10-vllm-python-py3"

OPTIONS = frozenset(
    """
    model served_model_name tokenizer hf_config_path runner convert task skip_tokenizer_init tokenizer_mode
    trust_remote_code allowed_local_media_path download_dir load_format config_format dtype kv_cache_dtype seed
    max_model_len distributed_executor_backend pipeline_parallel_size tensor_parallel_size data_parallel_size
    data_parallel_rank data_parallel_start_rank data_parallel_size_local data_parallel_address data_parallel_rpc_port
    data_parallel_hybrid_lb data_parallel_backend enable_expert_parallel enable_eplb num_redundant_experts
    eplb_window_size eplb_step_interval eplb_log_balancedness max_parallel_loading_workers block_size
    enable_prefix_caching prefix_caching_hash_algo disable_sliding_window disable_cascade_attn swap_space
    cpu_offload_gb gpu_memory_utilization max_num_batched_tokens max_num_partial_prefills max_long_partial_prefills
    long_prefill_token_threshold max_num_seqs max_logprobs logprobs_mode disable_log_stats revision code_revision
    rope_scaling rope_theta hf_overrides tokenizer_revision quantization enforce_eager
    disable_custom_all_reduce limit_mm_per_prompt interleave_mm_strings media_io_kwargs mm_processor_kwargs
    mm_processor_cache_gb io_processor_plugin skip_mm_profiling enable_lora max_loras max_lora_rank default_mm_loras
    fully_sharded_loras max_cpu_loras lora_dtype lora_extra_vocab_size ray_workers_use_nsight num_gpu_blocks_override
    num_lookahead_slots model_loader_extra_config ignore_patterns enable_chunked_prefill disable_chunked_mm_input
    disable_hybrid_kv_cache_manager guided_decoding_backend guided_decoding_disable_fallback
    guided_decoding_disable_any_whitespace guided_decoding_disable_additional_properties reasoning_parser
    logits_processor_pattern speculative_config show_hidden_metrics_for_version otlp_traces_endpoint
    collect_detailed_traces scheduling_policy scheduler_cls override_pooler_config compilation_config worker_cls
    worker_extension_cls kv_transfer_config kv_events_config generation_config enable_sleep_mode
    override_generation_config model_impl override_attention_dtype calculate_kv_scales additional_config
    use_tqdm_on_load pt_load_map_location logits_processors async_scheduling kv_sharing_fast_prefill
    """.split()
)

# What is said otherwise: names of older releases, mostly.
RENAMED = {
    "speculative_model": "speculative_config, as {'model': ..., 'num_speculative_tokens': ...}",
    "num_speculative_tokens": "speculative_config, as {'num_speculative_tokens': ...}",
    "ngram_prompt_lookup_max": "speculative_config, as {'method': 'ngram', 'prompt_lookup_max': ...}",
    "ngram_prompt_lookup_min": "speculative_config, as {'method': 'ngram', 'prompt_lookup_min': ...}",
    "use_v2_block_manager": "nothing: it is always on",
    "worker_use_ray": "distributed_executor_backend, as 'ray'",
    "disable_log_requests": "nothing: requests are not logged",
    "max_context_len_to_capture": "compilation_config",
    "max_seq_len_to_capture": "compilation_config",
    "device": "nothing: it is found",
    "hf_token": "the container's environment variable HF_TOKEN: a version folder is no place for a secret",
}

# Source: https://docs.vllm.ai/en/v0.10.1.1/api/vllm/model_executor/layers/quantization/
QUANTIZATIONS = frozenset(
    """
    auto-round awq awq_marlin bitblas bitsandbytes compressed-tensors deepspeedfp experts_int8 fbgemm_fp8 fp8 gguf gptq
    gptq_bitblas gptq_marlin gptq_marlin_24 hqq inc ipex modelopt modelopt_fp4 moe_wna16 mxfp4 petit_nvfp4 ptpc_fp8
    quark rtn torchao tpu_int8
    """.split()
)

# Options that the command has words of its own for.
OWN = {
    "model": "PATH_OR_ID",
    "tensor_parallel_size": "--tensor-parallel",
    "quantization": "--quantization",
    "gpu_memory_utilization": "--memory-share",
    "max_model_len": "--context-length",
    "enable_prefix_caching": "--prefix-caching",
    "speculative_config": "--speculation",
}

_COUNTS = frozenset(
    "tensor_parallel_size pipeline_parallel_size max_model_len max_num_seqs max_num_batched_tokens".split()
)
_SWITCHES = frozenset(
    "enable_prefix_caching enforce_eager trust_remote_code enable_lora disable_log_stats async_scheduling".split()
)


def check(engine: Mapping[str, Any]) -> None:
    """Raise ExportError for the first option that vLLM does not have, or whose value it would refuse."""
    for name, value in engine.items():
        if name not in OPTIONS:
            raise _unknown(name)
        due = _due(name, value)
        if due:
            raise ExportError(f"vLLM's option {name} has a wrong value", got=repr(value), expected=due)


def _unknown(name: str) -> ExportError:
    near = nearest(name.replace("-", "_"), sorted(OPTIONS))
    if name in RENAMED:
        fix = f"use {RENAMED[name]}"
    else:
        fix = f"did you mean {near}?" if near else "see https://docs.vllm.ai/en/stable/configuration/engine_args.html"
    return ExportError("vLLM's engine has no such option", got=name, expected=f"an option that {IMAGE} has", fix=fix)


def _due(name: str, value: Any) -> str:
    """What is expected of an option's value, "" where it is right or not known."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if name in _COUNTS and not (is_whole and value > 0):
        return "a whole number above 0"
    if name in _SWITCHES and not isinstance(value, bool):
        return "true or false"
    is_number = is_whole or isinstance(value, float)
    if name == "gpu_memory_utilization" and not (is_number and 0 < value <= 1):
        return "a share of the GPU's memory: above 0, at most 1"
    if name == "quantization" and value not in QUANTIZATIONS:
        near = nearest(str(value), QUANTIZATIONS)
        return f"one of {', '.join(sorted(QUANTIZATIONS))}" + (f" (did you mean {near}?)" if near else "")
    if name == "speculative_config" and not isinstance(value, Mapping):
        return "an object, as {'method': 'ngram', 'num_speculative_tokens': 4}"
    return ""
