"""The training loop: uint8 slices in, a generator package out."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from lungsynth.cpus import torch_threads
from lungsynth.errors import LungsynthError, reason
from lungsynth.generators.family import GeneratorConfig, family
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.progress import Progress
from lungsynth.training import adversarial, denoising, ema
from lungsynth.training.config import TrainingConfig
from lungsynth.training.curves import save_curves
from lungsynth.training.data import Slices, Source, check_every_class, check_slices, source_of
from lungsynth.training.devices import fast_kernels, largest_of_processes, launch, mean_of_processes, share_statistics
from lungsynth.training.draws import Draws
from lungsynth.training.losses import DenoisingLoss
from lungsynth.training.memory import within_memory
from lungsynth.training.monitor import Monitor, Row, SpoiledError, best, check_diversity, out_of_patience
from lungsynth.training.pace import Pace
from lungsynth.training.resolution import grow, shrink
from lungsynth.training.schedule import at
from lungsynth.training.snapshots import beside, save_film, save_pictures, snapshot
from lungsynth.training.state import TrainingState, clear, is_wanted, owned, run_key
from lungsynth.training.stopping import Stop, StoppedError

LOG_KIMG = 0.5
"""kimg that one line of `training_log.jsonl` averages; a diverged run is noticed as late as that."""


def train_generator(
    train: Slices,
    val: Slices | None,
    *,
    window_hu: tuple[float, float] | None,
    data_sha256: str,
    generator: GeneratorConfig,
    training: TrainingConfig,
    folder: Path,
    checkpoints: Path,
    on_log: Callable[[Row], None] | None = None,
) -> GeneratorPackage:
    """Train on the slices `train`, choose among the weights on the way by `val`, and write a package into `folder`.

    `on_log` is called, in the first process, with each line of the log as soon as there is one.

    A run that was interrupted goes on from its newest checkpoint under `checkpoints`, to the same weights, on the CPU
    to the last bit, as a run that was not; the checkpoint is removed at the end. Of two equal runs at once the second
    waits for the first, and goes on from what that leaves. Equal seeds give equal weights on the CPU, for the same
    number of threads: fix it by `training.threads`, see `Pace`.

    Raises:
        LungsynthError: the data do not fit the configuration, or the device is missing.
        SpoiledError: the losses ceased to be finite, or the generator collapsed; the best weights so far are kept.
    """
    check_slices(train, generator)
    check_every_class(train, generator)
    if val:
        check_slices(val, generator)
    if isinstance(training.loss, DenoisingLoss) != (family(generator.family).discriminator is None):
        raise LungsynthError(
            f"training.loss.kind is {training.loss.kind}, which does not train {generator.family}; leave it out"
        )
    if training.growth:
        training.growth.check(generator.size, training.kimg)

    card = GeneratorCard(
        generator=generator,
        window_hu=window_hu,
        data_sha256=data_sha256,
        training=training.model_dump(mode="json"),
    )
    fabric = launch(training)
    run = checkpoints / run_key(generator, training, data_sha256)
    with owned(run, folder, fabric):
        return _train_alone(train, val, card, training, run, folder, fabric, on_log)


def _train_alone(
    train: Slices,
    val: Slices | None,
    card: GeneratorCard,
    training: TrainingConfig,
    run: Path,
    folder: Path,
    fabric: Fabric,
    on_log: Callable[[Row], None] | None,
) -> GeneratorPackage:
    """Train in the checkpoint folder `run`, which no other run touches meanwhile."""
    # Start afresh, or where the last run was stopped.
    generator = card.generator
    state = TrainingState.new(generator, training, fabric.device)
    if (run / "state.pt").exists():
        state.restore(run / "state.pt")
        if training.growth:
            state.average.grow(training.growth.level(generator.size, state.before))  # as the last step left it
    if largest_of_processes(state.step, fabric) != state.step:
        raise LungsynthError(f"{run.parent}: not all processes find the same checkpoint; they must share the folder")
    for network in filter(None, (state.generator, state.discriminator)):
        share_statistics(network, fabric)

    # Train.
    with (
        source_of(train, balanced=training.balanced, seed=training.seed, device=fabric.device) as source,
        torch_threads(torch.get_num_threads()),
        fast_kernels(fabric.device),
    ):
        monitor = None
        if fabric.is_global_zero:
            monitor = Monitor(train, val, training.monitor, state.average, training.seed)
        try:
            _train(state, source, training, run, fabric, monitor, on_log)
        except SpoiledError as error:
            raise SpoiledError(f"{error}; {_keep_best(state, card, run / 'best', fabric)}") from error

    if monitor is None:
        fabric.barrier()  # until the first process has written all
        return GeneratorPackage(folder)

    # Hand over the best average of the weights, and the pictures on the way to it.
    with _disk_errors_named(folder):
        package = _write_best(state, card, folder)
        (folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in state.log))
        save_film(sorted((run / "frames").glob("*.png")), folder / "progress.gif")
        save_pictures(package, monitor.grid, training.seed)
        save_curves(state.log, folder / "training.png")
    clear(run)
    fabric.barrier()
    return package


class Mark(NamedTuple):
    """A moment of a run, to measure its speed from."""

    seconds: float
    shown: int


def _train(
    state: TrainingState,
    source: Source,
    config: TrainingConfig,
    run: Path,
    fabric: Fabric,
    monitor: Monitor | None,
    on_log: Callable[[Row], None] | None,
) -> None:
    """Run the steps that are left, and keep frames and checkpoints in the folder `run`.

    A checkpoint is what a step leaves. What is due after that step is no part of it: a run that goes on begins with it.

    `monitor`: in the process that writes files and measures, and in no other.
    """
    total = round(config.kimg * 1000)
    size = config.micro_batch or config.largest_batch // fabric.world_size
    mark = Mark(time.monotonic(), state.shown)
    # Several processes, and a GPU, have nothing to gain from a number of CPU threads of their own.
    alone = fabric.world_size == 1 and fabric.device.type == "cpu"
    pace = Pace(config.threads or (0 if alone else torch.get_num_threads()), recorded=state.threads)

    def step(micro_batch: int | None) -> Tensor:
        smaller = config.model_copy(update={"micro_batch": micro_batch}) if micro_batch else config
        return _step(state, source, smaller, fabric)

    with (
        Progress(total=total, initial=state.shown, unit="img", desc="training", disable=not monitor) as bar,
        Stop() as stop,
    ):
        while True:
            if state.step:
                row = _report(state, config, mark, monitor, stop, fabric)
                if stopped := largest_of_processes(stop.number or 0, fabric):
                    if monitor:
                        state.save(run / "state.pt")
                    fabric.barrier()  # torchrun ends all processes when one has ended: not before all is written
                    raise StoppedError(stopped, state.kimg)
                if row:
                    mark = Mark(time.monotonic(), state.shown)
                    _add(row, state)
                    if monitor and on_log:
                        on_log(row)
                    bar.set_postfix({key: f"{value:.2f}" for key, value in row.items() if key != "kimg"})
                last = state.shown >= total or out_of_patience(state.log, config.monitor)
                if monitor and (last or _passed(config.snapshot_kimg, state)):
                    _save_frame(state, config, run, monitor)
                check_diversity(state.log, config.monitor)
                if last:
                    return
            state.pending.append(pace.timed(lambda: within_memory(step, size, fabric.world_size == 1)))
            state.threads = pace.threads
            bar.update(state.shown - bar.n)
            last = state.shown >= total
            if monitor and (_passed(config.checkpoint_kimg, state) or (last and is_wanted(run))):
                state.save(run / "state.pt")


def _passed(every_kimg: float, state: TrainingState) -> bool:
    """Whether the last step went past a multiple of `every_kimg`, or to it."""
    return math.floor(state.kimg / every_kimg) > math.floor(state.before / 1000 / every_kimg)


def _step(state: TrainingState, source: Source, config: TrainingConfig, fabric: Fabric) -> Tensor:
    """One step of all networks, and of the average."""
    growth = config.growth
    if growth:
        config = grow(state, config, growth)
    state.follow_schedules(config)
    draws = Draws(config.seed, state.step, fabric.device, fabric.global_rank, fabric.world_size)
    real, labels = source.draw(state.step, config.batch, fabric.global_rank, fabric.world_size)
    if growth:
        real = shrink(real, growth.level(state.generator.config.size, state.shown))
    step = denoising.denoising_step if isinstance(config.loss, DenoisingLoss) else adversarial.adversarial_step
    statistics = step(state, real, labels, draws, config, fabric)
    state.step += 1
    state.before, state.shown = state.shown, state.shown + config.batch
    half_life = at(config.ema_kimg, state.kimg)
    ema.update(
        state.average, state.generator, ema.decay(half_life, config.ema_warm_up, state.kimg, config.batch / 1000)
    )
    return mean_of_processes(statistics, fabric)


def _report(
    state: TrainingState, config: TrainingConfig, mark: Mark, monitor: Monitor | None, stop: Stop, fabric: Fabric
) -> Row | None:
    """The line of the log that is due after the last step, if one is; what the first process sees is in it.

    It leaves the state as it is. When a signal comes, the line is not whole: a look can take longer than a cluster
    waits for a process to end.
    """
    look = state.shown >= round(config.kimg * 1000) or _passed(config.monitor.every_kimg, state)
    if not look and not _passed(LOG_KIMG, state):
        return None
    names = denoising.STATISTICS if isinstance(config.loss, DenoisingLoss) else adversarial.STATISTICS
    row = _summary(torch.stack(state.pending), names, state, mark)
    if look:
        size = state.average.config.size
        level = config.growth.level(size, state.before) if config.growth else math.log2(size)
        row |= fabric.broadcast((stop.unless_stopped(lambda: monitor.look(level)) or {}) if monitor else {})
    return row


def _add(row: Row, state: TrainingState) -> None:
    """Add a line to the log, and keep the weights if they are the best."""
    state.log.append(row)
    state.pending.clear()
    if best(state.log) is row:
        state.keep_best()


def _write_best(state: TrainingState, card: GeneratorCard, folder: Path) -> GeneratorPackage:
    """Write the best average of the weights into `folder`; the last one, where none was compared with `val`."""
    found = best(state.log)
    if found:
        state.return_to_best()
    moment = found or {"kimg": state.kimg}
    card = card.model_copy(update={key: moment.get(key) for key in ("kimg", "kid_val")})
    return GeneratorPackage.write(folder, state.average, card, state.discriminator)


def _keep_best(state: TrainingState, card: GeneratorCard, folder: Path, fabric: Fabric) -> str:
    """Write the best weights of a spoiled run into `folder`, and say so."""
    found = best(state.log)
    if not found:
        return "no weights were compared with val before, so none are kept"
    if fabric.is_global_zero:
        with _disk_errors_named(folder):
            _write_best(state, card, folder)
    fabric.barrier()  # see `_train`
    return f"the best weights, of {found['kimg']:.2f} kimg with KID {found['kid_val']:.3f}, are kept in {folder}"


def _summary(statistics: Tensor, names: tuple[str, ...], state: TrainingState, mark: Mark) -> Row:
    """Means over the steps in `statistics`, steps×`names`, and the speed since `mark`."""
    means = dict(zip(names, statistics.mean(dim=0).tolist(), strict=True))
    if not all(math.isfinite(value) for value in means.values()):
        raise SpoiledError(
            f"training diverged before {state.kimg:.2f} kimg: loss is not finite; lower the learning rates"
        )
    row = {"kimg": state.kimg, **means, "threads": state.threads}
    if state.shown > mark.shown:  # not where a run goes on with what was due after a step of before
        row["img_per_s"] = (state.shown - mark.shown) / (time.monotonic() - mark.seconds)
    if statistics.is_cuda:
        row["memory_gb"] = torch.cuda.max_memory_allocated(statistics.device) / 1e9
    return row


def _save_frame(state: TrainingState, config: TrainingConfig, run: Path, monitor: Monitor) -> None:
    """A frame of the film; and, to be looked at while the run goes on, the same beside real slices."""
    picture = snapshot(state.average, config.seed)
    with _disk_errors_named(run):
        (run / "frames").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(run / "frames" / f"{state.shown:012d}.png")
        Image.fromarray(beside(monitor.grid, picture)).save(run / "real_beside_synthetic.png")


@contextmanager
def _disk_errors_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LungsynthError(
            f"{folder}: files cannot be written ({reason(error)}); mend that, and the same command goes on from its "
            "last checkpoint"
        ) from error
