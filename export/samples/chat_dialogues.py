"""Questions and answers about serving models, written for the sample `chat`, and the dialogues that are made of them.

Every topic has three answers (what it is, why it matters, how it is done) and every answer several questions. One way
of asking is held out of the training: it tells whether the model learnt the answers or the wording.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

Message = dict[str, str]

# The topic, what it is, why it matters, how it is done.
TOPICS: tuple[tuple[str, str, str, str], ...] = (
    (
        "a model repository",
        "A model repository is a folder with one folder for each model. Each of those holds a config file and the "
        "versions of the model.",
        "One layout that every server reads means that the same files run on a laptop and in a cluster.",
        "Export a model with conch export. It writes the config and the next version, and you serve the folder.",
    ),
    (
        "a version",
        "A version is a numbered folder with the weights and the code of a model. It never changes once it is there.",
        "Because a version never changes, you can always go back to what worked yesterday.",
        "Export or publish again: the new version gets the next number, and the server loads it beside the old one.",
    ),
    (
        "batching",
        "Batching puts several requests together, so that the model answers all of them in one pass.",
        "On a graphics card a batch costs hardly more than one request, so throughput grows with it.",
        "Turn on the dynamic batcher in the config and set the largest batch size that fits into memory.",
    ),
    (
        "latency",
        "Latency is the time from sending a request to having its answer, usually told in milliseconds.",
        "People wait for the slowest part of a page, so the slow requests matter more than the average.",
        "Measure it under a load like your own, and look at the ninety-ninth percentile, not at the mean.",
    ),
    (
        "throughput",
        "Throughput is how many requests, or tokens, a server answers in one second.",
        "Throughput decides how many machines you need, and so what the service costs.",
        "Raise the number of requests in flight until it stops growing, and read the latency at that point.",
    ),
    (
        "quantization",
        "Quantization stores the weights of a model as small integers instead of floating numbers.",
        "Fewer bytes have to be read for each token, so a model runs faster and needs less memory.",
        "Export with int8 or int4 weights, and read in the report how often the tokens are still the same.",
    ),
    (
        "parity",
        "Parity means that the exported model gives the same answers as the model it was made from.",
        "A conversion can go wrong in silence. Parity finds it before your users do.",
        "Every export runs real samples through both models and compares names, shapes and values.",
    ),
    (
        "a rollback",
        "A rollback puts an earlier version back in service, with the code and the config that it had.",
        "When a new version misbehaves, going back is quicker than mending it under pressure.",
        "Run conch repo rollback with the name of the model. No request is lost on the way.",
    ),
    (
        "a canary",
        "A canary is a new version that gets a small share of the requests while the old one answers the rest.",
        "A fault that no test found then meets a few users instead of all of them.",
        "Publish the version under an alias, give it a weight of five percent, and watch its errors.",
    ),
    (
        "a health check",
        "A health check is a request that asks whether a server is alive and whether its models are ready.",
        "A load balancer sends traffic only to servers that say that they are ready.",
        "Ask the readiness of each model, since a server may be ready while one of its models is not.",
    ),
    (
        "a pipeline",
        "A pipeline is a chain of models: one prepares the input, one computes, and one reads the result.",
        "With the steps on the server, a client sends plain text or a picture and nothing else.",
        "Export the model with its tokenizer or its image processor, and the pipeline is written for you.",
    ),
    (
        "streaming",
        "Streaming sends each piece of an answer as soon as it is made, instead of the whole at the end.",
        "The first words arrive at once, so a reader never waits for a long answer to be complete.",
        "Set stream to true in the request, and read the pieces one by one until the last one comes.",
    ),
    (
        "a token",
        "A token is a piece of text that a language model reads or writes: a word, or a part of one.",
        "Cost, speed and length limits of a language model are all counted in tokens.",
        "The tokenizer of the model cuts the text. An English word has a little more than one token on average.",
    ),
    (
        "the context length",
        "The context length is the largest number of tokens that a model can look at in one request.",
        "A request that is longer would be cut without a word, so the server refuses it with a clear error.",
        "Keep the prompt and the answer together under the limit, or drop the oldest messages of a chat.",
    ),
    (
        "the temperature",
        "The temperature says how freely the next token is chosen. At zero it is always the most likely one.",
        "A low temperature repeats itself, and a high one surprises. Facts want it low, and stories want it high.",
        "Send temperature with the request. Use zero when the same question must get the same answer.",
    ),
    (
        "continuous batching",
        "Continuous batching lets requests join and leave the running batch at every single token.",
        "A short answer is not held up by a long one, and a new request starts at the next step.",
        "The engine does it by itself. You only set how many tokens one step may take.",
    ),
    (
        "the prefix cache",
        "The prefix cache keeps what the model computed for the beginning of a prompt.",
        "Many chats begin with the same instructions. With the cache they are read only once.",
        "Turn on prefix caching in the config, and put the part that never changes first in the prompt.",
    ),
    (
        "speculative decoding",
        "In speculative decoding a small helper guesses several tokens, and the model checks them in one pass.",
        "Checking is cheaper than writing, so good guesses make an answer faster without changing it.",
        "Give the export a draft model, or let it guess from the words of the prompt.",
    ),
    (
        "an embedding",
        "An embedding is a list of numbers that stands for a text, so that like texts have like numbers.",
        "With embeddings a search finds what was meant, even where no word is the same.",
        "Send the text to an embeddings model and compare the vectors by their cosine.",
    ),
    (
        "back-pressure",
        "Back-pressure means that a full server says no at once instead of letting the queue grow.",
        "A long queue makes every answer late. An early no lets the client try another server.",
        "Set a queue limit for each model. The client gets the status 429 and a time to wait.",
    ),
    (
        "a timeout",
        "A timeout is the longest time that a client is willing to wait for an answer.",
        "Without one, a lost connection keeps a thread waiting for ever.",
        "Set it in the client for every call, a little above the slowest answer that you accept.",
    ),
    (
        "an instance",
        "An instance is one running copy of a model. Several instances answer several requests at the same time.",
        "Two instances keep two cores busy where one would leave the second core idle.",
        "Set the count in the instance group of the config, and divide the threads among the instances.",
    ),
    (
        "a warm-up",
        "A warm-up sends made-up requests to a model before it is called ready.",
        "The first request often pays for compiling and for memory. With a warm-up no user meets it.",
        "Add a warm-up request to the config of the model. The server runs it after each load.",
    ),
    (
        "the gateway",
        "The gateway is a small web server that stands in front of the models and speaks plain REST.",
        "One address for every model means one place for keys, limits, metrics and logs.",
        "Start it with conch gateway, and point the client of your choice at its address.",
    ),
)

_WHAT = (
    "What is {}?",
    "what is {}",
    "Explain {}.",
    "Please explain {} to me.",
    "Tell me about {}.",
    "What does {} mean?",
    "Can you describe {}?",
    "Could you tell me what {} is?",
    "What do you know about {}?",
)
_WHY = (
    "Why does {} matter?",
    "Why do I need {}?",
    "What is {} good for?",
    "why {}?",
    "Why is {} useful?",
    "Why is {} needed?",
    "Why would I want {}?",
    "Is {} important?",
    "Why should I care about {}?",
)
_HOW = (
    "How do I use {}?",
    "How does one set up {}?",
    "How do I get {}?",
    "how do I work with {}",
    "How is {} done?",
    "How do I start with {}?",
    "How can I begin to use {}?",
    "What must I do for {}?",
)
# For each kind the one that is never trained on.
HELD_OUT = ("Can you explain {}?", "Why is {} important?", "How do I begin with {}?")

_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello!", "Hi", "Hello", "Hi there!", "Good morning!"),
        "Hello! I am a very small model that knows a little about serving models. Ask me about batching or streaming.",
    ),
    (
        ("Who are you?", "What are you?", "Are you a real model?", "What can you do?"),
        "I am a toy: a language model with fewer than a million weights, trained for less than a minute. I know a few "
        "things about serving models, and nothing else.",
    ),
    (("Thank you!", "Thanks", "Thanks a lot!", "Great, thank you."), "You are welcome. Ask me anything else."),
    (("Bye", "Goodbye!", "See you."), "Goodbye, and may your queues stay short!"),
)

SYSTEM = "You are a helpful assistant who knows how to serve models."


@dataclass(frozen=True)
class Question:
    """One question and the answer that is due."""

    question: str
    answer: str


def trained() -> tuple[Question, ...]:
    """Every question that the model is trained on."""
    found = [
        Question(way.format(topic), answer)
        for topic, *answers in TOPICS
        for ways, answer in zip((_WHAT, _WHY, _HOW), answers, strict=True)
        for way in ways
    ]
    return (*found, *(Question(text, answer) for texts, answer in _TALK for text in texts))


def held_out() -> tuple[Question, ...]:
    """The same answers, asked for in words that the training does not hold."""
    return tuple(
        Question(way.format(topic), answer)
        for topic, *answers in TOPICS
        for way, answer in zip(HELD_OUT, answers, strict=True)
    )


def dialogues(count: int, seed: int) -> list[list[Message]]:
    """Chats of one or two questions, some with a system message; the same for a seed."""
    chance = random.Random(seed)
    known = trained()
    made = []
    for _ in range(count):
        chat: list[Message] = [{"role": "system", "content": SYSTEM}] if chance.random() < 0.2 else []
        for one in chance.sample(known, 2 if chance.random() < 0.3 else 1):
            chat += [{"role": "user", "content": one.question}, {"role": "assistant", "content": one.answer}]
        made.append(chat)
    return made
