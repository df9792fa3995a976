"""The paper's recipe from end to end: a tiny model for ViT-L/14, two processes, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from layouts import write_files, write_tar
from safetensors.torch import load_file
from test_torchrun_faults import Command
from trials import Ledger, ledger

from overtone.datasets import captioned_scenes
from overtone.integration import load
from overtone.report.sheet import picture

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[2] / "recipes" / "clip_vit_l14_cc12m.yaml"
N, SHARDS = 160, 4

# As many blocks as ViT-L/14 has, of which the last six are trained.
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 24, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
OVERTONE = """
import sys
import open_clip
from overtone.cli import main
open_clip.add_model_config({folder!r})
main()
"""


class Place(NamedTuple):
    """A folder with the model, its weights, and the data as tars and as files."""

    folder: Path

    def command(self, run: str, source: str) -> Command:
        data = {
            "tars": f"{{source: webdataset, path: {self.folder}/tars, image_size: 32}}",
            "files": f"{{source: pairs, root: {self.folder}/files, image_size: 32}}",
        }
        model = f"{{name: 'open_clip:tiny', pretrained: true, tag: {self.folder}/tiny.pt}}"
        values = {
            "data": data[source],
            "encoder": model,
            "num_workers": 1,
            "threads": 1,
            "loggers": "[]",
            "checkpoint_seconds": 0,
            "train.epochs": 1,
            "train.batch_size": 16,
            "train.min_batch_size": 4,
            "train.n_clusters": 3,
            "train.lr": 1e-3,
        }
        train = [str(self.folder / "tiny_overtone.py"), "train", str(RECIPE)]
        return Command(
            self.folder / run, train=[*train, *(f"{name}={value}" for name, value in values.items())]
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("paper")
    (folder / "configs").mkdir()
    (folder / "configs" / "tiny.json").write_text(json.dumps(MODEL))
    (folder / "tiny_overtone.py").write_text(OVERTONE.format(folder=str(folder / "configs")))
    open_clip.add_model_config(folder / "configs")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny").state_dict(), folder / "tiny.pt")
    scenes = captioned_scenes(N)
    for shard in range(SHARDS):
        members: dict[str, bytes] = {}
        for row in range(shard, N, SHARDS):
            file = folder / "picture.png"
            picture(scenes[row]["image"], scale=1).save(file)
            members |= {f"{row:05}.png": file.read_bytes(), f"{row:05}.txt": scenes.texts[row].encode()}
            members[f"{row:05}.json"] = json.dumps({"key": row, "status": "success"}).encode()
        write_tar(folder / "tars" / f"{shard:05}.tar", members)
        write_files(folder / "files" / f"{shard:05}", members)
    return Place(folder)


@pytest.fixture(scope="module")
def uninterrupted(place: Place) -> Path:
    code, said = place.command("whole", "tars").ended()
    assert code == 0, said
    return place.folder / "whole"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{stage} {name}": value
        for stage in range(3)
        for name, value in load_file(run / f"stage-{stage}" / "encoder" / "encoder.safetensors").items()
    }


def ledgers(run: Path) -> list[Ledger]:
    return [ledger(run, rank) for rank in (0, 1)]


def test_only_the_last_six_groups_of_the_image_tower_are_tuned_in_each_stage_from_the_given_weights(
    uninterrupted: Path,
) -> None:
    found = weights(uninterrupted)
    names = [name.removeprefix("0 ") for name in found if name.startswith("0 ")]
    for stage in (1, 2):
        changed = {name for name in names if not torch.equal(found[f"0 {name}"], found[f"{stage} {name}"])}
        blocks = {
            name.split("resblocks.")[1].split(".")[0]
            for name in changed
            if "image_tower" in name and "resblocks" in name
        }
        assert blocks == {"19", "20", "21", "22", "23"}
        assert not [name for name in changed if name.startswith("text_tower")]


@pytest.mark.parametrize("source", ["tars", "files"])
def test_a_run_on_tars_or_files_that_was_killed_ends_in_the_weights_and_the_ledger_of_the_uninterrupted_one(
    place: Place, uninterrupted: Path, source: str
) -> None:
    command = place.command(source, source)
    for pid in command.at(stage=1, step=4).values():
        os.kill(pid, signal.SIGKILL)
    assert command.ended()[0] != 0
    assert not (place.folder / source / "stage-2").exists()
    code, said = place.command(source, source).ended()
    assert code == 0, said
    mine, whole = weights(place.folder / source), weights(uninterrupted)
    assert mine.keys() == whole.keys()
    assert [name for name, value in whole.items() if not torch.equal(mine[name], value)] == []
    assert ledgers(place.folder / source) == ledgers(uninterrupted)
    assert {stage for stage, _ in ledger(uninterrupted)} == {1, 2}


def test_what_comes_out_has_the_towers_of_all_stages_in_the_papers_way(uninterrupted: Path) -> None:
    encoder = load(uninterrupted)
    images = torch.stack([captioned_scenes(2)[row]["image"] for row in range(2)])
    with torch.inference_mode():
        joint = encoder.encode_image(images), encoder.encode_text(["a far dot", "the letter X"])
        raw = torch.cat([stage({"image": images}) for stage in encoder.stages], dim=1)
    assert joint[0].shape == joint[1].shape == (2, 3 * 16)
    torch.testing.assert_close(joint[0], torch.nn.functional.normalize(raw, dim=1))
