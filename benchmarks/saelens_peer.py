"""sae-lens in its own environment, at the other end of a pipe.

:class:`Peer` starts this file with the other interpreter; requests and answers are JSON lines. Without an interpreter
that can import sae-lens every answer is None, and :meth:`Peer.describe` says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))


class Peer:
    """The benchmark's end of the pipe."""

    def __init__(self, python: str | None, threads: int | None = None) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.version = "sae-lens is not installed here; pass --peer-python with an environment that has it"
        self.l0: float | None = None
        if python is None:
            return
        command = [python, str(Path(__file__).resolve()), str(threads or torch.get_num_threads())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._read()["version"]

    def describe(self) -> str:
        """Name and version of the peer, or why there is none."""
        return self.version

    def start(self, case: str, x: Tensor, batch: int, d_sae: int, settle: int) -> None:
        """Make a trainer for a case of ``sae_training.py`` and let it settle."""
        self.l0 = None
        if self.process is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.npy"
            np.save(path, x.numpy())
            self.l0 = self._ask(
                verb="start", case=case, path=str(path), batch=batch, d_sae=d_sae, settle=settle
            )["l0"]

    def time(self, repeats: int) -> float | None:
        """Seconds a step, over ``repeats`` steps."""
        return None if self.process is None else self._ask(verb="time", repeats=repeats)["seconds"]

    def superposition(
        self, name: str, frequencies: str, seeds: list[int], steps: int
    ) -> dict[str, Any] | str:
        """MMCS on the toy benchmark, mean over seeds."""
        if self.process is None:
            return self.version
        return self._ask(verb="superposition", name=name, frequencies=frequencies, seeds=seeds, steps=steps)

    def close(self) -> None:
        """End the other process."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process with sae-lens ended; its message is above")
        return json.loads(line)


# The other end --------------------------------------------------------------------------------------------------


def trainer_for(
    case: str, d_in: int, d_sae: int, batch: int, steps: int, data: Any, k: int, l1: float, lr: float
) -> Any:
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    common = {"d_in": d_in, "d_sae": d_sae, "normalize_activations": "expected_average_only_in"}
    if case.startswith("l1"):
        sae: Any = StandardTrainingSAE(StandardTrainingSAEConfig(l1_coefficient=l1, **common))
    elif case == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(k=k, **common))
    else:
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=k, **common))
    config = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=steps * batch,
        device="cpu",
        autocast=False,
        lr=lr,
        lr_end=lr / 10,
        lr_scheduler_name="constant",
        lr_warm_up_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_decay_steps=steps // 5,
        n_restart_cycles=1,
        train_batch_size_samples=batch,
        dead_feature_window=1000,
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False),
    )
    return SAETrainer(cfg=config, sae=sae, data_provider=data)


class Steps:
    """A trainer that takes one step at a time."""

    def __init__(self, case: str, x: Tensor, batch: int, d_sae: int, settle: int) -> None:
        l1 = {"l1_dense": 1e-6, "l1_sparse": 5.0}.get(case, 0.0)
        scale = x.shape[1] ** 0.5 / float(x.norm(dim=1).mean())
        self.x, self.batch, self.turn = x * scale, batch, 0
        self.trainer = trainer_for(case, x.shape[1], d_sae, batch, 10_000, None, 32, l1, 1e-3)
        if case == "l1_sparse":  # its steps are dense all the same
            with torch.no_grad():
                pre = self.x[:512] @ self.trainer.sae.W_enc
                edge = torch.quantile(pre.flatten()[: 10**6], 1 - 32 / d_sae)
                self.trainer.sae.b_enc.fill_(-float(edge))
        for _ in range(settle):
            self.step()

    def step(self) -> Any:
        start = self.turn * self.batch % (self.x.shape[0] - self.batch + 1)
        self.turn += 1
        out = self.trainer._train_step(sae=self.trainer.sae, sae_in=self.x[start : start + self.batch])
        self.trainer.n_training_steps += 1
        return out

    def l0(self) -> float:
        codes = self.step().feature_acts
        return float((codes.to_dense() if codes.is_sparse else codes).bool().float().sum(-1).mean())


def toy(name: str, frequencies: str, seeds: list[int], steps: int) -> dict[str, Any]:
    """The toy benchmark with settings of sae-lens that do well on it."""
    from toy_activations import BATCH, D_IN, Superposition, mmcs

    case = {"relu": "l1", "topk": "topk", "batchtopk": "batchtopk"}.get(name)
    if case is None:
        return {"mmcs": None}
    scores = []
    for seed in seeds:
        torch.manual_seed(seed)
        data = Superposition(frequencies, seed, steps + 1100)  # some are used to estimate the norm
        stream = (batch["toy"] for batch in data)
        trainer = trainer_for(case, D_IN, 4 * D_IN, BATCH, steps, stream, 5, 2.0, 1e-3)
        trainer.fit()
        scores.append(mmcs(trainer.sae.W_dec.detach(), data.directions))
    return {"mmcs": sum(scores) / len(scores), "mmcs_by_seed": scores}


def serve() -> None:
    """Answer requests until the pipe is closed."""
    torch.set_num_threads(int(sys.argv[1]))
    answers = sys.stdout
    sys.stdout = sys.stderr
    import sae_lens

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    answer(version=f"sae-lens {sae_lens.__version__} on torch {torch.__version__}")
    steps: Steps | None = None
    for line in sys.stdin:
        request = json.loads(line)
        verb = request.pop("verb")
        if verb == "start":
            x = torch.from_numpy(np.load(request.pop("path"), allow_pickle=False))
            steps = Steps(x=x, **request)
            answer(l0=steps.l0())
        elif verb == "time":
            assert steps is not None
            start = time.perf_counter()
            for _ in range(request["repeats"]):
                steps.step()
            answer(seconds=(time.perf_counter() - start) / request["repeats"])
        else:
            answer(**toy(**request))


if __name__ == "__main__":
    serve()
