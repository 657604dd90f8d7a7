"""Memory of the real networks without data: live bytes are counted right, and the configurations are the real ones."""

import json
import sys
from importlib import resources

import pytest
import torch

from dreamcraft3d.errors import MissingDependencyError
from dreamcraft3d.priors import footprint
from dreamcraft3d.priors.footprint import LiveBytes, skeleton
from dreamcraft3d.priors.models import catalogue, network

NAMES = sorted({kind for model in catalogue().values() for kind in model.networks.values()})


def test_live_bytes_of_known_work():
    start = torch.zeros(1000)
    with LiveBytes() as live:
        a = start + 1.0  # 4000 bytes
        b = a * 2.0  # 8000 alive
        view = b[10:20].reshape(2, 5)  # no memory of its own
        del a  # 4000 alive
        c = torch.cat([b, b])  # 12000 alive
        c.add_(1.0)
        start.view(10, 100)
    assert (live.peak, live.now) == (12_000, 12_000)
    del b, c
    assert live.now == 4_000  # the view keeps its storage
    del view
    assert live.now == 0


def test_saved_tensors_count_until_the_backward_pass_is_over():
    x = torch.ones(1000, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp().sin().sum()
        assert live.now == 4_004  # exp keeps its result, which is sin's input; that of sin is gone
        y.backward()
    assert live.peak >= 12_000
    assert x.grad is not None


def test_the_meta_device_agrees_with_real_tensors():
    """The same small U-Net, with content on the CPU and without."""
    from diffusers import UNet2DConditionModel

    shape = {
        "sample_size": 16,
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    peaks = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            unet = UNet2DConditionModel(**shape).requires_grad_(False)
            inputs = torch.ones(2, 4, 16, 16, requires_grad=True), torch.ones(2), torch.ones(2, 7, 16)
        with footprint._lean_attention(), LiveBytes() as live:
            unet(*inputs).sample.sum().backward()
        peaks.append(live.peak)
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_configurations_build_the_networks_they_name(name):
    module = skeleton(name)
    assert sum(parameter.numel() for parameter in module.parameters()) == network(name)["parameters"]
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "file_bytes"),
    [
        # sizes of the half-precision files in public repositories
        ("unet-sd-1", 1_719_125_304),
        ("unet-sd-xl", 5_135_149_760),
        ("vae-sd", 167_335_342),
        ("clip-text-l", 246_144_864),
        ("clip-text-g", 1_389_382_176),
    ],
)
def test_networks_are_as_large_as_their_files(name, file_bytes):
    assert footprint.weights(name) == pytest.approx(file_bytes, rel=5e-4)


@pytest.mark.parametrize(
    ("name", "billions", "tolerance"),
    [("unet-if-xl", 4.3, 0.01), ("unet-if-l", 0.9, 0.05), ("unet-if-m", 0.4, 0.08), ("unet-sd-2", 0.866, 0.001)],
)
def test_networks_have_the_published_number_of_parameters(name, billions, tolerance):
    assert network(name)["parameters"] / 1e9 == pytest.approx(billions, rel=tolerance)


def test_every_network_belongs_to_a_model():
    folder = resources.files("dreamcraft3d.priors") / "networks"
    assert sorted(file.name.removesuffix(".json") for file in folder.iterdir()) == NAMES
    for name in NAMES:
        assert set(json.loads((folder / f"{name}.json").read_text())) == {"kind", "parameters", "config"}


@pytest.mark.parametrize(("library", "name"), [("transformers", "clip-text-l"), ("peft", "unet-sd-1")])
def test_a_missing_library_is_named(library, name, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=library) as caught:
        footprint.add_adapters(skeleton(name), (4,))
    assert "dreamcraft3d[models]" in caught.value.remedy


def test_adapters_train_and_the_base_does_not():
    unet = skeleton("unet-sd-2")
    added = footprint.add_adapters(unet, (16, 4))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    assert added == 4_149_760  # by hand: 20/16 of rank 16's 3,319,808
    assert sum(parameter.numel() for parameter in trained) == added * 4 // 20
    assert {parameter.dtype for parameter in trained} == {torch.float32}


@pytest.mark.slow
def test_checkpointing_and_smaller_pictures_need_less():
    with_all = footprint.train_peak("unet-sd-2", batch=1, ranks=(16, 4), checkpointing=False)
    checkpointed = footprint.train_peak("unet-sd-2", batch=1, ranks=(16, 4), checkpointing=True)
    assert checkpointed < 0.5 * with_all
    assert footprint.encode_peak("vae-sd", size=256, batch=1) < 0.3 * footprint.encode_peak("vae-sd", size=512, batch=1)
    assert footprint.noise_peak("unet-sd-2", batch=2) < 0.2 * footprint.weights("unet-sd-2")
