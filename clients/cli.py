"""`conch infer`: ask a model from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conch.errors import ClientError, InvalidInput

if TYPE_CHECKING:
    from clients.client import Client
    from clients.read_inputs import Requests
    from clients.replies import ModelMetadata
    from clients.shadow import Shadow, ShadowReport

# What `--json` stands for when no file follows it.
_PRINT = "\0print"

# Generated text comes over gRPC alone.
DEFAULT_URL, DEFAULT_GRPC_URL = "http://127.0.0.1:8000", "grpc://127.0.0.1:8001"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name", required=False)
@click.option("--prompt", help="Generate text after this (- for standard input): printed on stdout.")
@click.option("--chat", is_flag=True, help="The prompt is a user's message, which the model's chat template renders.")
@click.option("--stream", is_flag=True, help="Print generated text as it comes.")
@click.option(
    "--sampling",
    multiple=True,
    metavar="NAME=VALUE",
    help="How to choose tokens: max_tokens=64, temperature=0, seed=1, stop=END, ...; may be repeated.",
)
@click.option("--text", "texts", multiple=True, help="A text; several make a batch.")
@click.option("--text-pair", "pairs", multiple=True, help="The second text of each pair.")
@click.option("--image", "images", multiple=True, type=_FILE, help="An image file; several make a batch.")
@click.option("--csv", "csv_file", type=_FILE, help="A row an item; columns are inputs of their names, or features.")
@click.option(
    "--json",
    "json_values",
    multiple=True,
    is_flag=False,
    flag_value=_PRINT,
    metavar="[FILE]",
    help="With a FILE (- for standard input): read the inputs from it. Alone: print the answer as JSON on stdout.",
)
@click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    envvar="CONCH_URL",
    help="The server: http://, https://, grpc:// or grpcs://.",
)
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    help="Whose aliases NAME@ALIAS is resolved by; given with a plain NAME, its canaries get their share."
    "  [default: model_repository, for an alias]",
)
@click.option("--shadow", metavar="NAME@ALIAS", help="Ask this candidate the same, and report how its answers differ.")
@click.option("--model-version", type=click.IntRange(1), help="Ask this version.  [default: the latest]")
@click.option("--output", "outputs", multiple=True, metavar="NAME", help="Only this output; may be repeated.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds until each request is given up.",
)
@click.option("--concurrency", type=click.IntRange(1), default=4, show_default=True, help="Requests at once.")
@click.option("--api-key", envvar="CONCH_API_KEY", help="Sent as `Authorization: Bearer`.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header to send; may be repeated.")
@click.option("--ca-file", help="PEM file of the authority to trust.")
@click.option("--cert-file", help="PEM file of your own certificate, for a server that asks for one.")
@click.option("--key-file", help="PEM file of its key.")
@click.option("--insecure", is_flag=True, help="Trust any certificate (https only).")
def infer(
    name: str | None,
    prompt: str | None,
    chat: bool,
    stream: bool,
    sampling: tuple[str, ...],
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    images: tuple[Path, ...],
    csv_file: Path | None,
    json_values: tuple[str, ...],
    url: str,
    repository: Path | None,
    shadow: str | None,
    model_version: int | None,
    outputs: tuple[str, ...],
    timeout_s: float,
    concurrency: int,
    api_key: str | None,
    headers: tuple[str, ...],
    ca_file: str | None,
    cert_file: str | None,
    key_file: str | None,
    insecure: bool,
) -> None:
    """Ask the model NAME, or NAME@ALIAS, and show its answer: a table, or JSON with a bare --json.

    \b
    Examples:
      conch infer spam --text "win a prize now" --text "see you at nine"
      conch infer digits --image seven.png --json
      conch infer churn --csv customers.csv --url grpc://127.0.0.1:8001
      conch infer churn --json request.json --json > answer.json
      conch infer spam@stable --text "win a prize now"
      conch infer churn --csv customers.csv --shadow churn@canary
      conch infer chat --prompt "Tell me a story" --chat --stream --sampling max_tokens=64

    --json FILE holds {"input": values, ...}, a list of such, or a request of Triton's own HTTP protocol.
    """
    from clients.address import TLS
    from clients.cli_prompt import answer_prompt, sampling_options
    from clients.client import Client

    as_json = _PRINT in json_values
    files = [value for value in json_values if value != _PRINT]
    if name is None and len(files) == 1 and not Path(files[0]).exists():
        # `conch infer --json NAME`: the name stands where an optional FILE could.
        name, files, as_json = files[0], [], True
    if name is None:
        raise click.UsageError("Missing argument 'NAME': the model to ask.")
    given = {
        "--prompt": prompt is not None,
        "--text": texts,
        "--image": images,
        "--csv": csv_file,
        "--json FILE": files,
    }
    kinds = [option for option, value in given.items() if value]
    if len(kinds) > 1 or len(files) > 1:
        raise click.UsageError(f"Give inputs in one way, not in {' and '.join(kinds)}.")
    if prompt is None and (chat or stream or sampling):
        raise click.UsageError("--chat, --stream and --sampling need --prompt.")
    if prompt is not None and (shadow or outputs or (stream and as_json)):
        raise click.UsageError("--prompt goes without --shadow and --output, and --stream without --json.")
    if prompt is not None and url == DEFAULT_URL:
        url = DEFAULT_GRPC_URL
    if pairs and not texts:
        raise click.UsageError("--text-pair needs --text.")
    if repository is None and "@" in name + (shadow or ""):
        repository = Path("model_repository")
    with Client(
        url,
        api_key=api_key,
        headers=_headers(headers),
        timeout_s=timeout_s,
        retries=1,  # a person at a terminal would rather know at once
        tls=TLS(ca_file, cert_file, key_file, insecure),
        aliases=repository,
        shadow=_shadow(shadow, name, timeout_s, concurrency),
    ) as client:
        if prompt is not None:
            options = sampling_options(sampling)
            answer_prompt(client, name, prompt, options, model_version, chat=chat, stream=stream, as_json=as_json)
            return
        metadata = client.metadata(name, model_version)
        if shadow and metadata.decoupled:
            raise InvalidInput("a shadow compares single answers", got=f"{name}, which answers in a stream")
        requests = _requests(metadata, texts, pairs, images, csv_file, files, url)
        answers = _ask(client, name, metadata, requests, model_version, outputs, concurrency)
        # Each of them is given up after the timeout: this ends.
        compared = client.shadow_report(wait_s=timeout_s * (1 + len(requests.inputs))) if shadow else None
    _show(name, metadata, requests, answers, compared, as_json=as_json)


def _shadow(candidate: str | None, name: str, timeout_s: float, concurrency: int) -> Shadow | None:
    from clients.shadow import Shadow

    if candidate is None:
        return None
    of = name.partition("@")[0]
    if candidate == name:
        raise click.BadParameter(f"{name} cannot be compared with itself", param_hint="--shadow")
    # Nobody is in a hurry here: nothing is dropped.
    return Shadow(candidate, of=of, queue_size=1_000_000, workers=concurrency, timeout_s=timeout_s)


def _headers(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--header")
    return dict(pair.split("=", 1) for pair in pairs)


def _requests(
    metadata: ModelMetadata,
    texts: Sequence[str],
    pairs: Sequence[str],
    images: Sequence[Path],
    csv_file: Path | None,
    files: Sequence[str],
    url: str,
) -> Requests:
    from clients import read_inputs
    from conch.tensor_spec import describe_tensors

    signature = metadata.signature
    if texts:
        return read_inputs.from_texts(signature, texts, pairs)
    if images:
        return read_inputs.from_images(signature, images)
    if csv_file:
        return read_inputs.from_csv(signature, csv_file)
    if files:
        return read_inputs.from_json(files[0])
    raise InvalidInput(
        "nothing to ask was given",
        where=f"model {metadata.name} at {url}",
        expected=describe_tensors(signature.inputs, batched=signature.batched),
        fix="give --text, --image FILE, --csv FILE or --json FILE",
    )


def _ask(
    client: Client,
    name: str,
    metadata: ModelMetadata,
    requests: Requests,
    version: int | None,
    outputs: Sequence[str],
    concurrency: int,
) -> list[dict[str, Any]]:
    """Every item's outputs, in order, as JSON values. Raises: ClientError."""
    from clients.show import items
    from conch.terminal import console, progress

    for note in requests.notes:
        console.print(note)
    batched = metadata.signature.batched
    if metadata.decoupled:
        return [
            item
            for inputs in requests.inputs
            for response in client.stream(name, inputs, version=version, outputs=outputs)
            for item in items(response, batched=batched)
        ]
    answers: list[dict[str, Any]] = []
    with progress() as bars:
        task = bars.add_task(f"asking {name}", total=len(requests.inputs))
        for answer in client.infer_many(
            name, requests.inputs, concurrency=concurrency, version=version, outputs=outputs
        ):
            assert not isinstance(answer, ClientError)  # raised, as on_error is left at its default
            answers += items(answer, batched=batched)
            bars.advance(task)
    return answers


def _show(
    name: str,
    metadata: ModelMetadata,
    requests: Requests,
    answers: Sequence[Mapping[str, Any]],
    compared: ShadowReport | None,
    *,
    as_json: bool,
) -> None:
    from clients.show import shadow_document, shadow_table, table
    from conch.terminal import console, print_json, print_table

    if as_json:
        print_json(
            {"model": name, "answers": answers}
            | ({"shadow": shadow_document(compared)} if compared is not None else {})
        )
        return
    columns, rows = table(answers, requests.labels)
    print_table(columns, rows, title=name if name == metadata.name else f"{name}, which is {metadata.name}")
    if compared is not None:
        lines, columns, rows = shadow_table(compared)
        console.print()
        for line in lines:
            console.print(line, markup=False)
        print_table(columns, rows)
