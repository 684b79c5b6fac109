"""The architecture of the published generator, to the letter, and what conditioning changes about it."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig, Discriminator, Generator, load_ct_gan_gen, load_weights

# The tensors of `lung_ct_generator_gan.pth`, as its architecture was published (see docs of `ct-gan-gen`).
PUBLISHED = {
    "main.0.weight": (128, 2048, 4, 4),
    "main.1.weight": (2048,),
    "main.1.bias": (2048,),
    "main.1.running_mean": (2048,),
    "main.1.running_var": (2048,),
    "main.1.num_batches_tracked": (),
    "main.3.weight": (2048, 1024, 4, 4),
    "main.4.weight": (1024,),
    "main.4.bias": (1024,),
    "main.4.running_mean": (1024,),
    "main.4.running_var": (1024,),
    "main.4.num_batches_tracked": (),
    "main.6.weight": (1024, 512, 4, 4),
    "main.7.weight": (512,),
    "main.7.bias": (512,),
    "main.7.running_mean": (512,),
    "main.7.running_var": (512,),
    "main.7.num_batches_tracked": (),
    "main.9.weight": (512, 256, 4, 4),
    "main.10.weight": (256,),
    "main.10.bias": (256,),
    "main.10.running_mean": (256,),
    "main.10.running_var": (256,),
    "main.10.num_batches_tracked": (),
    "main.12.weight": (256, 128, 4, 4),
    "main.13.weight": (128,),
    "main.13.bias": (128,),
    "main.13.running_mean": (128,),
    "main.13.running_var": (128,),
    "main.13.num_batches_tracked": (),
    "main.15.weight": (128, 1, 4, 4),
}


def published_state() -> dict[str, Tensor]:
    counters = {key for key in PUBLISHED if key.endswith("num_batches_tracked")}
    return {
        key: torch.tensor(7) if key in counters else torch.full(shape, 0.01 if "running_var" not in key else 1.0)
        for key, shape in PUBLISHED.items()
    }


def test_published_weights_load_strictly_and_make_128_px_slices(tmp_path):
    torch.save(published_state(), tmp_path / "lung_ct_generator_gan.pth")
    generator = load_ct_gan_gen(tmp_path / "lung_ct_generator_gan.pth")
    assert {key: tuple(tensor.shape) for key, tensor in generator.state_dict().items()} == PUBLISHED
    assert not generator.training
    with torch.no_grad():
        slices = generator(torch.zeros(1, 128))
    assert slices.shape == (1, 1, 128, 128)
    assert slices.abs().max() <= 1


def test_layers_of_the_published_generator():
    with torch.device("meta"):
        main = Generator(DcganConfig(classes=())).main
    kinds = [type(layer).__name__ for layer in main]
    block = ["ConvTranspose2d", "BatchNorm2d"]
    assert kinds == 2 * [*block, "LeakyReLU"] + 3 * [*block, "ReLU"] + ["ConvTranspose2d", "Tanh"]
    convolutions = [layer for layer in main if isinstance(layer, nn.ConvTranspose2d)]
    assert [(c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions] == [(4, 1, 0)] + 5 * [(4, 2, 1)]
    assert main[2].negative_slope == 0.2


@pytest.mark.parametrize(("size", "blocks"), [(32, "48 24 12"), (64, "96 48 24 12")])
def test_smaller_sizes_leave_out_the_widest_blocks(size, blocks):
    generator = Generator(DcganConfig(size=size, nz=8, ngf=12))
    assert " ".join(str(m.num_features) for m in generator.main if isinstance(m, nn.BatchNorm2d)) == blocks
    activations = [type(m).__name__ for m in generator.main if isinstance(m, nn.ReLU | nn.LeakyReLU)]
    assert activations[:2] == ["LeakyReLU", "LeakyReLU"]
    assert set(activations[2:]) == {"ReLU"}
    assert generator(torch.randn(4, 8), torch.tensor([0, 1, 1, 0])).shape == (4, 1, size, size)


def test_classes_widen_the_first_tensor_only():
    with torch.device("meta"):
        plain = Generator(DcganConfig(classes=())).state_dict()
        conditional = Generator(DcganConfig(classes=CLASSES)).state_dict()
    assert plain.keys() == conditional.keys()
    different = {key: tuple(conditional[key].shape) for key in plain if plain[key].shape != conditional[key].shape}
    assert different == {"main.0.weight": (130, 2048, 4, 4)}


def test_the_class_changes_the_slice():
    generator = Generator(DcganConfig(size=32, nz=8, ngf=4)).eval()
    z = torch.randn(1, 8)
    assert not torch.equal(generator(z, torch.tensor([0])), generator(z, torch.tensor([1])))


@pytest.mark.parametrize("classes", [(), CLASSES])
def test_discriminator_scores_each_slice_and_its_claimed_class(classes):
    discriminator = Discriminator(DcganConfig(size=32, ndf=4, classes=classes)).eval()
    images = torch.randn(8, 1, 32, 32)
    zeros = discriminator(images, torch.zeros(8, dtype=torch.int64))
    ones = discriminator(images, torch.ones(8, dtype=torch.int64))
    assert zeros.shape == (8,)
    assert torch.equal(zeros, ones) == (not classes)


def small(**changes):
    return Generator(DcganConfig(size=32, nz=8, ngf=4, **changes))


def test_wrong_weights_name_every_differing_key(tmp_path):
    state = small().state_dict()
    state["main.9.extra"] = state.pop("main.4.bias")
    state["main.0.weight"] = torch.zeros(8, 16, 4, 4)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(LungsynthError) as caught:
        load_weights(small(), tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "main.4.bias is missing" in message
    assert "main.9.extra is superfluous" in message
    assert "main.0.weight is 8×16×4×4, not 10×16×4×4" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02]q\x00."])
def test_unreadable_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LungsynthError, match=name) as caught:
        load_weights(small(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_weights(tmp_path):
    with pytest.raises(LungsynthError, match=r"absent\.pth"):
        load_weights(small(), tmp_path / "absent.pth")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save({"main.0.weight": pytest.fail}, tmp_path / "w.pth")
    with pytest.raises(LungsynthError, match="not a readable weight file"):
        load_weights(small(), tmp_path / "w.pth")


@pytest.mark.parametrize("classes", [(), CLASSES])
def test_exports_with_a_dynamic_batch(classes):
    generator = small(classes=classes).eval()
    z, labels = torch.randn(6, 8), torch.tensor([0, 1, 1, 0, 1, 0])
    inputs = (z, labels) if classes else (z,)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        generator, tuple(x[:2] for x in inputs), dynamic_shapes=tuple({0: batch} for _ in inputs)
    )
    torch.testing.assert_close(exported.module()(*inputs), generator(*inputs))
