"""Two processes that torchrun starts give what one gives, and resume to the bit."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_blobs import Blobs, make_module

from edgedl.compress.training import TrainingSettings, torchrun_processes, train
from edgedl.compress.training.processes import OneProcess

# Batches of 9 are shared 5 and 4, and the last of an epoch, of 6, is one step with one of 9.
SETTINGS = TrainingSettings(
    epochs=4,
    batch_size=9,
    max_learning_rate=0.05,
    seed=2,
    accumulate=2,
    ema_decay=0.7,
    max_gradient_norm=0.5,
    patience=3,
)

PARALLEL = """
import sys
from pathlib import Path
import torch
import torch.nn.functional as F
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_data_parallel import SETTINGS, score, without_time
from training_blobs import Blobs, make_module
from edgedl.compress.training import torchrun_processes, train

torch.set_num_threads(1)
processes, folder = torchrun_processes(), Path(sys.argv[2])

def run(norm=False, path=None, stop_in=None):
    def hook(epoch, step, loss):
        if epoch == stop_in:
            raise KeyboardInterrupt
    module = make_module(norm)
    records = train(module, Blobs(9), F.cross_entropy, SETTINGS, path, hook, score, processes)
    return {"weights": module.state_dict(), "records": without_time(records)}

whole = run()
found = {"count": processes.count, "one": whole, "norm": run(norm=True)}
path = folder / "c.pt"
try:
    run(path=path, stop_in=3)
except KeyboardInterrupt:
    found["stopped"] = path.is_file()
found["resumed"] = run(path=path)
name = "first" if processes.writes else "second"
processes.end()
torch.save(found, folder / f"{name}.pt")
"""


def score(module: nn.Module) -> float:
    blobs = Blobs()
    with torch.no_grad():
        return -F.cross_entropy(module(blobs.inputs), blobs.labels).item()


def without_time(records: list[object]) -> list[dict[str, object]]:
    return [{**asdict(record), "seconds": 0.0} for record in records]  # type: ignore[call-overload]


def test_one_process_needs_no_library() -> None:
    assert isinstance(torchrun_processes(), OneProcess)
    assert "edgedl.compress.training.data_parallel" not in sys.modules


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun wants gloo and a shell")
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{n}.pt") for n in ("first", "second"))
    assert first["count"] == 2
    alone = make_module()
    records = without_time(train(alone, Blobs(9), F.cross_entropy, SETTINGS, score=score))
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(first["one"]["weights"][name], tensor, rtol=1e-4, atol=1e-6)
        assert torch.equal(first["one"]["weights"][name], second["one"]["weights"][name])
        # One of them wrote the checkpoint, both went on from it.
        assert torch.equal(first["one"]["weights"][name], first["resumed"]["weights"][name])
        assert torch.equal(first["one"]["weights"][name], second["resumed"]["weights"][name])
    assert first["stopped"]
    assert second["stopped"]
    assert first["one"]["records"] == second["one"]["records"] == first["resumed"]["records"]
    for own, other in zip(first["one"]["records"], records, strict=True):
        assert own == pytest.approx(other, rel=1e-4)
    # It shares the work: a batch norm sees other samples than alone.
    norm = make_module(norm=True)
    train(norm, Blobs(9), F.cross_entropy, SETTINGS, score=score)
    assert not torch.allclose(first["norm"]["weights"]["0.weight"], norm[0].weight, atol=1e-4)
    plain = make_module()
    train(plain, Blobs(9), F.cross_entropy, replace(SETTINGS, seed=3), score=score)
    assert not torch.allclose(plain[0].weight, alone[0].weight, atol=1e-4)
