"""Weight files of the right architecture, with random weights: what is tested is the way there, not the numbers."""

import threading
import urllib.error
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import resnet50

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.fidelity import pretrained
from lungsynth.evaluation.fidelity.measure import FidelityConfig, measure_fidelity
from lungsynth.evaluation.fidelity.pretrained import LOADERS, load_pretrained, within_reach

DINOV2_CODE = """
import torch
class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = torch.nn.Conv2d(3, 384, 14, 14)
    def forward(self, x):
        return self.patch(x).mean(dim=(2, 3))
def dinov2_vits14(pretrained=True):
    return Tokens()
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub"


@pytest.fixture
def no_network(monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)


@pytest.fixture
def inception(hub, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        state = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    path = hub / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return path


def test_inception_is_loaded_from_the_hub_cache_or_a_path(inception, toy):
    features = [load_pretrained("inception", path).features(toy.images[:1]) for path in (None, inception)]
    assert features[0].shape == (1, 2048)
    assert (features[0] == features[1]).all()


@pytest.mark.slow
def test_inception_measures_beside_lung(inception, toy, fresh_sampler, tmp_path):
    extractor = train_extractor(toy, ExtractorConfig(steps=5), tmp_path / "extractor")
    config = FidelityConfig(max_images=20, resamples=20, normalisations=(), cache=None)
    card = measure_fidelity(toy, fresh_sampler, extractor, config=config)
    assert {"kid_lung", "kid_inception", "kid_inception/floor"} <= {metric.name for metric in card.metrics}
    assert any(note.startswith("fid_inception was left out") for note in card.notes)


def test_radimagenet_is_read_with_its_published_keys(toy, tmp_path):
    network = resnet50().eval()
    numbered = dict(zip((str(place) for place in range(9)), list(network.named_children())[:9], strict=True))
    state = {
        f"backbone.{place}.{key}": value
        for place, (_, part) in numbered.items()
        for key, value in part.state_dict().items()
    }
    torch.save(state, tmp_path / "ResNet50.pt")
    found = load_pretrained("radimagenet", tmp_path / "ResNet50.pt").features(toy.images[:2])
    network.fc = torch.nn.Identity()
    grey = torch.from_numpy(toy.images[:2])[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    with torch.inference_mode():
        expected = network(torch.nn.functional.interpolate(grey, (224, 224), mode="bilinear"))
    assert found == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)


@pytest.mark.usefixtures("no_network")
def test_dinov2_comes_from_the_hub_cache(hub, toy):
    folder = hub / "facebookresearch_dinov2_main"
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(DINOV2_CODE)
    assert load_pretrained("dinov2", None).features(toy.images[:2]).shape == (2, 384)


@pytest.mark.usefixtures("hub", "no_network")
def test_dinov2_without_cache_and_network_cannot_be_had():
    with pytest.raises(OSError, match="internet"):
        load_pretrained("dinov2", None)


@pytest.mark.parametrize("name", ["inception", "radimagenet"])
def test_a_weight_file_that_is_none_is_named(name, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(LungsynthError, match=r"weights\.pth"):
        load_pretrained(name, path)


def test_a_missing_file_is_no_file_of_another_kind(tmp_path):
    for name in ("inception", "radimagenet"):
        with pytest.raises(OSError, match=r"none\.pth"):
            LOADERS[name](tmp_path / "none.pth")


def test_dinov2_takes_no_file(tmp_path):
    with pytest.raises(LungsynthError, match="leave it out"):
        load_pretrained("dinov2", tmp_path / "weights.pth")


def test_weights_that_would_run_code_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"x": np.random.default_rng}, path)
    with pytest.raises(LungsynthError, match="RadImageNet"):
        load_pretrained("radimagenet", path)


def test_what_could_not_be_downloaded_is_within_reach_again_later(hub, tmp_path, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(pretrained.DOWNLOADS, "inception", ("checkpoints/inception.pth", url))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert within_reach("inception", None)
        server.shutdown()
        thread.join()
    assert not within_reach("inception", None)
    (hub / "checkpoints").mkdir(parents=True)
    (hub / "checkpoints" / "inception.pth").touch()
    assert within_reach("inception", None)
    assert not within_reach("radimagenet", None)
    assert within_reach("radimagenet", tmp_path / "ResNet50.pt")
