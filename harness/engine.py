"""DeepSpeed: processes, device, engine and what it keeps where. The one file that imports it.

`DS_ACCELERATOR` must be set before the import, and its shared-memory collective, which nothing
here uses, is switched off so that no compiler is needed at start.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.config import Train

# Ranks wait for the one that measures, which for a large reference takes hours. A peer that dies
# closes its connection, and that is seen at once.
PATIENCE = timedelta(days=1)

MOMENTS = ("exp_avg", "exp_avg_sq")  # as AdamW calls them


class Span(NamedTuple):
    """What a rank holds of a parameter, or of something of its shape: live memory."""

    start: int  # index of the first element, of the parameter's elements in order
    values: Tensor  # [n], without padding
    shared: bool  # every rank holds the same


Spans = dict[str, Span]  # by the parameter's name


@dataclass(frozen=True)
class World:
    """The processes that work on one run together."""

    rank: int
    size: int
    device: torch.device
    control: Any  # a gloo group for decisions that must not wait for the GPU

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank (collective)."""
        if self.size == 1:
            return flag
        vote = torch.tensor([int(flag)])
        dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=self.control)
        return bool(vote.item())

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over ranks, on the CPU (collective)."""
        value = value.detach().double().cpu()
        if self.size > 1:
            dist.all_reduce(value, group=self.control)
        return value / self.size

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.control)

    def leave(self) -> None:
        """Part from the other processes, after all have come here (collective)."""
        self.barrier()
        dist.destroy_process_group()

    def shared(self, value: Any) -> Any:
        """The value of rank 0, on every rank (collective)."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all ranks, on every rank (collective)."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values


def join_world() -> World:
    """Join the processes named by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Without these variables this process is a world of its own. CUDA and NCCL where there is a
    GPU, else CPU and gloo.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    for name, value in (("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", local)):
        os.environ.setdefault(name, str(value))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    device = (
        torch.device("cuda", local % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    )
    if on_gpu:
        torch.cuda.set_device(device)

    with _without_mlflow():
        import deepspeed
        from deepspeed.ops import __compatible_ops__

    __compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if on_gpu else "gloo"
    if "MASTER_PORT" in os.environ:
        dist.init_process_group(backend, timeout=None if on_gpu else PATIENCE)
    else:  # alone: no port to agree on
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        os.environ["MASTER_PORT"] = "0"
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend=backend, verbose=False)
    control = dist.new_group(backend="gloo", timeout=PATIENCE) if on_gpu and size > 1 else None
    return World(rank, size, device, control)


@contextlib.contextmanager
def _without_mlflow() -> Iterator[None]:
    """Keep DeepSpeed's autotuner from importing it into every rank: a second and 115 MB each."""
    loaded = "mlflow" in sys.modules
    if not loaded:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if not loaded:
            del sys.modules["mlflow"]


def make_engine(model: nn.Module, train: Train, world: World) -> Any:
    """A DeepSpeed engine around `model`, with AdamW.

    Raises:
        ValueError: the batch is not divisible by ranks x accumulation.
    """
    import deepspeed

    part = world.size * train.accumulation
    if train.batch % part:
        raise ValueError(
            f"train.batch {train.batch} is not divisible by ranks x train.accumulation = "
            f"{world.size} x {train.accumulation}"
        )
    # DeepSpeed fills its buckets of 5e8 elements (2 GB) anew each step, whatever the model's size.
    # It wants them even.
    bucket = min(500_000_000, sum(p.numel() for p in model.parameters()) // 2 * 2 + 2)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=train.learning_rate,
        betas=train.betas,
        weight_decay=train.weight_decay,
        fused=True,
    )
    settings = {
        "train_batch_size": train.batch,
        "train_micro_batch_size_per_gpu": train.batch // part,
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": train.gradient_clip,
        "zero_optimization": {
            "stage": train.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "zero_allow_untested_optimizer": True,
        "torch_autocast": {"enabled": train.precision == "bf16", "dtype": "bfloat16"},
        "steps_per_print": 10**12,
        "wall_clock_breakdown": False,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    return engine


def span(parameter: Any, values: Tensor) -> Span:
    """Of values that lie as this rank's part of a parameter does: whole, or ZeRO stage 3's slice.

    A slice is a padded n-th part of the elements in order, n being the number of ranks.
    """
    flat = values.detach().view(-1)
    if not hasattr(parameter, "ds_tensor"):
        return Span(0, flat, shared=True)
    start = dist.get_rank() * flat.numel()
    return Span(start, flat[: max(0, parameter.ds_numel - start)], shared=False)


def spans(engine: Any) -> dict[str, Spans]:
    """What this rank holds of the fp32 weights ("weight") and of each of AdamW's moments.

    What is written into it before the first step is the engine's after `take_over`.
    """
    _make_moments(engine)
    found: dict[str, Spans] = {kind: {} for kind in ("weight", *MOMENTS)}
    for kind, by_name in found.items():
        for name, parameter in engine.module.named_parameters():
            held = _span_of(engine, parameter, None if kind == "weight" else kind)
            if held is not None:
                by_name[name] = held
    return found


def optimizer_steps(engine: Any) -> int:
    """Steps that AdamW's bias correction has counted."""
    return int(engine.optimizer.state[_stepped(engine)[0]]["step"])


def take_over(engine: Any, steps: int) -> None:
    """Go on from what was written into `spans`, after so many steps of AdamW (collective)."""
    from deepspeed.utils import safe_get_local_fp32_param

    for tensor in _stepped(engine):
        engine.optimizer.state[tensor]["step"].fill_(steps)
    stage = engine.zero_optimization_stage()
    if stage in (1, 2):
        engine.optimizer.update_lp_params()
    elif stage == 3:
        for parameter in engine.module.parameters():
            parameter.ds_tensor.data.copy_(safe_get_local_fp32_param(parameter).data)
        engine.optimizer.checkpoint_event_prologue()  # small parameters are kept whole as well:
        engine.optimizer.checkpoint_event_epilogue()  # drop these, and gather them anew


def _span_of(engine: Any, parameter: Any, moment: str | None) -> Span | None:
    """This rank's part of a parameter, or of a moment of it; None where it has none."""
    from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

    stage, state = engine.zero_optimization_stage(), engine.optimizer.state
    if stage == 0:
        return span(parameter, state[parameter][moment] if moment else parameter.data)
    if stage == 3:
        if moment:
            return span(parameter, safe_get_local_optimizer_state(parameter, moment))
        return span(parameter, safe_get_local_fp32_param(parameter))
    part = parameter._hp_mapping  # None, or where it lies in this rank's partition
    if part is None:
        return None
    partition = engine.optimizer.single_partition_of_fp32_groups[part.param_group_index]
    flat, cut = state[partition][moment] if moment else partition.data, part.hp_fragment_address
    values = flat.narrow(0, cut.start, cut.numel)
    return Span(part.lp_fragment_address.start, values, shared=False)


def _stepped(engine: Any) -> list[Tensor]:
    """The tensors that AdamW steps: the parameters, or this rank's flat partitions of them."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage == 0:
        return list(engine.module.parameters())
    flat = "fp32_partitioned_groups_flat" if stage == 3 else "single_partition_of_fp32_groups"
    return list(getattr(optimizer, flat))


def _make_moments(engine: Any) -> None:
    """AdamW's state as its first step would make it, where that is still to come."""
    for tensor in _stepped(engine):
        state = engine.optimizer.state[tensor]
        if not state:
            state["step"] = torch.zeros((), device=tensor.device)
            state |= {moment: torch.zeros_like(tensor.data) for moment in MOMENTS}


def make_deterministic(threads: int) -> None:
    """The same bits from the same draws, on CUDA too (its attention is not so by default)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def quiet() -> None:
    """Only DeepSpeed's warnings; its banners say nothing that the record does not."""
    import logging

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
