"""Language models: `conch export llm`, from a checkpoint to a decoupled model that generates text.

Knows nothing of how text is generated: that is python_backends/generate/, or Triton's vLLM backend.
"""
