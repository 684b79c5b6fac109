"""What of a package leaves the house with a registered model."""

from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.export import copy_shared


def test_no_real_slice_goes_with_a_model(make_package, tmp_path):
    package = make_package(tmp_path / "package", seed=0)
    for name in ("samples.png", "progress.gif", "training_log.jsonl", "real_beside_synthetic.png", "frame.png"):
        (package.folder / name).write_bytes(b"content")
    copy_shared(package, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "generator.json",
        "progress.gif",
        "samples.png",
        "training_log.jsonl",
        "weights.safetensors",
    ]
    assert GeneratorPackage(tmp_path / "copy").sha256 == package.sha256
