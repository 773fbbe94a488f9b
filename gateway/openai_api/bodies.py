"""What a request's body may hold, as OpenAI documents it.

Fields that change nothing here are taken and ignored, as OpenAI does with what a model does not need; those that would
change the answer, and that no engine here can do, are refused; unknown ones are refused with the nearest name. Engines'
own parameters (``top_k``, ``min_p``, ``chat_template_kwargs``, ...) come as vLLM's server takes them.

Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# OpenAI's limits.
MAX_CHOICES = 128
MAX_INPUTS = 2048
MAX_TOOLS = 128
MAX_TOP_LOGPROBS = 20

# Lists are read up to their first fault: of millions, each would be kept until the last is found.
_LONGEST = Field(max_length=MAX_INPUTS, fail_fast=True)
_NOT_EMPTY = Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)

Penalty = Annotated[float, Field(ge=-2, le=2)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=2**20, fail_fast=True)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[str], _NOT_EMPTY]
TokenLists = Annotated[list[Tokens], _NOT_EMPTY]


class Body(BaseModel):
    """Types are JSON's own: "5" is no number, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Body):
    """``include_usage`` asks for one more event with the counts; the rest is OpenAI's own affair."""

    include_usage: bool | None = None
    include_obfuscation: Any = None


class GenerationBody(Body):
    """What chat and completions have in common."""

    model: Text
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16, fail_fast=True)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=MAX_INPUTS)] | None = None
    # The engines' own, as in vLLM's server.
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    stop_token_ids: Annotated[list[Token], _LONGEST] | None = None
    ignore_eos: bool | None = None
    lora: Text | None = None
    guided_json: dict[str, Any] | None = None
    # Taken and ignored.
    user: str | None = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None


class Part(BaseModel):
    """A part of a message's content; only text can be answered here."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None


class CalledFunction(BaseModel):
    """What the model called before: ``arguments`` is the text of a JSON object."""

    model_config = ConfigDict(strict=True)

    name: str
    arguments: str = "{}"


class EarlierCall(BaseModel):
    """A tool call in an earlier message of the assistant."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(BaseModel):
    """One message; keys that only some templates know (``reasoning_content``) are handed to the template."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], _LONGEST] | None = None
    name: str | None = None
    tool_calls: Annotated[list[EarlierCall], _LONGEST] | None = None
    tool_call_id: str | None = None


class Function(BaseModel):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A tool: a function."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """A function by its name."""

    name: str


class NamedTool(Body):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Body):
    """A schema, with the name that OpenAI's clients give it."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """What form the text has."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], _NOT_EMPTY]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Taken and ignored.
    reasoning_effort: Any = None
    verbosity: Any = None
    prediction: Any = None
    # Refused when they ask for something.
    functions: Any = None
    function_call: Any = None
    modalities: Annotated[list[str], _LONGEST] | None = None
    audio: Any = None
    web_search_options: Any = None
    moderation: Any = None


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: str | Tokens | Texts | TokenLists
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    # Refused when they ask for something.
    best_of: int | None = None
    suffix: str | None = None


class EmbeddingsBody(Body):
    """POST /v1/embeddings."""

    model: Text
    input: str | Tokens | Texts | TokenLists
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


class RerankDocument(BaseModel):
    """A document as an object; the fields that count are ``rank_fields``, or ``text``."""

    model_config = ConfigDict(extra="allow", strict=True)


class RerankBody(Body):
    """POST /v1/rerank, as Cohere and Jina shape it.

    Source: https://docs.cohere.com/reference/rerank, https://jina.ai/reranker
    """

    model: Text
    query: Text
    documents: Annotated[list[str | RerankDocument], _NOT_EMPTY]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    rank_fields: Annotated[list[str], _LONGEST] | None = None
    # Taken and ignored: the tokenizer cuts what is too long.
    max_chunks_per_doc: Any = None
    max_tokens_per_doc: Any = None
    truncation: Any = None
    priority: Any = None
