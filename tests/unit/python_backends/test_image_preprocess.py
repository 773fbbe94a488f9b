"""Pixels are those of transformers' own image processors; a bad file is an error and nothing worse."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from python_backends.image_preprocess.picture_steps import parse_steps
from tests.fakes import triton_python_backend_utils as fake
from tests.fakes.triton_python_backend_utils import LoadedModel, TritonError, strings

Load = Callable[..., AbstractContextManager[LoadedModel]]

SMALL = {"do_resize": True, "size": {"height": 8, "width": 8}, "do_normalize": False}


def picture(mode: str = "RGB", width: int = 61, height: int = 40) -> Image.Image:
    """Smooth colours with a few hard edges, so that filters differ."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    colours = np.stack([x, y, (x * 3 + y * 5) % 256, 255 - np.abs(x - y)], axis=-1).astype(np.uint8)
    colours[height // 3 : height // 2, width // 4 : width // 2, :3] = (250, 5, 90)
    rgba = Image.fromarray(colours)
    if mode in ("RGBA", "LA", "PA"):
        return rgba.convert(mode)
    return rgba.convert("RGB").convert(mode)


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def transparent_palette() -> bytes:
    image = picture("P")
    return encode(image, "PNG", transparency=bytes(range(256)))


FILES = {
    "jpeg": lambda: encode(picture(), "JPEG", quality=90),
    "jpeg-progressive": lambda: encode(picture(), "JPEG", progressive=True),
    "jpeg-grey": lambda: encode(picture("L"), "JPEG"),
    "jpeg-cmyk": lambda: encode(picture("CMYK"), "JPEG"),
    "png": lambda: encode(picture(), "PNG"),
    "png-tall": lambda: encode(picture(width=40, height=97), "PNG"),
    "png-tiny": lambda: encode(picture(width=5, height=3), "PNG"),
    "png-one-pixel": lambda: encode(picture(width=1, height=1), "PNG"),
    "png-grey": lambda: encode(picture("L"), "PNG"),
    "png-black-and-white": lambda: encode(picture("1"), "PNG"),
    "png-palette": lambda: encode(picture("P"), "PNG"),
    "png-palette-transparent": transparent_palette,
    "png-alpha": lambda: encode(picture("RGBA"), "PNG"),
    "png-grey-alpha": lambda: encode(picture("LA"), "PNG"),
    "webp": lambda: encode(picture(), "WEBP", quality=80),
    "webp-alpha": lambda: encode(picture("RGBA"), "WEBP", lossless=True),
}


def processors() -> dict[str, Any]:
    """Transformers' Pillow-based processors, small, with each of the ways to resize."""
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
    from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return {
        "vit": ViTImageProcessorPil(size={"height": 32, "width": 24}),
        "vit-plain": ViTImageProcessorPil(size={"height": 16, "width": 16}, do_normalize=False, resample=0),
        "vit-raw": ViTImageProcessorPil(size={"height": 16, "width": 16}, do_rescale=False, resample=1),
        "deit": DeiTImageProcessorPil(size={"height": 30, "width": 30}, crop_size={"height": 24, "width": 21}),
        "bit": BitImageProcessorPil(size={"shortest_edge": 27}, crop_size={"height": 32, "width": 25}),
        "clip": CLIPImageProcessorPil(size={"shortest_edge": 33}, crop_size={"height": 32, "width": 32}),
        "siglip": SiglipImageProcessorPil(size={"height": 20, "width": 20}),
        "convnext-crop": ConvNextImageProcessorPil(size={"shortest_edge": 32}),
        "convnext-warp": ConvNextImageProcessorPil(size={"shortest_edge": 384}),
        "beit": BeitImageProcessorPil(size={"height": 20, "width": 20}),
        "mobilenet": MobileNetV2ImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 24, "width": 24}),
        "mobilevit": MobileViTImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 24, "width": 24}),
    }


PROCESSORS = (
    *("vit", "vit-plain", "vit-raw", "deit", "bit", "clip", "siglip"),
    *("convnext-crop", "convnext-warp", "beit", "mobilenet", "mobilevit"),
)


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    return processors()


@pytest.fixture
def load(version_folder: Any) -> Load:
    """A function (processor's document, dims=..., **parameters) -> the loaded model."""

    @contextmanager
    def run(
        document: Mapping[str, Any] | str, *, dims: Any = (3, -1, -1), max_batch_size: int = 8, **parameters: str
    ) -> Iterator[LoadedModel]:
        text = document if isinstance(document, str) else json.dumps(document)
        folder = version_folder("image_preprocess", {"processor.json": text})
        config = fake.model_config(
            inputs={"image": ("TYPE_STRING", [1])},
            outputs={"pixel_values": ("TYPE_FP32", list(dims))},
            parameters=parameters,
            max_batch_size=max_batch_size,
        )
        with fake.load(folder, config) as model:
            yield model

    return run


def on_white(image: Image.Image) -> Image.Image:
    """A picture that may be transparent, on a white ground."""
    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)


def reference(processor: Any, data: bytes) -> Any:
    """What transformers makes of a file: its own load_image where the processor does not convert to RGB itself."""
    from transformers.image_utils import load_image

    image = Image.open(io.BytesIO(data))
    if getattr(processor, "do_convert_rgb", None):
        # Later releases lay transparent pictures on white; transformers 5.5 drops the transparency, so it is done here.
        ready = on_white(ImageOps.exif_transpose(image)).convert("RGB")
    else:
        ready = load_image(image)
    return processor(ready, return_tensors="np")["pixel_values"]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.filterwarnings("ignore:Palette images")
def test_pixels_are_those_of_transformers(name: str, theirs: Any, load: Load) -> None:
    files = {kind: make() for kind, make in FILES.items()}
    with load(theirs[name].to_json_string()) as model:
        answers = model.execute(*({"image": strings(data)} for data in files.values()))
    refused = {kind: a.message() for kind, a in zip(files, answers, strict=True) if isinstance(a, TritonError)}
    assert refused == {}
    for (kind, data), answer in zip(files.items(), answers, strict=True):
        due = reference(theirs[name], data)
        assert answer["pixel_values"].shape == due.shape, kind
        np.testing.assert_array_equal(answer["pixel_values"], due, err_msg=kind)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(orientation: int, theirs: Any, load: Load) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(), "JPEG", exif=exif.tobytes())
    with load(theirs["vit"].to_json_string()) as model:
        answer = model.infer(image=strings(data))
    np.testing.assert_array_equal(answer["pixel_values"], reference(theirs["vit"], data))


def test_odd_exif_notes_are_no_reason_to_refuse_a_picture(load: Load) -> None:
    """The second of two tags says "held to the left", the first is one that Pillow cannot write again."""
    tags = b"\x01\x1e\x00\x02\x00\x00\x00\x02x\x00\x00\x00" + b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02" + tags + b"\x00\x00\x00\x00"
    data = encode(picture(), "JPEG", exif=exif)
    turned = encode(Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270), "PNG")
    with load(SMALL) as model:
        due = model.infer(image=strings(turned))["pixel_values"]
        np.testing.assert_array_equal(model.infer(image=strings(data))["pixel_values"], due)


def test_sixteen_bits_are_scaled_not_cut_off(load: Load) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    with load({**SMALL, "do_rescale": False, "resample": 0}) as model:
        answer = model.infer(image=strings(buffer.getvalue()))
    np.testing.assert_array_equal(answer["pixel_values"][0, 0], values >> 8)


def test_one_channel(load: Load) -> None:
    document = {**SMALL, "channels": 1, "do_normalize": True, "image_mean": 0.5, "image_std": [0.25]}
    with load(document, dims=(1, 8, 8)) as model:
        answer = model.infer(image=strings(encode(picture("L", 8, 8), "PNG")))
    grey = np.asarray(picture("L", 8, 8), dtype=np.float32)
    np.testing.assert_allclose(answer["pixel_values"][0, 0], (grey / 255 - 0.5) / 0.25, atol=1e-6)


def test_transparency_is_laid_on_white_where_the_processor_converts(load: Load) -> None:
    clear = encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")
    with load({**SMALL, "do_convert_rgb": True}) as model:
        assert model.infer(image=strings(clear))["pixel_values"].min() == 1
    with load(SMALL) as model:
        assert model.infer(image=strings(clear))["pixel_values"].max() == 0


def test_a_batch_in_one_request(load: Load) -> None:
    files = [FILES["jpeg"](), FILES["png-alpha"](), FILES["webp"]()]
    with load(SMALL) as model:
        together = model.infer(image=strings(*files))["pixel_values"]
        alone = [model.infer(image=strings(data))["pixel_values"][0] for data in files]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_without_a_batch_dimension(load: Load) -> None:
    with load(SMALL, max_batch_size=0) as model:
        answer = model.infer(image=np.array([FILES["jpeg"]()], dtype=object))
    assert answer["pixel_values"].shape == (3, 8, 8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of some size and has hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


BAD_FILES = {
    "empty": (lambda: b"", "got an empty file at index 0, expected a JPEG, PNG or WebP file"),
    "text": (lambda: b"this is no picture", "got 18 bytes at index 0 that are no picture"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "that are no picture"),
    "gif": (lambda: encode(picture("P"), "GIF"), "that are no picture, expected JPEG, PNG or WebP"),
    "tiff": (lambda: encode(picture(), "TIFF"), "that are no picture"),
    "jpeg-truncated": (lambda: FILES["jpeg"]()[:-200], "broken JPEG file at index 0 .*truncated"),
    "jpeg-head": (lambda: FILES["jpeg"]()[:20], "at index 0"),
    "png-truncated": (lambda: FILES["png"]()[:-60], "broken PNG file at index 0"),
    "webp-truncated": (lambda: FILES["webp"]()[:-100], "at index 0"),
    "png-bad-checksum": (lambda: FILES["png"]()[:40] + b"\0\0\0\0" + FILES["png"]()[44:], "at index 0"),
    "png-zero-width": (lambda: png_header(0, 10), "at index 0"),
    "bomb-over-our-limit": (lambda: png_header(8001, 8000), "got a picture of 8001 x 8000 pixels .*at most 64000000"),
    "bomb-over-pillows-warning": (lambda: png_header(10_000, 10_000), "10000 x 10000 pixels at index 0"),
    "bomb-over-pillows-limit": (lambda: png_header(65_000, 65_000), "more than 178956970 pixels"),
    "short-of-data": (lambda: png_header(1000, 1000), "broken PNG file"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.filterwarnings("error")
def test_a_bad_file_fails_alone(kind: str, load: Load) -> None:
    make, message = BAD_FILES[kind]
    good = {"image": strings(FILES["jpeg"]())}
    with load(SMALL) as model:
        first, error, last = model.execute(good, {"image": strings(make())}, good)
    np.testing.assert_array_equal(first["pixel_values"], last["pixel_values"])
    assert isinstance(error, TritonError)
    assert error.code() == TritonError.INVALID_ARG
    assert error.message().startswith("input image: got")
    assert "expected" in error.message()
    assert re.search(message, error.message())


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-progressive", "png", "png-palette-transparent", "webp", "webp-alpha"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_never_get_out_of_hand(kind: str, load: Load) -> None:
    whole = FILES[kind]()
    rng = np.random.default_rng(0)
    files = []
    for _ in range(100):
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        damaged[rng.integers(0, len(whole), rng.integers(1, 6))] = rng.integers(0, 256)
        files.append(damaged[: rng.integers(len(whole) // 2, len(whole) + 1)].tobytes())
    with load({**SMALL, "do_convert_rgb": True}) as model:
        answers = model.execute(*({"image": strings(data)} for data in files))
    refused = [answer for answer in answers if isinstance(answer, TritonError)]
    assert len(refused) > 0
    assert all("expected" in error.message() for error in refused)


def test_the_limit_is_a_parameter(load: Load) -> None:
    with load(SMALL, max_pixels="2000") as model:
        over, under = model.execute(
            {"image": strings(encode(picture(width=201, height=10), "PNG"))},
            {"image": strings(encode(picture(width=200, height=10), "PNG"))},
        )
    assert isinstance(over, TritonError)
    assert "got a picture of 201 x 10 pixels at index 0, expected at most 2000 pixels" in over.message()
    assert under["pixel_values"].shape == (1, 3, 8, 8)


def test_a_thin_picture_does_not_explode_when_resized(load: Load) -> None:
    with load({"size": {"shortest_edge": 224}, "image_processor_type": "BitImageProcessor"}) as model:
        (error,) = model.execute({"image": strings(encode(picture(width=30_000, height=2), "PNG"))})
    assert isinstance(error, TritonError)
    assert "which becomes 3360000 x 224 when resized, expected at most 64000000 pixels" in error.message()


def test_the_index_in_a_batch_is_named(load: Load) -> None:
    with load(SMALL) as model:
        (error,) = model.execute({"image": strings(FILES["jpeg"](), b"no")})
    assert isinstance(error, TritonError)
    assert "at index 1" in error.message()


def test_pictures_of_different_sizes_do_not_fit_one_request(load: Load) -> None:
    with load({"size": {"shortest_edge": 10}, "image_processor_type": "BitImageProcessor"}) as model:
        (error,) = model.execute({"image": strings(FILES["png"](), FILES["png-tall"]())})
    assert isinstance(error, TritonError)
    assert "expected one size in a request" in error.message()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input image: got nothing, expected STRING [batch, 1]"),
        ({"image": np.full((1, 2), b"x", dtype=object)}, "input image: got shape [1, 2], expected [batch, 1]"),
    ],
)
def test_a_request_of_the_wrong_shape(inputs: Any, message: str, load: Load) -> None:
    with load(SMALL) as model:
        (error,) = model.execute(inputs)
    assert isinstance(error, TritonError)
    assert error.message() == message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", r"processor\.json cannot be read"),
        ("[1]", r"processor\.json: got list, expected an object"),
        (
            {"image_processor_type": "DetrImageProcessor"},
            "got DetrImageProcessor, expected one of",
        ),
        ({**SMALL, "channels": 4}, r"channels: got 4, expected 1 \(grey\) or 3 \(RGB\)"),
        ({**SMALL, "size": {"longest_edge": 8}}, "size: got {'longest_edge': 8}, expected height and width"),
        ({**SMALL, "size": {"height": 0, "width": 8}}, r"size\.height: got 0"),
        ({**SMALL, "size": None}, "size: got None"),
        ({**SMALL, "resample": 9}, "resample: got 9, expected one of"),
        ({**SMALL, "do_center_crop": True}, "crop_size: got None, expected height and width"),
        ({**SMALL, "do_normalize": True}, "image_mean: got None, expected 3 numbers"),
        (
            {**SMALL, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5] * 3},
            r"image_mean: got \[0\.5\], expected 3 numbers",
        ),
        (
            {**SMALL, "do_normalize": True, "image_mean": 0.5, "image_std": [0.5, 0, 0.5]},
            "image_std: got .*, expected numbers other than 0",
        ),
        ({**SMALL, "do_pad": True}, "do_pad: got true, expected false"),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"height": 8, "width": 8}},
            "expected shortest_edge, as ConvNext has it",
        ),
    ],
)
def test_what_cannot_be_done_stops_the_load(document: Any, message: str, load: Load) -> None:
    with pytest.raises(ValueError, match=message), load(document):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (3, 9, 8)}, r"output pixel_values: got \[3, 9, 8\] in the config, expected \[3, 8, 8\]"),
        ({"dims": (1, 8, 8)}, r"expected \[3, 8, 8\], as the processor makes them"),
        ({"max_pixels": "1e6"}, "parameter max_pixels: got '1e6'"),
        ({"max_pixels": "999999999"}, "expected a whole number from 1 to 178956970"),
        ({"processor": "other.json"}, r"other\.json cannot be read"),
        ({"procesor": "x"}, "did you mean processor"),
    ],
)
def test_wrong_settings_stop_the_load(options: dict[str, Any], message: str, load: Load) -> None:
    with pytest.raises(ValueError, match=message), load(SMALL, **options):
        pass


@pytest.mark.parametrize(
    ("document", "exact", "edge"),
    [
        ({"image_processor_type": "ViTFeatureExtractor", "size": 16}, (16, 16), None),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 16}, None, 16),
        ({"image_processor_type": "ViTImageProcessorFast", "size": {"height": 4, "width": 5}}, (4, 5), None),
        ({"image_processor_type": "CLIPImageProcessorPil", "size": {"shortest_edge": 7}}, None, 7),
        ({"size": {"height": 4, "width": 5}, "do_resize": False}, None, None),
    ],
)
def test_old_and_new_spellings_of_size(document: Any, exact: Any, edge: Any) -> None:
    steps = parse_steps({"do_normalize": False, **document})
    assert (steps.exact, steps.shortest_edge) == (exact, edge)
