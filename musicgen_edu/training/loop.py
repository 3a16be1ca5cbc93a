"""One training loop for every part: any number of processes, resumable after a kill at any moment.

`accelerate` spreads the same code over a CPU, several processes, or several GPUs and machines. What a step learns from
is a function of its number alone (no state of a data loader), so a resumed run equals one that was never stopped.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, send_to_device, set_seed
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from musicgen_edu.devices import has_bfloat16
from musicgen_edu.files import one_line, write_whole

STATE_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"
DRAWERS = 6  # processes that draw batches beside a GPU


def create_accelerator() -> Accelerator:
    """`accelerate` with bfloat16 arithmetic where the processor has it."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        narrow = torch.cuda.is_bf16_supported(including_emulation=False)  # imitated it is slower than float32
    else:
        narrow = has_bfloat16()
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # the others wait while one renders the music
    # Without cpu=True, `accelerate` takes several CPU processes for so many separate runs.
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="bf16" if narrow else "no",
                       kwargs_handlers=[patience])  # fmt: skip


def claim(note: Path, made_from: dict) -> None:
    """Write what a run's folder is made from into a file there; refuse a folder in which that is something else.

    Raises ValueError where the file is there and says otherwise.
    """
    content = json.dumps(made_from, indent=2) + "\n"
    if note.exists() and note.read_text(encoding="utf-8") != content:
        raise ValueError(f"{note.parent} holds a training with other settings (see {note}): choose another --folder.")
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, content.encode())


def learning_rate_factor(step: int, steps: int, warmup: int = 100) -> float:
    """Linear rise over `warmup` steps, then half a cosine down to 2 % of the peak."""
    rise = min(1.0, (step + 1) / warmup)
    return rise * (0.51 + 0.49 * math.cos(math.pi * step / steps))


def fit(
    objective: nn.Module,
    batch_of: Callable[[int, int], object],
    *,
    steps: int,
    learning_rate: float,
    folder: Path,
    accelerator: Accelerator,
    seed: int = 0,
    save_every: int = 200,
    weight_decay: float = 0.01,
    warmup: int = 100,
) -> None:
    """Minimise `objective` and leave its trained weights in it.

    Args:
        objective: a module whose forward takes a batch and returns a dict of scalars with one named "loss". Where it
            has a dict `rates` of name beginnings, parameters so named learn at so many times the rate.
        batch_of: the batch for (step, process index), on the CPU: tensors, tuples of them, or an object with a method
            `to(device)`. Beside a GPU other processes draw batches ahead, so that it need not wait.
        steps: how many steps in all; a finished run is loaded and not run again.
        learning_rate: AdamW's peak rate.
        folder: where the state (`state.safetensors`) and the log (`log.jsonl`, a line every 10 steps) are kept.
        save_every: steps between two saved states: what a kill can cost.
        weight_decay: AdamW's, of matrices, kernels and embeddings; see `parameter_groups`.
        warmup: steps in which the rate rises to its peak.

    Raises:
        FloatingPointError: the loss became infinite or no number; the last saved state is kept as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(parameter_groups(objective, weight_decay), betas=(0.9, 0.95), fused=True)
    first = _load_state(folder, objective, optimizer)
    if first >= steps:
        return
    wrapped, prepared = accelerator.prepare(objective, optimizer)
    wrapped.train()
    log = _Log(folder, first) if accelerator.is_main_process else None  # two writers would lose lines
    batches = _draw(_Batches(batch_of, accelerator.process_index), range(first, steps), accelerator)
    progress = tqdm(batches, initial=first, total=steps, disable=not accelerator.is_main_process)
    for step, batch in enumerate(progress, first):
        set_seed((seed + step * accelerator.num_processes + accelerator.process_index) % 2**32)  # numpy takes no more
        for group in prepared.param_groups:
            group["lr"] = group["rate"] * learning_rate * learning_rate_factor(step, steps, warmup)
        figures = wrapped(send_to_device(batch, accelerator.device))
        accelerator.backward(figures["loss"])
        accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        prepared.step()
        prepared.zero_grad()
        if accelerator.is_main_process:
            log.add(step, figures, progress)
            if (step + 1) % save_every == 0 or step + 1 == steps:
                _check_finite(figures["loss"], objective, step, folder)
                _save_state(folder, objective, optimizer, step + 1)
        accelerator.wait_for_everyone()
    progress.close()


def parameter_groups(objective: nn.Module, weight_decay: float) -> list[dict]:
    """AdamW's groups: what decays and what does not, each at its rate.

    Norms, biases and the lengths that weight normalisation takes apart do not decay: pulled towards zero they would
    only scale what they belong to (as in nanoGPT, tensors of fewer than two axes).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        rates = (rate for start, rate in getattr(objective, "rates", {}).items() if name.startswith(start))
        scale_only = parameter.squeeze().dim() < 2 or name.endswith("parametrizations.weight.original0")
        groups.setdefault((0.0 if scale_only else weight_decay, next(rates, 1.0)), []).append(parameter)
    return [dict(params=held, weight_decay=decay, rate=rate) for (decay, rate), held in groups.items()]


def _check_finite(loss: Tensor, objective: nn.Module, step: int, folder: Path) -> None:
    """Refuse to save what a loss that is no number has spoiled, or its last step."""
    if not all(torch.isfinite(each).all() for each in (loss, *objective.parameters())):
        raise FloatingPointError(
            f"By step {step + 1} the loss or a weight was infinite or no number: {folder / STATE_FILE} keeps the "
            "weights of before. Go on from there with a lower learning rate."
        )


class _Batches(Dataset):
    """The batches of one process, by the number of the step."""

    def __init__(self, batch_of: Callable[[int, int], object], process: int):
        self._batch_of, self._process = batch_of, process

    def __getitem__(self, step: int) -> object:
        return self._batch_of(step, self._process)


def _draw(batches: _Batches, steps: range, accelerator: Accelerator) -> DataLoader:
    """The batches of these steps in order, drawn by other processes beside a GPU, else by this one.

    What draws a batch is a closure, which only a forked process takes along.
    """
    beside = accelerator.device.type == "cuda" and "fork" in multiprocessing.get_all_start_methods()
    return DataLoader(
        batches, batch_size=None, collate_fn=lambda batch: batch, sampler=steps,
        num_workers=DRAWERS if beside else 0, multiprocessing_context="fork" if beside else None,
    )  # fmt: skip


class _Log:
    """Means over ten steps, one JSON line each, with the minutes that training has taken in all."""

    def __init__(self, folder: Path, first: int):
        self._file = folder / LOG_FILE
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        whole = (json.loads(line) for line in lines if line.endswith("}"))  # a kill may have cut the last one off
        kept = [line for line in whole if line["step"] < first]
        write_whole(self._file, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._started = time.perf_counter() - 60 * (kept[-1]["minutes"] if kept else 0)
        self._figures: dict[str, list[Tensor]] = {}

    def add(self, step: int, figures: dict[str, Tensor], progress: tqdm) -> None:
        for name, value in figures.items():
            self._figures.setdefault(name, []).append(value.detach())
        if (step + 1) % 10:
            return  # to read a number off a GPU is to wait for it
        means = {name: round(float(torch.stack(values).mean()), 5) for name, values in self._figures.items()}
        minutes = round((time.perf_counter() - self._started) / 60, 3)
        with self._file.open("a") as file:
            file.write(json.dumps({"step": step, "minutes": minutes, **means}) + "\n")
        progress.set_postfix(means)
        self._figures = {}


def _save_state(folder: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Weights and AdamW's two moments in one safetensors file, written beside the old one and then renamed.

    Weights that do not learn are not in it: who goes on has them already.
    """
    parameters = objective.named_parameters(remove_duplicate=False)
    still = {name for name, parameter in parameters if not parameter.requires_grad}
    # Copies, because safetensors refuses tensors that share memory, as T5's embedding does with itself.
    tensors = {f"weight.{name}": value.clone() for name, value in objective.state_dict().items() if name not in still}
    for name, parameter in objective.named_parameters():
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq") if key in moments}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(folder / STATE_FILE, save(tensors, metadata={"step": str(step)}))


def _load_state(folder: Path, objective: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take up a saved state, if there is one, and return the number of steps that it has behind it."""
    if not (folder / STATE_FILE).exists():
        return 0
    try:
        with safe_open(folder / STATE_FILE, "pt") as state:
            step = int(state.metadata()["step"])
            tensors = {name: state.get_tensor(name) for name in state.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"{one_line(folder / STATE_FILE)} is damaged ({error}): delete it to begin this stage anew."
        ) from error
    weights = {name[7:]: tensor for name, tensor in tensors.items() if name.startswith("weight.")}
    objective.load_state_dict(objective.state_dict() | weights)
    for name, parameter in objective.named_parameters():
        if f"exp_avg.{name}" in tensors:
            moments = {key: tensors[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq")}
            done = torch.tensor(float(step), dtype=torch.float32, device="cpu")
            optimizer.state[parameter] = {"step": done, **moments}
    return step
