"""Networks for single classes draw by label, as one network does."""

import pytest
import torch
from pydantic import ValidationError

from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.generators.edm import EdmConfig
from lungsynth.generators.per_class import PerClass, new_discriminator, new_network

THREE = DcganConfig(size=32, nz=8, ngf=4, classes=("a", "b", "c"), per_class=True)
LABELS = torch.tensor([0, 2, 1, 1, 2, 0])


def test_each_slice_is_drawn_by_the_network_of_its_class():
    generator, z = new_network(THREE).eval(), torch.randn(6, 8)
    assert isinstance(generator, PerClass)
    images = generator(z, LABELS)
    for place, code in enumerate(LABELS.tolist()):
        own = generator.networks[code]
        assert own.config.classes == ()
        torch.testing.assert_close(images[place], own(z)[place])
    assert not torch.allclose(generator.networks[0](z), generator.networks[1](z))


def test_each_slice_is_scored_by_the_discriminator_of_its_class():
    discriminator, images = new_discriminator(THREE).eval(), torch.randn(4, 1, 32, 32)
    scores = discriminator(images, LABELS[:4])
    for place, code in enumerate(LABELS[:4].tolist()):
        own = discriminator.networks[code](images, torch.zeros(4, dtype=torch.int64))
        torch.testing.assert_close(scores[place], own[place])
    assert new_discriminator(EdmConfig(size=32, classes=("a", "b"), per_class=True)) is None


def test_one_network_where_none_is_asked_for():
    assert isinstance(new_network(THREE.model_copy(update={"per_class": False})), Generator)


def test_exports_with_a_dynamic_batch():
    generator, z = new_network(THREE).eval(), torch.randn(6, 8)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(generator, (z[:2], LABELS[:2]), dynamic_shapes=({0: batch}, {0: batch})).module()
    torch.testing.assert_close(exported(z, LABELS), generator(z, LABELS))
    torch.testing.assert_close(exported(z[:1], LABELS[:1]), generator(z[:1], LABELS[:1]))


def test_needs_classes():
    with pytest.raises(ValidationError, match="per_class needs classes"):
        DcganConfig(classes=(), per_class=True)
