import math

import numpy as np
import pytest
import torch

from models.layers import (
    Attention,
    Block,
    MicroEmbedding,
    RMSNorm,
    TimestepEmbedding,
    modulate,
    sinusoid,
)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sinusoid_equals_its_definition():
    values = np.array([0.0, 3.0, 412.5])
    frequencies = np.exp(-math.log(10000) * np.arange(128) / 128)
    phase = values[:, None] * frequencies
    expected = np.concatenate((np.cos(phase), np.sin(phase)), axis=1)
    measured = sinusoid(torch.tensor(values))
    assert measured.dtype == torch.float32
    np.testing.assert_allclose(measured.numpy(), expected, atol=1e-4)


def test_time_is_coded_on_a_scale_of_a_thousand():
    torch.manual_seed(0)
    embed = TimestepEmbedding(8)
    seen = []
    embed.inner.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    embed(torch.tensor([0.25]))
    assert torch.equal(seen[0], sinusoid(torch.tensor([250.0])))


def test_micro_embedding_reads_every_scalar():
    torch.manual_seed(0)
    embed = MicroEmbedding(16)
    base = embed(torch.tensor([[4.0, 5.0, 20.0, 21.0]]))
    for i in range(4):
        other = torch.tensor([[4.0, 5.0, 20.0, 21.0]])
        other[0, i] += 1
        assert not torch.allclose(embed(other), base, atol=1e-3)


def test_rms_norm_equals_torch():
    norm = RMSNorm(12)
    torch.nn.init.normal_(norm.weight)
    x = normal(0, 2, 3, 12)
    expected = torch.nn.functional.rms_norm(x, (12,), norm.weight, eps=1e-6)
    assert torch.allclose(norm(x), expected, atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_modulate_is_per_sample():
    x, shift, scale = normal(0, 2, 3, 4), normal(1, 2, 4), normal(2, 2, 4)
    for b in range(2):
        expected = x[b] * (1 + scale[b]) + shift[b]
        assert torch.allclose(modulate(x, shift, scale)[b], expected, atol=1e-6)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("logit_scale", [1.0, 1.25])
def test_attention_equals_its_formula(qk_norm, logit_scale):
    torch.manual_seed(0)
    width, heads, d = 24, 3, 8
    attention = Attention(width, heads, qk_norm)
    x = normal(1, 2, 5, width)
    q, k, v = (
        part.unflatten(-1, (heads, d)).transpose(1, 2) for part in attention.qkv(x).split(width, -1)
    )
    if qk_norm:
        q, k = (part / part.square().mean(-1, keepdim=True).sqrt() for part in (q, k))
    weights = torch.softmax(logit_scale * q @ k.transpose(-1, -2) / math.sqrt(d), dim=-1)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 5, width))
    assert torch.allclose(attention(x, None, logit_scale), expected, atol=1e-5)


def test_qk_norm_ignores_the_size_of_queries_and_keys():
    torch.manual_seed(0)
    normed, plain = Attention(16, 2, True), Attention(16, 2, False)
    plain.load_state_dict(normed.state_dict(), strict=False)
    x = normal(1, 1, 6, 16)
    before = normed(x, None, 1.0), plain(x, None, 1.0)
    with torch.no_grad():
        for attention in (normed, plain):
            attention.qkv.weight[:32] *= 5  # queries and keys
            attention.qkv.bias[:32] *= 5
    assert torch.allclose(normed(x, None, 1.0), before[0], atol=1e-5)
    assert not torch.allclose(plain(x, None, 1.0), before[1], atol=1e-2)


def test_block_equals_its_formula():
    torch.manual_seed(0)
    block = Block(16, 2, 32, False)
    x, condition = normal(1, 2, 4, 16), normal(2, 2, 16)
    # DiT's order of the six: shift, scale and gate of attention, then of the MLP.
    parts = block.modulation(condition)[:, None].split(16, dim=-1)

    def normed(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, correction=0) + 1e-6
        ).sqrt()

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    y = block.attention(normed(x) * (1 + parts[1]) + parts[0], None, 1.0)
    middle = x + parts[2] * y
    y = block.mlp.inner(normed(middle) * (1 + parts[4]) + parts[3])
    expected = middle + parts[5] * block.mlp.outer(gelu(y))
    assert torch.allclose(block(x, condition, None, 1.0), expected, atol=5e-6)


def test_block_is_the_identity_without_gates():
    torch.manual_seed(0)
    block = Block(16, 2, 32, True)
    x, condition = normal(1, 2, 4, 16), normal(2, 2, 16)
    assert not torch.allclose(block(x, condition, None, 1.0), x, atol=1e-3)
    torch.nn.init.zeros_(block.modulation.weight)
    torch.nn.init.zeros_(block.modulation.bias)
    assert torch.equal(block(x, condition, None, 1.0), x)
