"""BERT-, GPT-2- and ViT-like models, base width, four layers: Hugging Face's models as TorchScript exports them."""

from __future__ import annotations

import numpy as np
import onnx

from bench.models.writer import GraphWriter

WIDTH, HEADS, HIDDEN, LAYERS = 768, 12, 3072, 4
HEAD = WIDTH // HEADS
LOWEST = float(np.finfo(np.float32).min)

BERT_TOKENS, BERT_VOCABULARY, BERT_POSITIONS = 128, 30522, 512
GPT2_TOKENS, GPT2_VOCABULARY, GPT2_POSITIONS = 64, 16384, 1024
VIT_TOKENS, VIT_PATCH, VIT_CLASSES = 197, 16, 1000


def gelu_erf(w: GraphWriter, x: str) -> str:
    """``nn.GELU()`` at opset 17: x / sqrt(2), Erf, + 1, * x, * 0.5."""
    erf = w.node("Erf", w.scalar("Div", x, float(np.sqrt(2.0))))
    return w.scalar("Mul", w.node("Mul", x, w.scalar("Add", erf, 1.0)), 0.5)


def gelu_tanh(w: GraphWriter, x: str) -> str:
    """Hugging Face's ``NewGELUActivation``: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    half = w.scalar("Mul", x, 0.5)
    cube = w.scalar("Mul", w.scalar("Pow", x, 3.0), 0.044715)
    inner = w.scalar("Mul", w.node("Add", x, cube), float(np.sqrt(2.0 / np.pi)))
    return w.node("Mul", half, w.scalar("Add", w.node("Tanh", inner), 1.0))


def _heads(w: GraphWriter, x: str, tokens: int, perm: tuple[int, ...]) -> str:
    return w.node("Transpose", w.reshape(x, 1, tokens, HEADS, HEAD), perm=list(perm))


def _merge_heads(w: GraphWriter, x: str, tokens: int) -> str:
    return w.reshape(w.node("Transpose", x, perm=[0, 2, 1, 3]), 1, tokens, WIDTH)


def _encoder_attention(w: GraphWriter, x: str, tokens: int, mask: str | None) -> str:
    """Separate query, key, value projections; ``mask`` is added to the scores."""
    parts = {}
    for part in ("query", "key", "value"):
        with w.enter(part):
            # Queries and keys get a gain, so that attention is far from uniform.
            parts[part] = w.linear(x, WIDTH, WIDTH, gain=1.0 if part == "value" else 1.5)
    query = _heads(w, parts["query"], tokens, (0, 2, 1, 3))
    key = _heads(w, parts["key"], tokens, (0, 2, 3, 1))
    value = _heads(w, parts["value"], tokens, (0, 2, 1, 3))
    scores = w.scalar("Div", w.node("MatMul", query, key), float(np.sqrt(HEAD)))
    if mask is not None:
        scores = w.node("Add", scores, mask)
    context = w.node("MatMul", w.node("Softmax", scores, axis=-1), value)
    return _merge_heads(w, context, tokens)


def bert() -> onnx.ModelProto:
    """Encoder of four layers: ids, mask and token types in, last hidden state out."""
    w = GraphWriter("bert", seed=5)
    shape = (1, BERT_TOKENS)
    ids = w.input("input_ids", np.int64, shape)
    attention_mask = w.input("attention_mask", np.int64, shape)
    types = w.input("token_type_ids", np.int64, shape)

    mask = w.node("Unsqueeze", attention_mask, w.constant([1], np.int64))
    mask = w.node("Unsqueeze", mask, w.constant([2], np.int64))
    mask = w.scalar("Sub", w.node("Cast", mask, to=onnx.TensorProto.FLOAT), 1.0, reverse=True)
    mask = w.scalar("Mul", mask, LOWEST)

    with w.enter("embeddings"):
        words = w.parameter("word_embeddings.weight", w.normal(BERT_VOCABULARY, WIDTH, scale=0.5))
        kinds = w.parameter("token_type_embeddings.weight", w.normal(2, WIDTH, scale=0.2))
        places = w.parameter("position_embeddings.weight", w.normal(BERT_POSITIONS, WIDTH, scale=0.2))
        positions = w.constant(np.arange(BERT_TOKENS)[None], np.int64)
        x = w.node("Add", w.node("Gather", words, ids), w.node("Gather", kinds, types))
        x = w.node("Add", x, w.node("Gather", places, positions))
        with w.enter("LayerNorm"):
            x = w.layer_norm(x, WIDTH, 1e-12)

    for layer in range(LAYERS):
        with w.enter(f"encoder.layer.{layer}"):
            with w.enter("attention.self"):
                y = _encoder_attention(w, x, BERT_TOKENS, mask)
            with w.enter("attention.output"):
                y = w.linear(y, WIDTH, WIDTH)
                x = w.layer_norm(w.node("Add", y, x), WIDTH, 1e-12)
            with w.enter("intermediate"):
                y = gelu_erf(w, w.linear(x, WIDTH, HIDDEN))
            with w.enter("output"):
                y = w.linear(y, HIDDEN, WIDTH, gain=2.0)
                x = w.layer_norm(w.node("Add", y, x), WIDTH, 1e-12)
    w.output(x, "last_hidden_state", (1, BERT_TOKENS, WIDTH))
    return w.finish()


def vit() -> onnx.ModelProto:
    """ViT-base width: 16x16 patches of a 224x224 image, a class token, pre-norm layers, a linear classifier."""
    w = GraphWriter("vit", seed=7)
    x = w.input("pixel_values", np.float32, (1, 3, 224, 224))
    with w.enter("embeddings"):
        with w.enter("projection"):
            x = w.conv(x, 3, WIDTH, VIT_PATCH, stride=VIT_PATCH, padding=0, gain=1.0)
        x = w.node("Transpose", w.reshape(x, 1, WIDTH, VIT_TOKENS - 1), perm=[0, 2, 1])
        token = w.parameter("cls_token", w.normal(1, 1, WIDTH, scale=0.5))
        x = w.node("Concat", token, x, axis=1)
        x = w.node("Add", x, w.parameter("position_embeddings", w.normal(1, VIT_TOKENS, WIDTH, scale=0.2)))
    for layer in range(LAYERS):
        with w.enter(f"encoder.layer.{layer}"):
            with w.enter("layernorm_before"):
                y = w.layer_norm(x, WIDTH, 1e-12)
            with w.enter("attention"):
                y = w.linear(_encoder_attention(w, y, VIT_TOKENS, None), WIDTH, WIDTH)
            x = w.node("Add", y, x)
            with w.enter("layernorm_after"):
                y = w.layer_norm(x, WIDTH, 1e-12)
            with w.enter("intermediate"):
                y = gelu_erf(w, w.linear(y, WIDTH, HIDDEN))
            with w.enter("output"):
                x = w.node("Add", w.linear(y, HIDDEN, WIDTH, gain=2.0), x)
    with w.enter("layernorm"):
        x = w.layer_norm(x, WIDTH, 1e-12)
    x = w.node("Gather", x, w.constant(0, np.int64), axis=1)
    with w.enter("classifier"):
        x = w.gemm(x, WIDTH, VIT_CLASSES)
    w.output(x, "logits", (1, VIT_CLASSES))
    return w.finish()


def _conv1d(w: GraphWriter, x: str, tokens: int, n_in: int, n_out: int, gain: float = 1.0) -> str:
    """Hugging Face's ``Conv1D``: a Gemm with the weight not transposed, between two Reshapes."""
    weight = w.parameter("weight", w.filters(n_out, (n_in,), gain).T)
    bias = w.parameter("bias", w.normal(n_out, scale=0.02))
    y = w.node("Gemm", w.reshape(x, -1, n_in), weight, bias, alpha=1.0, beta=1.0)
    return w.reshape(y, 1, tokens, n_out)


def _decoder_attention(w: GraphWriter, x: str, tokens: int) -> str:
    with w.enter("c_attn"):
        joint = _conv1d(w, x, tokens, WIDTH, 3 * WIDTH, gain=1.25)
    query, key, value = w.nodes("Split", joint, w.constant([WIDTH] * 3, np.int64), outputs=3, axis=2)
    query = _heads(w, query, tokens, (0, 2, 1, 3))
    key = _heads(w, key, tokens, (0, 2, 3, 1))
    value = _heads(w, value, tokens, (0, 2, 1, 3))
    scores = w.scalar("Div", w.node("MatMul", query, key), float(np.sqrt(HEAD)))
    causal = w.constant(np.tril(np.ones((tokens, tokens), dtype=bool))[None, None], np.bool_)
    scores = w.node("Where", causal, scores, w.constant(LOWEST, np.float32))
    context = w.node("MatMul", w.node("Softmax", scores, axis=-1), value)
    y = _merge_heads(w, context, tokens)
    with w.enter("c_proj"):
        return _conv1d(w, y, tokens, WIDTH, WIDTH)


def gpt2() -> onnx.ModelProto:
    """Decoder of four layers, causal: ids in, logits over 16384 words out (output weights tied to the embedding)."""
    w = GraphWriter("gpt2", seed=6)
    ids = w.input("input_ids", np.int64, (1, GPT2_TOKENS))
    embedding = w.normal(GPT2_VOCABULARY, WIDTH, scale=0.5)
    with w.enter("transformer"):
        words = w.parameter("wte.weight", embedding)
        places = w.parameter("wpe.weight", w.normal(GPT2_POSITIONS, WIDTH, scale=0.2))
        positions = w.constant(np.arange(GPT2_TOKENS)[None], np.int64)
        x = w.node("Add", w.node("Gather", words, ids), w.node("Gather", places, positions))
        for layer in range(LAYERS):
            with w.enter(f"h.{layer}"):
                with w.enter("ln_1"):
                    y = w.layer_norm(x, WIDTH, 1e-5)
                with w.enter("attn"):
                    x = w.node("Add", _decoder_attention(w, y, GPT2_TOKENS), x)
                with w.enter("ln_2"):
                    y = w.layer_norm(x, WIDTH, 1e-5)
                with w.enter("mlp"):
                    with w.enter("c_fc"):
                        y = _conv1d(w, y, GPT2_TOKENS, WIDTH, HIDDEN)
                    with w.enter("act"):
                        y = gelu_tanh(w, y)
                    with w.enter("c_proj"):
                        y = _conv1d(w, y, GPT2_TOKENS, HIDDEN, WIDTH, gain=2.0)
                x = w.node("Add", x, y)
        with w.enter("ln_f"):
            x = w.layer_norm(x, WIDTH, 1e-5)
    with w.enter("lm_head"):
        # Scaled so that logits are of order one; the exporter, too, writes a transposed copy of the tied weight.
        weight = w.parameter("weight_transposed", embedding.T * np.float32(2.0 / np.sqrt(WIDTH)))
        x = w.node("MatMul", x, weight)
    w.output(x, "logits", (1, GPT2_TOKENS, GPT2_VOCABULARY))
    return w.finish()
