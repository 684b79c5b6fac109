"""The training loop of one network and, where it has one, its discriminator."""

import logging
import math
import time
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.cpus import torch_threads
from lungsynth.errors import LungsynthError
from lungsynth.generators.package import GeneratorPackage
from lungsynth.progress import Progress
from lungsynth.training import ema
from lungsynth.training.config import TrainingConfig
from lungsynth.training.data import Source, source_of
from lungsynth.training.devices import (
    fast_kernels,
    largest_of_processes,
    launch,
    mean_of_processes,
    synchronise_batch_norms,
)
from lungsynth.training.draws import Draws
from lungsynth.training.inputs import Inputs
from lungsynth.training.memory import within_memory
from lungsynth.training.mirror import CHECKPOINT
from lungsynth.training.monitor import Monitor, Row, SpoiledError, best, check_diversity, out_of_patience
from lungsynth.training.objective import objective_of
from lungsynth.training.output import keep_best, save_frame, write_package
from lungsynth.training.pace import Pace
from lungsynth.training.resolution import grow, shrink
from lungsynth.training.run import TrainingRun
from lungsynth.training.schedule import at
from lungsynth.training.state import TrainingState, clear, is_wanted, owned
from lungsynth.training.stopping import Stop, StoppedError

log = logging.getLogger(__name__)
LOG_KIMG = 0.5
"""kimg that one line of `training_log.jsonl` averages; divergence is noticed when a line is due."""


def train_network(run: TrainingRun) -> GeneratorPackage:
    """Train one network for all classes; see `train_generator`."""
    run.check()
    fabric = launch(run.training)
    with owned(run.checkpoint_folder, run.folder, fabric):
        if fabric.local_rank == 0:
            run.mirror.pull()
        fabric.barrier()
        return _train_owned(run, fabric)


def _train_owned(run: TrainingRun, fabric: Fabric) -> GeneratorPackage:
    """Train, while no other run uses the checkpoint folder or the package folder."""
    config, folder = run.training, run.checkpoint_folder

    # Start, or resume from the checkpoint.
    state = TrainingState.new(run.generator, config, fabric.device)
    if (folder / CHECKPOINT).exists():
        state.restore(folder / CHECKPOINT)
        log.info("training goes on at %.3f of %g kimg", state.kimg, config.kimg)
        if config.growth:
            state.average.grow(config.growth.level(run.generator.size, state.before))  # as the last step left it
    if largest_of_processes(state.step, fabric) != state.step:
        raise LungsynthError(
            f"{run.checkpoints}: not all processes find the same checkpoint; they must share the folder"
        )
    for network in state.networks:
        synchronise_batch_norms(network, fabric)

    # Train.
    with (
        source_of(run.train, balanced=config.balanced, seed=config.seed, device=fabric.device) as source,
        torch_threads(torch.get_num_threads()),
        fast_kernels(fabric.device),
    ):
        monitor = None
        if fabric.is_global_zero:
            monitor = Monitor(run.train, run.val, config.monitor, average=state.average, seed=config.seed)
        try:
            _train(state, source, run, fabric=fabric, monitor=monitor)
        except SpoiledError as error:
            kept = keep_best(state, run, writes=fabric.is_global_zero)
            if fabric.is_global_zero:
                run.mirror.push()
            fabric.barrier()  # torchrun ends all processes when one has ended: not before all is written
            raise SpoiledError(f"{error}; {kept}") from error

    # Write the package; the first process does, and the others wait for it.
    if monitor:
        write_package(state, run, monitor.grid)
        clear(folder, run.mirror)
    fabric.barrier()
    return GeneratorPackage(run.folder)


def _train(state: TrainingState, source: Source, run: TrainingRun, *, fabric: Fabric, monitor: Monitor | None) -> None:
    """Take the steps that are left; `monitor` exists in the first process alone, which writes all files.

    Checkpoints hold the state right after a step; logging due at that step is redone on resume.
    """
    config, folder = run.training, run.checkpoint_folder
    total = round(config.kimg * 1000)
    size = config.micro_batch or config.largest_batch // fabric.world_size
    # Only one process on the CPU measures its best number of threads; all others keep torch's.
    alone = fabric.world_size == 1 and fabric.device.type == "cpu"
    pace = Pace(config.threads or (0 if alone else torch.get_num_threads()), recorded=state.threads)
    mark = Mark(time.monotonic(), state.shown)
    resumed = state.step > 0

    def step(micro_batch: int | None) -> Tensor:
        smaller = config.model_copy(update={"micro_batch": micro_batch}) if micro_batch else config
        return _step(state, source, smaller, fabric)

    with (
        Progress(total=total, initial=state.shown, unit="img", desc="training", disable=not monitor) as bar,
        Stop() as stop,
    ):
        while True:
            if not resumed:
                # Train all networks on one batch, and update the average.
                state.pending.append(pace.timed(lambda: within_memory(step, size, fabric.world_size == 1)))
                state.threads = pace.threads
                bar.update(state.shown - bar.n)

                # Save a checkpoint.
                complete = state.shown >= total
                if monitor and (_passed(config.checkpoint_kimg, state) or (complete and is_wanted(folder))):
                    state.save(folder / CHECKPOINT)
                    run.mirror.push()
            resumed = False

            # Measure, if a line of the log is due.
            row = _report(state, config, mark, monitor=monitor, stop=stop, fabric=fabric)

            # Stop, if any process was signalled.
            if signalled := largest_of_processes(stop.number or 0, fabric):
                if monitor:
                    state.save(folder / CHECKPOINT)
                    run.mirror.push()
                fabric.barrier()  # torchrun ends all processes when one has ended: not before all is written
                raise StoppedError(signalled, state.kimg)

            # Log, and keep the weights if they are the best.
            if row:
                mark = Mark(time.monotonic(), state.shown)
                state.log.append(row)
                state.pending.clear()
                if best(state.log) is row:
                    state.keep_best()
                if monitor and run.on_log:
                    run.on_log(row)
                bar.set_postfix({key: f"{value:.2f}" for key, value in row.items() if key != "kimg"})

            # Save a frame of the film.
            last = state.shown >= total or out_of_patience(state.log, config.monitor)
            if monitor and (last or _passed(config.snapshot_kimg, state)):
                save_frame(state, run, monitor.grid)

            # End, if the generator collapsed or the run is complete.
            check_diversity(state.log, config.monitor)
            if last:
                return


def _step(state: TrainingState, source: Source, config: TrainingConfig, fabric: Fabric) -> Tensor:
    """One step of all networks, and of the average; gives the objective's statistics, in their order."""
    # Follow growth and schedules.
    growth = config.growth
    if growth:
        config = grow(state, config, growth)
    state.follow_schedules(config)

    # Train the networks on a batch of real slices.
    draws = Draws(config.seed, state.step, fabric.device, rank=fabric.global_rank, world=fabric.world_size)
    real, labels = source.batch(state.step, config.batch, rank=fabric.global_rank, world=fabric.world_size)
    if growth:
        real = shrink(real, growth.level(state.generator.config.size, state.shown))
    objective = objective_of(config.loss)
    statistics = objective.step(state, Inputs(real, labels, draws, config, fabric))
    state.step += 1
    state.before, state.shown = state.shown, state.shown + config.batch

    # Update the average of the weights.
    half_life = at(config.ema_kimg, state.kimg)
    keep = ema.decay(half_life, config.ema_warm_up, shown_kimg=state.kimg, step_kimg=config.batch / 1000)
    ema.update(state.average, state.generator, keep)
    return mean_of_processes(torch.stack([statistics[name] for name in objective.statistics]), fabric)


def _passed(every_kimg: float, state: TrainingState) -> bool:
    """Whether the last step reached or passed a multiple of `every_kimg`."""
    return math.floor(state.kimg / every_kimg) > math.floor(state.before / 1000 / every_kimg)


class Mark(NamedTuple):
    """The moment of the last line of the log, to measure the speed since."""

    seconds: float
    shown: int


def _report(
    state: TrainingState, config: TrainingConfig, mark: Mark, *, monitor: Monitor | None, stop: Stop, fabric: Fabric
) -> Row | None:
    """The line of the log that is due after the last step, if one is; all processes get the first one's look.

    It leaves the state as it is. A signal interrupts a look, which may take longer than a cluster waits for a process
    to end; the line then lacks it.
    """
    look = state.shown >= round(config.kimg * 1000) or _passed(config.monitor.every_kimg, state)
    if not look and not _passed(LOG_KIMG, state):
        return None
    row = _summary(torch.stack(state.pending), objective_of(config.loss).statistics, state, mark=mark)
    if look:
        size = state.average.config.size
        level = config.growth.level(size, state.before) if config.growth else math.log2(size)
        row |= fabric.broadcast((stop.unless_stopped(lambda: monitor.look(level)) or {}) if monitor else {})
    return row


def _summary(statistics: Tensor, names: tuple[str, ...], state: TrainingState, *, mark: Mark) -> Row:
    """Means over the steps in `statistics`, steps×`names`, and the speed since `mark`."""
    means = dict(zip(names, statistics.mean(dim=0).tolist(), strict=True))
    if not all(math.isfinite(value) for value in means.values()):
        raise SpoiledError(
            f"training diverged before {state.kimg:.2f} kimg: loss is not finite; lower the learning rates"
        )
    row = {"kimg": state.kimg, **means, "threads": state.threads}
    if state.shown > mark.shown:  # a resumed run may log before its first step
        row["img_per_s"] = (state.shown - mark.shown) / (time.monotonic() - mark.seconds)
    if statistics.is_cuda:
        row["memory_gb"] = torch.cuda.max_memory_allocated(statistics.device) / 1e9
    return row
